//! What the guest is allowed to cache, and what is different where it does more than that.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{CachePolicy, Config, Extras, PassthroughFs};
use rustix::fs::OFlags;

const POLICIES: [CachePolicy; 4] = [
    CachePolicy::Never,
    CachePolicy::Metadata,
    CachePolicy::Auto,
    CachePolicy::Always,
];

fn share_with(extras: Extras) -> Share {
    let share = Share::with(|config| config.extras(extras));
    share.init(InitFlags::all());
    share
}

#[test]
fn each_policy_has_its_timeouts_and_flags() {
    let direct =
        OpenOutFlags::DIRECT_IO | OpenOutFlags::PARALLEL_DIRECT_WRITES | OpenOutFlags::NOFLUSH;
    let keep = OpenOutFlags::KEEP_CACHE;
    let keep_dir = keep | OpenOutFlags::CACHE_DIR;
    let none = OpenOutFlags::empty();
    for (policy, seconds, file, directory) in [
        (CachePolicy::Never, 0, direct, none),
        (CachePolicy::Metadata, 86_400, direct, keep_dir),
        (CachePolicy::Auto, 1, none, none),
        (CachePolicy::Always, 86_400, keep, keep_dir),
    ] {
        let share = Share::with(|config| config.cache(policy));
        share.init(InitFlags::all());
        let valid = Duration::from_secs(seconds);
        let (node, _) = share.file("file", b"", RDWR);
        let entry = share.lookup("file").unwrap();
        assert_eq!((entry.entry_valid, entry.attr_valid), (valid, valid));
        let attributes = share.fs.getattr(&me(), node, None).unwrap();
        assert_eq!(attributes.valid, valid, "{policy:?}");
        assert_eq!(share.open(node, RDWR).unwrap().flags, file, "{policy:?}");
        let args = CreateIn {
            flags: RDWR,
            mode: 0o644,
            ..Default::default()
        };
        let (entry, created) = share.create(&me(), "new", args).unwrap();
        assert_eq!((entry.entry_valid, created.flags), (valid, file));
        let opened = share.fs.opendir(&me(), NodeId::ROOT, &OpenIn::default());
        assert_eq!(opened.unwrap().flags, directory, "{policy:?}");
    }
}

#[test]
fn absence_is_remembered_as_long_as_presence_unless_told_otherwise() {
    let name = Name::new(c"absent").unwrap();
    for policy in POLICIES {
        let share = Share::with(|config| config.cache(policy));
        let found = share.fs.lookup(&me(), NodeId::ROOT, name);
        if policy.timeout().is_zero() {
            assert_eq!(errno(found), Errno::ENOENT);
            continue;
        }
        let entry = found.unwrap();
        let told = (entry.node, entry.entry_valid);
        assert_eq!(told, (NodeId::NEGATIVE, policy.timeout()));
    }
    let second = Duration::from_secs(1);
    let share = Share::with(|config| config.cache(CachePolicy::Never).negative_timeout(second));
    let entry = share.fs.lookup(&me(), NodeId::ROOT, name).unwrap();
    assert_eq!((entry.node, entry.entry_valid), (NodeId::NEGATIVE, second));
    std::fs::write(share.host("absent"), "").unwrap();
    assert_ne!(share.node("absent"), NodeId::NEGATIVE);
    let share = Share::with(|config| config.negative_timeout(Duration::ZERO));
    let found = share.fs.lookup(&me(), NodeId::ROOT, name);
    assert_eq!(errno(found), Errno::ENOENT);
}

#[test]
fn the_guest_is_asked_for_what_the_policy_and_the_extras_need() {
    let plus = InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
    let optional = InitFlags::WRITEBACK_CACHE | InitFlags::DIRECT_IO_ALLOW_MMAP;
    let asked = |policy, extras| {
        let share = Share::with(|config| config.cache(policy).extras(extras));
        share.init(InitFlags::all())
    };
    for policy in POLICIES {
        let never = policy == CachePolicy::Never;
        let flags = asked(policy, Extras::empty());
        assert_eq!(flags.contains(plus), !never, "{policy:?}");
        assert_eq!(flags.contains(InitFlags::CACHE_SYMLINKS), !never);
        assert!(!flags.intersects(optional));
        let flags = asked(policy, Extras::all());
        assert!(!flags.intersects(plus));
        assert!(flags.contains(optional));
        let handles = InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT;
        assert!(!flags.intersects(handles));
    }
}

/// Keeps what it cached of a file that is older than this run, and is not changed by it.
#[test]
fn what_did_not_change_is_kept_when_it_is_opened_again() {
    let source = env!("CARGO_MANIFEST_DIR");
    let keeps = |policy, flags: [u32; 3]| {
        let config = Config::new(source).cache(policy);
        let fs = PassthroughFs::new(config).unwrap();
        let name = Name::new(c"Cargo.toml").unwrap();
        let node = fs.lookup(&me(), NodeId::ROOT, name).unwrap().node;
        flags.map(|flags| {
            let args = OpenIn {
                flags,
                ..Default::default()
            };
            let opened = fs.open(&me(), node, &args).unwrap();
            opened.flags.contains(OpenOutFlags::KEEP_CACHE)
        })
    };
    const EXT: u32 = 0xef53;
    const XFS: u32 = 0x5846_5342;
    const BTRFS: u32 = 0x9123_683e;
    let magic = rustix::fs::statfs(source).unwrap().f_type as u32;
    if [EXT, XFS, BTRFS].contains(&magic) {
        let auto = keeps(CachePolicy::Auto, [RDONLY; 3]);
        assert_eq!(auto, [false, true, true]);
        let auto = keeps(CachePolicy::Auto, [WRONLY, RDWR, RDONLY]);
        assert_eq!(auto, [false, false, true]);
    } else {
        eprintln!("skipped in part: needs a filesystem that is surely on a disk");
    }
    for policy in [CachePolicy::Never, CachePolicy::Metadata] {
        assert_eq!(keeps(policy, [RDONLY; 3]), [false; 3]);
    }
    // What was made just now may change with its times staying as they are.
    let share = Share::with(|config| config.cache(CachePolicy::Auto));
    let (node, _) = share.file("file", b"", RDONLY);
    let flags = share.open(node, RDONLY).unwrap().flags;
    assert!(!flags.contains(OpenOutFlags::KEEP_CACHE));
}

#[test]
fn mapped_files_are_flushed_and_written_one_at_a_time() {
    for (offered, flags) in [
        (InitFlags::DIRECT_IO_ALLOW_MMAP, OpenOutFlags::DIRECT_IO),
        (
            InitFlags::empty(),
            OpenOutFlags::DIRECT_IO | OpenOutFlags::PARALLEL_DIRECT_WRITES | OpenOutFlags::NOFLUSH,
        ),
    ] {
        let extras = Extras::ALLOW_MMAP;
        let share = Share::with(|config| config.cache(CachePolicy::Never).extras(extras));
        share.init(offered);
        let (node, _) = share.file("file", b"", RDWR);
        assert_eq!(share.open(node, RDWR).unwrap().flags, flags);
    }
}

#[test]
fn with_writeback_what_is_written_can_be_read() {
    let share = share_with(Extras::WRITEBACK);
    let append = WRONLY | OFlags::APPEND.bits();
    let (node, fh) = share.file("file", b"content", append);
    assert_eq!(share.read((node, fh), 0, 100).unwrap(), b"content");
    // The guest knows where the end is, and says so.
    let args = WriteIn {
        offset: 3,
        flags: append,
        write_flags: WriteFlags::CACHE,
        ..Default::default()
    };
    share.write_with(&me(), (node, fh), args, b"X").unwrap();
    assert_eq!(share.read((node, fh), 0, 100).unwrap(), b"conXent");

    let args = CreateIn {
        flags: append,
        mode: 0o100_200,
        ..Default::default()
    };
    let (entry, opened) = share.create(&me(), "new", args).unwrap();
    let new = (entry.node, opened.handle);
    share.write(new, 0, b"new").unwrap();
    assert_eq!(share.read(new, 0, 100).unwrap(), b"new");
    let (entry, opened) = share.fs.tmpfile(&me(), NodeId::ROOT, &args).unwrap();
    assert_eq!(share.read((entry.node, opened.handle), 0, 1).unwrap(), b"");
}

#[test]
fn with_writeback_the_host_does_not_know_where_data_is() {
    for (extras, errno) in [
        (Extras::WRITEBACK, Some(Errno::ENOSYS)),
        (Extras::empty(), None),
    ] {
        let share = share_with(extras);
        let (node, fh) = share.file("file", b"content", RDWR);
        let seek_hole = LseekIn {
            fh,
            whence: 4,
            ..Default::default()
        };
        let found = share.fs.lseek(&me(), node, &seek_hole);
        assert_eq!(found, errno.map_or(Ok(7), |errno| Err(errno.into())));
    }
}

#[test]
fn without_a_guest_that_writes_back_nothing_is_different() {
    let share = Share::with(|config| config.extras(Extras::WRITEBACK));
    assert!(share.init(InitFlags::empty()).is_empty());
    let file = share.file("file", b"content", WRONLY);
    assert_eq!(errno(share.read(file, 0, 1)), Errno::EBADF);
}

#[test]
fn with_writeback_a_file_that_may_not_be_read_is_written_directly() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let share = share_with(Extras::WRITEBACK);
    std::fs::write(share.host("file"), "").unwrap();
    std::fs::set_permissions(share.host("file"), PermissionsExt::from_mode(0o200)).unwrap();
    let node = share.node("file");
    let opened = share.open(node, WRONLY).unwrap();
    assert!(opened.flags.contains(OpenOutFlags::DIRECT_IO));
    share.write((node, opened.handle), 0, b"x").unwrap();
    assert_eq!(errno(share.read((node, opened.handle), 0, 1)), Errno::EBADF);
    assert_eq!(errno(share.open(node, RDONLY)), Errno::EACCES);
}

#[test]
fn pages_are_written_back_through_any_handle() {
    let share = share_with(Extras::WRITEBACK | Extras::ALLOW_DIRECT_IO);
    let (node, first) = share.file("file", b"", RDWR);
    let direct = share.open_node(node, WRONLY | OFlags::DIRECT.bits());
    let cached = WriteIn {
        write_flags: WriteFlags::CACHE,
        ..Default::default()
    };
    // The end of a file, by the handle of another program that bypasses the cache.
    let other = (node, direct.unwrap());
    let tail = [7; 5000];
    assert_eq!(share.write_with(&me(), other, cached, &tail).unwrap(), 5000);
    share.release((node, first)).unwrap();
    assert_eq!(std::fs::read(share.host("file")).unwrap(), tail);
}

/// Bytes at an address that is `odd` more than a multiple of 4096.
struct Placed {
    memory: Vec<u8>,
    start: usize,
}

impl Placed {
    fn new(odd: usize, len: usize) -> Self {
        let memory = vec![0; len + 2 * 4096];
        let start = memory.as_ptr().align_offset(4096) + odd;
        let mut placed = Self { memory, start };
        for (value, byte) in (0_u8..251).cycle().zip(placed.bytes(len)) {
            *byte = value;
        }
        placed
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + len]
    }
}

#[test]
fn direct_io_of_any_offset_length_and_address_works() {
    let share = share_with(Extras::ALLOW_DIRECT_IO);
    let direct = OFlags::DIRECT.bits();
    for (odd, offset, len) in [
        (0, 0, 8192),
        (0, 4096, 4096),
        (0, 0, 100),
        (0, 100, 4096),
        (0, 4096, 4097),
        (1, 0, 4096),
        (513, 4095, 12_000),
        (0, 1 << 20, 1),
    ] {
        let what = format!("{len} bytes at {offset}, from address {odd}");
        let (node, fh) = share.file(&format!("{odd},{offset},{len}"), b"", RDWR | direct);
        let mut data = Placed::new(odd, len);
        let data = data.bytes(len);
        assert_eq!(
            share.write((node, fh), offset, data).unwrap(),
            len,
            "{what}"
        );
        let mut back = Placed::new(odd, len + 8192);
        let back = back.bytes(len + 8192);
        let args = ReadIn {
            fh,
            offset,
            size: back.len().try_into().unwrap(),
            ..Default::default()
        };
        let sink = &mut BufferSink::new(back);
        assert_eq!(
            share.fs.read(&me(), node, &args, sink).unwrap(),
            len,
            "{what}"
        );
        assert_eq!(&back[..len], data, "{what}");
    }
}

#[test]
fn direct_io_appends() {
    let share = share_with(Extras::ALLOW_DIRECT_IO);
    let flags = RDWR | OFlags::DIRECT.bits() | OFlags::APPEND.bits();
    let file = share.file("log", b"one ", flags);
    let args = WriteIn {
        flags,
        ..Default::default()
    };
    share.write_with(&me(), file, args, b"two").unwrap();
    assert_eq!(share.read(file, 0, 100).unwrap(), b"one two");
}

#[test]
fn flags_that_are_for_the_host_get_there_where_allowed() {
    let host_flags = |extras, flag: OFlags| {
        let share = share_with(extras);
        let (_, _) = share.file("file", b"", RDWR | flag.bits());
        let path = share.host("file");
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut found = fds.filter_map(|fd| {
            let fd = fd.unwrap();
            let is_it = std::fs::read_link(fd.path()).ok()? == path;
            let info = format!("/proc/self/fdinfo/{}", fd.file_name().to_str()?);
            let info = std::fs::read_to_string(info).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
            let flags = OFlags::from_bits_retain(flags);
            (is_it && !flags.contains(OFlags::PATH)).then_some(flags)
        });
        found.next().unwrap().contains(flag)
    };
    for (extra, flag) in [
        (Extras::ALLOW_DIRECT_IO, OFlags::DIRECT),
        (Extras::PRESERVE_NOATIME, OFlags::NOATIME),
    ] {
        assert!(host_flags(extra, flag));
        assert!(!host_flags(Extras::empty(), flag));
    }
}

#[test]
fn every_mode_of_fallocate_that_linux_sends_is_done() {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    const ZERO_RANGE: u32 = 16;
    let share = Share::new();
    let (node, fh) = share.file("file", &[1; 8192], RDWR);
    let allocate = |mode, offset, length| {
        let args = FallocateIn {
            fh,
            offset,
            length,
            mode,
            padding: 0,
        };
        share.fs.fallocate(&me(), node, &args)
    };
    let content = || std::fs::read(share.host("file")).unwrap();
    allocate(PUNCH_HOLE | KEEP_SIZE, 4096, 8192).unwrap();
    assert_eq!(content(), [[1; 4096], [0; 4096]].concat());
    allocate(0, 0, 8193).unwrap();
    assert_eq!(content().len(), 8193);
    allocate(KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(content().len(), 8193);
    allocate(ZERO_RANGE | KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(content(), [0; 8193]);
    allocate(ZERO_RANGE, 0, 8194).unwrap();
    assert_eq!(content(), [0; 8194]);
    for unknown in [8, 32, 64, PUNCH_HOLE] {
        assert_eq!(errno(allocate(unknown, 0, 4096)), Errno::EOPNOTSUPP);
    }
}
