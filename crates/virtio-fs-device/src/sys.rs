//! The one thing that the safe interfaces leave out.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`, which gives it up as a number only.
pub(crate) fn descriptor_of(event: EventFd) -> OwnedFd {
    let descriptor = event.into_raw_fd();
    // SAFETY: `event` owned the descriptor, which is therefore open and wants only to be closed, and
    // `into_raw_fd` gave the ownership up: nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
