use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fuse_fs::NodeId;
use rustix::fs::Statx;

use crate::attr::{birth, identity, kind};
use crate::budget::{Budget, Permit};
use crate::file_handle::FileHandle;
use crate::last_open::LastOpen;
use crate::pin::Pin;
use crate::place::Places;
use crate::slab::{self, Full, Slab, SlotImage};
use crate::volume::Volume;

/// Locks over which the identities are spread.
const SHARDS: usize = 64;
/// Most inodes that the guest may know at a time. Those without a descriptor are a few hundred
/// bytes each, of which a guest that forgets nothing shall not make more than some 3 GiB. It takes
/// more memory in a guest to know as many.
const MAX_KNOWN: usize = 1 << 23;

/// The highest index of a node id that there can be: that of the root is among them.
const MAX_INDEX: u32 = MAX_KNOWN as u32 + 1;

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

/// Birth time: seconds and nanoseconds since 1970.
pub(crate) type Birth = (i64, u32);

/// An inode that the guest knows.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) volume: Arc<Volume>,
    pub(crate) pin: Pin,
    /// Kept where it may have to be opened again by name.
    pub(crate) places: Places,
    /// Known once the descriptor was to be closed, or the inode was opened for I/O more than once,
    /// if the filesystem has such handles.
    pub(crate) handle: OnceLock<FileHandle>,
    /// It was opened for I/O.
    pub(crate) was_opened: AtomicBool,
    pub(crate) last_open: LastOpen,
    /// If the filesystem has birth times.
    pub(crate) birth: Option<Birth>,
    lookups: AtomicU64,
    /// None of the root.
    arrival: Option<Arrival>,
}

/// A moment in the life of an [`InodeTable`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

/// When an inode was found, and the right to be in the table.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// How many inodes the table had been given before this one.
    age: u64,
    _room: Permit,
}

impl Inode {
    /// An inode with one lookup. Its descriptor was open when it arrived. The root never did.
    pub(crate) fn new(
        arrival: Option<Arrival>,
        stat: &Statx,
        volume: Arc<Volume>,
        pin: Pin,
    ) -> Self {
        Self {
            identity: identity(stat),
            kind: kind(stat),
            volume,
            pin,
            places: Places::default(),
            handle: OnceLock::new(),
            was_opened: AtomicBool::new(false),
            last_open: LastOpen::default(),
            birth: birth(stat),
            lookups: AtomicU64::new(1),
            arrival,
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
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

    /// Lookups that the guest has not given back.
    pub(crate) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Sets the lookups of an inode that is in no table yet.
    pub(crate) fn set_lookups(&self, lookups: u64) {
        self.lookups.store(lookups, Ordering::Relaxed);
    }

    fn is_dying(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) == 0 || self.pin.is_lost()
    }

    /// Gives back lookups and returns whether those were the last.
    fn give_back(&self, lookups: u64) -> bool {
        let less = |count: u64| (count != 0).then(|| count.saturating_sub(lookups));
        self.lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok_and(|before| before <= lookups)
    }
}

impl Drop for Inode {
    /// Drops the directories above it one after the other, where nobody else has them: one inside
    /// the other, a deep tree would take more than the stack has.
    fn drop(&mut self) {
        let mut places = self.places.take();
        while let Some(place) = places.pop() {
            if let Some(mut parent) = Arc::into_inner(place.parent) {
                places.append(&mut parent.places.take());
            }
        }
    }
}

/// The inodes that the guest knows, by node id and by identity.
///
/// Finding one by its node id, as nearly every operation does, takes the lock of its slot only.
#[derive(Debug)]
pub(crate) struct InodeTable {
    inodes: Slab<Inode>,
    /// [`SHARDS`] of them. Not in place: moved about, they would take much of a stack.
    identities: Box<[Mutex<HashMap<Identity, Known>>]>,
    /// Inodes that the table has been given so far.
    given: AtomicU64,
    room: Budget,
}

/// A node and its inode.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) node: NodeId,
    pub(crate) inode: Arc<Inode>,
}

/// Why a table does not take an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is a node with its identity already.
    Known,
    Full,
}

impl InodeTable {
    /// A table that knows the root alone, for ever. The root has no identity in it: were it found
    /// again somewhere below itself, that is another node.
    pub(crate) fn new(root: Inode) -> Self {
        Self {
            inodes: Slab::with_first(Arc::new(root)),
            identities: (0..SHARDS).map(|_| Mutex::default()).collect(),
            given: AtomicU64::new(0),
            room: Budget::new(MAX_KNOWN),
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<Inode>> {
        self.inodes.get(node.0)
    }

    /// Whether there is a node with this identity at the moment.
    pub(crate) fn contains(&self, identity: &Identity) -> bool {
        self.shard(identity).contains_key(identity)
    }

    /// The node that has this identity at the moment. It is sure to be the inode that has it on the
    /// host only as long as descriptors of both are open: a number is another inode's next once its
    /// inode is gone.
    pub(crate) fn find(&self, identity: &Identity) -> Option<Known> {
        self.shard(identity).get(identity).cloned()
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(self.given.load(Ordering::Acquire))
    }

    /// An inode was found that will be given to the table. None if that is full.
    pub(crate) fn arrival(&self) -> Option<Arrival> {
        let room = self.room.take()?;
        let age = self.given.fetch_add(1, Ordering::Release);
        Some(Arrival { age, _room: room })
    }

    /// The node that has this identity, if it has been there since before `seen`, when the
    /// identity was not yet read.
    ///
    /// A younger node may be another inode, to which the host gave the number of the one that was
    /// seen. An older one is it, provided that its inode is still there: then it has had the number
    /// all the time. It is there if its descriptor is open, even if that was closed meanwhile, as
    /// none but the same inode is opened again.
    pub(crate) fn find_older(&self, identity: &Identity, seen: Moment) -> Option<Known> {
        let known = self.find(identity)?;
        let arrival = known.inode.arrival.as_ref()?;
        (arrival.age < seen.0).then_some(known)
    }

    /// Counts a lookup of a node; false where it is on its way out.
    pub(crate) fn claim(&self, node: NodeId, inode: &Inode) -> bool {
        node == NodeId::ROOT || inode.claim()
    }

    /// Adds an inode, unless there is one with its identity that is not on its way out.
    pub(crate) fn insert(&self, inode: &Arc<Inode>) -> Result<NodeId, Refused> {
        // Declared before the lock, hence dropped, and closed, after it.
        let _replaced;
        let mut shard = self.shard(&inode.identity);
        let known = shard.get(&inode.identity);
        if known.is_some_and(|known| !known.inode.is_dying()) {
            return Err(Refused::Known);
        }
        let inserted = self.inodes.insert(Arc::clone(inode));
        let node = NodeId(inserted.map_err(|Full| Refused::Full)?);
        let inode = Arc::clone(inode);
        _replaced = shard.insert(inode.identity, Known { node, inode });
        Ok(node)
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
                inode.pin.forget(),
            );
        }
    }

    /// Forgets all but the root, whatever was counted.
    ///
    /// A node goes only together with its identity: were the two tables emptied one after the
    /// other, a lookup in between would leave an identity whose node is gone, and what has that
    /// identity could not be used any more. What is lost has no identity.
    pub(crate) fn clear(&self) {
        for shard in &*self.identities {
            let all = std::mem::take(&mut *lock(shard));
            for known in all.into_values() {
                self.inodes.remove_if(known.node.0, |_| true);
                drop(known.inode.pin.forget());
            }
        }
        self.inodes.remove_all_if(|inode| inode.pin.is_lost());
    }

    /// What every node id stands for that was given out, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotImage<Inode>> {
        self.inodes.slots()
    }

    /// Begins to fill a table that knows the root alone.
    pub(crate) fn refill(&self) -> InodeRefill<'_> {
        InodeRefill {
            table: self,
            slots: self.inodes.refill(MAX_INDEX),
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
        reason = "the remainder is smaller than the length, which is SHARDS"
    )]
    fn shard(&self, identity: &Identity) -> MutexGuard<'_, HashMap<Identity, Known>> {
        lock(&self.identities[identity.ino as usize % SHARDS])
    }
}

/// Fills a table with inodes that have their node ids already.
#[derive(Debug)]
pub(crate) struct InodeRefill<'t> {
    table: &'t InodeTable,
    slots: slab::Refill<'t, Inode>,
}

impl InodeRefill<'_> {
    /// Adds an inode as `node`, unless there is one with its identity.
    pub(crate) fn put(&self, node: NodeId, inode: &Arc<Inode>) -> Result<(), slab::Refused> {
        let mut shard = self.table.shard(&inode.identity);
        if shard.contains_key(&inode.identity) {
            return Err(slab::Refused::Twice);
        }
        self.slots.put(node.0, Arc::clone(inode))?;
        let inode = Arc::clone(inode);
        shard.insert(inode.identity, Known { node, inode });
        Ok(())
    }

    /// What `node` stood for is no more.
    pub(crate) fn lose(&self, node: NodeId) -> Result<(), slab::Refused> {
        self.slots.lose(node.0)
    }

    /// As [`slab::Refill::wear`].
    pub(crate) fn wear(
        &self,
        first: u32,
        count: u32,
        generation: u32,
    ) -> Result<(), slab::Refused> {
        self.slots.wear(first, count, generation)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Barrier;

    use super::*;
    use crate::attr::stat_fd;
    use crate::config::InodeFileHandles;
    use crate::pin::{Chance, Descriptor};
    use crate::proc::ProcSelfFd;
    use crate::volume::Volumes;

    /// A directory with any number, on a filesystem on which inodes are opened again by name.
    pub(crate) fn inode(arrival: Option<Arrival>, ino: u64) -> Arc<Inode> {
        let fd = OwnedFd::from(std::fs::File::open("/dev/shm").unwrap());
        let mut stat = stat_fd(&fd).unwrap();
        let volumes = Volumes::new(InodeFileHandles::Never);
        let volume = volumes.find(fd.as_fd(), &stat, &ProcSelfFd::new(None).unwrap());
        stat.stx_ino = ino;
        let pin = Pin::open(Arc::new(Descriptor::new(fd, None)));
        Arc::new(Inode::new(arrival, &stat, volume, pin))
    }

    fn table() -> InodeTable {
        InodeTable::new(Arc::into_inner(inode(None, 1)).unwrap())
    }

    fn look_up(table: &InodeTable, ino: u64) -> NodeId {
        let inode = inode(table.arrival(), ino);
        loop {
            if let Some(known) = table.find(&inode.identity)
                && table.claim(known.node, &known.inode)
            {
                return known.node;
            }
            if let Ok(node) = table.insert(&inode) {
                return node;
            }
        }
    }

    #[test]
    fn a_node_that_is_younger_than_what_was_seen_of_it_is_not_found() {
        let table = table();
        let before = table.now();
        let node = look_up(&table, 2);
        let identity = table.get(node).unwrap().identity;
        assert!(table.find_older(&identity, before).is_none());
        let known = table.find_older(&identity, table.now()).unwrap();
        assert_eq!(known.node, node);
        assert!(table.claim(node, &known.inode));
        table.forget(node, 2);
        assert!(table.get(node).is_none());
        assert!(!table.claim(node, &known.inode));
    }

    #[test]
    fn an_inode_that_is_lost_makes_way_for_the_next_with_its_number() {
        let table = table();
        let node = look_up(&table, 2);
        let lost = table.get(node).unwrap();
        let next = inode(table.arrival(), 2);
        assert_eq!(table.insert(&next), Err(Refused::Known));
        lost.pin.lose();
        assert_eq!(table.insert(&next), Err(Refused::Known), "it is open");
        drop(lost.pin.forget());
        let other = look_up(&table, 3);
        let cold = table.get(other).unwrap();
        let judged = |verdict| match verdict {
            crate::pin::Verdict::Perhaps(descriptor) => descriptor,
            verdict => panic!("{verdict:?}"),
        };
        assert!(
            cold.pin
                .close(judged(cold.pin.judge(Chance::Second)))
                .is_some()
        );
        cold.pin.lose();
        let next = inode(table.arrival(), 3);
        let next_node = table.insert(&next).unwrap();
        assert_ne!(next_node, other);
        // It stays known until it is forgotten, and takes nothing along then.
        assert!(table.get(other).is_some());
        table.forget(other, 1);
        assert_eq!(table.find(&next.identity).unwrap().node, next_node);
        table.clear();
        assert!(table.get(next_node).is_none());
    }

    #[test]
    fn the_end_of_a_session_forgets_what_is_lost() {
        let table = table();
        let node = look_up(&table, 2);
        let inode_2 = table.get(node).unwrap();
        let crate::pin::Verdict::Perhaps(judged) = inode_2.pin.judge(Chance::Second) else {
            panic!("it is idle");
        };
        assert!(inode_2.pin.close(judged).is_some());
        inode_2.pin.lose();
        table.insert(&inode(table.arrival(), 2)).unwrap();
        table.clear();
        assert!(table.get(node).is_none());
    }

    #[test]
    fn a_lookup_that_outlives_its_session_spoils_no_later_one() {
        const INODES: std::ops::Range<u64> = 2..100;
        let table = table();
        for round in 0..100 {
            INODES.for_each(|ino| _ = look_up(&table, ino));
            let together = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    together.wait();
                    INODES.for_each(|ino| _ = look_up(&table, ino));
                });
                together.wait();
                table.clear();
            });
            // Each inode that is found in the next session is one that it can use.
            for ino in INODES {
                let node = look_up(&table, ino);
                assert!(table.get(node).is_some(), "round {round}: {ino}");
            }
        }
    }
}
