//! A daemon that dies, and the next one.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse_fs::{MemFs, Session};
use fuse_wire::NodeId;
use support::*;
use virtio_fs_device::{Device, DeviceConfig, Error, Recovery, State, VhostUser};
use virtio_fs_guest::MountOptions;

/// Far less than the back-off and the time-outs together.
const SOON: Duration = Duration::from_secs(3);

fn device_that(place: &Place, recovery: Recovery) -> Device<Memory> {
    let mut daemon = VhostUser::new(place.socket());
    daemon.recovery = recovery;
    Device::vhost_user(&DeviceConfig::default(), daemon).unwrap()
}

#[track_caller]
fn becomes(device: &Device<Memory>, state: State) {
    eventually(&state.to_string(), || device.state() == state);
}

#[test]
fn a_daemon_that_dies_before_it_is_used_is_replaced() {
    let place = Place::new();
    let first = place.daemon();
    let mut device = device(&place);
    drop(first);
    becomes(&device, State::Disconnected);
    assert!(!device.status().connected);
    let second = place.daemon();
    becomes(&device, State::New);
    device.ack_features(device.features()).unwrap();
    drop(second);
    becomes(&device, State::Disconnected);
    let _third = place.daemon();
    becomes(&device, State::Negotiated);
    assert_eq!(device.status().reconnects, 2);
    let (mut mount, _machine) = Guest::new(&device, Calls::Direct).start(&mut device);
    mount.getattr(NodeId::ROOT, None).unwrap();
}

#[test]
fn a_driver_can_start_while_there_is_no_daemon() {
    let place = Place::new();
    let first = place.daemon();
    let mut device = device(&place);
    drop(first);
    becomes(&device, State::Disconnected);
    let guest = Guest::new(&device, Calls::Relayed);
    device.ack_features(guest.machine.features).unwrap();
    device.activate(guest.machine.activation()).unwrap();
    assert_eq!(device.state(), State::Disconnected);
    let mounting = std::thread::spawn(move || {
        let mut mount = guest.connection.mount(&MountOptions::default()).unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!mounting.is_finished());
    let _second = place.daemon();
    mounting.join().unwrap();
    assert_eq!(device.state(), State::Active);
}

#[test]
fn a_driver_whose_daemon_died_is_told_to_reset() {
    let place = Place::new();
    let first = place.daemon();
    let mut device = device(&place);
    let capabilities = device.status().capabilities;
    assert!(capabilities.keeps_in_flight && !capabilities.survives_daemon);
    let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
    mount.getattr(NodeId::ROOT, None).unwrap();
    drop(first);
    becomes(&device, State::Failed);
    eventually("a reset is needed", || machine.resets_needed() == 1);
    let status = device.status();
    assert!(status.needs_reset && !status.connected);
    assert!(status.last_error.is_some());
    // The machine as a whole goes on.
    device.pause().unwrap();
    device.resume().unwrap();
    let _second = place.daemon();
    eventually("there is a daemon", || device.status().connected);
    assert_eq!(device.state(), State::Failed);
    device.reset().unwrap();
    machine.start_anew(&mut device, &mut mount);
    mount.getattr(NodeId::ROOT, None).unwrap();
    assert_eq!(machine.resets_needed(), 1);
}

#[test]
fn a_guest_does_not_notice_a_daemon_that_knows_what_the_last_one_did() {
    let place = Place::new();
    let filesystem = Arc::new(Keeping(Session::new(MemFs::new())));
    let mut daemon = Some(place.serve(filesystem.clone()));
    let mut device = device_that(&place, Recovery::Resume);
    assert!(device.status().capabilities.survives_daemon);
    let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
    let (entry, open) = mount.create(NodeId::ROOT, c"file", 2, 0o644).unwrap();
    for round in 0..5u8 {
        mount
            .write(entry.nodeid, open.fh, 0, &[round; 100])
            .unwrap();
        drop(daemon.take());
        becomes(&device, State::Disconnected);
        let reading = std::thread::spawn(move || {
            let mut data = [0; 100];
            let count = mount.read(entry.nodeid, open.fh, 0, &mut data).unwrap();
            assert_eq!(data[..count], [round; 100]);
            mount
        });
        daemon = Some(place.serve(filesystem.clone()));
        mount = reading.join().unwrap();
        becomes(&device, State::Active);
    }
    assert_eq!(machine.resets_needed(), 0);
    assert_eq!(device.status().reconnects, 5);
}

#[test]
fn nothing_waits_for_a_daemon_that_is_not_there() {
    let place = Place::new();
    let daemon = place.daemon();
    let mut device = device_that(&place, Recovery::Resume);
    drop(daemon);
    becomes(&device, State::Disconnected);
    let begin = Instant::now();
    device.pause().unwrap();
    device.resume().unwrap();
    let machine = Guest::new(&device, Calls::Direct).machine;
    device.ack_features(machine.features).unwrap();
    device.activate(machine.activation()).unwrap();
    device.pause().unwrap();
    let error = device.save().unwrap_err();
    assert!(matches!(
        error,
        Error::WrongState {
            state: State::Disconnected,
            ..
        }
    ));
    device.update_memory(Arc::clone(&machine.memory)).unwrap();
    device.resume().unwrap();
    device.reset().unwrap();
    assert_eq!(device.state(), State::Disconnected);
    drop(device);
    assert!(begin.elapsed() < SOON);
}

#[test]
fn another_daemon_is_not_taken_for_the_one_that_was_there() {
    let place = Place::new();
    let first = place.daemon();
    let device = device(&place);
    drop(first);
    let other = Daemon::start(
        &place.socket(),
        Arc::new(Session::new(MemFs::new())),
        "other",
    );
    eventually("the other one is refused", || {
        let status = device.status();
        matches!(status.last_error.as_deref(), Some(Error::Changed(_)))
    });
    assert_eq!(device.state(), State::Disconnected);
    drop(other);
    let _same = place.daemon();
    becomes(&device, State::New);
}

#[test]
fn a_paused_device_stays_paused() {
    let place = Place::new();
    let filesystem = Arc::new(Keeping(Session::new(MemFs::new())));
    let first = place.serve(filesystem.clone());
    let mut device = device_that(&place, Recovery::Resume);
    assert!(device.status().capabilities.survives_daemon);
    let (mut mount, _machine) = Guest::new(&device, Calls::Relayed).start(&mut device);
    device.pause().unwrap();
    drop(first);
    becomes(&device, State::Disconnected);
    let _second = place.serve(filesystem);
    becomes(&device, State::Paused);
    device.resume().unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
}
