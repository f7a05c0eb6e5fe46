//! A contender at work.

use benches::comparison::{Counts, Sample};
use tempfile::TempDir;

use crate::args::Args;
use crate::contenders::{Contender, Means};
use crate::measure::Recorder;
use crate::native::Native;
use crate::rows::{Place, Row};
use crate::served::Served;
use crate::{Error, site};

/// A contender and its directory, which nobody else uses.
pub(crate) struct Session {
    // In the order in which they end.
    worker: Worker,
    _dir: TempDir,
}

enum Worker {
    Daemon(Box<Served>),
    Native(Native),
}

impl Session {
    /// Fills a directory, and starts what `contender` is.
    pub(crate) fn start(contender: &Contender, place: Place, args: &Args) -> Result<Self, Error> {
        let io = |doing| move |source| Error::Io { doing, source };
        let parent = match place {
            Place::Memory => args.dir.clone(),
            Place::Disk => args.disk(),
        };
        let dir = TempDir::with_prefix_in("virtio-fs-compare-", parent).map_err(io(
            "make a directory; choose another place with --dir or --disk",
        ))?;
        let shared = dir.path().join("shared");
        site::populate(&shared, place == Place::Memory).map_err(io("fill the shared directory"))?;
        let worker = match &contender.means {
            Means::Daemon { program, queues } => {
                let served = Served::start(program, *queues, dir.path(), &shared, args)?;
                Worker::Daemon(Box::new(served))
            }
            Means::Native => {
                Worker::Native(Native::open(&shared).map_err(io("open the shared directory"))?)
            }
        };
        Ok(Self { worker, _dir: dir })
    }

    /// Measures a row; `None` where the contender does not do its operation, or has more queues
    /// than the row has operations in flight.
    pub(crate) fn measure(&mut self, row: &Row, args: &Args) -> Result<Option<Sample>, Error> {
        match &mut self.worker {
            Worker::Daemon(served) => served.measure(row, args.time()),
            Worker::Native(native) => {
                let mut drive = |recorder| {
                    let result = native.drive(row, recorder);
                    result.map_err(|source| Error::Native {
                        row: row.name,
                        source,
                    })
                };
                drive(Recorder::warm_up(row, args.time()))?;
                let (recorder, nanos) = drive(Recorder::new(args.time()))?;
                Ok(Some(recorder.finish(nanos)))
            }
        }
    }

    /// Has what a daemon does counted from now on; it takes longer for it. Returns what cannot be
    /// counted, and why.
    pub(crate) fn begin_to_count(&mut self) -> Result<Vec<String>, Error> {
        match &mut self.worker {
            Worker::Daemon(served) => served.begin_to_count(),
            Worker::Native(_) => Ok(Vec::new()),
        }
    }

    /// Does what [`measure`](Self::measure) does, and counts instead; `None` also where it was not
    /// [begun](Self::begin_to_count), or there is no daemon.
    pub(crate) fn count(&mut self, row: &Row, args: &Args) -> Result<Option<Counts>, Error> {
        match &mut self.worker {
            Worker::Daemon(served) => served.count(row, args.time()),
            Worker::Native(_) => Ok(None),
        }
    }
}
