//! A guest whose VMM is the test.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use virtio_fs_device::{
    Activation, Device, Error, Event, Interrupt, QueueSetup, RingAddresses, SavedState, State,
};
use virtio_fs_guest::{Connection, Mount, MountOptions, Options, QueueLayout};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

pub(crate) type Memory = Arc<GuestMemoryMmap>;

/// More than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits until `holds`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who brings the interrupts to the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Calls {
    /// The daemon itself.
    Direct,
    /// The device's monitor.
    Relayed,
}

/// A driver, before it has begun.
pub(crate) struct Guest {
    pub(crate) connection: Connection,
    pub(crate) machine: Machine,
}

/// What a VMM has of a guest: its memory, where its queues are, and how to interrupt it.
pub(crate) struct Machine {
    pub(crate) features: u64,
    pub(crate) memory: Memory,
    pub(crate) interrupts: Arc<Interrupts>,
}

pub(crate) struct Interrupts {
    layouts: Vec<QueueLayout>,
    calls: Calls,
    pub(crate) needs_reset: AtomicUsize,
}

impl Interrupt for Interrupts {
    fn signal_queue(&self, index: u16) {
        self.layouts[usize::from(index)].call.write(1).unwrap();
    }

    fn signal_needs_reset(&self) {
        self.needs_reset.fetch_add(1, Ordering::SeqCst);
    }

    fn queue_event(&self, index: u16) -> Option<Event> {
        let call = &self.layouts[usize::from(index)].call;
        match self.calls {
            Calls::Direct => Some(call.try_clone().unwrap().into()),
            Calls::Relayed => None,
        }
    }
}

impl Guest {
    /// One that accepts of `device` what it can.
    pub(crate) fn new(device: &Device<Memory>, calls: Calls) -> Self {
        let options = Options {
            request_queues: device.queue_max_sizes().len() as u16 - 1,
            queue_size: 64,
            data_memory: 1 << 20,
            timeout: LONG,
            ..Options::default()
        };
        Self::with(device, calls, &options)
    }

    pub(crate) fn with(device: &Device<Memory>, calls: Calls, options: &Options) -> Self {
        let connection = Connection::driver(device.features(), options).unwrap();
        Self {
            machine: Machine {
                features: connection.features(),
                memory: Arc::new(connection.guest_memory().unwrap()),
                interrupts: Arc::new(Interrupts {
                    layouts: connection.layouts().unwrap(),
                    calls,
                    needs_reset: AtomicUsize::new(0),
                }),
            },
            connection,
        }
    }

    /// Activates the device and mounts.
    pub(crate) fn start(self, device: &mut Device<Memory>) -> (Mount, Machine) {
        self.machine.start(device);
        let mount = self.connection.mount(&MountOptions::default()).unwrap();
        (mount, self.machine)
    }
}

impl Machine {
    pub(crate) fn activation(&self) -> Activation<Memory> {
        Activation {
            memory: Arc::clone(&self.memory),
            queues: self
                .interrupts
                .layouts
                .iter()
                .zip(0..)
                .map(|(layout, index)| QueueSetup {
                    index,
                    ring: RingAddresses {
                        size: layout.size,
                        descriptors: GuestAddress(layout.descriptors),
                        avail: GuestAddress(layout.available),
                        used: GuestAddress(layout.used),
                    },
                    kick: layout.kick.try_clone().unwrap().into(),
                })
                .collect(),
            interrupt: Arc::clone(&self.interrupts) as Arc<dyn Interrupt>,
        }
    }

    pub(crate) fn kicks(&self) -> Vec<Event> {
        let kick = |layout: &QueueLayout| layout.kick.try_clone().unwrap().into();
        self.interrupts.layouts.iter().map(kick).collect()
    }

    /// Does what a driver does until `DRIVER_OK`.
    pub(crate) fn start(&self, device: &mut Device<Memory>) {
        device.ack_features(self.features).unwrap();
        assert_eq!(device.state(), State::Negotiated);
        device.activate(self.activation()).unwrap();
        assert_eq!(device.state(), State::Active);
    }

    /// Does what a driver does after it reset the device.
    pub(crate) fn start_anew(&self, device: &mut Device<Memory>, mount: &mut Mount) {
        mount.connection().reset().unwrap();
        self.start(device);
        mount.remount(&MountOptions::default()).unwrap();
    }

    /// Has `device` go on as the one that was saved.
    pub(crate) fn restore(
        &self,
        device: &mut Device<Memory>,
        saved: &SavedState,
    ) -> Result<(), Error> {
        let interrupt = Arc::clone(&self.interrupts) as Arc<dyn Interrupt>;
        device.restore(saved, Arc::clone(&self.memory), &self.kicks(), interrupt)
    }

    /// The guest's memory, and more.
    pub(crate) fn plugged(&self) -> Memory {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let (start, file) = (GuestAddress(1 << 40), FileOffset::new(file, 0));
        let region = GuestRegionMmap::from_range(start, 1 << 20, Some(file)).unwrap();
        Arc::new(self.memory.insert_region(Arc::new(region)).unwrap())
    }

    pub(crate) fn resets_needed(&self) -> usize {
        self.interrupts.needs_reset.load(Ordering::SeqCst)
    }
}
