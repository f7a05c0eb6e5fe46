use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_fs_device::{Event, Interrupt};

/// The events by which a front-end's driver is interrupted. The daemon has them, too, and signals them
/// itself.
pub(super) struct Interrupts {
    queues: Mutex<Vec<Events>>,
    /// What a daemon signals of a queue whose driver wants no interrupts.
    nobody: Event,
    /// How often the device was to be reset.
    failures: AtomicU64,
}

#[derive(Clone, Default)]
struct Events {
    call: Option<Event>,
    error: Option<Event>,
}

impl Interrupts {
    /// Those of a front-end that has said nothing of its `queues` yet.
    pub(super) fn new(queues: usize, nobody: Event) -> Self {
        Self {
            queues: Mutex::new(vec![Events::default(); queues]),
            nobody,
            failures: AtomicU64::new(0),
        }
    }

    /// Sets what queue `index` interrupts by; nothing, where its driver polls.
    pub(super) fn set_call(&self, index: u16, call: Option<Event>) {
        if let Some(queue) = self.lock().get_mut(usize::from(index)) {
            queue.call = call;
        }
    }

    /// Sets how the front-end learns that queue `index` is broken.
    pub(super) fn set_error(&self, index: u16, error: Option<Event>) {
        if let Some(queue) = self.lock().get_mut(usize::from(index)) {
            queue.error = error;
        }
    }

    fn call(&self, index: u16) -> Option<Event> {
        self.lock().get(usize::from(index))?.call.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Events>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interrupt for Interrupts {
    fn signal_queue(&self, index: u16) {
        if let Some(call) = self.call(index) {
            signal(&call);
        }
    }

    /// The protocol has no more to say of a device than that its rings are in error. It is logged ever
    /// more rarely, as a driver can break its rings as often as it likes.
    fn signal_needs_reset(&self) {
        let count = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        if count.is_power_of_two() {
            tracing::error!(
                count,
                "the device lost what its driver relies on: it works again when the guest has reset it"
            );
        }
        let queues = self.lock().clone();
        for error in queues.iter().filter_map(|queue| queue.error.as_ref()) {
            signal(error);
        }
    }

    fn queue_event(&self, index: u16) -> Option<Event> {
        Some(self.call(index).unwrap_or_else(|| self.nobody.clone()))
    }
}

fn signal(event: &Event) {
    if let Err(error) = event.signal() {
        tracing::debug!(%error, "an event of the front-end's cannot be signalled");
    }
}
