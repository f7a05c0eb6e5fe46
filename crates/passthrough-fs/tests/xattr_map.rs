//! Extended attributes under other names on the host.

mod common;

use std::ffi::CStr;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use rustix::fs::XattrFlags;

fn share(rules: &str) -> Share {
    Share::with(|config| config.xattr_map(rules.parse().unwrap()))
}

fn remove(share: &Share, node: NodeId, name: &CStr) -> Result<()> {
    share
        .fs
        .removexattr(&me(), node, XattrName::new(name).unwrap())
}

fn set_on_host(share: &Share, name: &CStr, value: &[u8]) {
    let path = share.host("file");
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[test]
fn a_user_stores_what_only_root_may_set() {
    let share = share(":map::user.virtiofs.:");
    let (node, _) = share.file("file", b"", RDONLY);
    for name in [c"trusted.a", c"security.b", c"user.c", c"any"] {
        set_xattr(&share, node, name, name.to_bytes()).unwrap();
        assert_eq!(get_xattr(&share, node, name).unwrap(), name.to_bytes());
    }
    let on_host = host_xattr(&share.host("file"), c"user.virtiofs.trusted.a");
    assert_eq!(on_host.unwrap(), b"trusted.a");
    assert_eq!(host_xattr(&share.host("file"), c"trusted.a"), None);

    // What the host has besides is not the guest's to see.
    set_on_host(&share, c"user.of_the_host", b"x");
    let mut names: Vec<_> = list_xattrs(&share, node);
    names.pop();
    let mut names: Vec<_> = names.split(|byte| *byte == 0).collect();
    names.sort_unstable();
    assert_eq!(names, [&b"any"[..], b"security.b", b"trusted.a", b"user.c"]);
    let hidden = get_xattr(&share, node, c"user.of_the_host");
    assert_eq!(errno(hidden), Errno::ENODATA);

    remove(&share, node, c"trusted.a").unwrap();
    assert_eq!(errno(get_xattr(&share, node, c"trusted.a")), Errno::ENODATA);
}

#[test]
fn rules_deny_and_hide() {
    let share = share(
        ":unsupported:all:user.u.:user.u.:
         :bad:all:user.b.:user.b.:
         :ok:all:::",
    );
    let (node, _) = share.file("file", b"", RDONLY);
    for name in [c"user.u.x", c"user.b.x", c"user.ok"] {
        set_on_host(&share, name, b"x");
    }
    assert_eq!(list_xattrs(&share, node), b"user.ok\0");
    for (name, set, got) in [
        (c"user.b.x", Errno::EPERM, Errno::ENODATA),
        (c"user.u.x", Errno::EOPNOTSUPP, Errno::EOPNOTSUPP),
    ] {
        assert_eq!(errno(set_xattr(&share, node, name, b"")), set);
        assert_eq!(errno(remove(&share, node, name)), set);
        assert_eq!(errno(get_xattr(&share, node, name)), got);
    }
}

#[test]
fn names_that_become_too_long_are_none() {
    let share = share(":map::user.virtiofs.:");
    let (node, _) = share.file("file", b"", RDONLY);
    let name = cstr(&"x".repeat(250));
    assert_eq!(errno(set_xattr(&share, node, &name, b"")), Errno::ERANGE);
    assert_eq!(errno(get_xattr(&share, node, &name)), Errno::ENODATA);
}

/// A list is as long as what the guest sees of it: neither is it told of more room than it needs,
/// nor is a buffer refused that would do.
#[test]
fn lists_are_as_long_as_the_guest_sees_them() {
    let share = share(":map::user.virtiofs.:");
    let (node, _) = share.file("file", b"", RDONLY);
    assert_eq!(share.fs.listxattr(&me(), node, &mut []), Ok(0));
    set_xattr(&share, node, c"user.a", b"x").unwrap();
    // More than what is tried first.
    for n in 0..100 {
        set_on_host(&share, &cstr(&format!("user.hidden{n:03}")), b"");
    }
    assert_eq!(share.fs.listxattr(&me(), node, &mut []), Ok(7));
    for len in [7, 8, 100, 5000] {
        let mut buffer = vec![0; len];
        assert_eq!(share.fs.listxattr(&me(), node, &mut buffer), Ok(7));
        assert!(buffer.starts_with(b"user.a\0"));
    }
    let short = share.fs.listxattr(&me(), node, &mut [0; 6]);
    assert_eq!(errno(short), Errno::ERANGE);
}

/// CVE-2021-20263: the host does not know the guest's capabilities by their other name.
#[test]
fn renamed_capabilities_of_a_file_go_when_it_changes() {
    const CAPABILITY: &CStr = c"security.capability";
    let share = share(":map:security.capability:user.virtiofs.:");
    let file = share.file("file", b"content", RDWR);
    let (node, fh) = file;
    let arm = || set_xattr(&share, node, CAPABILITY, b"any").unwrap();
    let on_host = || host_xattr(&share.host("file"), c"user.virtiofs.security.capability");
    let disarmed = |how: &str| {
        assert_eq!(on_host(), None, "{how}");
        arm();
        assert_eq!(on_host().unwrap(), b"any");
    };
    arm();

    share.write(file, 0, b"x").unwrap();
    disarmed("write");
    let size = SetattrIn {
        size: 3,
        ..set(SetattrValid::SIZE)
    };
    share.setattr(node, size).unwrap();
    disarmed("truncate");
    let handle = SetattrIn {
        size: 3,
        fh,
        ..set(SetattrValid::SIZE | SetattrValid::FH)
    };
    share.setattr(node, handle).unwrap();
    disarmed("ftruncate");
    let owner = SetattrIn {
        uid: me().uid,
        ..set(SetattrValid::UID)
    };
    share.setattr(node, owner).unwrap();
    disarmed("chown");
    let truncating = rustix::fs::OFlags::TRUNC.bits();
    share.open_node(node, WRONLY | truncating).unwrap();
    disarmed("open with O_TRUNC");
    let allocate = FallocateIn {
        fh,
        length: 10,
        ..Default::default()
    };
    share.fs.fallocate(&me(), node, &allocate).unwrap();
    disarmed("fallocate");
    let (source, fh_in) = share.file("source", b"content", RDONLY);
    let copy = CopyFileRangeIn {
        fh_in,
        nodeid_out: node,
        fh_out: fh,
        len: 3,
        ..Default::default()
    };
    assert_eq!(share.fs.copy_file_range(&me(), source, &copy), Ok(3));
    disarmed("copy_file_range");

    // The guest's kernel took them away when its pages were written to. Since then, they may have
    // been given again.
    let pages = WriteIn {
        write_flags: WriteFlags::CACHE,
        ..Default::default()
    };
    share.write_with(&me(), file, pages, b"x").unwrap();
    assert_eq!(on_host().unwrap(), b"any");
    // What does not change the file leaves them.
    share.read(file, 0, 1).unwrap();
    let mode = SetattrIn {
        mode: 0o700,
        ..set(SetattrValid::MODE)
    };
    share.setattr(node, mode).unwrap();
    set_xattr(&share, node, c"user.other", b"x").unwrap();
    assert_eq!(get_xattr(&share, node, CAPABILITY).unwrap(), b"any");
    assert_eq!(
        get_xattr(&share, source, CAPABILITY).unwrap_err(),
        Errno::ENODATA.into()
    );
}

#[test]
fn renamed_capabilities_stay_with_a_program_that_cannot_be_truncated() {
    const CAPABILITY: &CStr = c"security.capability";
    let share = share(":map:security.capability:user.virtiofs.:");
    std::fs::copy("/bin/cat", share.host("program")).unwrap();
    let node = share.node("program");
    set_xattr(&share, node, CAPABILITY, b"any").unwrap();
    let mut running = std::process::Command::new(share.host("program"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let truncating = rustix::fs::OFlags::TRUNC.bits();
    let opened = share.open_node(node, WRONLY | truncating);
    let empty = set(SetattrValid::SIZE);
    const ETXTBSY: i32 = 26;
    assert_eq!(errno(opened).raw(), ETXTBSY);
    assert_eq!(errno(share.setattr(node, empty)).raw(), ETXTBSY);
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    let left = host_xattr(&share.host("program"), c"user.virtiofs.security.capability");
    assert_eq!(left.unwrap(), b"any");
}
