//! Users and groups of the guest that are others on the host.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::IdMap;

fn ids(rules: &[&str]) -> IdMap {
    IdMap::new(rules.iter().map(|rule| rule.parse().unwrap())).unwrap()
}

fn share(users: &[&str], groups: &[&str]) -> Share {
    Share::with(|config| config.ids(ids(users), ids(groups)))
}

fn owner(share: &Share, name: &str) -> (u32, u32) {
    let host = std::fs::symlink_metadata(share.host(name)).unwrap();
    (host.uid(), host.gid())
}

fn give(share: &Share, node: NodeId, uid: u32, gid: u32) -> Result<Attr> {
    let args = SetattrIn {
        uid,
        gid,
        ..set(SetattrValid::UID | SetattrValid::GID)
    };
    share.setattr(node, args)
}

#[test]
fn new_files_belong_to_the_host_s_user() {
    if !is_root("new_files_belong_to_the_host_s_user") {
        return;
    }
    let share = share(&["map:0:100000:1000"], &["map:0:200000:1000"]);
    for (uid, gid) in [(0, 0), (5, 0), (0, 6), (5, 6)] {
        let name = format!("{uid}-{gid}");
        let entry = share.mkdir(&user(uid, gid), &name, 0o755).unwrap();
        assert_eq!((entry.attr.uid, entry.attr.gid), (uid, gid));
        assert_eq!(owner(&share, &name), (100_000 + uid, 200_000 + gid));
    }
    // Ids that no rule is about.
    let entry = share.mkdir(&user(5000, 6000), "other", 0o755).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (5000, 6000));
    assert_eq!(owner(&share, "other"), (5000, 6000));
}

#[test]
fn owners_are_set_and_shown_translated() {
    if !is_root("owners_are_set_and_shown_translated") {
        return;
    }
    let share = share(
        &["guest:10:1010:1", "host:1010:11:1", "forbid-guest:50:10"],
        &["squash-guest:0:77:1000", "squash-host:0:88:1000"],
    );
    let (node, _) = share.file("file", b"", RDONLY);
    let attr = give(&share, node, 10, 10).unwrap();
    assert_eq!(owner(&share, "file"), (1010, 77));
    assert_eq!((attr.uid, attr.gid), (11, 88));
    let stat = share
        .fs
        .statx(&me(), node, &StatxIn::default())
        .unwrap()
        .stat;
    assert_eq!((stat.uid, stat.gid), (11, 88));

    assert_eq!(errno(give(&share, node, 50, 10)), Errno::EPERM);
    assert_eq!(errno(share.mkdir(&user(59, 0), "dir", 0o755)), Errno::EPERM);
    assert!(!share.host("dir").exists());
    assert_eq!(owner(&share, "file"), (1010, 77), "nothing has changed");
}

#[test]
fn access_is_checked_by_the_guest_s_ids() {
    if !is_root("access_is_checked_by_the_guest_s_ids") {
        return;
    }
    let share = share(&["map:1000:1001:1"], &[]);
    let (node, _) = share.file("file", b"", RDONLY);
    chown(share.host("file"), Some(1001), Some(0)).unwrap();
    let mode = SetattrIn {
        mode: 0o600,
        ..set(SetattrValid::MODE)
    };
    share.setattr(node, mode).unwrap();
    let read = AccessIn {
        mask: 4,
        ..Default::default()
    };
    assert_eq!(share.fs.access(&user(1000, 1000), node, &read), Ok(()));
    let other = share.fs.access(&user(1001, 1000), node, &read);
    assert_eq!(errno(other), Errno::EACCES);
}

/// What a daemon that is not root is good for with a rule: the guest's user sees its own id.
#[test]
fn a_user_serves_a_guest_whose_user_has_another_id() {
    let me = me();
    let users = [format!("map:4321:{}:1", me.uid), "forbid-guest:50:1".into()];
    let groups = [format!("map:4322:{}:1", me.gid)];
    let share = share(
        &users.each_ref().map(|rule| &**rule),
        &groups.each_ref().map(|rule| &**rule),
    );
    let entry = share.mkdir(&user(4321, 4322), "dir", 0o755).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (4321, 4322));
    assert_eq!(owner(&share, "dir"), (me.uid, me.gid));
    let attr = give(&share, entry.node, 4321, 4322).unwrap();
    assert_eq!((attr.uid, attr.gid), (4321, 4322));
    let forbidden = share.mkdir(&user(50, 0), "forbidden", 0o755);
    assert_eq!(errno(forbidden), Errno::EPERM);
}

#[test]
fn ids_that_become_none_are_refused() {
    if !is_root("ids_that_become_none_are_refused") {
        return;
    }
    let share = share(&["map:1:100:5"], &[]);
    let (node, _) = share.file("file", b"", RDONLY);
    assert_eq!(errno(give(&share, node, u32::MAX, 0)), Errno::EINVAL);
    let nobody = share.mkdir(&user(u32::MAX, 0), "dir", 0o755);
    assert_eq!(errno(nobody), Errno::EINVAL);
}

/// Who may make a program with SGID of a group that it is not in depends on who it is in the guest
/// (CVE-2018-13405), not on the host.
#[test]
fn sgid_is_kept_for_the_guest_s_root_alone() {
    if !is_root("sgid_is_kept_for_the_guest_s_root_alone") {
        return;
    }
    let share = share(&["guest:0:100000:1", "squash-guest:1000:0:1"], &[]);
    chown(&share.path, None, Some(77)).unwrap();
    let sgid = std::fs::Permissions::from_mode(0o2777);
    std::fs::set_permissions(&share.path, sgid).unwrap();
    let args = CreateIn {
        flags: RDWR,
        mode: 0o102_755,
        ..Default::default()
    };
    for (uid, on_host, expected) in [(0, 100_000, 0o2000), (1000, 0, 0), (0, 100_000, 0o2000)] {
        let name = format!("{uid}");
        let attr = share.create(&user(uid, 5), &name, args).unwrap().0.attr;
        assert_eq!(owner(&share, &name), (on_host, 77));
        assert_eq!(attr.mode & 0o2000, expected, "{uid}");
        std::fs::remove_file(share.host(&name)).unwrap();
    }
}
