use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use std::{env, io};

use clap::ValueEnum;
use fuse_wire::abi::{Attr, EntryOut};
use fuse_wire::{Handle, NodeId};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use virtio_fs_guest::{Connection, DirectoryEntry, Mount, MountOptions};

use super::options::Options;
use crate::virtiofsd;

/// Bytes that are asked for in a READDIRPLUS.
const DIRECTORY_READ: u32 = 64 * 1024;

/// Why the stack does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot share {0}: {1}; name a directory that can be read")]
    Directory(PathBuf, #[source] io::Error),
    #[error("cannot start the daemon: {0}")]
    Start(#[source] io::Error),
    #[error("cannot attach to the daemon: {0}")]
    Attach(#[source] virtio_fs_guest::Error),
    #[error("{path}: {source}")]
    Broken {
        path: PathBuf,
        #[source]
        source: virtio_fs_guest::Error,
    },
    #[error("the daemon ended with {0}")]
    End(ExitStatus),
}

/// The path of `directory`, free of symbolic links.
pub(super) fn readable_directory(directory: &Path) -> std::result::Result<PathBuf, Error> {
    directory
        .read_dir()
        .and_then(|_| directory.canonicalize())
        .map_err(|error| Error::Directory(directory.to_owned(), error))
}

/// What the driver has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// FUSE requests.
    pub(super) requests: u64,
    /// Bytes of files.
    pub(super) bytes: u64,
    /// What those bytes took.
    pub(super) reading: Duration,
}

/// A daemon, and a driver that has mounted what it shares.
#[derive(Debug)]
pub(super) struct Stack {
    mount: Option<Mount>,
    daemon: Daemon,
    totals: Totals,
}

type Result<T> = std::result::Result<T, virtio_fs_guest::Error>;

impl Stack {
    /// Starts a daemon as a process of its own, and mounts its share.
    pub(super) fn start(root: &Path, options: &Options) -> std::result::Result<Self, Error> {
        // Connections are taken from the moment that this exists on: no need to wait for the
        // daemon, which inherits it.
        let sockets = tempfile::tempdir().map_err(Error::Start)?;
        let path = sockets.path().join("socket");
        let listener = UnixListener::bind(&path).map_err(Error::Start)?;
        let child = Command::new(env::current_exe().map_err(Error::Start)?)
            .arg0(virtiofsd::NAME)
            .args(["--fd=0", "--readonly", "--shared-dir"])
            .arg(root)
            .arg(format!("--cache={}", value_name(options.cache)))
            .arg(format!("--log-level={}", value_name(options.log_level)))
            .args(options.xattr.then_some("--xattr"))
            .stdin(OwnedFd::from(listener))
            .spawn()
            .map_err(Error::Start)?;
        let daemon = Daemon(child);
        let mount = Connection::connect(&path, &virtio_fs_guest::Options::default())
            .and_then(|device| device.mount(&MountOptions::default()))
            .map_err(Error::Attach)?;
        Ok(Self {
            mount: Some(mount),
            daemon,
            totals: Totals::default(),
        })
    }

    /// Unmounts and ends the daemon.
    pub(super) fn end(mut self) -> std::result::Result<(), Error> {
        if let Some(mount) = self.mount.take() {
            mount.destroy().map_err(Error::Attach)?;
        }
        let status = self.daemon.end().map_err(Error::Start)?;
        if !status.success() {
            return Err(Error::End(status));
        }
        Ok(())
    }

    /// What was done so far.
    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    /// Most bytes in one READ.
    pub(super) fn max_read(&mut self) -> usize {
        self.mount().limits().max_read
    }

    pub(super) fn lookup(&mut self, parent: NodeId, name: &CStr) -> Result<EntryOut> {
        self.mount().lookup(parent, name)
    }

    pub(super) fn forget(&mut self, node: NodeId) -> Result<()> {
        self.mount().forget(node, 1)
    }

    pub(super) fn getattr(&mut self, node: NodeId) -> Result<Attr> {
        Ok(self.mount().getattr(node, None)?.attr)
    }

    pub(super) fn readlink(&mut self, node: NodeId) -> Result<Vec<u8>> {
        self.mount().readlink(node)
    }

    pub(super) fn listxattr(&mut self, node: NodeId) -> Result<Vec<u8>> {
        self.mount().listxattr(node)
    }

    pub(super) fn getxattr(&mut self, node: NodeId, name: &CStr) -> Result<Vec<u8>> {
        self.mount().getxattr(node, name)
    }

    pub(super) fn open(&mut self, node: NodeId) -> Result<Handle> {
        Ok(self.mount().open(node, 0)?.fh)
    }

    pub(super) fn read(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let begin = Instant::now();
        let read = self.mount().read(node, handle, offset, buffer)?;
        self.totals.reading += begin.elapsed();
        self.totals.bytes += read as u64;
        Ok(read)
    }

    pub(super) fn release(&mut self, node: NodeId, handle: Handle) -> Result<()> {
        self.mount().release(node, handle)
    }

    pub(super) fn opendir(&mut self, node: NodeId) -> Result<Handle> {
        Ok(self.mount().opendir(node)?.fh)
    }

    pub(super) fn readdirplus(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
    ) -> Result<Vec<DirectoryEntry>> {
        self.mount()
            .readdirplus(node, handle, offset, DIRECTORY_READ)
    }

    pub(super) fn releasedir(&mut self, node: NodeId, handle: Handle) -> Result<()> {
        self.mount().releasedir(node, handle)
    }

    /// The mount, for one request.
    fn mount(&mut self) -> &mut Mount {
        self.totals.requests += 1;
        self.mount.as_mut().expect("mounted until it ends")
    }
}

/// Runs the daemon in this process, which [`Stack::start`] started, for as long as that one lives.
pub(super) fn daemon_main() -> ExitCode {
    // Where it cannot be set up, the daemon still ends with its terminal.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    virtiofsd::main()
}

/// A daemon's process; ended when dropped.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn end(&mut self) -> io::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        self.0.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Neither fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value_name(value: impl ValueEnum) -> String {
    let name = value
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    name.unwrap_or_default()
}
