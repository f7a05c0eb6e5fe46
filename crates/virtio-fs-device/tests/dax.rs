//! Files in the DAX window: a driver asks, our daemon has the device map them, and the window's
//! memory is what is in the file.

mod support;

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use fuse_fs::abi::{RemovemappingOne, SetupmappingIn};
use fuse_fs::flags::{InitFlags, MappingFlags};
use fuse_fs::{Access, Errno, Exports, Handle, NodeId, ReadOnly, Serve, Session, SessionConfig};
use fuse_wire::Operation;
use passthrough_fs::{Config, PassthroughFs};
use support::*;
use tempfile::TempDir;
use vhost_user_fs::DaxWindow;
use virtio_fs_device::{Device, DeviceConfig, Error, ReservedWindow, State, VhostUser, Window};
use virtio_fs_guest::{Mount, MountOptions, Payload};

/// A multiple of every host's page.
const PAGE: u64 = 64 << 10;
const SIZE: u64 = 64 * PAGE;
/// That can be mapped at a time.
const FILES: usize = 4;
const RDONLY: u32 = 0;
const WRONLY: u32 = 1;
const RDWR: u32 = 2;

/// A directory in a guest that uses DAX.
struct Guests {
    mount: Mount,
    machine: Machine,
    device: Device<Memory>,
    window: Arc<ReservedWindow>,
    daemons: Arc<DaxWindow>,
    _daemon: Daemon,
    _place: Place,
    directory: TempDir,
}

fn guest() -> Guests {
    serving(|directory, window| {
        let filesystem = PassthroughFs::new(Config::new(directory)).unwrap();
        Arc::new(Session::new(filesystem).with_window(window))
    })
}

fn serving(serve: impl FnOnce(PathBuf, Arc<DaxWindow>) -> Arc<dyn Serve>) -> Guests {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), pattern()).unwrap();
    let daemons = Arc::new(DaxWindow::new(SIZE).unwrap().limit_files(FILES));
    let filesystem = serve(directory.path().to_owned(), Arc::clone(&daemons));
    let place = Place::new();
    let theirs = Arc::clone(&daemons);
    let daemon = Daemon::start_with(&place.socket(), filesystem, TAG, |backend| {
        backend.with_window(theirs)
    });
    let window = Arc::new(ReservedWindow::new(SIZE).unwrap());
    let mut options = VhostUser::new(place.socket());
    options.window = Some(Window {
        size: SIZE,
        mapper: window.clone(),
    });
    let mut device = Device::vhost_user(&DeviceConfig::default(), options).unwrap();
    assert_eq!(device.window_size(), Some(SIZE));
    let guest = Guest::new(&device, Calls::Direct);
    guest.machine.start(&mut device);
    let mount = guest.connection.mount(&dax()).unwrap();
    Guests {
        mount,
        machine: guest.machine,
        device,
        window,
        daemons,
        _daemon: daemon,
        _place: place,
        directory,
    }
}

fn dax() -> MountOptions {
    let mut options = MountOptions::default();
    options.offer |= InitFlags::MAP_ALIGNMENT;
    options
}

/// Eight pages that differ.
fn pattern() -> Vec<u8> {
    (0..8)
        .flat_map(|page| vec![page + 1; PAGE as usize])
        .collect()
}

impl Guests {
    fn find(&mut self, name: &str) -> NodeId {
        let name = CString::new(name).unwrap();
        self.mount.lookup(NodeId::ROOT, &name).unwrap().nodeid
    }

    fn setup(&mut self, node: NodeId, args: SetupmappingIn) -> Result<(), Errno> {
        self.ask(node, Operation::SetupMapping(args))
    }

    fn ask(&mut self, node: NodeId, operation: Operation<'_>) -> Result<(), Errno> {
        let mut done = self.mount.call(node, operation, Payload::None).unwrap();
        match done.reply() {
            Ok(_) => Ok(()),
            Err(virtio_fs_guest::Error::Errno(errno)) => Err(errno),
            Err(other) => panic!("{other}"),
        }
    }

    /// Maps `pages` pages from `from` in the file to `at` in the window.
    fn map(&mut self, node: NodeId, (from, pages): (u64, u64), at: u64) -> Result<(), Errno> {
        self.setup(
            node,
            part(Handle::NONE, (from, pages), at, MappingFlags::READ),
        )
    }

    fn map_writable(&mut self, node: NodeId, part_of: (u64, u64), at: u64) -> Result<(), Errno> {
        let flags = MappingFlags::READ | MappingFlags::WRITE;
        self.setup(node, part(Handle::NONE, part_of, at, flags))
    }

    fn remove(&mut self, ranges: &[(u64, u64)]) -> Result<(), Errno> {
        let one = |&(at, pages): &(u64, u64)| RemovemappingOne {
            moffset: at * PAGE,
            len: pages * PAGE,
        };
        let ranges: Vec<_> = ranges.iter().map(one).collect();
        self.ask(
            NodeId(0),
            Operation::RemoveMapping(ranges.as_slice().into()),
        )
    }

    /// The byte with which a page of the window begins.
    fn look(&self, page: u64) -> u8 {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut byte = [0];
        memory.read_exact_at(&mut byte, self.at(page)).unwrap();
        byte[0]
    }

    fn change(&self, page: u64, byte: u8) -> std::io::Result<()> {
        let memory = File::options().write(true).open("/proc/self/mem").unwrap();
        memory.write_all_at(&[byte], self.at(page))
    }

    fn at(&self, page: u64) -> u64 {
        self.window.address().addr() as u64 + page * PAGE
    }

    /// What both sides count, which is the same.
    fn mappings(&self) -> usize {
        let there = self.daemons.mappings();
        assert_eq!(self.device.status().window.unwrap().mappings, there);
        there
    }
}

fn part(fh: Handle, (from, pages): (u64, u64), at: u64, flags: MappingFlags) -> SetupmappingIn {
    SetupmappingIn {
        fh,
        foffset: from * PAGE,
        len: pages * PAGE,
        flags,
        moffset: at * PAGE,
    }
}

#[test]
fn a_file_is_read_and_written_in_the_window() {
    let mut guest = guest();
    assert!(
        guest
            .mount
            .limits()
            .agreed
            .contains(InitFlags::MAP_ALIGNMENT)
    );
    let file = guest.find("file");
    guest.map(file, (2, 3), 10).unwrap();
    assert_eq!([10, 11, 12].map(|page| guest.look(page)), [3, 4, 5]);
    assert!(guest.change(10, 99).is_err(), "it is not to be written to");
    // As Linux has it when it writes to what it has read.
    guest.map_writable(file, (2, 3), 10).unwrap();
    assert_eq!(guest.mappings(), 1);
    guest.change(11, 99).unwrap();
    let on_host = File::open(guest.directory.path().join("file")).unwrap();
    let mut byte = [0];
    on_host.read_exact_at(&mut byte, 3 * PAGE).unwrap();
    assert_eq!(byte, [99]);
    guest.remove(&[(10, 3)]).unwrap();
    assert_eq!(guest.mappings(), 0);
}

#[test]
fn mappings_overlap_as_the_guest_likes() {
    let mut guest = guest();
    let file = guest.find("file");
    guest.map(file, (0, 8), 0).unwrap();
    // Into the middle, over both ends, over a border.
    guest.map(file, (7, 1), 3).unwrap();
    assert_eq!(guest.mappings(), 3);
    guest.map(file, (5, 1), 0).unwrap();
    guest.map(file, (4, 1), 7).unwrap();
    guest.map(file, (0, 2), 2).unwrap();
    let seen: Vec<_> = (0..8).map(|page| guest.look(page)).collect();
    assert_eq!(seen, [6, 2, 1, 2, 5, 6, 7, 5]);
    // A hole in what is there, and over several.
    guest.remove(&[(5, 1), (30, 4)]).unwrap();
    assert_eq!(guest.look(6), 7);
    guest.remove(&[(0, 64)]).unwrap();
    assert_eq!(guest.mappings(), 0);
    guest.map(file, (0, 8), 56).unwrap();
    guest.map(file, (0, 8), 56).unwrap();
    assert_eq!(guest.mappings(), 1);
}

#[test]
fn what_no_guest_should_ask_for_is_refused() {
    let mut guest = guest();
    let file = guest.find("file");
    let read = MappingFlags::READ;
    let ask = |foffset, len, moffset, flags| SetupmappingIn {
        fh: Handle::NONE,
        foffset,
        len,
        flags,
        moffset,
    };
    let last = !(PAGE - 1);
    for args in [
        ask(0, 0, 0, read),
        ask(1, PAGE, 0, read),
        ask(0, PAGE - 1, 0, read),
        ask(0, PAGE, 512, read),
        ask(0, PAGE, SIZE, read),
        ask(0, SIZE + PAGE, 0, read),
        ask(0, u64::MAX, 0, read),
        ask(0, last, PAGE, read),
        ask(0, PAGE, last, read),
        ask(last, PAGE, 0, read),
        ask(i64::MAX as u64 & last, 2 * PAGE, 0, read),
        ask(0, PAGE, 0, MappingFlags::from_bits_retain(4)),
        ask(0, PAGE, 0, MappingFlags::from_bits_retain(!0)),
    ] {
        assert_eq!(guest.setup(file, args), Err(Errno::EINVAL), "{args:?}");
    }
    for range in [(64, 1), (0, 65), (0, 0)] {
        assert_eq!(guest.remove(&[range]), Err(Errno::EINVAL));
    }
    // All or nothing.
    guest.map(file, (0, 1), 0).unwrap();
    assert_eq!(guest.remove(&[(0, 1), (64, 1)]), Err(Errno::EINVAL));
    assert_eq!(guest.mappings(), 1);
    // Nodes and handles that are none, and what is no regular file.
    let unknown = part(Handle(12345), (0, 1), 0, read);
    assert_eq!(guest.setup(file, unknown), Err(Errno::EBADF));
    assert!(guest.map(NodeId(u64::MAX), (0, 1), 0).is_err());
    assert_eq!(guest.map(NodeId::ROOT, (0, 1), 0), Err(Errno::EISDIR));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        guest.directory.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let fifo = guest.find("fifo");
    assert_eq!(guest.map(fifo, (0, 1), 0), Err(Errno::ENXIO));
    assert_eq!(guest.look(0), 1);
    assert_eq!(guest.device.state(), State::Active);
}

#[test]
fn a_handle_gives_what_it_was_opened_for() {
    let mut guest = guest();
    let file = guest.find("file");
    let both = MappingFlags::READ | MappingFlags::WRITE;
    for (open, flags, allowed) in [
        (RDONLY, MappingFlags::READ, true),
        (RDONLY, both, false),
        (RDWR, MappingFlags::READ, true),
        (RDWR, both, true),
        (WRONLY, MappingFlags::READ, false),
        (WRONLY, both, false),
    ] {
        let handle = guest.mount.open(file, open).unwrap().fh;
        let expected = if allowed { Ok(()) } else { Err(Errno::EACCES) };
        let done = guest.setup(file, part(handle, (0, 1), 0, flags));
        assert_eq!(done, expected, "{open} {flags:?}");
        // That of another file is none.
        let root = guest.setup(NodeId::ROOT, part(handle, (0, 1), 0, flags));
        assert_eq!(root, Err(Errno::EBADF));
        guest.remove(&[(0, 1)]).unwrap();
    }
}

#[test]
fn a_share_that_is_only_read_is_only_mapped_to_be_read() {
    let read_only = SessionConfig::new().access(Access::ReadOnly);
    let session = |directory, window: Arc<DaxWindow>| -> Arc<dyn Serve> {
        let filesystem = PassthroughFs::new(Config::new(directory)).unwrap();
        Arc::new(Session::with_config(filesystem, read_only).with_window(window))
    };
    let mut guest = serving(session);
    let file = guest.find("file");
    assert_eq!(guest.map_writable(file, (0, 1), 0), Err(Errno::EROFS));
    guest.map(file, (0, 1), 0).unwrap();
    assert!(guest.change(0, 9).is_err());

    let exports = |directory: PathBuf, window: Arc<DaxWindow>| -> Arc<dyn Serve> {
        let share = || PassthroughFs::new(Config::new(&directory)).unwrap();
        let exports = Exports::new().add(c"both", share()).unwrap();
        let exports = exports.add(c"read", ReadOnly::new(share())).unwrap();
        Arc::new(Session::new(exports).with_window(window))
    };
    let mut guest = serving(exports);
    for (export, writable) in [("both", Ok(())), ("read", Err(Errno::EROFS))] {
        let root = guest.find(export);
        let file = guest.mount.lookup(root, c"file").unwrap().nodeid;
        assert_eq!(guest.map_writable(file, (1, 1), 0), writable);
        guest.map(file, (1, 1), 0).unwrap();
        assert_eq!(guest.look(0), 2);
        let handle = guest.mount.open(file, RDONLY).unwrap().fh;
        guest
            .setup(file, part(handle, (2, 1), 0, MappingFlags::READ))
            .unwrap();
        assert_eq!(guest.look(0), 3);
    }
}

#[test]
fn thousands_of_mappings_cost_one_descriptor() {
    let mut guest = guest();
    let file = guest.find("file");
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..40 {
        for page in 0..64 {
            guest.map(file, ((page + round) % 8, 1), page).unwrap();
        }
    }
    assert_eq!(guest.mappings(), 64);
    // Other tests come and go.
    let after = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 500, "{before} {after}");
    assert_eq!(guest.look(63), ((63 + 39) % 8) as u8 + 1);
}

#[test]
fn nothing_is_mapped_when_a_session_ends() {
    let mut guest = guest();
    let file = guest.find("file");
    guest.map(file, (0, 8), 0).unwrap();
    guest.device.pause().unwrap();
    assert!(matches!(guest.device.save(), Err(Error::Mapped(1))));
    guest.device.resume().unwrap();
    assert_eq!(guest.look(5), 6);
    // Another INIT.
    guest.mount.remount(&dax()).unwrap();
    eventually("it is unmapped", || {
        guest.device.status().window.unwrap().mappings == 0
    });
    let file = guest.find("file");
    guest.map(file, (0, 8), 0).unwrap();
    assert_eq!(guest.mappings(), 1);
    guest.device.reset().unwrap();
    assert_eq!(guest.mappings(), 0);
    guest.mount.connection().reset().unwrap();
    guest.machine.start(&mut guest.device);
    guest.mount.remount(&dax()).unwrap();
    let file = guest.find("file");
    guest.map(file, (1, 1), 0).unwrap();
    assert_eq!((guest.mappings(), guest.look(0)), (1, 2));
    // A guest without DAX.
    guest.mount.remount(&MountOptions::default()).unwrap();
    let file = guest.find("file");
    assert_eq!(guest.map(file, (1, 1), 0), Err(Errno::ENOSYS));
}

/// Of requests that are being served then, some are done in the session and some are not.
#[test]
fn nothing_stays_mapped_of_a_driver_that_ends_in_the_midst() {
    let mut guest = guest();
    for round in 0..30 {
        let file = guest.find("file");
        let queue = &mut guest.mount.connection().request_queues()[0];
        for at in 0..30 {
            let args = part(Handle::NONE, (at % 8, 1), at, MappingFlags::READ);
            let setup = Operation::SetupMapping(args);
            queue.submit(file, setup, Payload::None).unwrap();
            if at == round {
                let destroy = Operation::Destroy;
                queue.submit(NodeId(0), destroy, Payload::None).unwrap();
            }
        }
        queue.wait().unwrap();
        guest.device.reset().unwrap();
        assert_eq!(guest.mappings(), 0);
        guest.mount.connection().reset().unwrap();
        guest.machine.start(&mut guest.device);
        guest.mount.remount(&dax()).unwrap();
        let file = guest.find("file");
        for at in 0..30 {
            guest.map(file, (at % 8, 1), at).unwrap();
        }
        assert_eq!(guest.mappings(), 30);
        guest.remove(&[(0, 64)]).unwrap();
    }
}

#[test]
fn a_device_without_a_window_has_a_daemon_that_maps_nothing() {
    let guest = guest();
    drop(guest.device);
    let mut device = Device::<Memory>::vhost_user(
        &DeviceConfig::default(),
        VhostUser::new(guest._place.socket()),
    )
    .unwrap();
    assert_eq!(device.window_size(), None);
    let without = Guest::new(&device, Calls::Direct);
    without.machine.start(&mut device);
    let mount = without.connection.mount(&dax()).unwrap();
    assert!(!mount.limits().agreed.contains(InitFlags::MAP_ALIGNMENT));
}

#[test]
fn a_guest_does_not_keep_more_files_open_than_it_may() {
    let mut guest = guest();
    let names: Vec<_> = (0..=FILES).map(|number| format!("file{number}")).collect();
    for name in &names {
        fs::write(guest.directory.path().join(name), pattern()).unwrap();
    }
    let nodes: Vec<_> = names.iter().map(|name| guest.find(name)).collect();
    let (last, first) = nodes.split_last().unwrap();
    for (&node, at) in first.iter().zip(0..) {
        guest.map(node, (0, 1), at).unwrap();
    }
    guest.map(first[0], (3, 2), 20).unwrap();
    assert_eq!(guest.map(*last, (0, 1), 30).unwrap_err(), Errno::ENOMEM);
    // Other requests have what they need.
    guest.mount.open(*last, RDONLY).unwrap();
    assert_eq!(guest.look(20), 4);
    guest.remove(&[(1, 1)]).unwrap();
    guest.map(*last, (2, 1), 30).unwrap();
    assert_eq!(guest.look(30), 3);
    assert_eq!(guest.mappings(), FILES + 1);
}
