//! What no driver sends. Whatever it is, the device serves the next request.

mod support;

use std::time::Duration;

use fuse_wire::abi::{GetattrIn, InHeader, OutHeader, ReadIn, WriteIn};
use fuse_wire::{Errno, NodeId, Opcode};
use support::Device;
use virtio_fs_guest::{
    Descriptor, Error, Mount, MountOptions, Offered, Options, PAGE, ProtocolError, RawQueue, Used,
};
use zerocopy::{FromBytes, IntoBytes};

const ROOT: NodeId = NodeId::ROOT;
const RDWR: u32 = 2;
/// Long enough for any answer; a test that waits for it in vain fails.
const PATIENCE: Duration = Duration::from_secs(5);

fn mount() -> (Device, Mount) {
    mount_with(&Options::default())
}

fn mount_with(options: &Options) -> (Device, Mount) {
    let device = Device::start();
    let mount = device.mount(options);
    (device, mount)
}

fn raw(mount: &mut Mount) -> RawQueue<'_> {
    mount.connection().request_queues()[0].raw()
}

fn header(opcode: u32, len: usize) -> InHeader {
    InHeader {
        len: len as u32,
        opcode,
        unique: 0x1234_5678,
        nodeid: ROOT,
        ..InHeader::default()
    }
}

/// A request whose header tells its length.
fn request(opcode: Opcode, arguments: &[u8]) -> Vec<u8> {
    let header = header(opcode.raw(), size_of::<InHeader>() + arguments.len());
    [header.as_bytes(), arguments].concat()
}

fn readable(address: u64, len: usize) -> Descriptor {
    Descriptor {
        address,
        len: len as u32,
        flags: 0,
        next: 0,
    }
}

fn writable(address: u64, len: usize) -> Descriptor {
    Descriptor {
        flags: Descriptor::WRITE,
        ..readable(address, len)
    }
}

/// What came back for a chain.
#[derive(Debug)]
struct Answer {
    used: Used,
    header: OutHeader,
}

/// Posts `bytes` and room for a reply, and waits for the chain.
fn send(mount: &mut Mount, bytes: &[u8], room: usize) -> Answer {
    let mut raw = raw(mount);
    let sent = raw.page_with(bytes).unwrap();
    let reply = raw.page_with(&[0xff; PAGE]).unwrap();
    let mut chain = vec![readable(sent, bytes.len())];
    if room > 0 {
        chain.push(writable(reply, room));
    }
    let used = post(&mut raw, &chain);
    let mut header = OutHeader::default();
    raw.memory().read(reply, header.as_mut_bytes());
    Answer { used, header }
}

fn post(raw: &mut RawQueue<'_>, chain: &[Descriptor]) -> Used {
    let head = raw.post(chain).unwrap();
    let used = raw.wait(PATIENCE).unwrap().expect("the chain came back");
    assert_eq!(used.id, u32::from(head));
    used
}

/// An error reply is a header, whole, and nothing else.
fn assert_error(answer: &Answer, errno: Errno) {
    assert_eq!(answer.used.len, 16, "{answer:?}");
    assert_eq!(
        answer.header,
        OutHeader {
            len: 16,
            error: -errno.raw(),
            unique: 0x1234_5678
        }
    );
}

fn assert_serves(mount: &mut Mount) {
    mount.getattr(ROOT, None).unwrap();
}

/// The device says that it serves the ring no more.
fn assert_broken(raw: &mut RawQueue<'_>) {
    let error = raw.wait(PATIENCE).unwrap_err();
    let told = matches!(error, Error::Protocol(ProtocolError::VringError));
    assert!(told, "{error}");
}

/// The ring itself was broken: the device must serve again after a reset.
fn assert_serves_after_reset(mount: &mut Mount) {
    mount.connection().reset().unwrap();
    mount.remount(&MountOptions::default()).unwrap();
    assert_serves(mount);
}

#[test]
fn a_truncated_header_comes_back_unanswered_or_with_an_error() {
    let (_device, mut mount) = mount();
    let whole = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    for len in [1, 3, 4, 15, 16, 39] {
        let answer = send(&mut mount, &whole[..len], 120);
        // With 16 bytes there is a `unique` to answer to.
        assert!(matches!(answer.used.len, 0 | 16), "{answer:?}");
        assert_serves(&mut mount);
    }
}

#[test]
fn truncated_arguments_are_an_error() {
    let (_device, mut mount) = mount();
    let whole = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    for len in 40..whole.len() {
        let mut cut = whole[..len].to_vec();
        // The header as it was, and a header that tells the truth.
        assert_error(&send(&mut mount, &cut, 120), Errno::EINVAL);
        cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        assert_error(&send(&mut mount, &cut, 120), Errno::EINVAL);
    }
    assert_serves(&mut mount);
}

#[test]
fn a_length_that_lies_is_an_error() {
    let (_device, mut mount) = mount();
    let mut bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    for len in [0, 1, 39, 40, 55, 57, 4096, 1 << 20, u32::MAX] {
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        assert_error(&send(&mut mount, &bytes, 120), Errno::EINVAL);
    }
    assert_serves(&mut mount);
}

#[test]
fn an_unknown_opcode_is_enosys() {
    let (_device, mut mount) = mount();
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        let bytes = header(opcode, 40);
        assert_error(&send(&mut mount, bytes.as_bytes(), 120), Errno::ENOSYS);
    }
    assert_serves(&mut mount);
}

#[test]
fn a_name_that_is_none_is_refused() {
    let (_device, mut mount) = mount();
    let long = [&[b'x'; 256][..], b"\0"].concat();
    for (name, errno) in [
        (&b"a/b\0"[..], Errno::EINVAL),
        (b"../etc/passwd\0", Errno::EINVAL),
        (b"/\0", Errno::EINVAL),
        (b"\0", Errno::EINVAL),
        (b"no end", Errno::EINVAL),
        (b"", Errno::EINVAL),
        (b"two\0names\0", Errno::EINVAL),
        (&long, Errno::ENAMETOOLONG),
    ] {
        for opcode in [Opcode::Lookup, Opcode::Unlink, Opcode::RmDir] {
            let answer = send(&mut mount, &request(opcode, name), 256);
            assert_error(&answer, errno);
        }
    }
    for name in [&b".\0"[..], b"..\0"] {
        let answer = send(&mut mount, &request(Opcode::Unlink, name), 256);
        assert_error(&answer, Errno::EINVAL);
    }
    assert_serves(&mut mount);
}

#[test]
fn without_room_for_a_reply_nothing_is_written() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    for room in [0, 1, 15] {
        assert_eq!(send(&mut mount, &bytes, room).used.len, 0, "{room}");
    }
    // Room for an error, but not for the attributes.
    for room in [16, 17, 119] {
        let answer = send(&mut mount, &bytes, room);
        assert_eq!(answer.used.len, 16, "{answer:?}");
        assert!(answer.header.error < 0);
    }
    assert_serves(&mut mount);
}

#[test]
fn a_lookup_without_room_leaves_nothing_behind() {
    let (_device, mut mount) = mount();
    let (entry, opened) = mount.create(ROOT, c"file", RDWR, 0o644).unwrap();
    let answer = send(&mut mount, &request(Opcode::Lookup, b"file\0"), 100);
    assert!(answer.header.error < 0, "{answer:?}");
    mount.release(entry.nodeid, opened.fh).unwrap();
    assert_serves(&mut mount);
}

#[test]
fn a_read_is_cut_to_the_room() {
    let (_device, mut mount) = mount();
    let (entry, opened) = mount.create(ROOT, c"file", RDWR, 0o644).unwrap();
    mount
        .write(entry.nodeid, opened.fh, 0, &[7; 10_000])
        .unwrap();
    for size in [4096, 1 << 20, 1 << 30, u32::MAX] {
        let args = ReadIn {
            fh: opened.fh,
            size,
            ..ReadIn::default()
        };
        let mut bytes = request(Opcode::Read, args.as_bytes());
        bytes[16..24].copy_from_slice(entry.nodeid.as_bytes());
        let answer = send(&mut mount, &bytes, 16 + 100);
        assert_eq!(answer.used.len, answer.header.len);
        assert!(answer.used.len <= 116, "{answer:?}");
    }
    assert_serves(&mut mount);
}

#[test]
fn a_write_that_announces_other_than_it_sends_is_an_error() {
    let (_device, mut mount) = mount();
    let (entry, opened) = mount.create(ROOT, c"file", RDWR, 0o644).unwrap();
    for size in [0, 9, 11, 1 << 20, u32::MAX] {
        let args = WriteIn {
            fh: opened.fh,
            size,
            ..WriteIn::default()
        };
        let mut bytes = request(Opcode::Write, &[args.as_bytes(), b"ten bytes."].concat());
        bytes[16..24].copy_from_slice(entry.nodeid.as_bytes());
        assert_error(&send(&mut mount, &bytes, 64), Errno::EINVAL);
    }
    assert_eq!(mount.getattr(entry.nodeid, None).unwrap().attr.size, 0);
}

#[test]
fn counts_that_lie_are_refused() {
    let (_device, mut mount) = mount();
    for count in [1, 2, 1000, u32::MAX] {
        let count = count.to_ne_bytes();
        let forget = [&count[..], &[0; 4]].concat();
        assert_eq!(
            send(&mut mount, &request(Opcode::BatchForget, &forget), 0)
                .used
                .len,
            0
        );
        let unmap = send(&mut mount, &request(Opcode::RemoveMapping, &count), 64);
        assert!(unmap.header.error < 0);
        let set = [&count[..], &[0; 12], b"user.a\0"].concat();
        let answer = send(&mut mount, &request(Opcode::SetXattr, &set), 64);
        assert!(answer.header.error < 0);
    }
    assert_serves(&mut mount);
}

#[test]
fn handles_and_nodes_that_are_not_there_are_errors() {
    let (_device, mut mount) = mount();
    for number in [0, 2, 3, 999, 1 << 40, u64::MAX] {
        let node = NodeId(number);
        let handle = fuse_wire::Handle(number);
        assert!(mount.getattr(node, None).is_err());
        assert!(mount.read(node, handle, 0, &mut [0; 64]).is_err());
        assert!(mount.read(ROOT, handle, 0, &mut [0; 64]).is_err());
        assert!(mount.readdir(ROOT, handle, 0, 512).is_err());
        assert!(mount.lookup(node, c"name").is_err());
        assert!(mount.open(node, 0).is_err());
        mount.forget(node, u64::MAX).unwrap();
    }
    // Taking back more lookups than there were, of the root above all.
    mount.forget(ROOT, u64::MAX).unwrap();
    assert_serves(&mut mount);
}

#[test]
fn before_init_nothing_is_served() {
    let device = Device::start();
    let mut connection = device.connect(&Options::default());
    let queue = &mut connection.request_queues()[0];
    let operation = fuse_wire::Operation::GetAttr(GetattrIn::default());
    let completion = queue
        .call(ROOT, operation, virtio_fs_guest::Payload::None)
        .unwrap();
    assert!(completion.result().unwrap_err().errno().is_some());
    drop(completion);
    let mut mount = connection.mount(&MountOptions::default()).unwrap();
    assert_serves(&mut mount);
}

#[test]
fn a_buffer_outside_the_memory_comes_back_unused() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    let end = mount.connection().memory().end();
    for (address, len) in [
        (0, 56),
        (end, 56),
        (end - 8, 56),
        (u64::MAX, 56),
        (u64::MAX - 55, 56),
        (1 << 63, 1 << 30),
    ] {
        let mut raw = raw(&mut mount);
        let sent = raw.page_with(&bytes).unwrap();
        let reply = raw.take_page().unwrap();
        let outside = readable(address, len);
        assert_eq!(post(&mut raw, &[outside, writable(reply, 120)]).len, 0);
        let outside = writable(address, len);
        assert_eq!(post(&mut raw, &[readable(sent, 56), outside]).len, 0);
        assert_serves(&mut mount);
    }
}

#[test]
fn a_loop_of_descriptors_comes_back_unused() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    for back_to in 0..3 {
        let mut raw = raw(&mut mount);
        let sent = raw.page_with(&bytes).unwrap();
        raw.post_with(3, |n, indexes| Descriptor {
            flags: Descriptor::NEXT,
            next: match n {
                2 => indexes[back_to],
                n => indexes[n + 1],
            },
            ..readable(sent, 56)
        })
        .unwrap();
        let used = raw.wait(PATIENCE).unwrap().expect("the chain came back");
        assert_eq!(used.len, 0);
        assert_serves(&mut mount);
    }
}

#[test]
fn a_link_to_nowhere_comes_back_unused() {
    let (_device, mut mount) = mount();
    for next in [512, 513, 4096, u16::MAX] {
        let mut raw = raw(&mut mount);
        let page = raw.take_page().unwrap();
        raw.post_with(1, |_, _| Descriptor {
            flags: Descriptor::NEXT,
            next,
            ..readable(page, 56)
        })
        .unwrap();
        let used = raw.wait(PATIENCE).unwrap().expect("the chain came back");
        assert_eq!(used.len, 0);
        assert_serves(&mut mount);
    }
}

#[test]
fn a_readable_buffer_behind_a_writable_one_comes_back_unused() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    let mut raw = raw(&mut mount);
    let sent = raw.page_with(&bytes).unwrap();
    let reply = raw.take_page().unwrap();
    let chain = [writable(reply, 120), readable(sent, 56)];
    assert_eq!(post(&mut raw, &chain).len, 0);
    assert_serves(&mut mount);
}

#[test]
fn the_arrangement_of_a_request_is_the_drivers_own() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    // One byte each, on both sides; and buffers of no length in between.
    let mut raw = raw(&mut mount);
    let sent = raw.page_with(&bytes).unwrap();
    let reply = raw.take_page().unwrap();
    let mut chain: Vec<Descriptor> = (0..56).map(|n| readable(sent + n, 1)).collect();
    chain.extend((0..120).map(|n| writable(reply + n, 1)));
    assert_eq!(post(&mut raw, &chain).len, 120);

    let mut header = [0; 16];
    raw.memory().read(reply, &mut header);
    assert_eq!(OutHeader::read_from_bytes(&header).unwrap().len, 120);
    assert_serves(&mut mount);
}

#[test]
fn indirect_tables_are_checked() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::GetAttr, GetattrIn::default().as_bytes());
    let end = mount.connection().memory().end();
    let indirect = |address, len| Descriptor {
        flags: Descriptor::INDIRECT,
        ..readable(address, len)
    };
    let mut raw = raw(&mut mount);
    let sent = raw.page_with(&bytes).unwrap();
    let reply = raw.take_page().unwrap();
    let entries = [
        Descriptor {
            flags: Descriptor::NEXT,
            next: 1,
            ..readable(sent, 56)
        },
        writable(reply, 120),
    ];
    let table = raw.page_with(entries.as_bytes()).unwrap();
    assert_eq!(post(&mut raw, &[indirect(table, 32)]).len, 120);

    for (address, len) in [
        (table, 0),
        (table, 15),
        (table, 16),
        (table, 33),
        (end, 32),
        (end - 16, 32),
        (u64::MAX - 15, 32),
        (table, u32::MAX as usize & !15),
    ] {
        assert_eq!(post(&mut raw, &[indirect(address, len)]).len, 0, "{len}");
    }
    // A table in a table, one that goes round, and one that goes on behind itself.
    let nested = raw.page_with(indirect(table, 32).as_bytes()).unwrap();
    assert_eq!(post(&mut raw, &[indirect(nested, 16)]).len, 0);
    let round = Descriptor {
        flags: Descriptor::NEXT,
        ..readable(sent, 56)
    };
    let round = raw.page_with(round.as_bytes()).unwrap();
    assert_eq!(post(&mut raw, &[indirect(round, 16)]).len, 0);
    let chain = [indirect(table, 32), writable(reply, 16)];
    assert_eq!(post(&mut raw, &chain).len, 0);
    assert_serves(&mut mount);
}

#[test]
fn indirect_tables_need_to_be_negotiated() {
    let (_device, mut mount) = mount_with(&Options {
        indirect: Offered::Withhold,
        ..Options::default()
    });
    let mut raw = raw(&mut mount);
    let page = raw.take_page().unwrap();
    let entry = readable(page, 40);
    let table = raw.page_with(entry.as_bytes()).unwrap();
    let indirect = Descriptor {
        flags: Descriptor::INDIRECT,
        ..readable(table, 16)
    };
    assert_eq!(post(&mut raw, &[indirect]).len, 0);
    assert_serves(&mut mount);
}

#[test]
fn an_available_index_that_jumps_stops_the_ring_until_a_reset() {
    let (_device, mut mount) = mount();
    for jump in [513, 1000, 32768, u16::MAX] {
        let mut raw = raw(&mut mount);
        let used = raw.used_index();
        raw.write_available_index(raw.available_index().wrapping_add(jump));
        raw.kick().unwrap();
        assert_broken(&mut raw);
        assert_eq!(raw.used_index(), used);
        assert_serves_after_reset(&mut mount);
    }
}

#[test]
fn an_available_entry_that_names_no_descriptor_harms_nobody() {
    let (_device, mut mount) = mount();
    for head in [512, 4096, u16::MAX] {
        let mut raw = raw(&mut mount);
        let index = raw.available_index();
        raw.write_available_entry(index, head);
        raw.write_available_index(index.wrapping_add(1));
        raw.kick().unwrap();
        assert_broken(&mut raw);
        assert_serves_after_reset(&mut mount);
    }
}

#[test]
fn the_hiprio_queue_is_as_strict() {
    let (_device, mut mount) = mount();
    let bytes = request(Opcode::Forget, &[0; 3]);
    let mut raw = mount.connection().hiprio().raw();
    let page = raw.page_with(&bytes).unwrap();
    for len in [0, 1, 39, 40, 43] {
        assert_eq!(post(&mut raw, &[readable(page, len)]).len, 0);
    }
    mount.forget(ROOT, 1).unwrap();
    assert_serves(&mut mount);
}

#[test]
fn a_guest_that_goes_away_amid_requests_leaves_the_back_end_to_the_next() {
    let device = Device::start();
    for _ in 0..5 {
        let mut mount = device.mount(&Options::default());
        let queue = &mut mount.connection().request_queues()[0];
        for _ in 0..100 {
            let operation = fuse_wire::Operation::GetAttr(GetattrIn::default());
            queue
                .submit(ROOT, operation, virtio_fs_guest::Payload::None)
                .unwrap();
        }
    }
    assert_serves(&mut device.mount(&Options::default()));
}
