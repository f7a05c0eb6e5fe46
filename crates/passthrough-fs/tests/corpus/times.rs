use std::time::{Duration, SystemTime};

use super::*;

/// Seconds before 1970 travel as negative numbers in two's complement.
fn times(seconds: i64, nanoseconds: u32) -> SetattrIn {
    SetattrIn {
        atime: seconds.cast_unsigned(),
        atimensec: nanoseconds,
        mtime: (seconds + 1).cast_unsigned(),
        mtimensec: nanoseconds,
        ..set(SetattrValid::ATIME | SetattrValid::MTIME)
    }
}

#[test]
fn archives_keep_times_of_every_century() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    for (seconds, nanoseconds) in [
        (-2_000_000_000, 1),
        (-1, 999_999_999),
        (-2, 0),
        (0, 0),
        (0x7fff_ffff, 123_456_789),
        (0x8000_0000, 999_999_999),
        (0xffff_ffff, 1),
        (9_999_999_999, 500_000_000),
    ] {
        let attr = share.setattr(node, times(seconds, nanoseconds)).unwrap();
        for attr in [attr, share.attr(node), share.lookup("file").unwrap().attr] {
            assert_eq!(attr.atime.cast_signed(), seconds);
            assert_eq!(attr.mtime.cast_signed(), seconds + 1);
            assert_eq!((attr.atimensec, attr.mtimensec), (nanoseconds, nanoseconds));
        }
        let stat = share
            .fs
            .statx(&me(), node, &StatxIn::default())
            .unwrap()
            .stat;
        assert_eq!(stat.mtime.sec, seconds + 1);
        assert_eq!(stat.mtime.nsec, nanoseconds);
        let host = std::fs::metadata(share.host("file"))
            .unwrap()
            .modified()
            .unwrap();
        let expected = if seconds + 1 < 0 {
            SystemTime::UNIX_EPOCH - Duration::from_secs((seconds + 1).unsigned_abs())
        } else {
            SystemTime::UNIX_EPOCH + Duration::from_secs((seconds + 1).unsigned_abs())
        };
        assert_eq!(host, expected + Duration::from_nanos(nanoseconds.into()));
    }
}

#[test]
fn times_of_links_and_directories_are_their_own() {
    let share = Share::new();
    std::fs::write(share.host("file"), "").unwrap();
    std::os::unix::fs::symlink("file", share.host("link")).unwrap();
    std::fs::create_dir(share.host("dir")).unwrap();
    for name in ["link", "dir"] {
        let node = share.node(name);
        share.setattr(node, times(-86_400, 7)).unwrap();
        let attr = share.attr(node);
        assert_eq!((attr.mtime.cast_signed(), attr.mtimensec), (-86_399, 7));
    }
    assert!(share.lookup("file").unwrap().attr.mtime.cast_signed() > 1_000_000_000);
}

#[test]
fn make_sees_that_a_file_was_written() {
    let share = Share::new();
    let file = share.file("a.o", b"old", RDWR);
    share.setattr(file.0, times(0, 0)).unwrap();
    share.write(file, 0, b"new").unwrap();
    assert!(share.attr(file.0).mtime > 1_000_000_000);
    // Set, then closed: what was set stays.
    share.setattr(file.0, times(5, 5)).unwrap();
    share.release(file).unwrap();
    let attr = share.attr(file.0);
    assert_eq!((attr.mtime, attr.mtimensec), (6, 5));
}
