//! What holds an inode on the host: a descriptor, which those that were not used for a while give
//! back.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::budget::Permit;
use crate::inode_table::Inode;

/// The right to keep a descriptor of an inode open.
#[derive(Debug)]
pub(crate) struct Room {
    /// One of the inodes that may have a descriptor. None where it has to be there: for a handle, or
    /// because it could not be opened again.
    inode: Option<Permit>,
    /// One of all the descriptors that may be open for the guest.
    descriptor: Permit,
}

impl Room {
    pub(crate) fn new(inode: Option<Permit>, descriptor: Permit) -> Self {
        Self { inode, descriptor }
    }

    /// The two rights.
    pub(crate) fn into_permits(self) -> (Option<Permit>, Permit) {
        (self.inode, self.descriptor)
    }
}

/// A descriptor of an inode, opened with O_PATH.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// Unset where it is there for one request only, and for the root, which is not the guest's
    /// doing.
    room: OnceLock<Room>,
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd, room: Option<Room>) -> Self {
        let room = room.map_or_else(OnceLock::new, OnceLock::from);
        Self { fd, room }
    }

    /// Closes it, for something else to be opened in its place.
    pub(crate) fn into_room(self) -> Option<Room> {
        self.room.into_inner()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An inode together with a descriptor of it that stays open while this lives: neither its number
/// nor its kind changes meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub(crate) inode: Arc<Inode>,
    pub(crate) descriptor: Arc<Descriptor>,
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Deref for Pinned {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        &self.inode
    }
}

/// The descriptor of an inode, or the place for it.
#[derive(Debug)]
pub(crate) struct Pin {
    state: Mutex<State>,
    /// Used since the descriptor was last considered for closing.
    referenced: AtomicBool,
}

#[derive(Debug)]
struct State {
    descriptor: Held,
    /// Files and directories that the guest has open. While there are any, the descriptor stays:
    /// what is removed while it is open cannot be found again by its name.
    open_handles: usize,
    /// In the queue of those that may be closed, or just being looked at for that.
    queued: bool,
}

#[derive(Debug)]
enum Held {
    Open(Arc<Descriptor>),
    /// To be opened again when needed.
    Cold,
    /// The guest does not know the inode any more. It may be needed to find one below it.
    Forgotten,
    /// Its number is another inode's now: it is gone from the host.
    Lost,
}

/// Whether a descriptor that was used of late gets another chance to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chance {
    Second,
    Last,
}

/// Whether a descriptor can be closed.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Not now: it was used of late.
    Later,
    /// Not until something happens to it that puts it back in the queue.
    No,
    /// Nothing is against it as far as is known here.
    Perhaps(Arc<Descriptor>),
}

impl Pin {
    /// Of an inode with an open descriptor.
    pub(crate) fn open(descriptor: Arc<Descriptor>) -> Self {
        Self::new(Held::Open(descriptor))
    }

    /// Of an inode that can be found again.
    pub(crate) fn cold() -> Self {
        Self::new(Held::Cold)
    }

    fn new(descriptor: Held) -> Self {
        Self {
            state: Mutex::new(State {
                descriptor,
                open_handles: 0,
                queued: false,
            }),
            referenced: AtomicBool::new(false),
        }
    }

    /// The descriptor, if it is open. This counts as a use of it.
    pub(crate) fn get(&self) -> Option<Arc<Descriptor>> {
        let descriptor = match &self.lock().descriptor {
            Held::Open(descriptor) => Arc::clone(descriptor),
            _ => return None,
        };
        // Reading first leaves the cache line shared where nothing is new.
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
        Some(descriptor)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.lock().descriptor, Held::Open(_))
    }

    /// Whether the host has the inode no more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.lock().descriptor, Held::Lost)
    }

    /// Keeps `fresh` if there is none and it has room, and returns the one to use.
    pub(crate) fn install(&self, fresh: Descriptor) -> Arc<Descriptor> {
        let fresh = Arc::new(fresh);
        let mut state = self.lock();
        match &state.descriptor {
            Held::Open(descriptor) => return Arc::clone(descriptor),
            Held::Cold if fresh.room.get().is_some() => {
                state.descriptor = Held::Open(Arc::clone(&fresh));
            }
            _ => {}
        }
        fresh
    }

    /// Gives up the descriptor for good. It is closed by the caller, outside of all locks.
    pub(crate) fn forget(&self) -> Option<Arc<Descriptor>> {
        match std::mem::replace(&mut self.lock().descriptor, Held::Forgotten) {
            Held::Open(descriptor) => Some(descriptor),
            _ => None,
        }
    }

    /// The inode turned out to be gone from the host. One whose descriptor is open is not.
    pub(crate) fn lose(&self) {
        let mut state = self.lock();
        if matches!(state.descriptor, Held::Cold) {
            state.descriptor = Held::Lost;
        }
    }

    /// Counts a handle, if there is a descriptor that stays.
    pub(crate) fn add_handle(&self) -> bool {
        let mut state = self.lock();
        let open = matches!(state.descriptor, Held::Open(_));
        if open {
            state.open_handles = state.open_handles.saturating_add(1);
        }
        open
    }

    /// Counts a handle, and keeps `descriptor`, for which there is `room`, if there is none.
    pub(crate) fn add_handle_with(&self, descriptor: &Arc<Descriptor>, room: Room) {
        let mut state = self.lock();
        state.open_handles = state.open_handles.saturating_add(1);
        if matches!(state.descriptor, Held::Cold) {
            descriptor.room.get_or_init(|| room);
            state.descriptor = Held::Open(Arc::clone(descriptor));
        }
    }

    pub(crate) fn remove_handle(&self) {
        let mut state = self.lock();
        state.open_handles = state.open_handles.saturating_sub(1);
    }

    /// Whether there is a descriptor, without a handle that it is there for. This no longer counts
    /// as a use of it then.
    pub(crate) fn is_surplus(&self) -> bool {
        let state = self.lock();
        let surplus = state.open_handles == 0
            && !state.queued
            && matches!(&state.descriptor, Held::Open(open)
                if open.room.get().is_some_and(|room| room.inode.is_none()));
        if surplus {
            self.referenced.store(false, Ordering::Relaxed);
        }
        surplus
    }

    /// Whether it belongs in the queue and is not there. It counts as being there from then on.
    pub(crate) fn enqueue(&self) -> bool {
        let mut state = self.lock();
        let takes_room = matches!(&state.descriptor, Held::Open(open) if open.room.get().is_some());
        let belongs = takes_room && state.open_handles == 0;
        belongs && !std::mem::replace(&mut state.queued, true)
    }

    /// Takes it out of the queue, unless the verdict is to come back to it later.
    pub(crate) fn judge(&self, chance: Chance) -> Verdict {
        let mut state = self.lock();
        let verdict = match &state.descriptor {
            Held::Open(_) if state.open_handles != 0 => Verdict::No,
            Held::Open(descriptor) => {
                // Only who has the lock adds users.
                let in_use = Arc::strong_count(descriptor) > 1;
                let was_used = self.referenced.swap(false, Ordering::Relaxed);
                match in_use || (was_used && chance == Chance::Second) {
                    true => Verdict::Later,
                    false => Verdict::Perhaps(Arc::clone(descriptor)),
                }
            }
            _ => Verdict::No,
        };
        state.queued = matches!(verdict, Verdict::Later);
        verdict
    }

    /// Takes the descriptor that was judged out, unless it was used meanwhile.
    pub(crate) fn close(&self, judged: Arc<Descriptor>) -> Option<Descriptor> {
        let mut state = self.lock();
        // The one here and the one that was judged, and no user.
        let idle = state.open_handles == 0
            && matches!(&state.descriptor, Held::Open(open) if Arc::strong_count(open) == 2)
            && !self.referenced.load(Ordering::Relaxed);
        if !idle {
            return None;
        }
        let taken = std::mem::replace(&mut state.descriptor, Held::Cold);
        drop(taken);
        Arc::into_inner(judged)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
