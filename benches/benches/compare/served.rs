//! A daemon and a driver at work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use benches::comparison::{Counts, Sample};
use benches::counters::Counters;
use benches::daemon::{Daemon, Program};
use benches::memory::Watch;
use fuse_wire::{Errno, Handle, NodeId};
use virtio_fs_guest::{Connection, Error as GuestError, Mount, MountOptions, Notifications};

use crate::args::Args;
use crate::measure::Recorder;
use crate::rows::Row;
use crate::steps::{RDWR, VALUE, XATTR};
use crate::{Error, drive, site};

/// A daemon, and a driver that mounted its directory.
pub(crate) struct Served {
    mount: Mount,
    files: Files,
    counters: Option<Counters>,
    daemon: Daemon,
    /// The directory for new names, as this process sees it.
    work: PathBuf,
    queues: u16,
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
    /// The directory for new names.
    pub(crate) work: NodeId,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) node: NodeId,
    pub(crate) handle: Handle,
}

impl Served {
    /// Runs `program` on `shared`, with its socket in `dir`, and mounts.
    pub(crate) fn start(
        program: &Program,
        queues: u16,
        dir: &Path,
        shared: &Path,
        args: &Args,
    ) -> Result<Self, Error> {
        let socket = dir.join("socket");
        let daemon = Daemon::start(program, &socket, shared, &dir.join("log"))?;
        let begin = || -> Result<(Mount, Files), GuestError> {
            let connection = Connection::connect(&socket, &args.driver_options(queues))?;
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
            work: shared.join(site::WORK),
            queues,
            counters: None,
        })
    }

    /// Measures a row; `None` where the daemon does not do its operation, or the row has fewer
    /// operations in flight than the device has queues.
    pub(crate) fn measure(&mut self, row: &Row, time: Duration) -> Result<Option<Sample>, Error> {
        if !self.warm_up(row, time)? {
            return Ok(None);
        }
        let before = self.daemon.cpu_nanos()?;
        let recorder = self.drive(row, || Recorder::new(time))?;
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
    pub(crate) fn count(&mut self, row: &Row, time: Duration) -> Result<Option<Counts>, Error> {
        if !self.warm_up(row, time)? {
            return Ok(None);
        }
        let Some(mut counters) = self.counters.take() else {
            return Ok(None);
        };
        counters.follow_new_threads()?;
        let memory = Watch::begin(&self.daemon);
        let notified = self.notifications();
        let before = counters.read()?;
        let operations = self.drive(row, || Recorder::new(time))?.operations() as f64;
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
        let queues = self.mount.connection().queues().iter();
        queues.fold(Notifications::default(), |sum, queue| {
            let Notifications { kicks, calls } = queue.notifications();
            Notifications {
                kicks: sum.kicks + kicks,
                calls: sum.calls + calls,
            }
        })
    }

    /// Whether the daemon does the row's operation, on all queues.
    fn warm_up(&mut self, row: &Row, time: Duration) -> Result<bool, Error> {
        // Else it is a row of the daemon with fewer queues, once more.
        if self.queues > 1 && row.depth < usize::from(self.queues) {
            return Ok(false);
        }
        match self.drive(row, || Recorder::warm_up(row, time)) {
            Err(Error::Guest {
                source: GuestError::Errno(Errno::ENOSYS),
                ..
            }) => Ok(false),
            warmed_up => warmed_up.map(|_| true),
        }
    }

    fn drive(&mut self, row: &Row, recorder: impl Fn() -> Recorder) -> Result<Recorder, Error> {
        drive::drive(&mut self.mount, &self.files, row, &self.work, recorder)
    }
}

fn open_files(mount: &mut Mount) -> Result<Files, GuestError> {
    let root = NodeId::ROOT;
    let mut find = |name: &str| {
        let name = std::ffi::CString::new(name).expect("ours have no NUL");
        Ok::<_, GuestError>(mount.lookup(root, &name)?.nodeid)
    };
    let (data, copy) = (find(site::DATA)?, find(site::COPY)?);
    let (listed, plain, work) = (find(site::LISTED)?, find(site::PLAIN)?, find(site::WORK)?);
    mount.setxattr(plain, XATTR, VALUE, 0)?;
    let mut open = |node| {
        let handle = mount.open(node, RDWR)?.fh;
        Ok::<_, GuestError>(Open { node, handle })
    };
    Ok(Files {
        data: open(data)?,
        copy: open(copy)?,
        listed: Open {
            handle: mount.opendir(listed)?.fh,
            node: listed,
        },
        plain,
        work,
    })
}
