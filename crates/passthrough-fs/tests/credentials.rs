//! Whom new files belong to.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;

const UID: u32 = 1234;
const GID: u32 = 2345;

fn make_all(share: &Share, cx: &Context<'_>, prefix: &str) -> Vec<Attr> {
    let name = |kind: &str| cstr(&format!("{prefix}-{kind}"));
    let (symlink, fifo) = (name("link"), name("fifo"));
    let args = CreateIn {
        flags: RDWR,
        mode: 0o644,
        ..Default::default()
    };
    let file = share.create(cx, &format!("{prefix}-file"), args).unwrap().0;
    let dir = share.mkdir(cx, &format!("{prefix}-dir"), 0o755).unwrap();
    let target = SymlinkTarget::new(c"x").unwrap();
    let link = share
        .fs
        .symlink(cx, NodeId::ROOT, Name::new(&symlink).unwrap(), target)
        .unwrap();
    let mknod = MknodIn {
        mode: 0o010_644,
        ..Default::default()
    };
    let fifo = share
        .fs
        .mknod(cx, NodeId::ROOT, Name::new(&fifo).unwrap(), &mknod)
        .unwrap();
    let unnamed = share.fs.tmpfile(cx, NodeId::ROOT, &args).unwrap().0;
    [file, dir, link, fifo, unnamed]
        .map(|entry| entry.attr)
        .to_vec()
}

#[test]
fn new_files_belong_to_the_caller() {
    if !is_root("new_files_belong_to_the_caller") {
        return;
    }
    let share = Share::new();
    // The guest's kernel has let the caller in, by groups or ACLs that are not known here.
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&share.path, closed).unwrap();
    for (uid, gid) in [(UID, GID), (0, GID), (UID, 0), (0, 0)] {
        for attr in make_all(&share, &user(uid, gid), &format!("{uid}-{gid}")) {
            assert_eq!((attr.uid, attr.gid), (uid, gid));
        }
    }
    // The thread is itself again.
    assert!(rustix::process::geteuid().is_root());
    assert_eq!(rustix::process::getegid().as_raw(), 0);
    std::fs::write(share.host("own"), "").unwrap();
    assert_eq!(std::fs::metadata(share.host("own")).unwrap().uid(), 0);
}

#[test]
fn failures_give_the_thread_its_identity_back() {
    if !is_root("failures_give_the_thread_its_identity_back") {
        return;
    }
    let share = Share::new();
    let before = rustix::thread::capabilities(None).unwrap();
    std::fs::create_dir(share.host("dir")).unwrap();
    for _ in 0..3 {
        let result = share.mkdir(&user(UID, GID), "dir", 0o755);
        assert_eq!(errno(result), Errno::EEXIST);
        assert!(rustix::process::geteuid().is_root());
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before);
    }
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        let result = share.mkdir(&user(uid, gid), "other", 0o755);
        assert_eq!(errno(result), Errno::EINVAL);
    }
    assert!(!share.host("other").exists());
}

#[test]
fn other_threads_keep_their_identity() {
    if !is_root("other_threads_keep_their_identity") {
        return;
    }
    let share = Share::new();
    std::thread::scope(|scope| {
        for thread in 1..5 {
            let share = &share;
            scope.spawn(move || {
                for n in 0..200 {
                    let name = format!("{thread}-{n}");
                    let entry = share.mkdir(&user(thread, thread), &name, 0o700).unwrap();
                    assert_eq!((entry.attr.uid, entry.attr.gid), (thread, thread));
                }
            });
        }
        for n in 0..200 {
            std::fs::create_dir(share.host(&n.to_string())).unwrap();
            let host = std::fs::metadata(share.host(&n.to_string())).unwrap();
            assert_eq!((host.uid(), host.gid()), (0, 0));
        }
    });
}

/// CVE-2018-13405 and CVE-2022-0358: a directory with SGID hands its group on, and a user who is
/// not in that group must not get a program with SGID of it.
#[test]
fn a_directory_with_sgid_gives_its_group_but_not_its_privilege() {
    if !is_root("a_directory_with_sgid_gives_its_group_but_not_its_privilege") {
        return;
    }
    let share = Share::new();
    chown(&share.path, None, Some(77)).unwrap();
    let sgid = std::fs::Permissions::from_mode(0o2777);
    std::fs::set_permissions(&share.path, sgid).unwrap();
    let args = CreateIn {
        flags: RDWR,
        mode: 0o102_755,
        ..Default::default()
    };
    let attr = share
        .create(&user(UID, GID), "theirs", args)
        .unwrap()
        .0
        .attr;
    assert_eq!((attr.uid, attr.gid), (UID, 77));
    assert_eq!(attr.mode & 0o2000, 0, "not in the group");
    let attr = share.create(&user(UID, 77), "ours", args).unwrap().0.attr;
    assert_eq!((attr.gid, attr.mode & 0o2000), (77, 0o2000), "in the group");
    let attr = share.mkdir(&user(UID, GID), "dir", 0o755).unwrap().attr;
    assert_eq!(
        (attr.gid, attr.mode & 0o2000),
        (77, 0o2000),
        "directories hand it on"
    );
}

#[test]
fn without_root_all_belongs_to_the_process() {
    let me = me();
    if me.uid == 0 {
        eprintln!("without_root_all_belongs_to_the_process: skipped: needs a user other than root");
        return;
    }
    let share = Share::new();
    for attr in make_all(&share, &user(0, 0), "any") {
        assert_eq!((attr.uid, attr.gid), (me.uid, me.gid));
    }
}
