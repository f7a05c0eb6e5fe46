use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
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
    /// # Errors
    /// It is no eventfd.
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How often it was signalled since this was last asked. 0 where it does not wait and was not; one
    /// that was made without `EFD_NONBLOCK` waits.
    pub fn take(&self) -> u64 {
        let mut count = [0; size_of::<u64>()];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }
}

impl Event {
    /// Whether it is signalled; it stays so.
    pub(crate) fn is_signalled(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
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
