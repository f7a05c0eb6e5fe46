use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use vmm_sys_util::eventfd::EventFd;

use crate::sys;

/// An eventfd(2): a kick of the driver's, or an interrupt on its way to the guest. Clones share the
/// descriptor.
///
/// Made of what a VMM has: an [`EventFd`] of vmm-sys-util, or any descriptor of an eventfd.
#[derive(Debug, Clone)]
pub struct Event(Arc<OwnedFd>);

impl Event {
    /// A new one, whose reads do not wait.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(event.into())
    }

    /// Signals whoever waits for it. One that is signalled already stays so.
    ///
    /// Whoever else has the descriptor, such as a daemon, can fill it up and have writes wait for room:
    /// without room it is left as it is. One that is filled up at that very moment, and had
    /// `O_NONBLOCK` taken away, is waited for until somebody reads it, which may be nobody: Linux has no
    /// write to an eventfd that does not wait. Calls of a device that signal what its daemon has, too,
    /// make room meanwhile; a VMM that signals a kick itself, rather than have KVM do it, trusts the
    /// daemon so far.
    ///
    /// # Errors
    /// It is no eventfd.
    pub fn signal(&self) -> io::Result<()> {
        while self.has_room() {
            match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::AGAIN) => break,
                // Whether it was waited for or not: it may have been filled up.
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// How often it was signalled since this was last asked, without waiting.
    pub fn take(&self) -> u64 {
        /// Where the file is, as an eventfd is nowhere (`preadv2(2)`).
        const HERE: u64 = u64::MAX;
        let mut count = [0; size_of::<u64>()];
        let into = &mut [IoSliceMut::new(&mut count)];
        let read = match preadv2(&self.0, into, HERE, ReadWriteFlags::NOWAIT) {
            // Linux before 5.8.
            Err(Errno::OPNOTSUPP) if self.is_signalled() => rustix::io::read(&self.0, &mut count),
            read => read,
        };
        read.map_or(0, |_| u64::from_ne_bytes(count))
    }

    /// Whether it is signalled; it stays so.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        self.is_ready_for(PollFlags::IN)
    }
}

impl Event {
    /// Whether it could be signalled once more without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.is_ready_for(PollFlags::OUT)
    }

    fn is_ready_for(&self, flags: PollFlags) -> bool {
        let mut fds = [PollFd::new(&self.0, flags)];
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(count) => return count > 0,
                Err(Errno::INTR) => {}
                // Whatever is done with it says what is wrong.
                Err(_) => return true,
            }
        }
    }
}

impl Event {
    /// The descriptor, for a thread that waits for it.
    #[cfg(feature = "in-process")]
    pub(crate) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Event {
    fn from(event: OwnedFd) -> Self {
        Self(Arc::new(event))
    }
}

impl From<File> for Event {
    fn from(event: File) -> Self {
        OwnedFd::from(event).into()
    }
}

impl From<EventFd> for Event {
    fn from(event: EventFd) -> Self {
        sys::descriptor_of(event).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_does_not_wait() {
        let event = Event::new().unwrap();
        assert_eq!((event.take(), event.is_signalled()), (0, false));
        event.signal().unwrap();
        event.signal().unwrap();
        assert!(event.is_signalled());
        assert_eq!((event.take(), event.take()), (2, 0));
    }

    #[test]
    fn nobody_who_shares_it_can_have_it_wait() {
        // As it is made without EFD_NONBLOCK, or by whoever takes that away.
        let event = Event::from(EventFd::new(0).unwrap());
        assert_eq!(event.take(), 0);
        let most = (u64::MAX - 1).to_ne_bytes();
        rustix::io::write(&event, &most).unwrap();
        event.signal().unwrap();
        assert_eq!(event.take(), u64::MAX - 1);
    }
}
