//! The descriptors that are open for the guest, and which of them are closed to make room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::budget::{Budget, Permit};
use crate::inode_table::Inode;
use crate::pin::{Chance, Pinned, Room, Verdict};

/// Most descriptors that are looked at to find one that was not used of late, and then to find any
/// that can be closed, so that no request takes for ever. The next one goes on from there.
const MAX_JUDGED: usize = 4096;
/// Entries of the queue that are there before those of inodes that are gone are looked for. Each of
/// those keeps the memory of its inode, a few hundred bytes.
const MIN_PURGED: usize = 64;

/// Counts what is open for the guest, and knows the inodes whose descriptors can be closed.
///
/// Which one is closed is decided by second chance: the one that was opened first, unless it was
/// used since it was last its turn. Where too many were, the next one goes all the same.
#[derive(Debug)]
pub(crate) struct OpenInodes {
    inodes: Budget,
    descriptors: Budget,
    queue: Arc<Queue>,
    /// There was no room once, so that there may be inodes without a descriptor.
    ran_short: AtomicBool,
}

impl OpenInodes {
    /// At most `inodes` descriptors of inodes, and `descriptors` of inodes and handles together.
    pub(crate) fn new(inodes: usize, descriptors: usize) -> Self {
        Self {
            inodes: Budget::new(inodes),
            descriptors: Budget::new(descriptors),
            queue: Arc::default(),
            ran_short: AtomicBool::new(false),
        }
    }

    /// Room for a handle, for which an inode may have to give up its descriptor.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let free = self.descriptors.take();
        free.or_else(|| self.evict().map(|room| room.into_permits().1))
    }

    /// Room for the descriptor of an inode, for which another may have to give up its own.
    pub(crate) fn room(&self) -> Option<Room> {
        let inode = self.inodes.take();
        if inode.is_some()
            && let Some(descriptor) = self.descriptors.take()
        {
            return Some(Room::new(inode, descriptor));
        }
        let (evicted, descriptor) = self.evict()?.into_permits();
        Some(Room::new(Some(inode.or(evicted)?), descriptor))
    }

    /// Closes the descriptor of an inode that can be found again, and returns the room it took.
    pub(crate) fn evict(&self) -> Option<Room> {
        self.ran_short.store(true, Ordering::Relaxed);
        let turns = self.queue.lock().inodes.len().saturating_mul(2);
        let evict = |chance| self.queue.close(&self.queue.next()?, chance);
        let unused = (0..turns.min(MAX_JUDGED)).find_map(|_| evict(Chance::Second));
        let judged = turns.saturating_sub(MAX_JUDGED).min(MAX_JUDGED);
        unused.or_else(|| (0..judged).find_map(|_| evict(Chance::Last)))
    }

    /// Whether there may be inodes without a descriptor.
    pub(crate) fn ran_short(&self) -> bool {
        self.ran_short.load(Ordering::Relaxed)
    }

    /// The descriptor of `inode`, if it is open, may be closed to make room.
    pub(crate) fn enqueue(&self, inode: &Arc<Inode>) {
        self.queue.enqueue(inode);
    }

    /// Keeps the descriptor of `inode` open for a handle of it. None if it has no room to stay.
    pub(crate) fn keep(&self, inode: &Pinned) -> Option<KeptOpen> {
        if !inode.pin.add_handle() {
            let room = Room::new(None, self.permit()?);
            inode.pin.add_handle_with(&inode.descriptor, room);
        }
        Some(KeptOpen {
            inode: Arc::clone(&inode.inode),
            queue: Arc::clone(&self.queue),
        })
    }
}

/// Keeps the descriptor of an inode open while a handle of it is.
#[derive(Debug)]
pub(crate) struct KeptOpen {
    inode: Arc<Inode>,
    queue: Arc<Queue>,
}

impl KeptOpen {
    pub(crate) const fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.inode.pin.remove_handle();
        if self.inode.pin.is_surplus() && self.queue.close(&self.inode, Chance::Second).is_some() {
            return;
        }
        self.queue.enqueue(&self.inode);
    }
}

/// Inodes whose descriptors may be closed, each of them once. Those that are gone stay until it is
/// their turn, or until there are too many of them.
#[derive(Debug, Default)]
struct Queue(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    inodes: VecDeque<Weak<Inode>>,
    /// Entries at which those that are gone are looked for.
    purge_at: usize,
}

impl Queue {
    fn enqueue(&self, inode: &Arc<Inode>) {
        if inode.volume.reopening.is_possible() && inode.pin.enqueue() {
            self.push(inode);
        }
    }

    /// Closes the descriptor of an inode that is not in the queue, if nothing is against it.
    fn close(&self, inode: &Arc<Inode>, chance: Chance) -> Option<Room> {
        match inode.pin.judge(chance) {
            Verdict::Later => self.push(inode),
            Verdict::No => {}
            Verdict::Perhaps(descriptor) => {
                // What cannot be found again stays as it is until it is looked up anew.
                if inode.prepare_to_close(&*descriptor) {
                    match inode.pin.close(descriptor) {
                        Some(closed) => return closed.into_room(),
                        None => self.enqueue(inode),
                    }
                }
            }
        }
        None
    }

    fn push(&self, inode: &Arc<Inode>) {
        let mut queue = self.lock();
        if queue.inodes.len() >= queue.purge_at.max(MIN_PURGED) {
            queue.inodes.retain(|inode| inode.strong_count() != 0);
            queue.purge_at = queue.inodes.len().saturating_mul(2);
        }
        queue.inodes.push_back(Arc::downgrade(inode));
    }

    /// Takes out the next one that is still there.
    fn next(&self) -> Option<Arc<Inode>> {
        let mut queue = self.lock();
        loop {
            if let Some(inode) = queue.inodes.pop_front()?.upgrade() {
                return Some(inode);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::inode_table::tests::inode;
    use crate::pin::Descriptor;

    /// An inode with a descriptor that may be closed.
    fn open(open: &OpenInodes, ino: u64) -> Arc<Inode> {
        let inode = inode(None, ino);
        let parent = crate::inode_table::tests::inode(None, 1);
        inode.places.add(&parent, c"name");
        // That one has no room, as the root's.
        let judged = match inode.pin.judge(Chance::Second) {
            Verdict::Perhaps(judged) => judged,
            verdict => panic!("{verdict:?}"),
        };
        drop(inode.pin.close(judged).unwrap());
        let fd = OwnedFd::from(std::fs::File::open("/dev/shm").unwrap());
        inode.pin.install(Descriptor::new(fd, open.room()));
        open.enqueue(&inode);
        inode
    }

    #[test]
    fn the_one_that_was_not_used_gives_way() {
        let all = OpenInodes::new(2, 3);
        let (first, second) = (open(&all, 2), open(&all, 3));
        assert!(first.pin.get().is_some(), "this is a use");
        let third = open(&all, 4);
        let are_open = || [&first, &second, &third].map(|inode| inode.pin.is_open());
        assert_eq!(are_open(), [true, false, true]);
        // One that is in use is not closed under its user.
        let using = first.pin.get().unwrap();
        let _fourth = open(&all, 5);
        assert_eq!(are_open(), [true, false, false]);
        drop(using);
    }

    #[test]
    fn a_handle_takes_the_room_of_inodes_but_not_of_its_own() {
        let all = OpenInodes::new(2, 2);
        let (first, second) = (open(&all, 2), open(&all, 3));
        let pinned = Pinned {
            inode: Arc::clone(&first),
            descriptor: first.pin.get().unwrap(),
        };
        let kept = all.keep(&pinned).unwrap();
        drop(pinned);
        let permit = all.permit();
        assert!(permit.is_some() && !second.pin.is_open());
        assert!(all.permit().is_none() && first.pin.is_open());
        drop(kept);
        assert!(all.permit().is_some() && !first.pin.is_open());
    }

    #[test]
    fn inodes_that_are_gone_do_not_fill_the_queue() {
        let all = OpenInodes::new(1 << 20, 1 << 20);
        for ino in 0..4 * MIN_PURGED as u64 {
            drop(open(&all, ino));
        }
        assert!(all.queue.lock().inodes.len() <= MIN_PURGED);
        let kept = open(&all, 1);
        assert!(all.evict().is_some() && !kept.pin.is_open());
        assert!(all.evict().is_none());
    }
}
