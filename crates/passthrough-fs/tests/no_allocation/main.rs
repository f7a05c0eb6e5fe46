//! What a guest does all the time does not touch the heap.

#[path = "../common/mod.rs"]
mod common;
mod sys;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use sys::allocations;

#[track_caller]
fn assert_none<T>(what: &str, call: impl FnOnce() -> Result<T>) {
    let before = allocations();
    let result = call();
    assert_eq!(allocations() - before, 0, "{what}");
    assert!(result.is_ok(), "{what}");
}

#[test]
fn the_hot_path_does_not_allocate() {
    let share = Share::with(|config| config.xattr(passthrough_fs::Xattr::On));
    let (node, fh) = share.file("file", b"content", RDWR);
    let fs = &share.fs;
    let cx = me();
    let name = Name::new(c"file").unwrap();
    let xattr = XattrName::new(c"user.a").unwrap();
    let flags = flags::SetxattrFlags::empty();
    fs.setxattr(&cx, node, xattr, b"value", 0, flags).unwrap();
    assert_ne!(allocations(), 0, "the test itself does allocate");

    let mut buffer = [0; 64];
    let read = ReadIn {
        fh,
        size: 64,
        ..Default::default()
    };
    let write = WriteIn {
        fh,
        size: 4,
        ..Default::default()
    };
    assert_none("lookup", || fs.lookup(&cx, NodeId::ROOT, name));
    assert_none("getattr", || fs.getattr(&cx, node, Some(fh)));
    assert_none("read", || {
        fs.read(&cx, node, &read, &mut BufferSink::new(&mut buffer))
    });
    assert_none("write", || {
        fs.write(&cx, node, &write, &mut BufferSource::new(b"data"))
    });
    assert_none("getxattr", || fs.getxattr(&cx, node, xattr, &mut buffer));
    assert_none("flush", || {
        fs.flush(
            &cx,
            node,
            &FlushIn {
                fh,
                ..Default::default()
            },
        )
    });
    assert_none("setattr", || {
        fs.setattr(&cx, node, &set(flags::SetattrValid::MTIME))
    });
    assert_none("statfs", || fs.statfs(&cx, node));
    assert_none("forget", || {
        fs.forget(node, 1);
        Ok(())
    });
}

#[test]
fn changing_what_is_known_does_not_allocate() {
    let share = Share::with(|config| config.xattr(passthrough_fs::Xattr::On));
    let (node, fh) = share.file("file", b"content", RDWR);
    let fs = &share.fs;
    let cx = me();
    let name = |name| Name::new(name).unwrap();
    let xattr = XattrName::new(c"user.a").unwrap();
    let how = flags::SetxattrFlags::empty();
    let none = flags::RenameFlags::empty();
    // What a thread does once, when it first does something, and what an inode is learned of when
    // it is opened for the second time.
    fs.setxattr(&cx, node, xattr, b"value", 0, how).unwrap();
    share.setattr(node, set(flags::SetattrValid::SIZE)).unwrap();
    let mut buffer = [0; 64];

    for valid in [flags::SetattrValid::MODE, flags::SetattrValid::SIZE] {
        let args = SetattrIn {
            mode: 0o600,
            ..set(valid)
        };
        assert_none("setattr", || fs.setattr(&cx, node, &args));
    }
    let fallocate = FallocateIn {
        fh,
        length: 4096,
        ..Default::default()
    };
    assert_none("fallocate", || fs.fallocate(&cx, node, &fallocate));
    let lseek = LseekIn {
        fh,
        whence: 4,
        ..Default::default()
    };
    assert_none("lseek", || fs.lseek(&cx, node, &lseek));
    let copy = CopyFileRangeIn {
        fh_in: fh,
        nodeid_out: node,
        fh_out: fh,
        off_out: 2048,
        len: 1024,
        ..Default::default()
    };
    assert_none("copy_file_range", || fs.copy_file_range(&cx, node, &copy));
    let fsync = FsyncIn {
        fh,
        ..Default::default()
    };
    assert_none("fsync", || fs.fsync(&cx, node, &fsync));
    assert_none("setxattr", || {
        fs.setxattr(&cx, node, xattr, b"other", 0, how)
    });
    assert_none("listxattr", || fs.listxattr(&cx, node, &mut buffer));
    assert_none("removexattr", || fs.removexattr(&cx, node, xattr));
    assert_none("access", || fs.access(&cx, node, &AccessIn::default()));
    assert_none("statx", || fs.statx(&cx, node, &StatxIn::default()));
    let absent = fs.lookup(&cx, NodeId::ROOT, name(c"absent"));
    assert_none("lookup of what is absent", || {
        let again = fs.lookup(&cx, NodeId::ROOT, name(c"absent"));
        assert_eq!(again.is_ok(), absent.is_ok());
        Ok(())
    });
    // An ordinary user's inodes are opened again by name: where they are is remembered.
    if is_root("names of what is known") {
        assert_none("link", || fs.link(&cx, node, NodeId::ROOT, name(c"linked")));
        let (old, new) = (name(c"linked"), name(c"renamed"));
        assert_none("rename", || {
            fs.rename(&cx, NodeId::ROOT, old, NodeId::ROOT, new, none)
        });
        assert_none("unlink", || fs.unlink(&cx, NodeId::ROOT, new));
    }
}
