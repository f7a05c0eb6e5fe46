use crate::Event;

/// How a device interrupts its driver: implemented by the VMM's transport, for as long as the device
/// is active.
///
/// Called from threads of the device, with no lock of it held that anything but a reset waits for,
/// and possibly while the VMM is in a call of the [`Device`](crate::Device)'s, or by that call
/// itself: an implementation must not call the device, nor wait for a lock that is held while it is
/// called.
pub trait Interrupt: Send + Sync {
    /// Queue `index` has used buffers.
    fn signal_queue(&self, index: u16);

    /// The device lost what the driver relies on: set `DEVICE_NEEDS_RESET` (0x40) in the device
    /// status, then interrupt the driver as for a change of the configuration space (virtio 1.x,
    /// section 2.1.1). That never changes otherwise. What came to pass before a reset is not told
    /// after it.
    fn signal_needs_reset(&self);

    /// What to signal instead of [`signal_queue`](Self::signal_queue), such as KVM's irqfd: a daemon
    /// then does so itself, and no thread of the VMM has a part in a request. `None` where only
    /// the VMM can raise the interrupt. Asked when the queue is started: what it stands for
    /// may change later, another event is asked for by
    /// [`Device::update_interrupt`](crate::Device::update_interrupt).
    fn queue_event(&self, index: u16) -> Option<Event> {
        let _ = index;
        None
    }
}
