//! What is done where nothing may wait.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use rustix::fs::OFlags;

/// Tells the host to drop what it holds of a file in memory.
fn evict(share: &Share, name: &str) {
    let file = std::fs::File::open(share.host(name)).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn cached_data_is_read_at_once_and_other_data_is_put_off() {
    let share = Share::new();
    let content: Vec<u8> = (0..1 << 20).map(|n| (n / 4096) as u8).collect();
    let file = share.file("file", &content, RDONLY);
    // Only just written.
    match share.read_as(&hasty(), file, 0, content.len()) {
        Ok(data) => assert_eq!(data, content),
        Err(error) => {
            // This filesystem cannot tell.
            assert_eq!(error, Error::WouldBlock);
            return;
        }
    }
    // The host drops no page that is in use at the moment, as it may be where it is busy.
    let put_off = (0..1000).any(|_| {
        evict(&share, "file");
        share.read_as(&hasty(), file, 0, content.len()) == Err(Error::WouldBlock)
    });
    assert!(put_off, "what is not at hand was read all the same");
    assert_eq!(share.read(file, 0, 4096).unwrap(), content[..4096]);
    // Where a part is at hand, it is all or nothing: a short answer is the end of the file.
    match share.read_as(&hasty(), file, 0, content.len()) {
        Ok(data) => assert_eq!(data, content),
        Err(error) => assert_eq!(error, Error::WouldBlock),
    }
    assert_eq!(share.read(file, 0, content.len()).unwrap(), content);
    let end = content.len() as u64 - 10;
    assert_eq!(share.read_as(&hasty(), file, end, 100).unwrap(), [255; 10]);
}

#[test]
fn writes_to_the_page_cache_do_not_wait() {
    let share = Share::new();
    let file = share.file("file", b"", RDWR);
    for n in 0..3 {
        let args = WriteIn {
            offset: n * 5,
            ..Default::default()
        };
        match share.write_with(&hasty(), file, args, b"hello") {
            Ok(written) => assert_eq!(written, 5),
            // Nothing was written.
            Err(error) => {
                assert_eq!(error, Error::WouldBlock);
                share.write_with(&me(), file, args, b"hello").unwrap();
            }
        }
    }
    assert_eq!(
        std::fs::read(share.host("file")).unwrap(),
        b"hellohellohello"
    );
}

#[test]
fn a_write_that_waits_for_storage_is_put_off() {
    let share = Share::new();
    let sync = rustix::fs::OFlags::DSYNC.bits();
    let file = share.file("file", b"old", RDWR | sync);
    let args = WriteIn::default();
    assert_eq!(
        share.write_with(&hasty(), file, args, b"new"),
        Err(Error::WouldBlock)
    );
    assert_eq!(std::fs::read(share.host("file")).unwrap(), b"old");
    share.write_with(&me(), file, args, b"new").unwrap();
}

/// `pwritev2(RWF_DSYNC)` and `mount -o sync` in the guest: where its kernel does not cache, it sends no
/// FSYNC behind such a write.
#[test]
fn a_write_that_is_to_wait_for_storage_by_itself_is_put_off() {
    let share = Share::new();
    let file = share.file("file", b"old", RDWR);
    for sync in [OFlags::DSYNC, OFlags::SYNC] {
        let args = WriteIn {
            flags: RDWR | sync.bits(),
            ..Default::default()
        };
        assert_eq!(
            share.write_with(&hasty(), file, args, b"new"),
            Err(Error::WouldBlock)
        );
        assert_eq!(std::fs::read(share.host("file")).unwrap(), b"old");
    }
    let args = WriteIn {
        flags: RDWR | OFlags::DSYNC.bits(),
        ..Default::default()
    };
    share.write_with(&me(), file, args, b"new").unwrap();
    assert_eq!(std::fs::read(share.host("file")).unwrap(), b"new");
}

#[test]
fn what_surely_waits_is_put_off_except_in_memory() {
    for (share, waits) in [(Share::new(), true), (Share::in_memory(), false)] {
        let (node, fh) = share.file("file", b"content", RDWR);
        let (dir, dir_fh) = share.opendir(NodeId::ROOT);
        let check = |result: Result<()>| {
            assert_eq!(
                result,
                if waits {
                    Err(Error::WouldBlock)
                } else {
                    Ok(())
                }
            );
        };
        let cx = hasty();
        let fsync = FsyncIn {
            fh,
            ..Default::default()
        };
        check(share.fs.fsync(&cx, node, &fsync));
        let fsync = FsyncIn {
            fh: dir_fh,
            ..Default::default()
        };
        check(share.fs.fsyncdir(&cx, dir, &fsync));
        check(share.fs.syncfs(&cx, NodeId::ROOT));
        let fallocate = FallocateIn {
            fh,
            length: 4096,
            ..Default::default()
        };
        check(share.fs.fallocate(&cx, node, &fallocate));
        let copy = CopyFileRangeIn {
            fh_in: fh,
            nodeid_out: node,
            fh_out: fh,
            off_out: 100,
            len: 5,
            ..Default::default()
        };
        check(share.fs.copy_file_range(&cx, node, &copy).map(drop));
        let flush = FlushIn {
            fh,
            ..Default::default()
        };
        assert_eq!(share.fs.flush(&cx, node, &flush), Ok(()));
    }
}

#[test]
fn names_at_hand_are_found_at_once() {
    for share in [Share::new(), Share::in_memory()] {
        std::fs::write(share.host("file"), "").unwrap();
        let name = cstr("file");
        let name = Name::new(&name).unwrap();
        let entry = share.fs.lookup(&hasty(), NodeId::ROOT, name).unwrap();
        assert_eq!(
            share.fs.lookup(&hasty(), NodeId::ROOT, name).unwrap().node,
            entry.node
        );
        let dir = share.opendir(NodeId::ROOT);
        assert_eq!(share.readdirplus(&hasty(), dir, 0, 4096).unwrap().len(), 3);
    }
}
