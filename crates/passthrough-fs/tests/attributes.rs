//! GETATTR, SETATTR, STATX, STATFS and ACCESS.

mod common;

use std::os::unix::fs::MetadataExt;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;

#[test]
fn attributes_are_those_of_the_host() {
    let share = Share::new();
    let (node, fh) = share.file("file", &[1; 5000], RDWR);
    let host = std::fs::metadata(share.host("file")).unwrap();
    for handle in [None, Some(fh)] {
        let attr = share.fs.getattr(&me(), node, handle).unwrap().attr;
        assert_eq!(attr.ino, host.ino());
        assert_eq!(attr.size, 5000);
        assert_eq!(attr.blocks, host.blocks());
        assert_eq!(u64::from(attr.blksize), host.blksize());
        assert_eq!(attr.mode, host.mode());
        assert_eq!((attr.uid, attr.gid), (host.uid(), host.gid()));
        assert_eq!(attr.nlink, 1);
        assert_eq!(attr.mtime.cast_signed(), host.mtime());
        assert_eq!(i64::from(attr.mtimensec), host.mtime_nsec());
        assert_eq!(i64::from(attr.ctimensec), host.ctime_nsec());
    }
}

#[test]
fn times_before_1970_and_after_2038_keep_their_nanoseconds() {
    for share in [Share::new(), Share::in_memory()] {
        let (node, _) = share.file("file", b"", RDONLY);
        for (seconds, nanoseconds) in [
            (-1_i64, 999_999_999),
            (-1_000_000, 1),
            (0, 0),
            (2_500_000_000, 123_456_789),
            (10_000_000_000, 5),
        ] {
            let args = SetattrIn {
                atime: seconds.cast_unsigned(),
                atimensec: nanoseconds,
                mtime: (seconds + 1).cast_unsigned(),
                mtimensec: nanoseconds,
                ..set(SetattrValid::ATIME | SetattrValid::MTIME)
            };
            let attr = share.setattr(node, args).unwrap();
            assert_eq!(attr.atime.cast_signed(), seconds);
            assert_eq!(attr.atimensec, nanoseconds);
            assert_eq!(attr.mtime.cast_signed(), seconds + 1);
            let host = std::fs::metadata(share.host("file")).unwrap();
            assert_eq!((host.atime(), host.mtime()), (seconds, seconds + 1));
            assert_eq!(host.mtime_nsec(), i64::from(nanoseconds));
        }
    }
}

#[test]
fn each_time_is_set_alone_to_a_value_or_to_now() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    let set_both = SetattrIn {
        atime: 100,
        mtime: 200,
        ..set(SetattrValid::ATIME | SetattrValid::MTIME)
    };
    share.setattr(node, set_both).unwrap();
    let attr = share
        .setattr(
            node,
            SetattrIn {
                mtime: 300,
                ..set(SetattrValid::MTIME)
            },
        )
        .unwrap();
    assert_eq!((attr.atime, attr.mtime), (100, 300));
    let now = SetattrValid::ATIME | SetattrValid::ATIME_NOW;
    let attr = share.setattr(node, set(now)).unwrap();
    assert!(attr.atime > 1_500_000_000);
    assert_eq!(attr.mtime, 300);
    // The change time cannot be set, and asking for it is no error.
    let attr = share
        .setattr(
            node,
            SetattrIn {
                ctime: 5,
                mtime: 6,
                ..set(SetattrValid::CTIME | SetattrValid::MTIME)
            },
        )
        .unwrap();
    assert!(attr.ctime > 1_500_000_000);
    assert_eq!(attr.mtime, 6);
    share.setattr(node, set(SetattrValid::CTIME)).unwrap();
}

#[test]
fn nanoseconds_that_are_none_change_nothing() {
    let share = Share::new();
    let (node, _) = share.file("file", b"content", RDONLY);
    let before = share.attr(node);
    // The first two are UTIME_NOW and UTIME_OMIT.
    for nanoseconds in [0x3fff_ffff, 0x3fff_fffe, 1_000_000_000, u32::MAX] {
        let args = SetattrIn {
            mode: 0,
            size: 0,
            mtimensec: nanoseconds,
            ..set(SetattrValid::MTIME | SetattrValid::MODE | SetattrValid::SIZE)
        };
        assert_eq!(errno(share.setattr(node, args)), Errno::EINVAL);
    }
    assert_eq!(share.attr(node), before);
}

#[test]
fn the_size_is_changed_with_and_without_a_handle() {
    let share = Share::new();
    let (node, fh) = share.file("file", b"content", RDWR);
    let args = SetattrIn {
        size: 3,
        ..set(SetattrValid::SIZE)
    };
    assert_eq!(share.setattr(node, args).unwrap().size, 3);
    let args = SetattrIn {
        size: 5 << 30,
        fh,
        ..set(SetattrValid::SIZE | SetattrValid::FH)
    };
    assert_eq!(share.setattr(node, args).unwrap().size, 5 << 30);
    let args = SetattrIn {
        fh: Handle(99),
        ..args
    };
    assert_eq!(errno(share.setattr(node, args)), Errno::EBADF);
    let args = SetattrIn {
        size: u64::MAX,
        ..set(SetattrValid::SIZE)
    };
    assert_eq!(errno(share.setattr(node, args)), Errno::EINVAL);
    assert_eq!(
        errno(share.setattr(
            NodeId::ROOT,
            SetattrIn {
                size: 0,
                ..set(SetattrValid::SIZE)
            }
        )),
        Errno::EINVAL
    );
}

#[test]
fn permissions_are_changed_and_nothing_else_of_the_mode() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    let args = SetattrIn {
        mode: 0o120_751,
        ..set(SetattrValid::MODE)
    };
    assert_eq!(share.setattr(node, args).unwrap().mode, 0o100_751);
}

#[test]
fn owner_and_group_are_changed_each_alone() {
    if !is_root("owner_and_group_are_changed_each_alone") {
        return;
    }
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    let ids = |attr: Attr| (attr.uid, attr.gid);
    let args = SetattrIn {
        uid: 1000,
        gid: 77,
        ..set(SetattrValid::UID)
    };
    assert_eq!(ids(share.setattr(node, args).unwrap()), (1000, 0));
    let args = SetattrIn {
        uid: 1,
        gid: 77,
        ..set(SetattrValid::GID)
    };
    assert_eq!(ids(share.setattr(node, args).unwrap()), (1000, 77));
    let args = SetattrIn {
        uid: u32::MAX,
        ..set(SetattrValid::UID)
    };
    assert_eq!(errno(share.setattr(node, args)), Errno::EINVAL);
}

#[test]
fn statx_tells_the_time_of_birth() {
    let share = Share::new();
    let (node, _) = share.file("file", b"content", RDONLY);
    let stat = share
        .fs
        .statx(&me(), node, &StatxIn::default())
        .unwrap()
        .stat;
    let host = std::fs::metadata(share.host("file")).unwrap();
    assert_eq!((stat.size, stat.ino), (7, host.ino()));
    assert_eq!(
        (stat.mtime.sec, i64::from(stat.mtime.nsec)),
        (host.mtime(), host.mtime_nsec())
    );
    let birth = host
        .created()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(stat.btime.sec.cast_unsigned(), birth.as_secs());
}

#[test]
fn statfs_tells_of_the_filesystem_below() {
    for share in [Share::new(), Share::in_memory()] {
        let host = rustix::fs::statvfs(&share.path).unwrap();
        let stat = share.fs.statfs(&hasty(), NodeId::ROOT).unwrap();
        assert_eq!(
            (stat.blocks, u64::from(stat.frsize)),
            (host.f_blocks, host.f_frsize)
        );
        assert_eq!(u64::from(stat.namelen), host.f_namemax);
    }
}

#[test]
fn access_goes_by_the_mode() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    share
        .setattr(
            node,
            SetattrIn {
                mode: 0o640,
                ..set(SetattrValid::MODE)
            },
        )
        .unwrap();
    let attr = share.attr(node);
    let may = |uid, gid, mask| {
        let args = AccessIn {
            mask,
            ..Default::default()
        };
        share.fs.access(&user(uid, gid), node, &args).is_ok()
    };
    let (uid, gid) = (attr.uid, attr.gid);
    assert!(may(0, 0, 6) && !may(0, 0, 1));
    assert!(may(4000, gid, 4) && !may(4000, gid, 2));
    assert!(may(4000, gid + 1, 0) && !may(4000, gid + 1, 4));
    if uid != 0 {
        assert!(may(uid, gid + 1, 6) && !may(uid, gid, 1));
    }
}

#[test]
fn flush_is_spared_where_the_guest_holds_no_changed_pages() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    let open = |share: &Share, node, flags| {
        let args = OpenIn {
            flags,
            ..Default::default()
        };
        share.fs.open(&me(), node, &args).unwrap().flags
    };
    assert!(open(&share, node, RDONLY).contains(OpenOutFlags::NOFLUSH));
    assert!(!open(&share, node, RDWR).contains(OpenOutFlags::NOFLUSH));
    // It cannot be mapped, and what is written goes to the host at once.
    assert!(open(&share, node, WRONLY).contains(OpenOutFlags::NOFLUSH));
    let extras = passthrough_fs::Extras::WRITEBACK;
    let collecting = Share::with(|config| config.extras(extras));
    collecting.init(InitFlags::all());
    let (node, _) = collecting.file("file", b"", RDONLY);
    assert!(!open(&collecting, node, WRONLY).contains(OpenOutFlags::NOFLUSH));
    let uncached = Share::with(|config| config.cache(passthrough_fs::CachePolicy::Never));
    let (node, _) = uncached.file("file", b"", RDONLY);
    assert!(open(&uncached, node, RDWR).contains(OpenOutFlags::NOFLUSH));
}

#[test]
fn what_cannot_be_shared_is_refused_with_its_path() {
    let share = Share::new();
    std::fs::write(share.host("file"), "").unwrap();
    for name in ["file", "absent"] {
        let path = share.host(name);
        let config = passthrough_fs::Config::new(&path);
        let error = passthrough_fs::PassthroughFs::new(config)
            .unwrap_err()
            .to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    let wrong = std::fs::File::open("/").unwrap();
    let config = passthrough_fs::Config::new(&share.path).proc_self_fd(wrong.into());
    let error = passthrough_fs::PassthroughFs::new(config).unwrap_err();
    assert!(matches!(error, passthrough_fs::NewError::ForeignProc));
}
