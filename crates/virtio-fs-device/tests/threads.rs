//! What is left of a device when it is dropped: nothing.

mod support;

use support::*;

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
}
