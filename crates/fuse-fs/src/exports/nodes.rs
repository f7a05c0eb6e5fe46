//! Which inode of which filesystem a node id of the whole means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fuse_wire::NodeId;

/// An inode of one of the filesystems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Inner {
    /// Which filesystem.
    pub(super) member: usize,
    /// What it calls the inode.
    pub(super) node: NodeId,
}

/// The node ids that the guest holds lookups of.
///
/// Ids are given out in order and never again, so that none ever means another inode.
#[derive(Debug)]
pub(super) struct Nodes {
    table: RwLock<Table>,
    limit: usize,
}

#[derive(Debug)]
struct Table {
    by_id: HashMap<NodeId, Held>,
    ids: HashMap<Inner, NodeId>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) inner: Inner,
    /// Lookups that the guest has not given back; at least 1.
    pub(super) count: u64,
}

/// There are as many node ids as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Nodes {
    /// Gives out ids from `first` on, up to `limit` at a time.
    pub(super) fn new(first: u64, limit: usize) -> Self {
        let table = Table {
            by_id: HashMap::new(),
            ids: HashMap::new(),
            next: first,
        };
        Self {
            table: RwLock::new(table),
            limit,
        }
    }

    /// What `id` means, if the guest may know it.
    pub(super) fn get(&self, id: NodeId) -> Option<Inner> {
        self.read().by_id.get(&id).map(|held| held.inner)
    }

    /// Whether there is room for an inode that the guest does not know.
    pub(super) fn has_room(&self) -> bool {
        self.read().by_id.len() < self.limit
    }

    /// The id of `inner`, which the guest has looked up once more.
    ///
    /// # Errors
    /// `Full` where it would need a new one and there may be no more.
    pub(super) fn count(&self, inner: Inner) -> Result<NodeId, Full> {
        let mut table = self.write();
        let Table { by_id, ids, next } = &mut *table;
        let room = by_id.len() < self.limit;
        let id = match ids.entry(inner) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if !room => return Err(Full),
            Entry::Vacant(new) => {
                let id = NodeId(*next);
                *next = next.wrapping_add(1);
                *new.insert(id)
            }
        };
        let held = by_id.entry(id).or_insert(Held { inner, count: 0 });
        held.count = held.count.saturating_add(1);
        Ok(id)
    }

    /// Takes back up to `nlookup` lookups of `id`, and returns of what and how many there were.
    pub(super) fn forget(&self, id: NodeId, nlookup: u64) -> Option<(Inner, u64)> {
        let mut table = self.write();
        let held = table.by_id.get_mut(&id)?;
        let inner = held.inner;
        let taken = nlookup.min(held.count);
        held.count = held.count.saturating_sub(taken);
        if held.count == 0 {
            table.by_id.remove(&id);
            table.ids.remove(&inner);
        }
        Some((inner, taken))
    }

    /// The id that is given out next.
    pub(super) fn next(&self) -> u64 {
        self.read().next
    }

    /// All ids and what they mean, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (NodeId, Held)> {
        let ids: Vec<NodeId> = self.read().by_id.keys().copied().collect();
        let held = |id| self.read().by_id.get(&id).map(|&held| (id, held));
        ids.into_iter().filter_map(held)
    }

    /// Gives out ids from `next` on.
    pub(super) fn begin_at(&self, next: u64) {
        self.write().next = next;
    }

    /// Has `id` mean what it meant to the guest, unless it has a meaning already, or the inode
    /// another id, or there are too many.
    pub(super) fn put(&self, id: NodeId, held: Held) -> bool {
        let mut table = self.write();
        if table.by_id.len() >= self.limit
            || table.by_id.contains_key(&id)
            || table.ids.contains_key(&held.inner)
        {
            return false;
        }
        table.ids.insert(held.inner, id);
        table.by_id.insert(id, held);
        true
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let mut table = self.write();
        table.by_id.clear();
        table.ids.clear();
    }

    // There is nothing behind the lock that a panic could leave half done.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(member: usize, node: u64) -> Inner {
        let node = NodeId(node);
        Inner { member, node }
    }

    #[test]
    fn equal_ids_of_two_filesystems_differ() {
        let nodes = Nodes::new(10, 100);
        let ids = [
            inner(1, 2),
            inner(2, 2),
            inner(1, u64::MAX),
            inner(2, u64::MAX),
        ];
        let given = ids.map(|inner| nodes.count(inner).unwrap());
        assert_eq!(given, [10, 11, 12, 13].map(NodeId));
        assert_eq!(nodes.count(inner(2, 2)), Ok(NodeId(11)));
        assert_eq!(given.map(|id| nodes.get(id).unwrap()), ids);
    }

    #[test]
    fn ids_live_as_long_as_lookups() {
        let nodes = Nodes::new(10, 100);
        let known = inner(1, 7);
        nodes.count(known).unwrap();
        nodes.count(known).unwrap();
        assert_eq!(nodes.forget(NodeId(10), 1), Some((known, 1)));
        assert_eq!(nodes.get(NodeId(10)), Some(known));
        assert_eq!(nodes.forget(NodeId(10), 5), Some((known, 1)));
        assert_eq!(nodes.get(NodeId(10)), None);
        assert_eq!(nodes.forget(NodeId(10), 1), None);
        assert_eq!(nodes.count(known), Ok(NodeId(11)), "never the same again");
    }

    #[test]
    fn there_is_a_limit() {
        let nodes = Nodes::new(10, 2);
        nodes.count(inner(1, 1)).unwrap();
        assert!(nodes.has_room());
        nodes.count(inner(1, 2)).unwrap();
        assert!(!nodes.has_room());
        assert_eq!(nodes.count(inner(1, 3)), Err(Full));
        assert_eq!(nodes.count(inner(1, 2)), Ok(NodeId(11)));
        nodes.clear();
        assert_eq!(nodes.count(inner(1, 3)), Ok(NodeId(12)));
    }
}
