use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::daemon::Daemon;
use fuse_wire::abi::{GetattrIn, ReadIn, WriteIn};
use fuse_wire::{Errno, Handle, LookupName, NodeId, Operation};
use tempfile::TempDir;
use virtio_fs_guest::{
    Connection, Error as GuestError, Mount, MountOptions, Payload, Queue, Token,
};

use crate::Error;
use crate::args::Args;
use crate::contenders::{Contender, Means};
use crate::measure::{Recorder, Sample};
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
            daemon,
            _dir: dir,
        })
    }

    /// Measures a row; `None` where the daemon does not do its operation.
    pub(crate) fn measure(&mut self, row: &Row, args: &Args) -> Result<Option<Sample>, Error> {
        match self.drive(row, args.time() / WARM_UP) {
            Err(Error::Guest {
                source: GuestError::Errno(Errno::ENOSYS),
                ..
            }) => return Ok(None),
            warmed_up => warmed_up?,
        };
        self.daemon.reset_peak()?;
        let before = self.daemon.cpu_nanos()?;
        let recorder = self.drive(row, args.time())?;
        let cpu = self.daemon.cpu_nanos()? - before;
        Ok(Some(recorder.finish(cpu, self.daemon.memory()?)))
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
