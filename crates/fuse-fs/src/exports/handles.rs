//! Which open file of which filesystem a handle of the whole means.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fuse_wire::Handle;

use super::nodes::Inner;

/// What is open.
#[derive(Debug)]
pub(super) struct Handles {
    table: RwLock<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<Handle, Open>,
    last: u64,
}

/// An open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// Of which inode: the guest may forget that before it closes the file.
    pub(super) inner: Inner,
    /// What the filesystem calls it.
    pub(super) handle: Handle,
}

impl Handles {
    /// Holds about `limit` handles: as many more as are opened at once.
    pub(super) fn new(limit: usize) -> Self {
        let table = RwLock::default();
        Self { table, limit }
    }

    pub(super) fn has_room(&self) -> bool {
        self.read().open.len() < self.limit
    }

    /// A handle for what is open now, which is given out once only.
    pub(super) fn insert(&self, open: Open) -> Handle {
        let mut table = self.write();
        table.last = table.last.wrapping_add(1);
        let handle = Handle(table.last);
        table.open.insert(handle, open);
        handle
    }

    pub(super) fn get(&self, handle: Handle) -> Option<Open> {
        self.read().open.get(&handle).copied()
    }

    pub(super) fn remove(&self, handle: Handle) -> Option<Open> {
        self.write().open.remove(&handle)
    }

    /// The handle that was given out last.
    pub(super) fn last(&self) -> u64 {
        self.read().last
    }

    /// All that is open, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Handle, Open)> {
        let handles: Vec<Handle> = self.read().open.keys().copied().collect();
        let open = |handle| self.get(handle).map(|open| (handle, open));
        handles.into_iter().filter_map(open)
    }

    /// Gives out handles after `last`.
    pub(super) fn begin_after(&self, last: u64) {
        self.write().last = last;
    }

    /// Has `handle` mean what it meant to the guest, unless it has a meaning already, or there are
    /// too many.
    pub(super) fn put(&self, handle: Handle, open: Open) -> bool {
        let mut table = self.write();
        table.open.len() < self.limit && table.open.insert(handle, open).is_none()
    }

    /// Undoes [`remove`](Self::remove).
    pub(super) fn put_back(&self, handle: Handle, open: Open) {
        self.write().open.insert(handle, open);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.write().open.clear();
    }

    // There is nothing behind the lock that a panic could leave half done.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
