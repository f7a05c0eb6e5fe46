//! A daemon of our own on a thread, and a guest whose VMM is the test.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuse_fs::{Blocking, MemFs, Outcome, PayloadSink, PayloadSource, Serve, Session};
use tempfile::TempDir;
use vhost_user_fs::{Backend, BackendConfig, DaemonError, StopHandle};
use virtio_fs_device::{
    Activation, Device, DeviceConfig, Event, Interrupt, QueueSetup, RingAddresses, State, VhostUser,
};
use virtio_fs_guest::{Connection, Mount, MountOptions, Options, QueueLayout};
use virtio_fs_queue::{Polling, Pool};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub(crate) type Memory = Arc<GuestMemoryMmap>;

pub(crate) const TAG: &str = "test";
pub(crate) const REQUEST_QUEUES: u16 = 2;
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

/// Where daemons are found, one after the other.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A daemon that serves a filesystem of its own, in memory.
    pub(crate) fn daemon(&self) -> Daemon {
        self.serve(Arc::new(Session::new(MemFs::new())))
    }

    pub(crate) fn serve(&self, filesystem: Arc<dyn Serve>) -> Daemon {
        Daemon::start(&self.socket(), filesystem, TAG)
    }
}

/// A daemon on a thread, until it is dropped.
pub(crate) struct Daemon {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
    socket: PathBuf,
}

impl Daemon {
    pub(crate) fn start(socket: &Path, filesystem: Arc<dyn Serve>, tag: &str) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let backend = Backend::new(BackendConfig {
            filesystem,
            tag: Some(tag.parse().unwrap()),
            request_queues: Some(REQUEST_QUEUES),
            queue_affinity: None,
            pool: Arc::new(Pool::new(2)),
            polling: Arc::new(Polling::never()),
        })
        .unwrap();
        let daemon = vhost_user_fs::Daemon::new(backend, listener).unwrap();
        Self {
            stop: daemon.stop_handle(),
            thread: Some(std::thread::spawn(move || daemon.run())),
            socket: socket.to_owned(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).unwrap();
        self.stop.stop();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// A filesystem that knows after a connection ends what it knew before: what a daemon is that keeps
/// its state when it is killed.
pub(crate) struct Keeping(pub(crate) Session<MemFs>);

impl Serve for Keeping {
    fn serve(
        &self,
        message: &[u8],
        payload: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        self.0.serve(message, payload, sink, reply, blocking)
    }

    fn reset(&self) {}
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

    fn signal_config(&self) {}

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

    pub(crate) fn resets_needed(&self) -> usize {
        self.interrupts.needs_reset.load(Ordering::SeqCst)
    }
}

/// A device that is served by whoever listens at `place`, and takes its tag from there.
pub(crate) fn device(place: &Place) -> Device<Memory> {
    Device::vhost_user(&DeviceConfig::default(), VhostUser::new(place.socket())).unwrap()
}
