use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::comparison::{Counts, Sample};
use benches::counters::Counters;
use benches::daemon::Daemon;
use benches::memory::Watch;
use fuse_wire::abi::{GetattrIn, ReadIn, WriteIn};
use fuse_wire::{Errno, Handle, LookupName, NodeId, Operation};
use tempfile::TempDir;
use virtio_fs_guest::{
    Connection, Error as GuestError, Mount, MountOptions, Notifications, Payload, Queue, Token,
};

use crate::Error;
use crate::args::Args;
use crate::contenders::{Contender, Means};
use crate::measure::Recorder;
use crate::operations::{RDWR, XATTR};
use crate::rows::{ENTRIES, Kind, Row};

/// Bytes of the file that is read and written, over and over.
const FILE: u64 = 64 << 20;
/// Part of a row's time that goes before the measurement.
const WARM_UP: u32 = 5;

/// A contender's daemon on a fresh directory, and a driver that mounted it.
pub(crate) struct Session {
    // In the order in which they end.
    mount: Mount,
    files: Files,
    counters: Option<Counters>,
    daemon: Daemon,
    _dir: TempDir,
}

/// What the rows act on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files {
    /// Open for reading and writing.
    pub(crate) data: Open,
    /// As `data`, and smaller.
    pub(crate) copy: Open,
    /// The directory to be listed.
    pub(crate) listed: Open,
    /// With an extended attribute.
    pub(crate) plain: NodeId,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) node: NodeId,
    pub(crate) handle: Handle,
}

impl Session {
    pub(crate) fn start(contender: &Contender, args: &Args) -> Result<Self, Error> {
        let Means::Daemon { program, queues } = &contender.means;
        let dir = TempDir::with_prefix_in("virtio-fs-compare-", &args.dir).map_err(|source| {
            Error::Io {
                doing: "make a directory; choose another place with --dir",
                source,
            }
        })?;
        let shared = dir.path().join("shared");
        populate(&shared).map_err(|source| Error::Io {
            doing: "fill the shared directory",
            source,
        })?;
        let socket = dir.path().join("socket");
        let daemon = Daemon::start(program, &socket, &shared, &dir.path().join("log"))?;
        let begin = || -> Result<(Mount, Files), GuestError> {
            let connection = Connection::connect(&socket, &args.driver_options(*queues))?;
            let mut mount = connection.mount(&MountOptions::default())?;
            let files = open_files(&mut mount)?;
            Ok((mount, files))
        };
        let (mount, files) = begin().map_err(|source| Error::Guest {
            row: "the mount",
            source,
        })?;
        Ok(Self {
            mount,
            files,
            counters: None,
            daemon,
            _dir: dir,
        })
    }

    /// Measures a row; `None` where the daemon does not do its operation.
    pub(crate) fn measure(&mut self, row: &Row, args: &Args) -> Result<Option<Sample>, Error> {
        if !self.warm_up(row, args)? {
            return Ok(None);
        }
        let before = self.daemon.cpu_nanos()?;
        let recorder = self.drive(row, args.time())?;
        let cpu = self.daemon.cpu_nanos()? - before;
        Ok(Some(recorder.finish(cpu)))
    }

    /// Has what the daemon does counted from now on; it takes longer for it. Returns what cannot
    /// be counted, and why.
    pub(crate) fn begin_to_count(&mut self) -> Result<Vec<String>, Error> {
        let counters = Counters::attach(self.daemon.id())?;
        let missing = counters.missing();
        let missing = missing.map(|(what, why)| format!("no {what}: {why}"));
        let missing = missing.collect();
        self.counters = Some(counters);
        Ok(missing)
    }

    /// Does what [`measure`](Self::measure) does, and counts instead; `None` also where it was not
    /// [begun](Self::begin_to_count).
    pub(crate) fn count(&mut self, row: &Row, args: &Args) -> Result<Option<Counts>, Error> {
        if !self.warm_up(row, args)? {
            return Ok(None);
        }
        let Some(mut counters) = self.counters.take() else {
            return Ok(None);
        };
        counters.follow_new_threads()?;
        let memory = Watch::begin(&self.daemon);
        let notified = self.notifications();
        let before = counters.read()?;
        let operations = self.drive(row, args.time())?.operations() as f64;
        let came = counters.read()?.since(before);
        let notifications = self.notifications();
        self.counters = Some(counters);
        let each = |count: u64| count as f64 / operations;
        Ok(Some(Counts {
            syscalls: came.syscalls.map(each),
            allocations: came.allocations.map(each),
            kicks: each(notifications.kicks - notified.kicks),
            calls: each(notifications.calls - notified.calls),
            private_kib: memory.end()?,
        }))
    }

    /// Of all queues.
    fn notifications(&mut self) -> Notifications {
        let queues = self.mount.connection().request_queues().iter();
        queues.fold(Notifications::default(), |sum, queue| {
            let Notifications { kicks, calls } = queue.notifications();
            Notifications {
                kicks: sum.kicks + kicks,
                calls: sum.calls + calls,
            }
        })
    }

    /// Whether the daemon does the row's operation.
    fn warm_up(&mut self, row: &Row, args: &Args) -> Result<bool, Error> {
        match self.drive(row, args.time() / WARM_UP) {
            Err(Error::Guest {
                source: GuestError::Errno(Errno::ENOSYS),
                ..
            }) => Ok(false),
            warmed_up => warmed_up.map(|_| true),
        }
    }

    fn drive(&mut self, row: &Row, time: Duration) -> Result<Recorder, Error> {
        let mut recorder = Recorder::new(time);
        self.drive_kind(row, &mut recorder)
            .map_err(|source| Error::Guest {
                row: row.name,
                source,
            })?;
        Ok(recorder)
    }

    fn drive_kind(&mut self, row: &Row, recorder: &mut Recorder) -> Result<(), GuestError> {
        let files = self.files;
        let Open { node, handle } = files.data;
        match row.kind {
            Kind::GetAttr => self.pipeline(row.depth, recorder, |queue, _| {
                let operation = Operation::GetAttr(GetattrIn::default());
                queue.submit(files.plain, operation, Payload::None)
            }),
            Kind::Lookup => {
                let name = LookupName::new(c"plain").expect("\"plain\" is a name");
                self.pipeline(row.depth, recorder, |queue, _| {
                    let operation = Operation::Lookup { name };
                    queue.submit(NodeId::ROOT, operation, Payload::None)
                })
            }
            Kind::Read(size) => self.pipeline(row.depth, recorder, |queue, offset| {
                let args = ReadIn {
                    fh: handle,
                    offset: offset * u64::from(size) % FILE,
                    size,
                    ..ReadIn::default()
                };
                queue.submit(node, Operation::Read(args), Payload::None)
            }),
            Kind::Write(size) => self.pipeline(row.depth, recorder, |queue, offset| {
                let args = WriteIn {
                    fh: handle,
                    offset: offset * u64::from(size) % FILE,
                    size,
                    ..WriteIn::default()
                };
                let payload = Payload::Stale(size as usize);
                queue.submit(node, Operation::Write(args), payload)
            }),
            Kind::Sequence(operation) => self.sequence(recorder, |mount| operation(mount, &files)),
        }
    }

    /// Keeps `depth` requests in flight; each is told its number.
    fn pipeline(
        &mut self,
        depth: usize,
        recorder: &mut Recorder,
        mut submit: impl FnMut(&mut Queue, u64) -> Result<Token, GuestError>,
    ) -> Result<(), GuestError> {
        let queue = &mut self.mount.connection().request_queues()[0];
        let mut began = vec![Instant::now(); usize::from(queue.size())];
        let mut number = 0;
        let mut over = false;
        while !over || queue.in_flight() > 0 {
            while !over && queue.in_flight() < depth {
                let now = Instant::now();
                let token = submit(queue, number)?;
                began[usize::from(token.slot())] = now;
                number += 1;
            }
            let completion = queue.wait()?;
            completion.result()?;
            over |= recorder.record(began[usize::from(completion.token().slot())]);
        }
        Ok(())
    }

    /// Does one operation after the other.
    fn sequence(
        &mut self,
        recorder: &mut Recorder,
        mut operation: impl FnMut(&mut Mount) -> Result<(), GuestError>,
    ) -> Result<(), GuestError> {
        loop {
            let began = Instant::now();
            operation(&mut self.mount)?;
            if recorder.record(began) {
                return Ok(());
            }
        }
    }
}

fn populate(shared: &Path) -> io::Result<()> {
    let listed = shared.join("listed");
    fs::create_dir_all(&listed)?;
    for n in 0..ENTRIES {
        fs::write(listed.join(format!("file-{n:03}")), b"x")?;
    }
    fs::write(shared.join("plain"), b"plain")?;
    fs::write(shared.join("copy"), b"")?;
    // Written, not only sized: what has no pages in the tmpfs is read from a page of zeros.
    fs::write(shared.join("data"), vec![1; FILE as usize])
}

fn open_files(mount: &mut Mount) -> Result<Files, GuestError> {
    let root = NodeId::ROOT;
    let mut open = |name| -> Result<Open, GuestError> {
        let node = mount.lookup(root, name)?.nodeid;
        let handle = mount.open(node, RDWR)?.fh;
        Ok(Open { node, handle })
    };
    let (data, copy) = (open(c"data")?, open(c"copy")?);
    let listed = mount.lookup(root, c"listed")?.nodeid;
    let plain = mount.lookup(root, c"plain")?.nodeid;
    mount.setxattr(plain, XATTR, b"value", 0)?;
    Ok(Files {
        plain,
        data,
        copy,
        listed: Open {
            handle: mount.opendir(listed)?.fh,
            node: listed,
        },
    })
}
