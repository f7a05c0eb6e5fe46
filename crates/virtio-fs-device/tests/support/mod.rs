//! Daemons of our own on a thread.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuse_fs::{Blocking, MemFs, Outcome, PayloadSink, PayloadSource, Serve, Session};
use tempfile::TempDir;
use vhost_user_fs::{Backend, BackendConfig, DaemonError, StopHandle};
use virtio_fs_device::{Device, DeviceConfig, VhostUser};
use virtio_fs_queue::{Polling, Pool};

pub(crate) mod fake;
mod machine;
pub(crate) mod table;

pub(crate) use machine::*;

pub(crate) const TAG: &str = "test";
pub(crate) const REQUEST_QUEUES: u16 = 2;
/// Where daemons are found, one after the other.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A daemon that serves a filesystem of its own, in memory.
    pub(crate) fn daemon(&self) -> Daemon {
        self.serve(Arc::new(Session::new(MemFs::new())))
    }

    pub(crate) fn serve(&self, filesystem: Arc<dyn Serve>) -> Daemon {
        Daemon::start(&self.socket(), filesystem, TAG)
    }
}

/// A daemon on a thread, until it is dropped.
pub(crate) struct Daemon {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
    socket: PathBuf,
}

impl Daemon {
    pub(crate) fn start(socket: &Path, filesystem: Arc<dyn Serve>, tag: &str) -> Self {
        Self::start_with(socket, filesystem, tag, |backend| backend)
    }

    pub(crate) fn start_with(
        socket: &Path,
        filesystem: Arc<dyn Serve>,
        tag: &str,
        change: impl FnOnce(Backend) -> Backend,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let backend = Backend::new(BackendConfig {
            filesystem,
            tag: Some(tag.parse().unwrap()),
            request_queues: Some(REQUEST_QUEUES),
            queue_affinity: None,
            pool: Arc::new(Pool::new(2)),
            polling: Arc::new(Polling::never()),
        })
        .unwrap();
        let daemon = vhost_user_fs::Daemon::new(change(backend), listener).unwrap();
        Self {
            stop: daemon.stop_handle(),
            thread: Some(std::thread::spawn(move || daemon.run())),
            socket: socket.to_owned(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).unwrap();
        self.stop.stop();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// A filesystem that knows after a connection ends what it knew before: what a daemon is that keeps
/// its state when it is killed.
pub(crate) struct Keeping(pub(crate) Session<MemFs>);

impl Serve for Keeping {
    fn serve(
        &self,
        message: &[u8],
        payload: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        self.0.serve(message, payload, sink, reply, blocking)
    }

    fn reset(&self) {}
}

/// A device that is served by whoever listens at `place`, and takes its tag from there.
pub(crate) fn device(place: &Place) -> Device<Memory> {
    Device::vhost_user(&DeviceConfig::default(), VhostUser::new(place.socket())).unwrap()
}
