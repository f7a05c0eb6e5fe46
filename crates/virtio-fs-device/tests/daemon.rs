//! What only a device with a daemon has.

mod support;

use std::sync::Arc;

use fuse_wire::NodeId;
use support::*;
use virtio_fs_device::{Device, DeviceConfig, Error, State, VhostUser};
use vm_memory::{GuestAddress, GuestRegionMmap};

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
fn interrupts_go_through_the_device_where_a_vmm_has_no_event_for_them() {
    let place = Place::new();
    let _daemon = place.daemon();
    let mut device = device(&place);
    let (mut mount, machine) = Guest::new(&device, Calls::Relayed).start(&mut device);
    for queue in 0..usize::from(REQUEST_QUEUES) {
        mount.use_queue(queue);
        for _ in 0..9 {
            mount.getattr(NodeId::ROOT, None).unwrap();
        }
    }
    assert_eq!(machine.resets_needed(), 0);
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
