//! The one thing that the safe interfaces leave out.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`, which only says its number.
pub(crate) fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: `event` owns the descriptor and closes it only when it is dropped, which the borrow
    // outlasts nowhere: the result borrows from `event`.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
