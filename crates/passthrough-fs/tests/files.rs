//! Files: what is created, read and written, and how much the host's file is changed by it.

mod common;

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use rustix::fs::OFlags;

fn create_args(flags: OFlags, mode: u32) -> CreateIn {
    CreateIn {
        flags: flags.bits(),
        mode,
        ..Default::default()
    }
}

#[test]
fn what_is_created_and_written_can_be_read() {
    let share = Share::new();
    let args = create_args(OFlags::RDWR, 0o100_640);
    let (entry, opened) = share.create(&me(), "new", args).unwrap();
    let file = (entry.node, opened.handle);
    assert_eq!(entry.attr.mode, 0o100_640);
    assert_eq!(share.write(file, 0, b"hello").unwrap(), 5);
    assert_eq!(share.read(file, 0, 100).unwrap(), b"hello");
    assert_eq!(share.read(file, 3, 1).unwrap(), b"l");
    assert_eq!(share.read(file, 5, 1).unwrap(), b"");
    assert_eq!(std::fs::read(share.host("new")).unwrap(), b"hello");
    assert_eq!(share.node("new"), entry.node);
    share.release(file).unwrap();
}

/// As open(2) does for a process of the host, whoever else makes and removes the file.
#[test]
fn a_file_is_created_or_opened_however_often_the_host_removes_it() {
    let share = Share::new();
    let path = share.host("file");
    let ending = std::sync::atomic::AtomicBool::new(false);
    let results: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ending.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::write(&path, "");
                let _ = std::fs::remove_file(&path);
            }
        });
        let results = (0..20_000)
            .map(|_| {
                let args = create_args(OFlags::RDWR, 0o100_644);
                let (entry, opened) = share.create(&me(), "file", args)?;
                share.release((entry.node, opened.handle))?;
                share.fs.forget(entry.node, 1);
                Ok(())
            })
            .collect();
        ending.store(true, std::sync::atomic::Ordering::Relaxed);
        results
    });
    let failed: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}, as {:?}", failed.len(), failed[0]);
}

#[test]
fn modes_are_exact_whatever_the_umask_of_the_process() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let share = Share::new();
    let args = create_args(OFlags::WRONLY, 0o100_666);
    let (entry, _) = share.create(&me(), "file", args).unwrap();
    assert_eq!(entry.attr.mode, 0o100_666);
    assert_eq!(
        share.mkdir(&me(), "dir", 0o1777).unwrap().attr.mode,
        0o041_777
    );
}

#[test]
fn a_file_that_nobody_may_write_is_written_through_the_handle_that_made_it() {
    let share = Share::new();
    let args = create_args(OFlags::RDWR, 0o100_444);
    let (entry, opened) = share.create(&me(), "read-only", args).unwrap();
    let file = (entry.node, opened.handle);
    assert_eq!(share.write(file, 0, b"x").unwrap(), 1);
    let args = SetattrIn {
        fh: opened.handle,
        size: 5,
        ..set(SetattrValid::SIZE | SetattrValid::FH)
    };
    assert_eq!(share.setattr(entry.node, args).unwrap().size, 5);
}

#[test]
fn create_opens_what_exists_unless_it_must_not() {
    let share = Share::new();
    std::fs::write(share.host("old"), "old content").unwrap();
    let known = share.node("old");

    let exclusive = create_args(OFlags::RDWR | OFlags::EXCL, 0o644);
    assert_eq!(errno(share.create(&me(), "old", exclusive)), Errno::EEXIST);

    let (entry, opened) = share
        .create(&me(), "old", create_args(OFlags::RDWR, 0o644))
        .unwrap();
    assert_eq!(entry.node, known);
    assert_eq!(
        share.read((known, opened.handle), 0, 100).unwrap(),
        b"old content"
    );

    let truncating = create_args(OFlags::RDWR | OFlags::TRUNC, 0o644);
    share.create(&me(), "old", truncating).unwrap();
    assert_eq!(std::fs::read(share.host("old")).unwrap(), b"");
}

#[test]
fn open_truncates_where_told_to() {
    let share = Share::new();
    let (node, _) = share.file("file", b"content", RDWR);
    let flags = (OFlags::WRONLY | OFlags::TRUNC).bits();
    share.open_node(node, flags).unwrap();
    assert_eq!(share.attr(node).size, 0);
}

#[test]
fn a_handle_reads_or_writes_as_it_was_opened() {
    let share = Share::new();
    let (node, reader) = share.file("file", b"content", RDONLY);
    let writer = share.open_node(node, WRONLY).unwrap();
    assert_eq!(errno(share.write((node, reader), 0, b"x")), Errno::EBADF);
    assert_eq!(errno(share.read((node, writer), 0, 1)), Errno::EBADF);
    assert_eq!(errno(share.open_node(node, 3)), Errno::EINVAL);
}

#[test]
fn appending_is_decided_by_each_write() {
    let share = Share::new();
    let append = OFlags::APPEND.bits();
    let (node, fh) = share.file("log", b"one ", RDWR | append);
    let args = WriteIn {
        flags: RDWR | append,
        ..Default::default()
    };
    share.write_with(&me(), (node, fh), args, b"two ").unwrap();
    // Another writer of the host, of whom the guest does not know.
    let host = std::fs::OpenOptions::new()
        .append(true)
        .open(share.host("log"));
    std::io::Write::write_all(&mut host.unwrap(), b"host ").unwrap();
    share.write_with(&me(), (node, fh), args, b"three").unwrap();
    assert_eq!(
        std::fs::read(share.host("log")).unwrap(),
        b"one two host three"
    );
    // The guest took O_APPEND off (fcntl(2)).
    share.write((node, fh), 0, b"ONE").unwrap();
    // Pages that are written back go where they belong.
    let args = WriteIn {
        write_flags: WriteFlags::CACHE,
        offset: 4,
        ..args
    };
    share.write_with(&me(), (node, fh), args, b"TWO").unwrap();
    assert_eq!(
        std::fs::read(share.host("log")).unwrap(),
        b"ONE TWO host three"
    );
}

#[test]
fn offsets_beyond_four_gibibytes_and_holes_are_kept() {
    let share = Share::new();
    let far = (4 << 30) + 123_456_789;
    let file = share.file("sparse", b"start", RDWR);
    assert_eq!(share.write(file, far, b"end").unwrap(), 3);
    assert_eq!(share.read(file, far, 10).unwrap(), b"end");
    assert_eq!(share.read(file, far - 2, 4).unwrap(), b"\0\0en");
    let attr = share.attr(file.0);
    assert_eq!(attr.size, far + 3);
    assert!(attr.blocks * 512 < 1 << 20, "{}", attr.blocks);

    let seek = |offset, whence| {
        let args = LseekIn {
            fh: file.1,
            offset,
            whence,
            ..Default::default()
        };
        share.fs.lseek(&me(), file.0, &args)
    };
    let (data, hole) = (3, 4);
    assert_eq!(seek(0, data).unwrap(), 0);
    let first_hole = seek(0, hole).unwrap();
    assert!((5..=1 << 20).contains(&first_hole), "{first_hole}");
    let last_data = seek(first_hole, data).unwrap();
    assert!((far - (1 << 20)..=far).contains(&last_data), "{last_data}");
    assert_eq!(errno(seek(far + 100, data)), Errno::ENXIO);
    assert_eq!(errno(seek(u64::MAX, data)), Errno::EINVAL);
    assert_eq!(errno(seek(0, 0)), Errno::EINVAL);
}

#[test]
fn an_offset_that_is_none_is_refused() {
    let share = Share::new();
    let file = share.file("file", b"content", RDWR);
    share.read(file, 0, 3).unwrap();
    for offset in [u64::MAX, u64::MAX - 2, 1 << 63, (1 << 63) - 1] {
        assert_eq!(errno(share.read(file, offset, 4)), Errno::EINVAL);
        assert_eq!(errno(share.write(file, offset, b"data")), Errno::EINVAL);
    }
    assert_eq!(std::fs::read(share.host("file")).unwrap(), b"content");
}

#[test]
fn ranges_are_allocated_punched_and_zeroed() {
    let share = Share::new();
    let file = share.file("file", &[7; 64 * 1024], RDWR);
    let fallocate = |mode, offset, length| {
        let args = FallocateIn {
            fh: file.1,
            offset,
            length,
            mode,
            ..Default::default()
        };
        share.fs.fallocate(&me(), file.0, &args)
    };
    let (keep_size, punch, collapse) = (1, 2, 8);
    fallocate(0, 0, 100_000).unwrap();
    assert_eq!(share.attr(file.0).size, 100_000);
    fallocate(keep_size, 0, 200_000).unwrap();
    assert_eq!(share.attr(file.0).size, 100_000);
    fallocate(keep_size | punch, 4096, 4096).unwrap();
    assert_eq!(share.read(file, 4095, 3).unwrap(), [7, 0, 0]);
    assert_eq!(errno(fallocate(collapse, 0, 4096)), Errno::EOPNOTSUPP);
    assert_eq!(errno(fallocate(1 << 20, 0, 4096)), Errno::EOPNOTSUPP);
}

#[test]
fn ranges_are_copied_between_files() {
    let share = Share::new();
    let from = share.file("from", b"0123456789", RDONLY);
    let to = share.file("to", b"", RDWR);
    let args = CopyFileRangeIn {
        fh_in: from.1,
        off_in: 2,
        nodeid_out: to.0,
        fh_out: to.1,
        off_out: 3,
        len: 100,
        flags: 0,
    };
    let copy = |args: CopyFileRangeIn| share.fs.copy_file_range(&me(), from.0, &args);
    assert_eq!(copy(args).unwrap(), 8);
    assert_eq!(share.read(to, 0, 100).unwrap(), b"\0\0\x0023456789");
    assert_eq!(
        errno(copy(CopyFileRangeIn { flags: 1, ..args })),
        Errno::EINVAL
    );
    let wrong = CopyFileRangeIn {
        nodeid_out: from.0,
        ..args
    };
    assert_eq!(errno(copy(wrong)), Errno::EBADF);
}

#[test]
fn a_file_without_a_name_can_be_used() {
    let share = Share::new();
    let args = create_args(OFlags::RDWR, 0o100_600);
    let (entry, opened) = share.fs.tmpfile(&me(), NodeId::ROOT, &args).unwrap();
    let file = (entry.node, opened.handle);
    assert_eq!((entry.attr.nlink, entry.attr.mode), (0, 0o100_600));
    share.write(file, 0, b"data").unwrap();
    assert_eq!(share.read(file, 0, 9).unwrap(), b"data");
    assert_eq!(std::fs::read_dir(&share.path).unwrap().count(), 0);
    // It gets a name.
    let name = cstr("named");
    let name = Name::new(&name).unwrap();
    let linked = share
        .fs
        .link(&me(), entry.node, NodeId::ROOT, name)
        .unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (entry.node, 1));
    assert_eq!(std::fs::read(share.host("named")).unwrap(), b"data");
}

#[test]
fn a_file_is_used_after_its_name_is_gone() {
    let share = Share::new();
    let file = share.file("file", b"content", RDWR);
    std::fs::remove_file(share.host("file")).unwrap();
    assert_eq!(share.read(file, 0, 9).unwrap(), b"content");
    assert_eq!(share.attr(file.0).nlink, 0);
    let again = share.open_node(file.0, RDONLY).unwrap();
    assert_eq!(share.read((file.0, again), 0, 9).unwrap(), b"content");
    let args = SetattrIn {
        mode: 0o600,
        size: 3,
        ..set(SetattrValid::MODE | SetattrValid::SIZE)
    };
    let attr = share.setattr(file.0, args).unwrap();
    assert_eq!((attr.size, attr.mode), (3, 0o100_600));
}

#[test]
fn data_is_brought_to_storage() {
    let share = Share::new();
    let (node, fh) = share.file("file", b"content", RDWR);
    for fsync_flags in [FsyncFlags::empty(), FsyncFlags::FDATASYNC] {
        let args = FsyncIn {
            fh,
            fsync_flags,
            ..Default::default()
        };
        share.fs.fsync(&me(), node, &args).unwrap();
    }
    let (dir, fh) = share.opendir(NodeId::ROOT);
    let args = FsyncIn {
        fh,
        ..Default::default()
    };
    share.fs.fsyncdir(&me(), dir, &args).unwrap();
    share.fs.syncfs(&me(), NodeId::ROOT).unwrap();
    share.fs.syncfs(&me(), node).unwrap();
}

#[test]
fn flush_answers_and_keeps_the_file_open() {
    let share = Share::new();
    let (node, fh) = share.file("file", b"content", RDWR);
    let args = FlushIn {
        fh,
        ..Default::default()
    };
    share.fs.flush(&me(), node, &args).unwrap();
    assert_eq!(share.read((node, fh), 0, 1).unwrap(), b"c");
}

#[test]
fn privileges_are_cleared_by_a_write_that_says_so() {
    if !is_root("privileges_are_cleared_by_a_write_that_says_so") {
        return;
    }
    let share = Share::new();
    let file = share.file("tool", b"content", RDWR);
    let mode = || std::fs::metadata(share.host("tool")).unwrap().mode() & 0o7777;
    let arm = || {
        let armed = std::fs::Permissions::from_mode(0o6755);
        std::fs::set_permissions(share.host("tool"), armed).unwrap();
    };
    arm();
    share.write(file, 0, b"x").unwrap();
    assert_eq!(mode(), 0o6755, "root keeps them");
    let args = WriteIn {
        write_flags: WriteFlags::KILL_SUIDGID,
        ..Default::default()
    };
    share.write_with(&me(), file, args, b"x").unwrap();
    assert_eq!(mode(), 0o755);

    arm();
    let args = SetattrIn {
        size: 1,
        ..set(SetattrValid::SIZE | SetattrValid::KILL_SUIDGID)
    };
    assert_eq!(share.setattr(file.0, args).unwrap().mode, 0o100_755);

    arm();
    let args = OpenIn {
        flags: (OFlags::WRONLY | OFlags::TRUNC).bits(),
        open_flags: OpenInFlags::KILL_SUIDGID,
    };
    share.fs.open(&me(), file.0, &args).unwrap();
    assert_eq!(mode(), 0o755);
    // The thread is as it was.
    arm();
    share.write(file, 0, b"x").unwrap();
    assert_eq!(mode(), 0o6755);
}

#[test]
fn many_threads_share_one_file() {
    let share = Share::new();
    let file = share.file("file", b"", RDWR);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let share = &share;
            scope.spawn(move || {
                for n in 0..100 {
                    let at = (n * 8 + thread) * 8;
                    share.write(file, at, &at.to_ne_bytes()).unwrap();
                    assert_eq!(share.read(file, at, 8).unwrap(), at.to_ne_bytes());
                }
            });
        }
    });
    let host = std::fs::File::open(share.host("file")).unwrap();
    for n in 0..800_u64 {
        let mut word = [0; 8];
        host.read_exact_at(&mut word, n * 8).unwrap();
        assert_eq!(u64::from_ne_bytes(word), n * 8);
    }
}

/// What is opened once more is opened by its file handle, where there is one.
#[test]
fn a_file_that_is_opened_often_stays_the_same() {
    for share in [Share::new(), Share::in_memory()] {
        let (node, _) = share.file("file", b"content", RDWR);
        let moved = share.host("moved");
        let read = |expected: &[u8]| {
            for flags in [RDONLY, RDWR] {
                let fh = share.open_node(node, flags).unwrap();
                assert_eq!(share.read((node, fh), 0, 64).unwrap(), expected);
                share.release((node, fh)).unwrap();
            }
        };
        read(b"content");
        // The host puts another in its place.
        std::fs::rename(share.host("file"), &moved).unwrap();
        std::fs::write(share.host("file"), "other").unwrap();
        read(b"content");
        std::fs::hard_link(&moved, share.host("linked")).unwrap();
        std::fs::remove_file(&moved).unwrap();
        read(b"content");
        std::fs::remove_file(share.host("linked")).unwrap();
        read(b"content");
        let fh = share.open_node(node, WRONLY | libc::O_TRUNC.unsigned_abs());
        share.release((node, fh.unwrap())).unwrap();
        read(b"");
        assert_eq!(std::fs::read(share.host("file")).unwrap(), b"other");
    }
}
