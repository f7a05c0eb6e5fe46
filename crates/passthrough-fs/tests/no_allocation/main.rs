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
