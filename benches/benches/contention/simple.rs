use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, Statx, StatxFlags};

use crate::rows::Subject;

/// A directory whose nodes and handles are each in a map behind a lock.
pub(crate) struct Simple {
    root: OwnedFd,
    nodes: RwLock<Nodes>,
    handles: RwLock<BTreeMap<u64, Arc<OwnedFd>>>,
    /// The handle that is given out next.
    next_handle: AtomicU64,
}

#[derive(Default)]
struct Nodes {
    by_id: BTreeMap<u64, Arc<Node>>,
    by_identity: BTreeMap<Identity, u64>,
    last: u64,
}

/// Device, by both its numbers, and inode number.
type Identity = (u32, u32, u64);

struct Node {
    identity: Identity,
    fd: OwnedFd,
    lookups: AtomicU64,
}

impl Simple {
    pub(crate) fn new(shared: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::openat(CWD, shared, flags, Mode::empty())?,
            nodes: RwLock::default(),
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
        })
    }

    fn node(&self, node: u64) -> Arc<Node> {
        Arc::clone(&read(&self.nodes).by_id[&node])
    }

    /// Counts a lookup of what is known.
    fn claim(&self, identity: &Identity) -> Option<u64> {
        let nodes = read(&self.nodes);
        let id = *nodes.by_identity.get(identity)?;
        nodes.by_id[&id].lookups.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    fn add(&self, identity: Identity, fd: OwnedFd) -> u64 {
        let mut nodes = write(&self.nodes);
        nodes.last += 1;
        let id = nodes.last;
        let node = Node {
            identity,
            fd,
            lookups: AtomicU64::new(1),
        };
        nodes.by_id.insert(id, Arc::new(node));
        nodes.by_identity.insert(identity, id);
        id
    }

    fn stat(&self, at: &OwnedFd, name: &CStr) -> Statx {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        done(rustix::fs::statx(at, name, flags, StatxFlags::BASIC_STATS))
    }
}

impl Subject for Simple {
    fn lookup(&self, name: &CStr) -> u64 {
        let stat = self.stat(&self.root, name);
        let identity = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        self.claim(&identity).unwrap_or_else(|| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&self.root, name, flags, Mode::empty());
            self.add(identity, done(fd))
        })
    }

    fn getattr(&self, node: u64) {
        self.stat(&self.node(node).fd, c"");
    }

    fn forget(&self, node: u64, lookups: u64) {
        let known = self.node(node);
        let before = known.lookups.fetch_sub(lookups, Ordering::Relaxed);
        if before == lookups {
            let mut nodes = write(&self.nodes);
            // Somebody may have looked it up meanwhile.
            if known.lookups.load(Ordering::Relaxed) == 0 {
                nodes.by_identity.remove(&known.identity);
                nodes.by_id.remove(&node);
            }
        }
    }

    fn open(&self, node: u64) -> u64 {
        let path = format!("/proc/self/fd/{}", self.node(node).fd.as_raw_fd());
        let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        write(&self.handles).insert(handle, Arc::new(done(fd)));
        handle
    }

    fn release(&self, _: u64, handle: u64) {
        // Closed after the lock.
        let closed = write(&self.handles).remove(&handle);
        drop(closed);
    }

    fn lseek(&self, _: u64, handle: u64) {
        let file = Arc::clone(&read(&self.handles)[&handle]);
        done(rustix::fs::seek(&*file, SeekFrom::Data(0)));
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("it can be done")
}
