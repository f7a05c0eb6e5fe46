use std::time::Duration;

/// How a device is brought up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of request queues, beside hiprio. Default 1.
    pub request_queues: u16,
    /// Descriptors per ring, a power of two. Default 512, as much as 1 MiB of data needs
    /// ([`Limits`](crate::Limits)).
    pub queue_size: u16,
    /// Bytes of data that can be in flight on each request queue. Default 64 MiB.
    pub data_memory: usize,
    /// In how many regions the memory is announced to the back-end, 1 to 8. They adjoin, and what
    /// is moved by a request of 64 KiB or more lies in all of them. Default 1.
    pub memory_regions: usize,
    /// What the memory is made of. Default [`Backing::Shared`].
    pub backing: Backing,
    /// Whether VIRTIO_RING_F_EVENT_IDX is used where it is offered. Default yes.
    pub event_idx: Offered,
    /// Whether VIRTIO_RING_F_INDIRECT_DESC is used where it is offered. Default yes.
    pub indirect: Offered,
    /// Whether the back-end keeps record of what is in flight, where it offers to
    /// (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD): then
    /// [`Connection::reconnect`](crate::Connection::reconnect) loses nothing. Default no.
    pub inflight: Offered,
    /// How long an interrupt takes to arrive: the driver stays busy for that long after a call
    /// before it looks at the used ring. With a virtual machine that is the time until the guest's
    /// handler runs, in which the device finds nothing more to do and goes to sleep; without it a
    /// benchmark of single requests measures a device that never slept. Default zero.
    pub interrupt_delay: Duration,
    /// How long the driver stays on its processor, looking for the interrupt, before it sleeps:
    /// KVM's halt polling, for 200 us by default (`halt_poll_ns`). As there, a thread that wants
    /// the processor gets it in between. The device is asked for interrupts just the same, and
    /// pays for them. That the back-end is gone is noticed only afterwards. Default zero.
    pub halt_poll: Duration,
    /// How long the back-end has for a vhost-user message, and for a request. Default 10 s.
    pub timeout: Duration,
}

/// What the guest's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A memfd, which a daemon can map, too.
    Shared,
    /// Anonymous memory, in one region: for a device in this process
    /// ([`Connection::driver`](crate::Connection::driver)).
    Private,
}

/// What to do about a feature that the device offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offered {
    /// Accept it.
    Accept,
    /// Withhold it: go without.
    Withhold,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_queues: 1,
            queue_size: 512,
            data_memory: 64 << 20,
            memory_regions: 1,
            backing: Backing::Shared,
            event_idx: Offered::Accept,
            indirect: Offered::Accept,
            inflight: Offered::Withhold,
            interrupt_delay: Duration::ZERO,
            halt_poll: Duration::ZERO,
            timeout: Duration::from_secs(10),
        }
    }
}
