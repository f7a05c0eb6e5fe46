//! Queues that are started and stopped one by one, while the device is active.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fuse_fs::{MemFs, Session};
use fuse_wire::NodeId;
use support::*;
use virtio_fs_device::{
    Activation, Device, DeviceConfig, Error, Event, Interrupt, QueueSetup, Recovery, State,
    VhostUser,
};
use virtio_fs_guest::MountOptions;

/// Interrupts by the device's own thread at first, later by the daemon.
struct Changing {
    own: Arc<Interrupts>,
    direct: AtomicBool,
}

impl Interrupt for Changing {
    fn signal_queue(&self, index: u16) {
        self.own.signal_queue(index);
    }

    fn signal_needs_reset(&self) {
        self.own.signal_needs_reset();
    }

    fn queue_event(&self, index: u16) -> Option<Event> {
        let direct = self.direct.load(Ordering::SeqCst);
        direct.then(|| self.own.queue_event(index)).flatten()
    }
}

/// A device that is active without any queue, and its guest.
fn active(place: &Place) -> (Device<Memory>, Guest, Arc<Changing>) {
    let mut options = VhostUser::new(place.socket());
    options.recovery = Recovery::Resume;
    let mut device = Device::vhost_user(&DeviceConfig::default(), options).unwrap();
    let guest = Guest::new(&device, Calls::Direct);
    let interrupt = Arc::new(Changing {
        own: Arc::clone(&guest.machine.interrupts),
        direct: AtomicBool::new(false),
    });
    device.ack_features(guest.machine.features).unwrap();
    let activation = Activation {
        queues: Vec::new(),
        interrupt: Arc::clone(&interrupt) as Arc<dyn Interrupt>,
        ..guest.machine.activation()
    };
    device.activate(activation).unwrap();
    (device, guest, interrupt)
}

fn queues(guest: &Guest) -> Vec<QueueSetup> {
    guest.machine.activation().queues
}

#[test]
fn queues_are_started_and_stopped_one_by_one() {
    let place = Place::new();
    let _daemon = place.daemon();
    let (mut device, guest, interrupt) = active(&place);
    let all = queues(&guest);
    for queue in &all {
        device.start_queue(queue.clone(), 0).unwrap();
    }
    assert!(matches!(
        device.start_queue(all[1].clone(), 0),
        Err(Error::Queue(1))
    ));
    let mut mount = guest.connection.mount(&MountOptions::default()).unwrap();
    for _ in 0..9 {
        mount.getattr(NodeId::ROOT, None).unwrap();
    }
    // The other way, in the midst of it.
    interrupt.direct.store(true, Ordering::SeqCst);
    device.update_interrupt(1).unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();

    // INIT and ten more.
    assert_eq!(device.stop_queue(1).unwrap(), 11);
    assert!(matches!(device.stop_queue(1), Err(Error::Queue(1))));
    assert!(matches!(device.update_interrupt(1), Err(Error::Queue(1))));
    assert_eq!(device.stop_queue(0).unwrap(), 0);
    mount.use_queue(1);
    mount.getattr(NodeId::ROOT, None).unwrap();
    device.start_queue(all[1].clone(), 11).unwrap();
    mount.use_queue(0);
    mount.getattr(NodeId::ROOT, None).unwrap();
    assert_eq!(device.state(), State::Active);

    device.pause().unwrap();
    for result in [
        device.start_queue(all[0].clone(), 0),
        device.stop_queue(1).map(drop),
        device.update_interrupt(1),
    ] {
        assert!(matches!(result, Err(Error::WrongState { .. })));
    }
}

#[test]
fn queues_come_and_go_while_no_daemon_is_there() {
    let place = Place::new();
    let filesystem = Arc::new(Keeping(Session::new(MemFs::new())));
    let first = place.serve(filesystem.clone());
    let (mut device, guest, interrupt) = active(&place);
    let all = queues(&guest);
    device.start_queue(all[0].clone(), 0).unwrap();
    device.start_queue(all[1].clone(), 0).unwrap();
    let mut mount = guest.connection.mount(&MountOptions::default()).unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();

    drop(first);
    eventually("it is gone", || device.state() == State::Disconnected);
    interrupt.direct.store(true, Ordering::SeqCst);
    device.update_interrupt(1).unwrap();
    device.start_queue(all[2].clone(), 0).unwrap();
    assert_eq!(device.stop_queue(1).unwrap(), 2);
    device.start_queue(all[1].clone(), 2).unwrap();

    let _second = place.serve(filesystem);
    for queue in [0, 1] {
        mount.use_queue(queue);
        mount.getattr(NodeId::ROOT, None).unwrap();
    }
    assert_eq!(interrupt.own.needs_reset.load(Ordering::SeqCst), 0);
}

/// Interrupts, but does not return from it while it is held up.
struct Slow {
    own: Arc<Interrupts>,
    held: Mutex<bool>,
    changed: Condvar,
    waits: AtomicBool,
}

impl Slow {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }
}

impl Interrupt for Slow {
    fn signal_queue(&self, index: u16) {
        self.own.signal_queue(index);
        let held = self.held.lock().unwrap();
        self.waits.store(*held, Ordering::SeqCst);
        // Where the test fails, nobody lets it go, but all wait for its end.
        drop(self.changed.wait_timeout_while(held, LONG, |held| *held));
    }

    fn signal_needs_reset(&self) {
        self.own.signal_needs_reset();
    }
}

#[test]
fn what_was_broken_before_a_reset_is_not_told_after_it() {
    let place = Place::new();
    let _daemon = place.daemon();
    let options = VhostUser::new(place.socket());
    let mut device = Device::vhost_user(&DeviceConfig::default(), options).unwrap();
    let guest = Guest::new(&device, Calls::Relayed);
    let interrupt = Arc::new(Slow {
        own: Arc::clone(&guest.machine.interrupts),
        held: Mutex::new(false),
        changed: Condvar::new(),
        waits: AtomicBool::new(false),
    });
    let start = |device: &mut Device<Memory>| {
        device.ack_features(guest.machine.features).unwrap();
        let interrupt = Arc::clone(&interrupt) as Arc<dyn Interrupt>;
        let activation = guest.machine.activation();
        device
            .activate(Activation {
                interrupt,
                ..activation
            })
            .unwrap();
    };
    start(&mut device);
    let mut mount = guest.connection.mount(&MountOptions::default()).unwrap();
    interrupt.hold(true);
    // Interrupts are asked for before the request: one that is answered sooner than the driver asks
    // for them does not cause any.
    let _ = mount.connection().request_queues()[0].raw();
    mount.getattr(NodeId::ROOT, None).unwrap();
    eventually("it interrupts", || interrupt.waits.load(Ordering::SeqCst));
    let mut queue = mount.connection().request_queues()[0].raw();
    queue.write_available_index(queue.available_index().wrapping_add(1000));
    queue.kick().unwrap();
    // The daemon says so, and nobody listens yet.
    std::thread::sleep(Duration::from_millis(200));
    device.reset().unwrap();
    interrupt.hold(false);
    mount.connection().reset().unwrap();
    start(&mut device);
    mount.remount(&MountOptions::default()).unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
    assert!(!device.status().needs_reset);
    assert_eq!(interrupt.own.needs_reset.load(Ordering::SeqCst), 0);
}

/// Loses the daemon while it is asked what to signal, and waits until the driver is told.
struct Losing {
    own: Arc<Interrupts>,
    daemon: Mutex<Option<Daemon>>,
    told: AtomicBool,
}

impl Interrupt for Losing {
    fn signal_queue(&self, index: u16) {
        self.own.signal_queue(index);
    }

    fn signal_needs_reset(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    fn queue_event(&self, _index: u16) -> Option<Event> {
        if let Some(daemon) = self.daemon.lock().unwrap().take() {
            drop(daemon);
            eventually("it is told", || self.told.load(Ordering::SeqCst));
        }
        None
    }
}

#[test]
fn whoever_is_asked_what_to_signal_holds_nothing_up() {
    type Ask = fn(&mut Device<Memory>, QueueSetup) -> Result<(), Error>;
    let ways: [Ask; 2] = [
        |device, queue| device.start_queue(queue, 0),
        |device, _| device.update_interrupt(1),
    ];
    for ask in ways {
        let place = Place::new();
        let daemon = place.daemon();
        let options = VhostUser::new(place.socket());
        let mut device = Device::vhost_user(&DeviceConfig::default(), options).unwrap();
        let guest = Guest::new(&device, Calls::Relayed);
        let interrupt = Arc::new(Losing {
            own: Arc::clone(&guest.machine.interrupts),
            daemon: Mutex::new(None),
            told: AtomicBool::new(false),
        });
        device.ack_features(guest.machine.features).unwrap();
        let mut queues = queues(&guest);
        let last = queues.pop().unwrap();
        let activation = Activation {
            queues,
            interrupt: Arc::clone(&interrupt) as Arc<dyn Interrupt>,
            ..guest.machine.activation()
        };
        device.activate(activation).unwrap();
        *interrupt.daemon.lock().unwrap() = Some(daemon);
        let error = ask(&mut device, last).unwrap_err();
        assert!(matches!(error, Error::WrongState { .. }), "{error}");
        assert_eq!(device.state(), State::Failed);
        device.reset().unwrap();
    }
}
