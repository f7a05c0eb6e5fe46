//! A device behaves the same, whatever is behind it.

#[path = "../support/mod.rs"]
mod support;

mod model;
mod plugged;
mod served;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuse_wire::NodeId;
use plugged::Plugged;
use served::*;
use support::*;
use virtio_fs_device::{Call, Error, State};
use virtio_fs_guest::Mount;
use vm_memory::GuestAddress;
use watch::*;

const READ_WRITE: u32 = 2;

/// Bytes that no other page of the guest has.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 7 + at / 251 + seed * 13) as u8 | 1)
        .collect()
}

/// Writes a file by one queue and reads it by another.
fn work(mount: &mut Mount, name: &str, seed: usize) {
    let name = std::ffi::CString::new(name).unwrap();
    let data = pattern(seed, 10_000);
    mount.use_queue(seed % 2);
    let (entry, open) = mount
        .create(NodeId::ROOT, &name, READ_WRITE, 0o644)
        .unwrap();
    assert_eq!(
        mount.write(entry.nodeid, open.fh, 0, &data).unwrap(),
        data.len()
    );
    mount.use_queue((seed + 1) % 2);
    let mut read = vec![0; data.len()];
    assert_eq!(
        mount.read(entry.nodeid, open.fh, 0, &mut read).unwrap(),
        data.len()
    );
    assert!(read == data);
    mount.release(entry.nodeid, open.fh).unwrap();
    mount.forget(entry.nodeid, 1).unwrap();
    mount.unlink(NodeId::ROOT, &name).unwrap();
}

#[test]
fn a_guest_finds_the_device_and_works_on_it() {
    for served in Served::each() {
        let mut device = served.device();
        assert_eq!(device.state(), State::New);
        assert_eq!(device.device_type(), 26);
        assert_eq!(device.queue_max_sizes(), [1024; 3]);
        let mut space = [7; 44];
        device.read_config(0, &mut space);
        assert_eq!(&space[..5], b"test\0");
        assert_eq!(&space[36..], [2, 0, 0, 0, 0, 0, 0, 0]);
        let mut part = [7; 3];
        device.read_config(2, &mut part);
        assert_eq!(&part, b"st\0");
        device.read_config(u64::MAX, &mut part);
        assert_eq!(part, [0; 3]);
        device.write_config(0, b"x");
        let (mut mount, machine) = served.guest(&device).start(&mut device);
        work(&mut mount, "file", 1);
        assert_eq!(machine.resets_needed(), 0);
        let status = device.status();
        assert_eq!((status.state, status.connected), (State::Active, true));
        assert!(!status.needs_reset && status.last_error.is_none());
        assert!(status.capabilities.resets && status.capabilities.memory_slots);
    }
}

#[test]
fn features_are_checked() {
    for served in Served::each() {
        let mut device = served.device();
        let offered = device.features();
        assert_eq!(offered, 1 << 32 | 1 << 29 | 1 << 28);
        let unknown = device.ack_features(offered | 1 << 34).unwrap_err();
        assert!(matches!(unknown, Error::UnknownFeatures(0x4_0000_0000)));
        let legacy = device.ack_features(1 << 29).unwrap_err();
        assert!(matches!(legacy, Error::MissingFeatures(0x1_0000_0000)));
        assert_eq!(device.state(), State::New);
        device.ack_features(1 << 32).unwrap();
        device.ack_features(offered).unwrap();
    }
}

#[test]
fn it_is_paused_and_resumed_at_any_time() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut seed = 0;
                while !done.load(Ordering::SeqCst) {
                    work(&mut mount, "file", seed);
                    seed += 1;
                }
                seed
            });
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(3));
                device.pause().unwrap();
                assert_eq!(device.state(), State::Paused);
                let used = used_indexes(&machine);
                std::thread::sleep(Duration::from_millis(2));
                assert_eq!(used_indexes(&machine), used);
                device.resume().unwrap();
                assert_eq!(device.state(), State::Active);
            }
            done.store(true, Ordering::SeqCst);
            assert!(worker.join().unwrap() > 0);
        });
    }
}

#[test]
fn the_next_driver_finds_a_clean_session() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        for round in 0..3 {
            work(&mut mount, "file", round);
            let (entry, open) = mount
                .create(NodeId::ROOT, c"open", READ_WRITE, 0o644)
                .unwrap();
            if round == 1 {
                device.pause().unwrap();
            }
            device.reset().unwrap();
            assert_eq!(device.state(), State::Reset);
            machine.start_anew(&mut device, &mut mount);
            // What the last driver had open is not.
            mount
                .read(entry.nodeid, open.fh, 0, &mut [0; 8])
                .unwrap_err();
            mount.unlink(NodeId::ROOT, c"open").unwrap();
        }
    }
}

#[test]
fn memory_comes_and_goes_while_it_is_used() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        let more = Plugged::new(served.behind == Behind::Daemon, &machine.memory);
        for paused in [false, true] {
            assert_eq!(more.ask(&mut mount), 0, "nothing is there yet");
            if paused {
                device.pause().unwrap();
            }
            device.update_memory(more.memory.clone()).unwrap();
            if paused {
                device.resume().unwrap();
            }
            assert_eq!(more.ask(&mut mount), 16 + 104);
            work(&mut mount, "file", 3);
            device.update_memory(machine.memory.clone()).unwrap();
        }
        work(&mut mount, "file", 4);
    }
}

#[test]
fn memory_is_plugged_while_what_is_written_is_logged() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        if !device.status().capabilities.logs_dirty_pages {
            assert_eq!(served.behind, Behind::Daemon);
            continue;
        }
        let more = Plugged::new(served.behind == Behind::Daemon, &machine.memory);
        device.start_dirty_log().unwrap();
        device.update_memory(more.memory.clone()).unwrap();
        assert_eq!(more.ask(&mut mount), 16 + 104);
        let mut pages = 0;
        device.take_dirty(more.range(), |_| pages += 1);
        assert_eq!(pages, 1);
    }
}

#[test]
fn a_ring_whose_memory_is_taken_away_is_served_when_it_is_back() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        let without = Plugged::alone(served.behind == Behind::Daemon);
        work(&mut mount, "file", 1);
        device.update_memory(without).unwrap();
        device.update_memory(machine.memory.clone()).unwrap();
        work(&mut mount, "file", 2);
    }
}

#[test]
fn a_guest_goes_on_in_another_process_with_its_open_files() {
    for behind in [Behind::Daemon, Behind::Process] {
        let served = Served::new(behind, Files::Directory);
        let (mut device, mut mount, machine) = served.mounted();
        if !device.status().capabilities.saves_state {
            assert_eq!(behind, Behind::Daemon);
            continue;
        }
        let (entry, open) = mount
            .create(NodeId::ROOT, c"open", READ_WRITE, 0o644)
            .unwrap();
        let data = pattern(5, 5000);
        mount.write(entry.nodeid, open.fh, 0, &data).unwrap();
        device.pause().unwrap();
        let saved = device.save().unwrap();
        assert!(saved.is_active());
        let text = serde_json::to_string(&saved).unwrap();
        drop(device);

        let next = served.again();
        let mut device = next.device();
        let saved = serde_json::from_str(&text).unwrap();
        machine.restore(&mut device, &saved).unwrap();
        assert_eq!(device.state(), State::Paused);
        device.resume().unwrap();
        let mut read = vec![0; data.len()];
        mount.read(entry.nodeid, open.fh, 0, &mut read).unwrap();
        assert!(read == data);
        mount.release(entry.nodeid, open.fh).unwrap();
        work(&mut mount, "file", 2);
    }
}

#[test]
fn what_is_written_is_in_the_log() {
    for served in Served::each() {
        let (mut device, mut mount, machine) = served.mounted();
        if !device.status().capabilities.logs_dirty_pages {
            assert_eq!(served.behind, Behind::Daemon);
            continue;
        }
        let data = pattern(9, 16 * 4096);
        let (entry, open) = mount
            .create(NodeId::ROOT, c"file", READ_WRITE, 0o644)
            .unwrap();
        mount.write(entry.nodeid, open.fh, 0, &data).unwrap();
        // The pages that this was in are used again.
        mount
            .write(entry.nodeid, open.fh, 1 << 20, &pattern(3, data.len()))
            .unwrap();
        assert!(pages_like(&machine, &data).is_empty());
        device.start_dirty_log().unwrap();
        mount
            .read(entry.nodeid, open.fh, 0, &mut vec![0; data.len()])
            .unwrap();
        // It is on.
        device.start_dirty_log().unwrap();
        device.pause().unwrap();
        let mut dirty = Vec::new();
        device.take_dirty(0..u64::MAX, |page| dirty.push(page));
        let read = pages_like(&machine, &data);
        assert_eq!(read.len(), data.len() / 4096);
        for page in read {
            assert!(dirty.contains(&page), "{page:#x} is not in {dirty:x?}");
        }
        let used = rings(&machine)[1].used.0;
        assert!(dirty.contains(&(used & !0xfff)));
        assert!(dirty.len() < 64, "{dirty:x?}");
        let mut again = 0;
        device.take_dirty(0..u64::MAX, |_| again += 1);
        assert_eq!(again, 0);
        device.resume().unwrap();
        device.stop_dirty_log().unwrap();
        work(&mut mount, "other", 1);
        device.take_dirty(0..u64::MAX, |page| panic!("{page:#x}"));
    }
}

#[test]
fn a_call_in_a_wrong_state_says_so_and_changes_nothing() {
    #[track_caller]
    fn assert_wrong<T: std::fmt::Debug>(result: Result<T, Error>, at: Call, was: State) {
        match result {
            Err(Error::WrongState { call, state }) => assert_eq!((call, state), (at, was)),
            other => panic!("{other:?}"),
        }
    }
    for served in Served::each() {
        let mut device = served.device();
        let guest = served.guest(&device);
        let machine = &guest.machine;
        let memory = || machine.memory.clone();
        assert_wrong(
            device.activate(machine.activation()),
            Call::Activate,
            State::New,
        );
        assert_wrong(
            device.update_memory(memory()),
            Call::UpdateMemory,
            State::New,
        );
        device.pause().unwrap();
        device.resume().unwrap();
        assert_eq!(device.state(), State::New);
        let (mut mount, machine) = guest.start(&mut device);
        let features = device.features();
        assert_wrong(
            device.ack_features(features),
            Call::AckFeatures,
            State::Active,
        );
        assert_wrong(
            device.activate(machine.activation()),
            Call::Activate,
            State::Active,
        );
        assert_wrong(device.resume(), Call::Resume, State::Active);
        assert_wrong(device.save(), Call::Save, State::Active);
        work(&mut mount, "file", 1);
        device.pause().unwrap();
        assert_wrong(device.pause(), Call::Pause, State::Paused);
        assert_wrong(
            device.activate(machine.activation()),
            Call::Activate,
            State::Paused,
        );
        device.resume().unwrap();
        work(&mut mount, "file", 2);
        device.reset().unwrap();
        assert_wrong(
            device.activate(machine.activation()),
            Call::Activate,
            State::Reset,
        );
        assert_wrong(
            device.update_memory(machine.memory.clone()),
            Call::UpdateMemory,
            State::Reset,
        );
    }
}

#[test]
fn a_driver_that_breaks_a_queue_is_told_to_reset() {
    for served in Served::each() {
        let mut device = served.device();
        let (mut mount, machine) = served.guest(&device).start(&mut device);
        mount.getattr(NodeId::ROOT, None).unwrap();
        let mut queue = mount.connection().request_queues()[0].raw();
        // More than there are descriptors.
        queue.write_available_index(queue.available_index().wrapping_add(1000));
        queue.kick().unwrap();
        eventually("it is told", || machine.resets_needed() == 1);
        let status = device.status();
        assert!(status.needs_reset && status.connected);
        assert_eq!(device.state(), State::Active);
        assert!(matches!(
            status.last_error.as_deref(),
            Some(Error::Broken(1))
        ));
        device.reset().unwrap();
        assert!(!device.status().needs_reset);
        machine.start_anew(&mut device, &mut mount);
        mount.getattr(NodeId::ROOT, None).unwrap();
    }
}

#[test]
fn queues_that_cannot_be_are_refused() {
    for served in Served::each() {
        let mut device = served.device();
        let machine = served.guest(&device).machine;
        device.ack_features(machine.features).unwrap();
        let mut outside = machine.activation();
        outside.queues[1].ring.used = GuestAddress(0x1000);
        let error = device.activate(outside).unwrap_err();
        assert!(matches!(error, Error::Ring { index: 1, .. }), "{error}");
        let mut crooked = machine.activation();
        crooked.queues[0].ring.descriptors.0 += 8;
        let error = device.activate(crooked).unwrap_err();
        assert!(matches!(error, Error::Ring { index: 0, .. }), "{error}");
        let mut twice = machine.activation();
        twice.queues[1].index = 0;
        assert!(matches!(device.activate(twice), Err(Error::Queue(0))));
        let mut beyond = machine.activation();
        beyond.queues[2].index = 3;
        assert!(matches!(device.activate(beyond), Err(Error::Queue(3))));
        let mut odd = machine.activation();
        odd.queues[2].ring.size = 100;
        assert!(matches!(device.activate(odd), Err(Error::QueueSize(100))));
        assert_eq!(device.state(), State::Negotiated);
        assert!(device.status().last_error.is_none(), "nobody was given up");
        device.activate(machine.activation()).unwrap();
    }
}
