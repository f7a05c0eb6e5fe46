use std::sync::atomic::{AtomicBool, Ordering};

use virtio_fs_device::{Event, Interrupt};

/// How the device interrupts the driver, from the activation to the reset.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// Of each queue, where the driver has assigned a vector.
    pub(crate) queues: Vec<Option<Event>>,
    /// For changes of the configuration.
    pub(crate) config: Option<Event>,
    needs_reset: AtomicBool,
}

impl Interrupts {
    pub(crate) fn new(queues: Vec<Option<Event>>, config: Option<Event>) -> Self {
        Self {
            queues,
            config,
            needs_reset: AtomicBool::new(false),
        }
    }

    /// Whether the driver is to be told that only a reset helps.
    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }
}

impl Interrupt for Interrupts {
    fn signal_queue(&self, index: u16) {
        signal(self.queue_event(index));
    }

    fn signal_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        signal(self.config.clone());
    }

    fn queue_event(&self, index: u16) -> Option<Event> {
        self.queues.get(usize::from(index))?.clone()
    }
}

fn signal(event: Option<Event>) {
    if let Some(event) = event
        && let Err(error) = event.signal()
    {
        tracing::error!(%error, "the guest misses an interrupt");
    }
}
