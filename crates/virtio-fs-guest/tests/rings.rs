//! Rings of all shapes, with many requests in flight, against our own back-end.

mod support;

use std::collections::HashSet;

use fuse_wire::abi::{GetattrIn, ReadIn, WriteIn};
use fuse_wire::{Handle, NodeId, Operation, Reply};
use support::Device;
use virtio_fs_guest::{Connection, Error, Mount, MountOptions, Offered, Options, Payload, Queue};

const ROOT: NodeId = NodeId::ROOT;
const RDWR: u32 = 2;
const BLOCK: usize = 16384;

fn open_file(mount: &mut Mount) -> (NodeId, Handle) {
    let (entry, opened) = mount.create(ROOT, c"file", RDWR, 0o644).unwrap();
    (entry.nodeid, opened.fh)
}

fn block(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + number * 13) as u8).collect()
}

/// Writes `count` blocks and reads them back, with as much in flight as the queue holds.
fn write_and_read(queue: &mut Queue, file: (NodeId, Handle), count: usize, len: usize) {
    let (node, fh) = file;
    let mut numbers = vec![0; usize::from(queue.size())];
    pipeline(
        queue,
        count,
        |queue, number| {
            let args = WriteIn {
                fh,
                offset: (number * len) as u64,
                size: len as u32,
                ..WriteIn::default()
            };
            let data = block(number, len);
            queue.submit(node, Operation::Write(args), Payload::Copied(&data))
        },
        |_, reply| match reply {
            Reply::Write(out) => assert_eq!(out.size as usize, len),
            other => panic!("{other:?}"),
        },
        &mut numbers,
    );
    pipeline(
        queue,
        count,
        |queue, number| {
            let args = ReadIn {
                fh,
                offset: (number * len) as u64,
                size: len as u32,
                ..ReadIn::default()
            };
            queue.submit(node, Operation::Read(args), Payload::None)
        },
        |number, reply| match reply {
            Reply::Data(data) => assert!(data == block(number, len), "block {number}"),
            other => panic!("{other:?}"),
        },
        &mut numbers,
    );
}

/// Submits `count` requests, each as soon as there is room, and checks each reply once.
fn pipeline(
    queue: &mut Queue,
    count: usize,
    mut submit: impl FnMut(&mut Queue, usize) -> Result<virtio_fs_guest::Token, Error>,
    check: impl Fn(usize, Reply<'_>),
    numbers: &mut [usize],
) {
    let mut seen = HashSet::new();
    let mut next = 0;
    while seen.len() < count {
        while next < count {
            match submit(queue, next) {
                Ok(token) => numbers[usize::from(token.slot())] = next,
                Err(Error::QueueFull) => break,
                Err(e) => panic!("{e}"),
            }
            next += 1;
        }
        let mut completion = queue.wait().unwrap();
        let number = numbers[usize::from(completion.token().slot())];
        assert!(seen.insert(number), "{number} completed twice");
        check(number, completion.reply().unwrap());
    }
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn every_combination_of_size_and_features_moves_data() {
    for queue_size in [4, 8, 16, 64, 512] {
        for event_idx in [Offered::Accept, Offered::Withhold] {
            for indirect in [Offered::Accept, Offered::Withhold] {
                let options = Options {
                    queue_size,
                    event_idx,
                    indirect,
                    ..Options::default()
                };
                let device = Device::start();
                let mut mount = device.mount(&options);
                let len = mount.limits().max_write.min(BLOCK);
                let file = open_file(&mut mount);
                let queue = &mut mount.connection().request_queues()[0];
                write_and_read(queue, file, 80, len);
            }
        }
    }
}

#[test]
fn a_request_of_1_mib_moves_whole_through_several_regions() {
    for memory_regions in [1, 8] {
        let options = Options {
            memory_regions,
            ..Options::default()
        };
        let device = Device::start();
        let mut mount = device.mount(&options);
        assert_eq!(mount.limits().max_read, 1 << 20);
        let file = open_file(&mut mount);
        let queue = &mut mount.connection().request_queues()[0];
        write_and_read(queue, file, 5, 1 << 20);
    }
}

#[test]
fn hundreds_are_in_flight_at_once() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    let queue = &mut mount.connection().request_queues()[0];
    for _ in 0..20 {
        let mut tokens = HashSet::new();
        for _ in 0..usize::from(queue.size()) {
            let operation = Operation::GetAttr(GetattrIn::default());
            let token = queue.submit(ROOT, operation, Payload::None).unwrap();
            assert!(tokens.insert(token));
        }
        for _ in 0..usize::from(queue.size()) {
            let completion = queue.wait().unwrap();
            completion.result().unwrap();
            assert!(tokens.remove(&completion.token()));
        }
    }
}

#[test]
fn several_queues_are_driven_by_several_threads() {
    const QUEUES: u16 = 4;
    let options = Options {
        request_queues: QUEUES,
        data_memory: 8 << 20,
        ..Options::default()
    };
    let device = Device::start();
    let mut mount = device.mount(&options);
    let files: Vec<_> = [c"0", c"1", c"2", c"3"]
        .iter()
        .map(|name| {
            let (entry, opened) = mount.create(ROOT, name, RDWR, 0o644).unwrap();
            (entry.nodeid, opened.fh)
        })
        .collect();
    std::thread::scope(|scope| {
        let queues = mount.connection().request_queues();
        assert_eq!(queues.len(), usize::from(QUEUES));
        for (queue, file) in queues.iter_mut().zip(files) {
            scope.spawn(move || write_and_read(queue, file, 150, BLOCK));
        }
    });
    for queue in 0..usize::from(QUEUES) {
        mount.use_queue(queue);
        mount.getattr(ROOT, None).unwrap();
    }
}

#[test]
fn a_forget_on_a_request_queue_is_used_too() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    let (node, _) = open_file(&mut mount);
    let forget = Operation::Forget(fuse_wire::abi::ForgetIn { nlookup: 1 });
    let completion = mount.call(node, forget, Payload::None).unwrap();
    completion.result().unwrap();
}

#[test]
fn a_device_goes_on_where_it_was_stopped() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    for round in 1..=5 {
        let file = match round {
            1 => open_file(&mut mount),
            _ => {
                let node = mount.lookup(ROOT, c"file").unwrap().nodeid;
                (node, mount.open(node, RDWR).unwrap().fh)
            }
        };
        let connection = mount.connection();
        write_and_read(&mut connection.request_queues()[0], file, 40, BLOCK);
        connection.stop().unwrap();
        assert!(connection.stopped_at().unwrap()[1] > 80 * round as u16);
        connection.resume().unwrap();
        mount.getattr(ROOT, None).unwrap();
    }
}

#[test]
fn what_is_posted_while_stopped_is_served_after() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    let connection = mount.connection();
    connection.stop().unwrap();
    let operation = Operation::GetAttr(GetattrIn::default());
    connection.request_queues()[0]
        .submit(ROOT, operation, Payload::None)
        .unwrap();
    connection.resume().unwrap();
    let completion = connection.request_queues()[0].wait().unwrap();
    completion.result().unwrap();
}

#[test]
fn a_session_begins_anew_after_a_reset_and_after_another_init() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    let options = MountOptions::default();
    for _ in 0..3 {
        let file = open_file(&mut mount);
        let queue = &mut mount.connection().request_queues()[0];
        write_and_read(queue, file, 20, BLOCK);
        mount.connection().reset().unwrap();
        mount.remount(&options).unwrap();
        mount.unlink(ROOT, c"file").unwrap();
        mount.remount(&options).unwrap();
        mount.getattr(ROOT, None).unwrap();
    }
    let connection = mount.destroy().unwrap();
    let mut mount = connection.mount(&options).unwrap();
    mount.getattr(ROOT, None).unwrap();
}

#[test]
fn a_front_end_that_reconnects_finds_the_device_again() {
    let device = Device::start();
    let mut mount = device.mount(&Options::default());
    open_file(&mut mount);
    for _ in 0..3 {
        let stream = device.stream();
        mount.connection().reconnect(stream).unwrap();
        mount.remount(&MountOptions::default()).unwrap();
        mount.lookup(ROOT, c"file").unwrap();
    }
}

#[test]
fn the_configuration_space_tells_tag_and_queues() {
    let device = Device::start();
    let connection = device.connect(&Options::default());
    let config = connection.config().unwrap();
    assert_eq!(config.tag, support::TAG.as_bytes());
    assert_eq!(
        config.num_request_queues,
        u32::from(support::REQUEST_QUEUES)
    );
}

#[test]
fn more_queues_than_there_are_are_refused() {
    let device = Device::start();
    let options = Options {
        request_queues: support::REQUEST_QUEUES + 1,
        ..Options::default()
    };
    let refused = Connection::from_stream(device.stream(), &options);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    device.mount(&Options::default());
}
