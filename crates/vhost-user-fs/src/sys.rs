//! A descriptor that the framework takes and does not give back.

#![allow(unsafe_code, reason = "a raw descriptor is taken back into ownership")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// An event that was handed to a `VringEpollHandler`, which turns it into a raw descriptor and
/// never closes it (vhost-user-backend 0.24). Closed when this is dropped, if it is still open.
#[derive(Debug)]
pub(crate) struct LentEvent {
    fd: RawFd,
    /// What the kernel calls the event that `fd` refers to.
    id: Option<String>,
}

impl LentEvent {
    /// `fd` is about to be handed over.
    pub(crate) fn new(fd: RawFd) -> Self {
        Self {
            fd,
            id: event_id(fd),
        }
    }
}

impl Drop for LentEvent {
    fn drop(&mut self) {
        if self.id.is_some() && self.id == event_id(self.fd) {
            // SAFETY: the number still refers to the event that was handed over: its id, which the
            // kernel gives to one event only, is that of then. Whoever took it forgot that it owns
            // it, and the threads that use it have ended, so nobody else closes or uses it.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

/// The line that tells the event's id (proc_pid_fdinfo(5); Linux 5.2).
fn event_id(fd: RawFd) -> Option<String> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let line = info.lines().find(|line| line.starts_with("eventfd-id:"))?;
    Some(line.to_owned())
}
