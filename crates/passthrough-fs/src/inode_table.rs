use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::NodeId;

use crate::budget::Permit;
use crate::slab::{Full, Slab};
use crate::volume::Volume;

/// Locks over which the identities are spread.
const SHARDS: usize = 64;

/// What tells one inode of the host from another while a descriptor of it is open (statx(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) ino: u64,
    pub(crate) dev: (u32, u32),
    /// The mount through which it was reached: what is mounted in two places has two nodes.
    pub(crate) mount: u64,
}

/// What can be done with an inode besides naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Symlink,
    /// Device nodes, FIFOs and sockets: never opened on the host.
    Special,
}

/// An inode that the guest knows.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Opened with O_PATH: it pins the inode, so that neither its identity nor its kind changes.
    fd: Arc<OwnedFd>,
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) volume: Arc<Volume>,
    lookups: AtomicU64,
    _permit: Option<Permit>,
    /// How many inodes the table had been given before this one.
    age: u64,
}

/// An inode together with a descriptor of it, opened with O_PATH, that stays open while this lives.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    inode: Arc<Inode>,
    fd: Arc<OwnedFd>,
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Deref for Pinned {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        &self.inode
    }
}

/// A moment in the life of an [`InodeTable`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

impl Inode {
    /// An inode with one lookup. The root has no permit: it is not the guest's doing.
    pub(crate) fn new(
        fd: OwnedFd,
        identity: Identity,
        kind: Kind,
        volume: Arc<Volume>,
        permit: Option<Permit>,
    ) -> Self {
        Self {
            fd: Arc::new(fd),
            identity,
            kind,
            volume,
            lookups: AtomicU64::new(1),
            _permit: permit,
            age: 0,
        }
    }

    /// A descriptor of the inode, for as long as it is used.
    pub(crate) fn pin(self: Arc<Self>) -> Pinned {
        Pinned {
            fd: Arc::clone(&self.fd),
            inode: self,
        }
    }

    /// Counts a lookup, unless the last one was given back already: then the node is on its way
    /// out and cannot come back.
    fn claim(&self) -> bool {
        let more = |lookups: u64| {
            if lookups == 0 {
                None
            } else {
                lookups.checked_add(1)
            }
        };
        self.lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Gives back lookups and returns whether those were the last.
    fn give_back(&self, lookups: u64) -> bool {
        let less = |count: u64| (count != 0).then(|| count.saturating_sub(lookups));
        self.lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok_and(|before| before <= lookups)
    }
}

/// The inodes that the guest knows, by node id and by identity.
///
/// Finding one by its node id, as nearly every operation does, takes the lock of its slot only.
#[derive(Debug)]
pub(crate) struct InodeTable {
    inodes: Slab<Inode>,
    identities: [Mutex<HashMap<Identity, Known>>; SHARDS],
    /// Inodes that the table has been given so far.
    given: AtomicU64,
}

#[derive(Debug)]
struct Known {
    node: NodeId,
    inode: Arc<Inode>,
}

impl InodeTable {
    /// A table that knows the root alone, for ever. The root has no identity in it: were it found
    /// again somewhere below itself, that is another node.
    pub(crate) fn new(root: Inode) -> Self {
        Self {
            inodes: Slab::with_first(Arc::new(root)),
            identities: std::array::from_fn(|_| Mutex::default()),
            given: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<Inode>> {
        self.inodes.get(node.0)
    }

    /// Whether there is a node with this identity at the moment.
    pub(crate) fn contains(&self, identity: &Identity) -> bool {
        self.shard(identity).contains_key(identity)
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(self.given.load(Ordering::Acquire))
    }

    /// Counts a lookup of the node with this identity, if it has been there since before `seen`,
    /// when the identity was not yet read.
    ///
    /// A younger node may be another inode, to which the host gave the number of the one that was
    /// seen. An older one has held its inode, and so the number, all the time.
    pub(crate) fn claim(&self, identity: &Identity, seen: Moment) -> Option<NodeId> {
        let shard = self.shard(identity);
        let known = shard.get(identity)?;
        (known.inode.age < seen.0 && known.inode.claim()).then_some(known.node)
    }

    /// Counts a lookup of `node`, which was found by its id; false where it is on its way out.
    pub(crate) fn claim_node(&self, node: NodeId, inode: &Inode) -> bool {
        node == NodeId::ROOT || inode.claim()
    }

    /// Counts a lookup of the node that has the identity of `inode`, be it `inode` itself or
    /// another that was found meanwhile.
    pub(crate) fn claim_or_insert(&self, mut inode: Inode) -> Result<NodeId, Full> {
        inode.age = self.given.fetch_add(1, Ordering::Release);
        let inode = Arc::new(inode);
        let identity = inode.identity;
        // Declared before the lock, hence dropped, and closed, after it.
        let _replaced;
        let mut shard = self.shard(&identity);
        match shard.entry(identity) {
            MapEntry::Occupied(known) if known.get().inode.claim() => Ok(known.get().node),
            MapEntry::Occupied(mut dying) => {
                let node = NodeId(self.inodes.insert(Arc::clone(&inode))?);
                _replaced = dying.insert(Known { node, inode });
                Ok(node)
            }
            MapEntry::Vacant(vacant) => {
                let node = NodeId(self.inodes.insert(Arc::clone(&inode))?);
                vacant.insert(Known { node, inode });
                Ok(node)
            }
        }
    }

    /// Gives back `lookups` of `node`. With the last one the node is gone.
    pub(crate) fn forget(&self, node: NodeId, lookups: u64) {
        if node == NodeId::ROOT {
            return;
        }
        let Some(inode) = self.get(node) else {
            return;
        };
        if inode.give_back(lookups) {
            let _closed_after_the_locks = (
                self.forget_identity(node, &inode.identity),
                self.inodes.remove_if(node.0, |_| true),
            );
        }
    }

    /// Forgets all but the root, whatever was counted.
    ///
    /// A node goes only together with its identity: were the two tables emptied one after the
    /// other, a lookup in between would leave an identity whose node is gone, and what has that
    /// identity could not be used any more.
    pub(crate) fn clear(&self) {
        for shard in &self.identities {
            let all = std::mem::take(&mut *lock(shard));
            for known in all.into_values() {
                self.inodes.remove_if(known.node.0, |_| true);
            }
        }
    }

    fn forget_identity(&self, node: NodeId, identity: &Identity) -> Option<Known> {
        let mut shard = self.shard(identity);
        // Another node may have taken the identity over meanwhile.
        if shard.get(identity)?.node == node {
            shard.remove(identity)
        } else {
            None
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "the remainder is smaller than the length"
    )]
    fn shard(&self, identity: &Identity) -> MutexGuard<'_, HashMap<Identity, Known>> {
        lock(&self.identities[identity.ino as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::volume::Volumes;

    fn inode(ino: u64) -> Inode {
        let fd = OwnedFd::from(std::fs::File::open("/").unwrap());
        let volume = Volumes::default().find((0, 0), &fd);
        let identity = Identity {
            ino,
            dev: (0, 0),
            mount: 0,
        };
        Inode::new(fd, identity, Kind::Directory, volume, None)
    }

    #[test]
    fn a_node_that_is_younger_than_what_was_seen_of_it_is_not_claimed() {
        let table = InodeTable::new(inode(1));
        let before = table.now();
        let node = table.claim_or_insert(inode(2)).unwrap();
        let identity = table.get(node).unwrap().identity;
        assert_eq!(table.claim(&identity, before), None);
        assert_eq!(table.claim(&identity, table.now()), Some(node));
        table.forget(node, 2);
        assert!(table.get(node).is_none());
    }

    #[test]
    fn a_lookup_that_outlives_its_session_spoils_no_later_one() {
        const INODES: std::ops::Range<u64> = 2..100;
        let table = InodeTable::new(inode(1));
        let look_up = |ino| table.claim_or_insert(inode(ino)).unwrap();
        for round in 0..100 {
            INODES.for_each(|ino| _ = look_up(ino));
            let together = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    together.wait();
                    INODES.for_each(|ino| _ = look_up(ino));
                });
                together.wait();
                table.clear();
            });
            // Each inode that is found in the next session is one that it can use.
            for ino in INODES {
                assert!(table.get(look_up(ino)).is_some(), "round {round}: {ino}");
            }
        }
    }
}
