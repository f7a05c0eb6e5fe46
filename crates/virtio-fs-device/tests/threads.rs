//! What is left of a device when it is dropped: nothing.

mod support;

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::time::Duration;

use support::fake::{self, Fault};
use support::*;
use virtio_fs_device::{Device, DeviceConfig, Error, VhostUser};

/// A message that comes while the device is activated.
const HANGS_AT: usize = 16;

fn monitors() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.trim() == "virtio-fs")
        .count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The only test of this program: it counts what belongs to the process.
#[test]
fn a_device_has_one_thread_and_leaves_none() {
    let place = Place::new();
    let daemon = place.daemon();
    let before = descriptors();
    for _ in 0..3 {
        let mut device = device(&place);
        eventually("it runs", || monitors() == 1);
        let (mount, machine) = Guest::new(&device, Calls::Relayed).start(&mut device);
        assert_eq!(monitors(), 1);
        drop(device);
        eventually("none is left", || monitors() == 0);
        drop((mount, machine));
    }
    eventually("nothing is open", || descriptors() <= before);
    // Nor while it looks for a daemon.
    let device = device(&place);
    drop(daemon);
    eventually("it is gone", || !device.status().connected);
    drop(device);
    eventually("none is left", || monitors() == 0);
    // Nor of one whose daemon hangs in the midst of a call,
    let (ours, theirs) = UnixStream::pair().unwrap();
    let hanging = std::thread::spawn(move || fake::serve(theirs, Fault::Silence, HANGS_AT));
    let first = Mutex::new(Some(ours));
    let mut daemon = VhostUser::by(move || {
        let first = first.lock().unwrap().take();
        first.ok_or(std::io::ErrorKind::ConnectionRefused.into())
    });
    daemon.timeouts.message = Duration::from_millis(100);
    let mut device = Device::vhost_user(&DeviceConfig::default(), daemon).unwrap();
    let machine = Guest::new(&device, Calls::Relayed).machine;
    device.ack_features(machine.features).unwrap();
    let error = device.activate(machine.activation()).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    drop(device);
    eventually("none is left", || monitors() == 0);
    assert_eq!(hanging.join().unwrap().len(), HANGS_AT + 1);
    drop(machine);
    // nor of one that waits for what a daemon says which accepts the connection and no more.
    let daemon = place.daemon();
    let device = support::device(&place);
    drop(daemon);
    let silent = UnixListener::bind(place.socket()).unwrap();
    let connection = silent.accept().unwrap();
    drop(device);
    eventually("none is left", || monitors() == 0);
    drop((connection, silent));
    eventually("nothing is open", || descriptors() < before);
}
