//! A device, from its making to its end.

mod support;

use std::sync::Arc;

use fuse_wire::NodeId;
use support::*;
use virtio_fs_device::{Call, Device, DeviceConfig, Error, State, VhostUser};
use virtio_fs_guest::{MountOptions, Options};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

#[test]
fn a_driver_finds_what_the_daemon_offers() {
    let place = Place::new();
    let _daemon = place.daemon();
    let device = device(&place);
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
    assert_eq!(device.state(), State::New);
    let status = device.status();
    assert!(status.connected && !status.needs_reset && status.last_error.is_none());
    assert!(status.capabilities.resets && status.capabilities.memory_slots);
}

#[test]
fn the_vmm_names_the_device_if_it_likes() {
    let place = Place::new();
    let _daemon = place.daemon();
    let config = DeviceConfig {
        tag: Some("other".parse().unwrap()),
        request_queues: Some(1),
        queue_size: 128,
    };
    let device = Device::<Memory>::vhost_user(&config, VhostUser::new(place.socket())).unwrap();
    assert_eq!(device.queue_max_sizes(), [128; 2]);
    let mut space = [0; 40];
    device.read_config(0, &mut space);
    assert_eq!(&space[..6], b"other\0");
    assert_eq!(space[36], 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let place = Place::new();
    let _daemon = place.daemon();
    let make = |config: &DeviceConfig| {
        Device::<Memory>::vhost_user(config, VhostUser::new(place.socket())).unwrap_err()
    };
    let config = DeviceConfig::default();
    for queue_size in [0, 3, 2048] {
        let error = make(&DeviceConfig {
            queue_size,
            ..config.clone()
        });
        assert!(matches!(error, Error::QueueSize(_)), "{error}");
    }
    for queues in [0, 256] {
        let error = make(&DeviceConfig {
            request_queues: Some(queues),
            ..config.clone()
        });
        assert!(matches!(error, Error::RequestQueues(_)), "{error}");
    }
    let error = make(&DeviceConfig {
        request_queues: Some(REQUEST_QUEUES + 1),
        ..config
    });
    assert!(
        matches!(
            error,
            Error::TooManyQueues {
                wanted: 4,
                there: 3
            }
        ),
        "{error}"
    );
}

#[test]
fn a_guest_works_on_the_filesystem() {
    for calls in [Calls::Direct, Calls::Relayed] {
        let place = Place::new();
        let _daemon = place.daemon();
        let mut device = device(&place);
        let guest = Guest::new(&device, calls);
        let (mut mount, machine) = guest.start(&mut device);
        for queue in 0..usize::from(REQUEST_QUEUES) {
            mount.use_queue(queue);
            let name = std::ffi::CString::new(format!("file{queue}")).unwrap();
            let (entry, open) = mount.create(NodeId::ROOT, &name, 2, 0o644).unwrap();
            assert_eq!(mount.write(entry.nodeid, open.fh, 0, b"hello").unwrap(), 5);
            mount.forget(entry.nodeid, 1).unwrap();
        }
        assert_eq!(machine.resets_needed(), 0);
    }
}

#[test]
fn a_driver_begins_anew_after_a_reset() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
    for _ in 0..3 {
        mount.getattr(NodeId::ROOT, None).unwrap();
        device.reset().unwrap();
        assert_eq!(device.state(), State::Reset);
        mount.connection().reset().unwrap();
        machine.start(&mut device);
        mount.remount(&MountOptions::default()).unwrap();
    }
}

#[test]
fn a_call_in_a_wrong_state_says_so() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let guest = Guest::new(&device, Calls::Direct).machine;
    #[track_caller]
    fn assert_wrong<T: std::fmt::Debug>(result: Result<T, Error>, at: Call, was: State) {
        match result {
            Err(Error::WrongState { call, state }) => assert_eq!((call, state), (at, was)),
            other => panic!("{other:?}"),
        }
    }
    let activate = device.activate(guest.activation());
    assert_wrong(activate, Call::Activate, State::New);
    assert_wrong(
        device.update_memory(guest.memory.clone()),
        Call::UpdateMemory,
        State::New,
    );
    device.pause().unwrap();
    device.resume().unwrap();
    guest.start(&mut device);
    let features = device.ack_features(device.features());
    assert_wrong(features, Call::AckFeatures, State::Active);
    assert_wrong(device.resume(), Call::Resume, State::Active);
    assert_wrong(device.save(), Call::Save, State::Active);
    device.pause().unwrap();
    assert_wrong(device.pause(), Call::Pause, State::Paused);
    device.reset().unwrap();
    device.reset().unwrap();
}

#[test]
fn features_are_checked() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let offered = device.features();
    assert_eq!(offered, 1 << 32 | 1 << 29 | 1 << 28);
    let unknown = device.ack_features(offered | 1 << 34).unwrap_err();
    assert!(matches!(unknown, Error::UnknownFeatures(0x4_0000_0000)));
    let legacy = device.ack_features(1 << 29).unwrap_err();
    assert!(matches!(legacy, Error::MissingFeatures(0x1_0000_0000)));
    device.ack_features(1 << 32).unwrap();
    device.ack_features(offered).unwrap();
}

#[test]
fn queues_are_checked() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let guest = Guest::new(&device, Calls::Direct).machine;
    device.ack_features(guest.features).unwrap();
    let mut wrong = guest.activation();
    wrong.queues[1].index = 0;
    assert!(matches!(device.activate(wrong), Err(Error::Queue(0))));
    let mut wrong = guest.activation();
    wrong.queues[2].index = 3;
    assert!(matches!(device.activate(wrong), Err(Error::Queue(3))));
    let mut wrong = guest.activation();
    wrong.queues[2].ring.size = 100;
    assert!(matches!(device.activate(wrong), Err(Error::QueueSize(100))));
    assert_eq!(device.state(), State::Negotiated);
    device.activate(guest.activation()).unwrap();
}

#[test]
fn a_pause_is_not_noticed() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let (mut mount, _machine) = Guest::new(&device, Calls::Direct).start(&mut device);
    for _ in 0..3 {
        mount.getattr(NodeId::ROOT, None).unwrap();
        device.pause().unwrap();
        assert_eq!(device.state(), State::Paused);
        let waiting = std::thread::spawn(move || {
            mount.getattr(NodeId::ROOT, None).unwrap();
            mount
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        device.resume().unwrap();
        mount = waiting.join().unwrap();
    }
}

#[test]
fn memory_comes_and_goes_while_the_device_is_active() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let options = Options {
        request_queues: REQUEST_QUEUES,
        queue_size: 64,
        data_memory: 1 << 20,
        memory_regions: 8,
        ..Options::default()
    };
    let guest = Guest::with(&device, Calls::Direct, &options);
    let memory = Arc::clone(&guest.machine.memory);
    let (mut mount, _machine) = guest.start(&mut device);
    let (file, open) = mount.create(NodeId::ROOT, c"file", 2, 0o644).unwrap();
    for size in [1usize << 20, 4 << 20] {
        let address = GuestAddress(1 << 40);
        let plugged = memfd(size);
        let region = GuestRegionMmap::from_range(address, size, Some(plugged)).unwrap();
        let more = memory.insert_region(Arc::new(region)).unwrap();
        device.update_memory(Arc::new(more)).unwrap();
        mount.write(file.nodeid, open.fh, 0, &[7; 70_000]).unwrap();
        device.update_memory(Arc::clone(&memory)).unwrap();
        mount.write(file.nodeid, open.fh, 0, &[8; 70_000]).unwrap();
    }
}

#[test]
fn memory_that_no_daemon_can_have_is_refused() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let machine = Guest::new(&device, Calls::Direct).machine;
    let anonymous = GuestRegionMmap::from_range(GuestAddress(0), 4096, None).unwrap();
    let mixed = machine.memory.insert_region(Arc::new(anonymous)).unwrap();
    let mut activation = machine.activation();
    activation.memory = Arc::new(mixed.clone());
    device.ack_features(machine.features).unwrap();
    let error = device.activate(activation).unwrap_err();
    assert!(matches!(error, Error::NotShared(0)), "{error}");
    device.activate(machine.activation()).unwrap();
    let error = device.update_memory(Arc::new(mixed)).unwrap_err();
    assert!(matches!(error, Error::NotShared(0)), "{error}");
    assert_eq!(device.state(), State::Active);
}

fn memfd(size: usize) -> FileOffset {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size as u64).unwrap();
    FileOffset::new(file, 0)
}
