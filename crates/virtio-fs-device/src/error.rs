use std::io;
use std::time::Duration;
use std::{error, fmt};

use crate::{Call, MAX_QUEUE_SIZE, MAX_REQUEST_QUEUES, State};

/// Why a call failed. What it leaves the device in says the call's documentation; unless that says
/// otherwise, as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call is not for this state: see the table of [`Device`](crate::Device).
    #[error("{call} is not possible: the device is {state}")]
    WrongState {
        /// What was asked.
        call: Call,
        /// Where the device was; [`State::Disconnected`] where the call needs a daemon, and else what
        /// is beneath that.
        state: State,
    },
    /// No power of two, or too large.
    #[error("a queue has a power of two of descriptors, at most {MAX_QUEUE_SIZE}, not {0}")]
    QueueSize(u16),
    /// None, or too many.
    #[error("a device has 1 to {MAX_REQUEST_QUEUES} request queues, not {0}")]
    RequestQueues(u32),
    /// The daemon serves fewer queues than the device is to have.
    #[error("the daemon serves {there} queues, and {wanted} are wanted, hiprio among them")]
    TooManyQueues {
        /// As many as the device is to have.
        wanted: u16,
        /// As many as the daemon has.
        there: u64,
    },
    /// Neither the VMM nor the daemon names the device.
    #[error("the device has no tag: set DeviceConfig::tag, or start the daemon with --tag")]
    NoTag,
    /// The daemon's configuration space is not one that a driver takes.
    #[error("the daemon's configuration space cannot be used: {0}")]
    ConfigSpace(virtio_fs_config::ConfigSpaceError),
    /// The driver accepts what was not offered.
    #[error("the driver accepts features that were not offered: {0:#x}")]
    UnknownFeatures(u64),
    /// The driver, or the daemon, lacks features without which there can be no device.
    #[error("features are missing that are needed: {0:#x}")]
    MissingFeatures(u64),
    /// The queue is none of the device's, or named twice.
    #[error("queue {0} is not there, or named twice")]
    Queue(u16),
    /// The driver set a queue up as none can be.
    #[error("queue {index} cannot be served: {why}")]
    Ring {
        /// Which one.
        index: u16,
        /// What is wrong with it.
        why: Box<dyn error::Error + Send + Sync>,
    },
    /// The driver broke a rule of a queue's ring, which is served no more. It is told that the device
    /// needs a reset; the other queues go on until then.
    #[error("the driver broke queue {0}, which is served no more until it resets the device")]
    Broken(u16),
    /// A daemon cannot have the guest's memory, as a region of it is not a mapping of a file.
    #[error("the guest's memory at {0:#x} is not a mapping of a file: a daemon cannot share it")]
    NotShared(u64),
    /// More regions than the daemon takes, or none.
    #[error("the daemon takes 1 to {most} regions of memory, not {there}")]
    Regions {
        /// As many as there are.
        there: usize,
        /// As many as it takes.
        most: usize,
    },
    /// The daemon, or the filesystem, does not offer what it takes.
    #[error("what is behind the device does not offer {0}")]
    Unsupported(&'static str),
    /// The daemon is gone, or was given up. One that listens where it did is gone on with.
    #[error("cannot {during}: the daemon is gone")]
    Disconnected {
        /// What it was to do.
        during: During,
    },
    /// The daemon did not do it in time, and was given up.
    #[error("cannot {during}: the daemon took more than {limit:?}")]
    Timeout {
        /// What it was to do.
        during: During,
        /// How long it had.
        limit: Duration,
    },
    /// A filesystem of this process has not returned from a call, or not forgotten what the driver
    /// did. A device whose queues were to stop has failed by that; one that was to be saved can go
    /// on. After a reset, or where it was to be restored, it can be used again once the filesystem
    /// has returned.
    #[error("cannot {during}: the filesystem has not returned from a call for {limit:?}")]
    Stuck {
        /// What waited for it.
        during: During,
        /// For how long.
        limit: Duration,
    },
    /// The daemon says no.
    #[error("cannot {during}: the daemon refused")]
    Refused {
        /// What it was to do.
        during: During,
    },
    /// The daemon said what the protocol does not allow, and was given up.
    #[error("cannot {during}: the daemon broke the protocol: {rule}")]
    Protocol {
        /// What it was to do.
        during: During,
        /// The rule that it broke.
        rule: &'static str,
    },
    /// The daemon said on the back-end channel what the protocol does not allow, and was given up.
    #[error(
        "the daemon broke the protocol with message {request} on the back-end channel, while the \
         device was {state}: {rule}"
    )]
    BackChannel {
        /// The number of the message, as the specification has it.
        request: u32,
        /// Where the device was.
        state: State,
        /// The rule that it broke.
        rule: &'static str,
    },
    /// The guest has files mapped through the DAX window, which nobody could map elsewhere.
    #[error(
        "the device cannot be saved while the guest has {0} mappings in its DAX window: have it \
         unmount, or mount with dax=never"
    )]
    Mapped(usize),
    /// The DAX window is none.
    #[error("a DAX window has a number of whole pages, not {0} bytes")]
    WindowSize(u64),
    /// The system refused what it takes to talk with the daemon.
    #[error("cannot {during}: {source}")]
    Socket {
        /// What the daemon was to do.
        during: During,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What it was for.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A saved state is of a version that this crate does not know.
    #[error("the state was saved as version {0}, which is not known here")]
    StateVersion(u32),
    /// A saved state is not of this device, or damaged.
    #[error("the saved state does not fit the device: {0}")]
    State(&'static str),
    /// The state of the daemon, or of the filesystem, is larger than it may be.
    #[error("the state of what is behind the device is larger than {0} bytes: raise the limit")]
    StateSize(u64),
    /// The daemon that is there now is another one than the guest knows.
    #[error("the daemon that came back differs: {0}")]
    Changed(&'static str),
}

/// What was going on when something went wrong with what is behind a device: for whoever looks for
/// the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct During {
    /// What it was to do.
    pub doing: &'static str,
    /// The message that it was told, or was to answer, by the name that the vhost-user specification
    /// has for it, without `VHOST_USER_`; `None` between two of them, and without a daemon.
    pub message: Option<&'static str>,
    /// Where the device was when the call was made, or when it happened of itself.
    pub state: State,
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            doing,
            message,
            state,
        } = self;
        match message {
            Some(message) => write!(f, "{doing} ({message}, the device is {state})"),
            None => write!(f, "{doing} (the device is {state})"),
        }
    }
}

impl Error {
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            doing,
            source: source.into(),
        }
    }
}
