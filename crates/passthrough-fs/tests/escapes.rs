//! What leads out of the share on the host, or to something that acts when it is opened.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use rustix::fs::{CWD, FileType, Mode};

#[test]
fn a_symbolic_link_is_itself_and_never_its_target() {
    let share = Share::new();
    for (name, target) in [
        ("absolute", "/etc"),
        ("relative", "../secret"),
        ("parent", ".."),
        ("magic", "/proc/self/root"),
    ] {
        std::os::unix::fs::symlink(target, share.host(name)).unwrap();
        let entry = share.lookup(name).unwrap();
        assert_eq!(entry.attr.mode >> 12, 0o12, "a link");
        let node = entry.node;
        assert_eq!(errno(share.open_node(node, RDONLY)), Errno::ELOOP);
        assert_eq!(errno(share.lookup_in(node, "passwd")), Errno::ENOTDIR);
        let opendir = share.fs.opendir(&me(), node, &OpenIn::default());
        assert_eq!(errno(opendir), Errno::ENOTDIR);
        let truncate = SetattrIn {
            size: 0,
            ..set(SetattrValid::SIZE)
        };
        assert_eq!(errno(share.setattr(node, truncate)), Errno::EINVAL);
        let mut buffer = [0; 100];
        let len = share.fs.readlink(&me(), node, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], target.as_bytes());
    }
    let secret = std::fs::read(share.outside().join("secret")).unwrap();
    assert_eq!(secret, b"secret");
}

#[test]
fn owner_and_times_of_a_link_are_its_own() {
    let share = Share::new();
    std::os::unix::fs::symlink("../secret", share.host("link")).unwrap();
    let node = share.node("link");
    let args = SetattrIn {
        mtime: 1234,
        ..set(SetattrValid::MTIME)
    };
    assert_eq!(share.setattr(node, args).unwrap().mtime, 1234);
    let me = me();
    let args = SetattrIn {
        uid: me.uid,
        gid: me.gid,
        ..set(SetattrValid::UID | SetattrValid::GID)
    };
    share.setattr(node, args).unwrap();
    let secret = std::fs::metadata(share.outside().join("secret")).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::mtime(&secret), 1234);
}

#[test]
fn nothing_is_created_or_opened_through_a_link() {
    let share = Share::new();
    std::os::unix::fs::symlink("../made", share.host("dangling")).unwrap();
    std::os::unix::fs::symlink("../secret", share.host("link")).unwrap();
    for name in ["dangling", "link"] {
        for flags in [WRONLY, RDWR | rustix::fs::OFlags::TRUNC.bits()] {
            let args = CreateIn {
                flags,
                mode: 0o644,
                ..Default::default()
            };
            assert_eq!(errno(share.create(&me(), name, args)), Errno::ELOOP);
        }
        assert_eq!(errno(share.mkdir(&me(), name, 0o755)), Errno::EEXIST);
    }
    assert!(!share.outside().join("made").exists());
    assert_eq!(
        std::fs::read(share.outside().join("secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let share = Share::new();
    std::fs::create_dir(share.host("dir")).unwrap();
    std::fs::write(share.host("dir").join("secret"), "inside").unwrap();
    let dir = share.node("dir");
    std::fs::rename(share.host("dir"), share.host("moved")).unwrap();
    std::os::unix::fs::symlink("..", share.host("dir")).unwrap();
    // The guest holds the directory, not its name.
    let inside = share.lookup_in(dir, "secret").unwrap();
    assert_eq!(inside.attr.size, 6);
    assert_eq!(
        inside.attr.ino,
        std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(share.host("moved").join("secret")).unwrap()
        )
    );
    let link = share.lookup("dir").unwrap();
    assert_ne!(link.node, dir);
    assert_eq!(errno(share.lookup_in(link.node, "secret")), Errno::ENOTDIR);
}

#[test]
fn a_directory_that_leaves_the_share_shows_only_itself() {
    let share = Share::new();
    std::fs::create_dir_all(share.host("dir/below")).unwrap();
    let dir = share.node("dir");
    std::fs::rename(share.host("dir"), share.outside().join("taken")).unwrap();
    // Held by the guest, it can still be used, as an open directory of any process; up from it
    // there is no way, as names have one component.
    let below = share.lookup_in(dir, "below").unwrap().node;
    assert_eq!(errno(share.lookup_in(below, "secret")), Errno::ENOENT);
    let (_, opened) = share.opendir(dir);
    let all = share.list((dir, opened), 4096, true);
    assert_eq!(names(&all), [".", "..", "below"]);
    assert!(
        all.iter()
            .filter(|entry| entry.name == "..")
            .all(|entry| entry.node == 0)
    );
    for name in [c"..", c".", c"", c"../secret", c"/etc/passwd"] {
        assert!(Name::new(name).is_err());
    }
}

#[test]
fn what_acts_when_opened_is_never_opened() {
    let share = Share::new();
    let make = |name: &str, kind| {
        rustix::fs::mknodat(CWD, share.host(name), kind, Mode::RWXU, 0).unwrap();
    };
    make("fifo", FileType::Fifo);
    let _socket = std::os::unix::net::UnixListener::bind(share.host("socket")).unwrap();
    let mut special = vec!["fifo", "socket"];
    if is_root("what_acts_when_opened_is_never_opened (device nodes)") {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            CWD,
            share.host("null"),
            FileType::CharacterDevice,
            Mode::RWXU,
            null,
        )
        .unwrap();
        special.push("null");
    }
    for name in special {
        let entry = share.lookup(name).unwrap();
        for flags in [RDONLY, WRONLY, RDWR] {
            assert_eq!(
                errno(share.open_node(entry.node, flags)),
                Errno::ENXIO,
                "{name}"
            );
            // The guest's CREATE finds that the host was faster. Opening a FIFO would hang.
            let args = CreateIn {
                flags,
                mode: 0o644,
                ..Default::default()
            };
            assert_eq!(
                errno(share.create(&me(), name, args)),
                Errno::ENXIO,
                "{name}"
            );
        }
        let truncate = SetattrIn {
            size: 0,
            ..set(SetattrValid::SIZE)
        };
        assert_eq!(errno(share.setattr(entry.node, truncate)), Errno::EINVAL);
        let opendir = share.fs.opendir(&me(), entry.node, &OpenIn::default());
        assert_eq!(errno(opendir), Errno::ENOTDIR);
        assert_eq!(errno(share.fs.syncfs(&me(), entry.node)), Errno::EBADF);
        // Its attributes can be told and changed.
        let chmod = SetattrIn {
            mode: 0o600,
            ..set(SetattrValid::MODE)
        };
        assert_eq!(
            share.setattr(entry.node, chmod).unwrap().mode & 0o7777,
            0o600
        );
    }
}

#[test]
fn device_nodes_are_made_and_shown_with_their_numbers() {
    if !is_root("device_nodes_are_made_and_shown_with_their_numbers") {
        return;
    }
    let share = Share::new();
    for (name, mode, rdev) in [("char", 0o020_666, 0x103), ("block", 0o060_600, 0x10_0800)] {
        let cname = cstr(name);
        let args = MknodIn {
            mode,
            rdev,
            ..Default::default()
        };
        let entry = share
            .fs
            .mknod(&me(), NodeId::ROOT, Name::new(&cname).unwrap(), &args)
            .unwrap();
        assert_eq!((entry.attr.mode, entry.attr.rdev), (mode, rdev));
        assert_eq!(errno(share.open_node(entry.node, RDONLY)), Errno::ENXIO);
    }
}
