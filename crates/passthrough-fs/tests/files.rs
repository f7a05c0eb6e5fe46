//! Files: what is created, read and written, and under which handles.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;

#[test]
fn what_is_created_and_written_can_be_read() {
    let share = Share::new();
    let args = CreateIn {
        flags: RDWR,
        mode: 0o100_640,
        ..Default::default()
    };
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
    assert_eq!(errno(share.read(file, 0, 1)), Errno::EBADF);
    assert_eq!(errno(share.release(file)), Errno::EBADF);
}
