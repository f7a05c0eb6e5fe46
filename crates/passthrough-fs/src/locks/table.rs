//! Who of the guest has locked what.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::abi::FileLock;
use fuse_fs::{Errno, Handle, NodeId, Result};
use rustix::fs::OFlags;
use rustix::io::Errno as SysErrno;

use super::ranges::{Held, Kind, Range, Ranges};
use super::sys;
use super::waits::{Attempt, FileId, Waits, released};
use crate::budget::Permit;

/// Most ranges that a guest can have locked. The host's kernel charges them to nobody, and looks at
/// all that a file has whenever one is set.
const MAX_LOCKS: usize = 8 * 1024;

/// The POSIX locks of a guest, and those who wait for one.
#[derive(Debug)]
pub(crate) struct LockTable {
    owners: Mutex<BTreeMap<Key, Entry>>,
    /// How many owners there are: most guests have none most of the time.
    count: AtomicUsize,
    locks: Arc<AtomicUsize>,
    pub(crate) waits: Waits,
}

/// A file, and who has locked it: to the guest's kernel, a process or an open file description.
type Key = (NodeId, u64);

#[derive(Debug)]
struct Entry {
    owner: Arc<Owner>,
    /// References to it, from [`OwnerRef`].
    users: usize,
}

/// One who has locks on a file, by an open file description of its own on the host.
///
/// They go when it does. It goes when it has none, and nobody is about to get one.
#[derive(Debug)]
pub(crate) struct Owner {
    file: FileId,
    state: Mutex<State>,
    locks: Arc<AtomicUsize>,
    _permit: Permit,
}

#[derive(Debug)]
struct State {
    fd: OwnedFd,
    ranges: Ranges,
    /// The process in the guest that locked last.
    pid: u32,
    /// The handle that all locks came by, if it was one.
    handle: Option<Handle>,
}

/// What a request says of a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) range: Range,
    /// `None` is to unlock.
    pub(crate) kind: Option<Kind>,
    pub(crate) pid: u32,
    /// What the request came by; none where several did.
    pub(crate) handle: Option<Handle>,
}

/// An owner that is there as long as it is used.
pub(crate) struct OwnerRef<'t> {
    table: &'t LockTable,
    key: Key,
    owner: Arc<Owner>,
}

impl LockTable {
    pub(crate) fn new() -> Self {
        Self {
            owners: Mutex::default(),
            count: AtomicUsize::new(0),
            locks: Arc::default(),
            waits: Waits::new(),
        }
    }

    /// The owner `key`, by the description `(fd, file)` that `open` makes where it has none.
    pub(crate) fn owner(
        &self,
        key: Key,
        handle: Option<Handle>,
        open: impl FnOnce() -> Result<(OwnedFd, FileId, Permit)>,
    ) -> Result<OwnerRef<'_>> {
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        let (fd, file, permit) = open()?;
        let new = Arc::new(Owner {
            file,
            state: Mutex::new(State {
                fd,
                ranges: Ranges::default(),
                pid: 0,
                handle,
            }),
            locks: Arc::clone(&self.locks),
            _permit: permit,
        });
        let mut owners = lock(&self.owners);
        // Where another thread was faster, this one is closed when `owners` is not locked any more.
        let entry = owners.entry(key).or_insert_with(|| Entry {
            owner: Arc::clone(&new),
            users: 0,
        });
        let owner = self.used(key, entry);
        self.count.store(owners.len(), Ordering::Release);
        Ok(owner)
    }

    /// The owner `key`, if it has locks or is about to.
    pub(crate) fn known(&self, key: Key) -> Option<OwnerRef<'_>> {
        if self.is_empty() {
            return None;
        }
        let mut owners = lock(&self.owners);
        owners.get_mut(&key).map(|entry| self.used(key, entry))
    }

    /// The lock of another owner than `key` that stands in the way of one of `kind`.
    pub(crate) fn conflict(&self, key: Key, range: Range, kind: Kind) -> Option<FileLock> {
        let conflict = |owner: &OwnerRef<'_>| {
            let state = lock(&owner.owner.state);
            let held = state.ranges.conflict(range, kind)?;
            Some(held.to_guest(state.pid))
        };
        let owners = self.of_node(key.0);
        owners
            .iter()
            .filter(|owner| owner.key != key)
            .find_map(conflict)
    }

    /// `handle` is closed: whoever locked by way of it alone has no locks any more. Of the owners
    /// that are processes, none is left by then, as each has closed its descriptors before. One
    /// that is an open file description has been closed with this.
    pub(crate) fn close(&self, node: NodeId, handle: Handle) {
        for owner in self.of_node(node) {
            let came_by = lock(&owner.owner.state).handle;
            if came_by == Some(handle) {
                owner.unlock_all();
            }
        }
    }

    /// Makes whoever waits give up, and drops all locks.
    pub(crate) fn clear(&self) {
        self.waits.end_session();
        let all = std::mem::take(&mut *lock(&self.owners));
        self.count.store(0, Ordering::Release);
        // What is in use this moment goes when that is done.
        drop(all);
    }

    /// All who have locks.
    pub(super) fn owners(&self) -> Vec<OwnerRef<'_>> {
        let mut owners = lock(&self.owners);
        let all = owners.iter_mut();
        all.map(|(&key, entry)| self.used(key, entry)).collect()
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn of_node(&self, node: NodeId) -> Vec<OwnerRef<'_>> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut owners = lock(&self.owners);
        let all = owners.range_mut((node, u64::MIN)..=(node, u64::MAX));
        all.map(|(&key, entry)| self.used(key, entry)).collect()
    }

    fn used(&self, key: Key, entry: &mut Entry) -> OwnerRef<'_> {
        entry.users = entry.users.saturating_add(1);
        OwnerRef {
            table: self,
            key,
            owner: Arc::clone(&entry.owner),
        }
    }

    /// Counts `more` ranges, if there may be so many.
    fn reserve(&self, more: usize) -> Result<()> {
        let reserved = |locks: usize| {
            let locks = locks.checked_add(more)?;
            (locks <= MAX_LOCKS).then_some(locks)
        };
        self.locks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserved)
            .map(|_| ())
            .map_err(|_| Errno::ENOLCK.into())
    }
}

impl OwnerRef<'_> {
    pub(crate) fn file(&self) -> FileId {
        self.owner.file
    }

    /// Sets or drops a lock, if nobody else's stands in the way.
    ///
    /// # Errors
    /// ENOLCK where there are too many; else as fcntl(2).
    pub(crate) fn set(&self, wanted: &Wanted) -> Result<Attempt> {
        let owner = &*self.owner;
        let mut state = lock(&owner.state);
        let after = state.ranges.with(wanted.range, wanted.kind);
        let more = after.len().saturating_sub(state.ranges.len());
        self.table.reserve(more)?;
        match sys::set(state.fd.as_fd(), wanted.range, wanted.kind) {
            Ok(()) => {}
            Err(errno) => {
                self.owner.locks.fetch_sub(more, Ordering::Relaxed);
                return match errno {
                    SysErrno::AGAIN | SysErrno::ACCESS => Ok(Attempt::Conflict),
                    errno => Err(errno.into()),
                };
            }
        }
        let fewer = state.ranges.len().saturating_sub(after.len());
        owner.locks.fetch_sub(fewer, Ordering::Relaxed);
        let had_any = !state.ranges.is_empty();
        state.ranges = after;
        if wanted.kind.is_some() {
            state.pid = wanted.pid;
        }
        if state.handle != wanted.handle {
            state.handle = None;
        }
        drop(state);
        if had_any && wanted.kind != Some(Kind::Write) {
            released(owner.file);
        }
        Ok(Attempt::Done)
    }

    /// Has its locks by `fd` from now on. Those that it has must be for reading: then each is there
    /// twice for a moment, and nobody else gets in between.
    ///
    /// # Errors
    /// As fcntl(2). Nothing has changed then.
    pub(crate) fn replace_description(&self, fd: OwnedFd) -> Result<()> {
        let mut state = lock(&self.owner.state);
        for (range, kind) in state.ranges.iter() {
            sys::set(fd.as_fd(), range, Some(kind))?;
        }
        let _closed_after_the_lock = std::mem::replace(&mut state.fd, fd);
        drop(state);
        Ok(())
    }

    /// Tells each of its locks: whose it is, the process that locked last, the handle that all came
    /// by, how the description is open, and the range.
    pub(super) fn each(&self, mut tell: impl FnMut(Key, u32, Option<Handle>, OFlags, Range, Kind)) {
        let state = lock(&self.owner.state);
        let mode = rustix::fs::fcntl_getfl(&state.fd).unwrap_or(OFlags::RDWR) & OFlags::RWMODE;
        for (range, kind) in state.ranges.iter() {
            tell(self.key, state.pid, state.handle, mode, range, kind);
        }
    }

    /// Drops all its locks.
    pub(crate) fn unlock_all(&self) {
        self.owner.unlock_all();
    }

    /// A lock of somebody outside of this guest that stands in the way of one of `kind`.
    pub(crate) fn conflict_on_host(&self, range: Range, kind: Kind) -> Result<Option<FileLock>> {
        conflict_on_host(&lock(&self.owner.state).fd, range, kind)
    }
}

/// A lock of somebody else that stands in the way of one of `kind` by the description of `fd`. Who
/// that is means nothing in the guest.
pub(crate) fn conflict_on_host(fd: &OwnedFd, range: Range, kind: Kind) -> Result<Option<FileLock>> {
    let conflict = sys::conflict(fd.as_fd(), range, kind)?;
    Ok(conflict.map(|(range, kind)| Held::new(range, kind).to_guest(0)))
}

impl Drop for OwnerRef<'_> {
    fn drop(&mut self) {
        let mut owners = lock(&self.table.owners);
        // It may have been taken out, and another one put in its place.
        let Some(entry) = owners
            .get_mut(&self.key)
            .filter(|entry| Arc::ptr_eq(&entry.owner, &self.owner))
        else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        // Nobody else has its state: that takes a reference.
        if entry.users == 0 && lock(&self.owner.state).ranges.is_empty() {
            let gone = owners.remove(&self.key);
            self.table.count.store(owners.len(), Ordering::Release);
            // Its descriptor is closed behind the lock.
            drop(owners);
            drop(gone);
        }
    }
}

impl Owner {
    fn unlock_all(&self) {
        let mut state = lock(&self.state);
        if state.ranges.is_empty() {
            return;
        }
        if let Err(error) = sys::set(state.fd.as_fd(), Range::ALL, None) {
            // They go with the descriptor then, which nothing keeps open but they.
            tracing::warn!(%error, "cannot unlock a file");
        }
        self.locks.fetch_sub(state.ranges.len(), Ordering::Relaxed);
        state.ranges = Ranges::default();
        drop(state);
        released(self.file);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.unlock_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
