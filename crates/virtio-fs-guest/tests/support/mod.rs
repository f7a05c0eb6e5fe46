//! A back-end of our own to test against: it serves on a thread of the test.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuse_fs::{MemFs, Serve, Session};
use passthrough_fs::{Config, PassthroughFs, Xattr};
use tempfile::TempDir;
use vhost_user_fs::{Backend, BackendConfig, Daemon, DaemonError, StopHandle, Tag};
use virtio_fs_guest::{Connection, Mount, MountOptions, Options};
use virtio_fs_queue::{Polling, Pool};

pub(crate) const TAG: &str = "test";
pub(crate) const REQUEST_QUEUES: u16 = 4;

/// Threads for what waits.
const THREADS: usize = 2;

/// A device with a filesystem that is empty.
pub(crate) struct Device {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
    socket: PathBuf,
    _dir: TempDir,
}

impl Device {
    /// Its filesystem is in memory.
    pub(crate) fn start() -> Self {
        Self::serve(THREADS, |_| Arc::new(Session::new(MemFs::new())))
    }

    /// As [`start`](Self::start), but its queues do all themselves.
    pub(crate) fn start_without_threads() -> Self {
        Self::serve(0, |_| Arc::new(Session::new(MemFs::new())))
    }

    /// Its filesystem is a directory of this machine.
    pub(crate) fn start_passthrough() -> Self {
        Self::serve(THREADS, |dir| {
            let root = dir.join("shared");
            std::fs::create_dir(&root).unwrap();
            let config = Config::new(root).xattr(Xattr::On);
            Arc::new(Session::new(PassthroughFs::new(config).unwrap()))
        })
    }

    fn serve(threads: usize, filesystem: impl FnOnce(&Path) -> Arc<dyn Serve>) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let backend = Backend::new(BackendConfig {
            filesystem: filesystem(dir.path()),
            tag: Some(TAG.parse::<Tag>().unwrap()),
            request_queues: Some(REQUEST_QUEUES),
            queue_affinity: None,
            pool: Arc::new(Pool::new(threads)),
            polling: Arc::new(Polling::never()),
        })
        .unwrap();
        let daemon = Daemon::new(backend, listener).unwrap();
        Self {
            stop: daemon.stop_handle(),
            thread: Some(std::thread::spawn(move || daemon.run())),
            socket,
            _dir: dir,
        }
    }

    /// A connection with nothing said yet.
    pub(crate) fn stream(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    pub(crate) fn connect(&self, options: &Options) -> Connection {
        Connection::connect(&self.socket, options).unwrap()
    }

    pub(crate) fn mount(&self, options: &Options) -> Mount {
        self.connect(options)
            .mount(&MountOptions::default())
            .unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}
