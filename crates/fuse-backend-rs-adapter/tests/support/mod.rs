//! A device that serves a filesystem of fuse-backend-rs on a thread of the test, and a driver that
//! has mounted it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::CStr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use fuse_backend_rs::api::filesystem::FileSystem;
use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use fuse_backend_rs_adapter::Adapter;
use fuse_fs::Session;
use fuse_wire::abi::{EntryOut, OpenOut};
use fuse_wire::{Errno, Handle, NodeId};
use tempfile::TempDir;
use vhost_user_fs::{Backend, BackendConfig, Daemon, DaemonError, StopHandle};
use virtio_fs_guest::{Connection, DirectoryEntry, Error, Mount, MountOptions, Options};
use virtio_fs_queue::{Polling, Pool};

pub(crate) const ROOT: NodeId = NodeId::ROOT;
pub(crate) const O_RDWR: u32 = 2;
pub(crate) const S_IFREG: u32 = 0o100_000;
/// Bytes of a directory read: a few entries.
const DIRECTORY_READ: u32 = 512;

/// A mounted filesystem, whose device ends when it is dropped.
pub(crate) struct Guest {
    pub(crate) mount: Mount,
    _device: Device,
}

struct Device {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
    _dir: TempDir,
}

impl Guest {
    pub(crate) fn start<F: FileSystem + Send + Sync + 'static>(fs: F) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let backend = Backend::new(BackendConfig {
            filesystem: Arc::new(Session::new(Adapter::new(fs))),
            tag: None,
            request_queues: Some(1),
            queue_affinity: None,
            pool: Arc::new(Pool::new(2)),
            polling: Arc::new(Polling::never()),
        })
        .unwrap();
        let daemon = Daemon::new(backend, listener).unwrap();
        let device = Device {
            stop: daemon.stop_handle(),
            thread: Some(std::thread::spawn(move || daemon.run())),
            _dir: dir,
        };
        let mount = Connection::connect(&socket, &Options::default())
            .and_then(|connection| connection.mount(&MountOptions::default()))
            .unwrap();
        Self {
            mount,
            _device: device,
        }
    }

    /// The node behind `path`, each part of which is looked up.
    pub(crate) fn walk(&mut self, path: &[&CStr]) -> Result<NodeId, Error> {
        path.iter().try_fold(ROOT, |parent, name| {
            Ok(self.mount.lookup(parent, name)?.nodeid)
        })
    }

    /// Opens `node`; where the filesystem goes without, as the guest's kernel does then.
    pub(crate) fn open(&mut self, node: NodeId, flags: u32) -> Handle {
        match self.mount.open(node, flags) {
            Ok(opened) => opened.fh,
            Err(error) if error.errno() == Some(Errno::ENOSYS) => Handle(0),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn create(&mut self, parent: NodeId, name: &CStr) -> (EntryOut, OpenOut) {
        self.mount
            .create(parent, name, O_RDWR, S_IFREG | 0o640)
            .unwrap()
    }

    pub(crate) fn write_all(&mut self, node: NodeId, handle: Handle, data: &[u8]) {
        let mut offset = 0;
        while offset < data.len() {
            let rest = &data[offset..];
            let written = self.mount.write(node, handle, offset as u64, rest).unwrap();
            assert_ne!(written, 0);
            offset += written;
        }
    }

    pub(crate) fn read_all(&mut self, node: NodeId, handle: Handle) -> Vec<u8> {
        let mut data = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let offset = data.len() as u64;
            match self.mount.read(node, handle, offset, &mut buffer).unwrap() {
                0 => return data,
                read => data.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// What the file at `path` holds.
    pub(crate) fn content(&mut self, path: &[&CStr]) -> Vec<u8> {
        let node = self.walk(path).unwrap();
        let handle = self.open(node, 0);
        self.read_all(node, handle)
    }

    /// All entries of `node` but the dots, sorted by name, in several READDIRPLUS.
    pub(crate) fn list(&mut self, node: NodeId) -> Vec<DirectoryEntry> {
        let handle = match self.mount.opendir(node) {
            Ok(opened) => opened.fh,
            Err(error) if error.errno() == Some(Errno::ENOSYS) => Handle(0),
            Err(error) => panic!("{error}"),
        };
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let some = self
                .mount
                .readdirplus(node, handle, offset, DIRECTORY_READ)
                .unwrap();
            let Some(last) = some.last() else { break };
            offset = last.off;
            all.extend(some);
        }
        all.retain(|entry| {
            let dots = matches!(&entry.name[..], b"." | b"..");
            assert!(!dots || entry.entry.is_none(), "the dots are looked up");
            !dots
        });
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub(crate) fn names(&mut self, node: NodeId) -> Vec<String> {
        let entries = self.list(node);
        let name = |entry: DirectoryEntry| String::from_utf8(entry.name).unwrap();
        entries.into_iter().map(name).collect()
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

pub(crate) fn config(root: &Path) -> Config {
    Config {
        root_dir: root.to_str().unwrap().to_owned(),
        xattr: true,
        ..Default::default()
    }
}

pub(crate) fn passthrough(config: Config) -> PassthroughFs {
    let fs = PassthroughFs::<()>::new(config).unwrap();
    fs.import().unwrap();
    fs
}

pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    let error = result.unwrap_err();
    error.errno().unwrap_or_else(|| panic!("{error}"))
}

/// `len` bytes, no two pages of which are alike.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}
