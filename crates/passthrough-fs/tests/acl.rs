//! POSIX ACLs: kept and handed down by the host, checked by the guest's kernel.

mod common;

use std::ffi::CStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, Feature, IdMap, PassthroughFs};
use rustix::fs::XattrFlags;

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";
const ACLS: InitFlags = InitFlags::POSIX_ACL.union(InitFlags::DONT_MASK);

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NONE: u32 = u32::MAX;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// The entries that every ACL with named ones has, and `named`, in order.
fn acl_with(named: &[(u16, u16, u32)]) -> Vec<u8> {
    let of = |tag| named.iter().copied().filter(move |entry| entry.0 == tag);
    let mut entries = vec![(USER_OBJ, 7, NONE)];
    entries.extend(of(USER));
    entries.push((GROUP_OBJ, 5, NONE));
    entries.extend(of(GROUP));
    entries.extend([(MASK, 7, NONE), (OTHER, 5, NONE)]);
    acl(&entries)
}

/// A share with ACLs agreed on, where the filesystem has any.
fn share(test: &str, configure: impl FnOnce(Config) -> Config) -> Option<Share> {
    let share = Share::with(|config| configure(config).posix_acl(Feature::Always));
    let entries = [(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 5, NONE)];
    let flags = XattrFlags::empty();
    if rustix::fs::setxattr(&share.path, DEFAULT, &acl(&entries), flags).is_err() {
        eprintln!("{test}: skipped: needs a filesystem with ACLs");
        return None;
    }
    rustix::fs::removexattr(&share.path, DEFAULT).unwrap();
    assert_eq!(begin(&share.fs, ACLS).unwrap() & ACLS, ACLS);
    Some(share)
}

fn mode(share: &Share, name: &str) -> u32 {
    let host = std::fs::symlink_metadata(share.host(name)).unwrap();
    host.permissions().mode() & 0o7777
}

#[test]
fn acls_are_agreed_on_as_configured() {
    let outer = tempfile::TempDir::new().unwrap();
    for (feature, offered, expected) in [
        (Feature::Never, ACLS, Ok(InitFlags::empty())),
        (Feature::Auto, ACLS, Ok(ACLS)),
        (Feature::Always, ACLS, Ok(ACLS)),
        (Feature::Auto, InitFlags::POSIX_ACL, Ok(InitFlags::empty())),
        (
            Feature::Always,
            InitFlags::POSIX_ACL,
            Err(Errno::EPROTO.into()),
        ),
        (
            Feature::Always,
            InitFlags::empty(),
            Err(Errno::EPROTO.into()),
        ),
    ] {
        let config = Config::new(outer.path()).posix_acl(feature);
        let fs = PassthroughFs::new(config).unwrap();
        let agreed = begin(&fs, offered).map(|agreed| agreed & ACLS);
        assert_eq!(agreed, expected, "{feature:?} {offered:?}");
    }
}

#[test]
fn acls_under_another_name_are_refused() {
    let with = |rules: &str| {
        let config = Config::new("/tmp")
            .posix_acl(Feature::Auto)
            .xattr_map(rules.parse().unwrap());
        PassthroughFs::new(config).map(drop)
    };
    let error = with(":map::user.virtiofs.:").unwrap_err().to_string();
    let fix = ":ok:all:system.posix_acl_:system.posix_acl_:";
    assert!(error.contains(fix), "{error}");
    with(&format!("{fix} :map::user.virtiofs.:")).unwrap();
    with(":map:trusted.:user.virtiofs.:").unwrap();
}

/// With DONT_MASK the mode comes unmasked. A directory's default ACL takes the place of the umask
/// (acl(5)).
#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let Some(share) = share("a_default_acl_takes_the_place_of_the_umask", |config| {
        config
    }) else {
        return;
    };
    let make = |prefix: &str, umask: u32| {
        let args = CreateIn {
            flags: RDWR,
            mode: 0o100_666,
            umask,
            ..Default::default()
        };
        let file = share.create(&me(), &format!("{prefix}file"), args).unwrap();
        let unnamed = share.fs.tmpfile(&me(), NodeId::ROOT, &args).unwrap();
        let name = cstr(&format!("{prefix}dir"));
        let args = MkdirIn { mode: 0o777, umask };
        let dir = share
            .fs
            .mkdir(&me(), NodeId::ROOT, Name::new(&name).unwrap(), &args);
        let name = cstr(&format!("{prefix}fifo"));
        let args = MknodIn {
            mode: 0o010_666,
            umask,
            ..Default::default()
        };
        let fifo = share
            .fs
            .mknod(&me(), NodeId::ROOT, Name::new(&name).unwrap(), &args);
        [file.0, unnamed.0, dir.unwrap(), fifo.unwrap()].map(|entry| entry.attr.mode & 0o7777)
    };
    assert_eq!(make("a", 0o022), [0o644, 0o644, 0o755, 0o644]);
    assert_eq!(make("b", 0o077), [0o600, 0o600, 0o700, 0o600]);
    assert_eq!(make("c", 0), [0o666, 0o666, 0o777, 0o666]);
    // The umask of one caller is not that of the next.
    assert_eq!(make("d", 0o022), [0o644, 0o644, 0o755, 0o644]);

    let default = acl_with(&[(USER, 7, 1234)]);
    set_xattr(&share, NodeId::ROOT, DEFAULT, &default).unwrap();
    let [file, _unnamed, dir, fifo] = make("e", 0o077);
    assert_eq!([file, dir, fifo], [0o664, 0o775, 0o664]);
    let dir = share.node("edir");
    assert_eq!(get_xattr(&share, dir, DEFAULT).unwrap(), default);
    assert_eq!(get_xattr(&share, dir, ACCESS).unwrap(), default);
}

#[test]
fn without_acls_the_guest_has_applied_the_umask() {
    let share = Share::with(|config| config.posix_acl(Feature::Auto));
    begin(&share.fs, InitFlags::empty()).unwrap();
    let args = CreateIn {
        flags: RDWR,
        mode: 0o100_666,
        umask: 0o077,
        ..Default::default()
    };
    share.create(&me(), "file", args).unwrap();
    assert_eq!(mode(&share, "file"), 0o666);
    let (node, _) = share.file("other", b"", RDONLY);
    let refused = get_xattr(&share, node, ACCESS);
    assert_eq!(errno(refused), Errno::EOPNOTSUPP);
}

#[test]
fn the_mode_and_the_acl_follow_each_other() {
    let Some(share) = share("the_mode_and_the_acl_follow_each_other", |config| config) else {
        return;
    };
    let (node, _) = share.file("file", b"", RDONLY);
    assert_eq!(errno(get_xattr(&share, node, ACCESS)), Errno::ENODATA);
    set_xattr(&share, node, ACCESS, &acl_with(&[(GROUP, 7, 99)])).unwrap();
    assert_eq!(share.attr(node).mode & 0o7777, 0o775);
    let args = SetattrIn {
        mode: 0o640,
        ..set(SetattrValid::MODE)
    };
    share.setattr(node, args).unwrap();
    let expected = acl(&[
        (USER_OBJ, 6, NONE),
        (GROUP_OBJ, 5, NONE),
        (GROUP, 7, 99),
        (MASK, 4, NONE),
        (OTHER, 0, NONE),
    ]);
    assert_eq!(get_xattr(&share, node, ACCESS).unwrap(), expected);
    assert_eq!(list_xattrs(&share, node), b"system.posix_acl_access\0");
    let name = XattrName::new(ACCESS).unwrap();
    share.fs.removexattr(&me(), node, name).unwrap();
    assert_eq!(errno(get_xattr(&share, node, ACCESS)), Errno::ENODATA);
}

#[test]
fn sgid_goes_where_the_guest_says_so() {
    let Some(share) = share("sgid_goes_where_the_guest_says_so", |config| config) else {
        return;
    };
    let (node, _) = share.file("file", b"", RDONLY);
    let name = XattrName::new(ACCESS).unwrap();
    let value = acl_with(&[(USER, 7, 1234)]);
    for (how, expected) in [
        (SetxattrFlags::empty(), 0o2775),
        (SetxattrFlags::ACL_KILL_SGID, 0o775),
    ] {
        let sgid = std::fs::Permissions::from_mode(0o2755);
        std::fs::set_permissions(share.host("file"), sgid).unwrap();
        if mode(&share, "file") & 0o2000 == 0 {
            eprintln!("sgid_goes_where_the_guest_says_so: skipped: not in the group of new files");
            return;
        }
        share
            .fs
            .setxattr(&me(), node, name, &value, 0, how)
            .unwrap();
        assert_eq!(mode(&share, "file"), expected);
        assert_eq!(get_xattr(&share, node, ACCESS).unwrap(), value);
    }
}

#[test]
fn the_users_and_groups_of_an_acl_are_translated() {
    let map = |rules: &[&str]| IdMap::new(rules.iter().map(|rule| rule.parse().unwrap())).unwrap();
    let own = me();
    let users = [
        format!("map:0:{}:1", own.uid),
        "map:1000:100000:10".into(),
        "squash-guest:2000:100999:10".into(),
        "forbid-guest:3000:10".into(),
    ];
    let users = map(&users.each_ref().map(|rule| &**rule));
    let groups = map(&["map:1000:200000:10"]);
    let test = "the_users_and_groups_of_an_acl_are_translated";
    let Some(share) = share(test, |config| config.ids(users, groups)) else {
        return;
    };
    std::fs::create_dir(share.host("dir")).unwrap();
    let node = share.node("dir");
    for name in [ACCESS, DEFAULT] {
        let guest = acl_with(&[
            (USER, 6, 1001),
            (USER, 4, 1002),
            (GROUP, 6, 1003),
            (GROUP, 6, 5),
        ]);
        let host = acl_with(&[
            (USER, 6, 100_001),
            (USER, 4, 100_002),
            (GROUP, 6, 200_003),
            (GROUP, 6, 5),
        ]);
        set_xattr(&share, node, name, &guest).unwrap();
        let path = share.host("dir");
        assert_eq!(host_xattr(&path, name).unwrap(), host);
        assert_eq!(get_xattr(&share, node, name).unwrap(), guest);

        for (named, expected) in [
            (&[(USER, 6, 3001)][..], Errno::EPERM),
            (&[(USER, 6, 2001), (USER, 4, 2002)], Errno::EINVAL),
            (&[(USER, 6, u32::MAX)], Errno::EINVAL),
        ] {
            let refused = set_xattr(&share, node, name, &acl_with(named));
            assert_eq!(errno(refused), expected, "{named:?}");
        }
        for (bad, expected) in [
            (&guest[..guest.len() - 1], Errno::EINVAL),
            (&guest[..3], Errno::EINVAL),
            (&[1, 0, 0, 0][..], Errno::EOPNOTSUPP),
        ] {
            assert_eq!(errno(set_xattr(&share, node, name, bad)), expected);
        }
        assert_eq!(
            host_xattr(&path, name).unwrap(),
            host,
            "nothing has changed"
        );
    }
    // Handed down by the host, in its own ids.
    let args = MkdirIn {
        mode: 0o777,
        umask: 0o022,
    };
    let child = share
        .fs
        .mkdir(&user(0, own.gid), node, Name::new(c"child").unwrap(), &args)
        .unwrap();
    let inherited = get_xattr(&share, child.node, DEFAULT).unwrap();
    assert_eq!(inherited, get_xattr(&share, node, DEFAULT).unwrap());
    let host = std::fs::metadata(share.host("dir/child")).unwrap();
    assert_eq!(host.uid(), own.uid);
}
