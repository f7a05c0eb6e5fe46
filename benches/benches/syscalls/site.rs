use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use benches::daemon::{Daemon, Program};
use fuse_wire::NodeId;
use tempfile::TempDir;
use virtio_fs_guest::{Caller, Connection, Error as GuestError, Mount, MountOptions, Options};

use crate::Error;
use crate::rows::Row;
use crate::table::Count;
use crate::trace::Tracer;

/// How often an operation is counted.
const TIMES: usize = 3;

/// A daemon on a fresh directory with a tracer on it, and a driver that mounted it.
pub(crate) struct Site {
    // In the order in which they end.
    pub(crate) mount: Mount,
    _daemon: Daemon,
    tracer: Tracer,
    pub(crate) shared: PathBuf,
    /// Names given out.
    serial: u32,
    /// The calls of each part that was counted.
    counted: Vec<Vec<String>>,
    _dir: TempDir,
}

/// Why a row was not counted.
pub(crate) enum Failure {
    Guest(GuestError),
    Other(Error),
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self::Other(Error::Io {
            doing: "prepare a file",
            source,
        })
    }
}

impl Site {
    pub(crate) fn start(program: &Program, place: Option<&Path>) -> Result<Self, Error> {
        let temporary = std::env::temp_dir();
        let place = place.unwrap_or(&temporary);
        let make = || -> io::Result<(TempDir, PathBuf)> {
            let dir = TempDir::with_prefix_in("virtio-fs-syscalls-", place)?;
            let shared = dir.path().join("shared");
            fs::create_dir(&shared)?;
            // For all users of the guest.
            fs::set_permissions(&shared, PermissionsExt::from_mode(0o777))?;
            Ok((dir, shared))
        };
        let (dir, shared) = make().map_err(|source| Error::Io {
            doing: "make a directory; choose another place with --dir",
            source,
        })?;
        let socket = dir.path().join("socket");
        let daemon = Daemon::start(program, &socket, &shared, &dir.path().join("log"))?;
        let begin =
            || Connection::connect(&socket, &Options::default())?.mount(&MountOptions::default());
        let mount = begin().map_err(|source| Error::Guest {
            row: "the mount",
            source,
        })?;
        let tracer = Tracer::attach(daemon.id(), dir.path())?;
        Ok(Self {
            mount,
            _daemon: daemon,
            tracer,
            shared,
            serial: 0,
            counted: Vec::new(),
            _dir: dir,
        })
    }

    /// Counts the calls of an operation.
    pub(crate) fn count(&mut self, row: &Row) -> Result<Count, Error> {
        self.counted.clear();
        for _ in 0..=TIMES {
            match (row.operation)(self) {
                Ok(()) => {}
                Err(Failure::Guest(GuestError::Errno(errno))) => return Ok(Count::Refused(errno)),
                Err(Failure::Guest(source)) => {
                    return Err(Error::Guest {
                        row: row.name,
                        source,
                    });
                }
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        // What a thread does once, when it first does something, is no part of the operation.
        self.counted.remove(0);
        Ok(Count::Calls(std::mem::take(&mut self.counted)))
    }

    /// The part of an operation that is counted.
    pub(crate) fn during<T>(
        &mut self,
        part: impl FnOnce(&mut Mount) -> Result<T, GuestError>,
    ) -> Result<T, Failure> {
        self.tracer.take()?;
        let result = part(&mut self.mount);
        self.counted.push(self.tracer.take()?);
        Ok(result?)
    }

    /// A name that was not used yet.
    pub(crate) fn name(&mut self) -> CString {
        self.serial += 1;
        CString::new(format!("name-{}", self.serial)).expect("no NUL is in it")
    }

    /// A file that the driver has looked up.
    pub(crate) fn file(&mut self, content: &[u8]) -> Result<(CString, NodeId), Failure> {
        let name = self.name();
        fs::write(self.host(&name), content)?;
        let node = self.mount.lookup(NodeId::ROOT, &name)?.nodeid;
        Ok((name, node))
    }

    pub(crate) fn host(&self, name: &CString) -> PathBuf {
        self.shared.join(name.to_str().expect("it is ASCII"))
    }

    /// Lets a user of the guest ask, other than root.
    pub(crate) fn ask_as(&mut self, id: u32) {
        let caller = Caller {
            uid: id,
            gid: id,
            pid: 1,
        };
        self.mount.connection().request_queues()[0].set_caller(caller);
    }
}
