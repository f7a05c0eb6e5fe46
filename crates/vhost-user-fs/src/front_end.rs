//! For programs that serve a front-end with something else than a [`Backend`](crate::Backend).
//!
//! A [`Daemon`](crate::Daemon) is generic over what it serves: a [`Service`] has a [`Handler`] for
//! each front-end, which is told what the front-end's messages say. What is wrong with them, or with
//! the descriptors that come with them, is dealt with before: messages that break off, that lack
//! descriptors for which the process has no room, or that User Mode Linux makes longer than they are.
//!
//! The messages and their types are those of the crate `vhost`.

use std::fs::File;

use vhost::vhost_user::{Result, VhostUserBackendReqHandlerMut};

pub use crate::event::{call, kick};
pub use crate::memory::{
    Change as MemoryChange, MAX_REGIONS, Memory, MemoryError, MemoryTable, SharedMemory,
};

/// What front-ends are served with, one after the other.
pub trait Service {
    /// What serves one of them. It is dropped when that one is gone.
    type Handler: Handler;

    /// Begins to serve a front-end.
    fn handler(&self) -> Self::Handler;
}

/// What one front-end is served with.
///
/// An error ends the connection, as it does in the `vhost` crate.
pub trait Handler: VhostUserBackendReqHandlerMut {
    /// Whether REPLY_ACK was agreed on: the front-end can ask for the result of any message.
    fn acknowledges(&self) -> bool;

    /// Whether anything is asked over the channel of [`set_channel`](Self::set_channel), so that
    /// answers may arrive there.
    fn asks(&self) -> bool {
        false
    }

    /// `VHOST_USER_SET_BACKEND_REQ_FD`. What arrives at the socket is not read, unless
    /// [`asks`](Self::asks) says so: it was shut down for that, as descriptors that are on the way
    /// there could hold the front-end's end of the connection, and nobody would see that it is gone.
    ///
    /// # Errors
    /// BACKEND_REQ was not agreed on.
    fn set_channel(&mut self, socket: File) -> Result<()>;
}
