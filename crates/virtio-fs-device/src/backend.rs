//! What serves a device: a daemon over a socket, or threads of this process.

use std::fmt;
use std::ops::Range;

use virtio_fs_config::ConfigSpace;

use crate::saved::ActiveState;
use crate::{Activation, Capabilities, Error, QueueSetup, WindowStatus};

/// What a back-end has to offer, from when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// Features that the driver may accept.
    pub(crate) features: u64,
    /// What the driver reads.
    pub(crate) config_space: ConfigSpace,
    /// Most descriptors of each queue, hiprio first.
    pub(crate) queue_sizes: Vec<u16>,
}

/// Serves the requests of a device.
///
/// [`Device`](crate::Device) calls it in a right order only, as the table of states has it, and
/// has checked the state before. An implementation notes in its
/// [`Health`](crate::status::Health) that a call succeeded, while nothing else can happen to it, and
/// what happens to it in between. Every call returns in bounded time. Dropping it stops serving, and
/// leaves no thread.
pub(crate) trait Backend<M>: Send + Sync + fmt::Debug {
    fn offer(&self) -> &Offer;

    fn capabilities(&self) -> Capabilities;

    /// How the DAX window is, where there is one.
    fn window(&self) -> Option<WindowStatus>;

    /// Starts serving queues that were never served.
    fn activate(&mut self, features: u64, activation: Activation<M>) -> Result<(), Error>;

    /// Forgets the activation and everything that the driver did. What fails of it is up to the
    /// back-end to make good before the next activation: the driver has no way to learn of it.
    fn reset(&mut self) -> Result<(), Error>;

    /// Stops serving once what is in flight is done; the memory is not written after that.
    fn pause(&mut self) -> Result<(), Error>;

    /// Goes on after a pause, or a restore.
    fn resume(&mut self) -> Result<(), Error>;

    /// The guest's memory from now on. For what comes after this, it is all that there is.
    fn update_memory(&mut self, memory: M) -> Result<(), Error>;

    /// Serves one more queue, from an entry of its available ring on.
    fn start_queue(&mut self, queue: QueueSetup, next_avail: u16) -> Result<(), Error>;

    /// Serves a queue no more, and returns where it is to go on.
    fn stop_queue(&mut self, index: u16) -> Result<u16, Error>;

    /// Asks anew what to signal for a queue.
    fn update_interrupt(&mut self, index: u16) -> Result<(), Error>;

    /// What it takes to go on in another process. Called while paused.
    fn save(&mut self) -> Result<ActiveState, Error>;

    /// Takes over what [`save`](Self::save) returned elsewhere, for queues that are as there, and is
    /// paused after that.
    fn restore(
        &mut self,
        features: u64,
        activation: Activation<M>,
        saved: &ActiveState,
    ) -> Result<(), Error>;

    /// Notes from now on which pages are written, active or not.
    fn start_dirty_log(&mut self) -> Result<(), Error>;

    fn stop_dirty_log(&mut self) -> Result<(), Error>;

    /// Calls `found` with the guest address of each page within `range` that was written since this
    /// was last asked.
    fn take_dirty(&mut self, range: Range<u64>, found: &mut dyn FnMut(u64));
}
