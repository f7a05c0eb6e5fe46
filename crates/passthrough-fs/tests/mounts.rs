//! What is mounted below the shared directory.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::Feature;
use passthrough_fs::{Config, InodeFileHandles, Migration, MigrationMode, NewError, PassthroughFs};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

/// Runs `test` on a thread that has mounts of its own, if that is possible here.
fn with_own_mounts(name: &'static str, test: impl FnOnce() + Send + 'static) {
    if !is_root(name) {
        return;
    }
    std::thread::spawn(move || {
        #[allow(deprecated, reason = "its successor only differs for CLONE_FILES")]
        let own = rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::FS);
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        if own.and_then(|()| mount_change("/", private)).is_err() {
            eprintln!("{name}: skipped: needs a mount namespace");
            return;
        }
        test();
    })
    .join()
    .unwrap();
}

#[test]
fn mount_points_are_crossed_and_told_apart() {
    with_own_mounts("mount_points_are_crossed_and_told_apart", || {
        let share = Share::new();
        for name in ["tmpfs", "bind", "source"] {
            std::fs::create_dir(share.host(name)).unwrap();
        }
        std::fs::write(share.host("source/file"), "content").unwrap();
        mount(
            "tmpfs",
            share.host("tmpfs"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )
        .unwrap();
        std::fs::write(share.host("tmpfs/inside"), "inside").unwrap();
        mount_bind(share.host("source"), share.host("bind")).unwrap();

        let submount = |name: &str| {
            let entry = share.lookup(name).unwrap();
            (entry.node, entry.attr.flags.contains(AttrFlags::SUBMOUNT))
        };
        assert!(!submount("tmpfs").1, "not agreed on yet");
        let init = InitIn {
            flags: u32::MAX,
            ..Default::default()
        };
        let mut negotiation = Negotiation::new(&init, InitFlags::empty());
        share.fs.init(&mut negotiation).unwrap();
        assert!(submount("tmpfs").1 && submount("bind").1 && !submount("source").1);

        let tmpfs = submount("tmpfs").0;
        assert_eq!(share.lookup_in(tmpfs, "inside").unwrap().attr.size, 6);
        // One inode, found by way of two mounts.
        let source = share.lookup_in(submount("source").0, "file").unwrap();
        let bind = share.lookup_in(submount("bind").0, "file").unwrap();
        assert_eq!(source.attr.ino, bind.attr.ino);
        assert_ne!(source.node, bind.node);
        // Waiting is a matter of the file's own filesystem.
        let node = share.lookup_in(tmpfs, "inside").unwrap().node;
        let fh = share.open_node(node, RDWR).unwrap();
        let args = FsyncIn {
            fh,
            ..Default::default()
        };
        assert_eq!(share.fs.fsync(&hasty(), node, &args), Ok(()));
        let dir = share.opendir(NodeId::ROOT);
        assert_eq!(share.list(dir, 4096, true).len(), 5);
        // So that the directory can be removed, and nothing but it.
        unmount(share.host("bind"), UnmountFlags::DETACH).unwrap();
        unmount(share.host("tmpfs"), UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn the_root_below_itself_is_another_node() {
    with_own_mounts("the_root_below_itself_is_another_node", || {
        let share = Share::new();
        std::fs::create_dir(share.host("again")).unwrap();
        mount_bind(&share.path, share.host("again")).unwrap();
        let again = share.node("again");
        assert_ne!(again, NodeId::ROOT);
        assert_ne!(share.lookup_in(again, "again").unwrap().node, again);
        unmount(share.host("again"), UnmountFlags::DETACH).unwrap();
    });
}

/// Overlayfs gives what is on a lower layer another time of birth when it is first changed.
#[test]
fn what_an_overlay_copies_up_is_still_the_same() {
    with_own_mounts("what_an_overlay_copies_up_is_still_the_same", || {
        let share = Share::in_dir(TempDir::new_in("/dev/shm").unwrap(), |config| {
            config.max_open_inodes(0)
        });
        for name in ["lower/dir/sub", "upper", "work", "merged"] {
            std::fs::create_dir_all(share.host(name)).unwrap();
        }
        std::fs::write(share.host("lower/dir/file"), "lower").unwrap();
        let layer = |name: &str| share.host(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layer("lower"),
            layer("upper"),
            layer("work")
        );
        let options = cstr(&options);
        let flags = MountFlags::empty();
        let merged = share.host("merged");
        if mount("overlay", &merged, "overlay", flags, Some(&*options)).is_err() {
            eprintln!("skipped: needs overlayfs");
            return;
        }
        let dir = share.lookup_in(share.node("merged"), "dir").unwrap().node;
        let sub = share.lookup_in(dir, "sub").unwrap().node;
        let file = share.lookup_in(dir, "file").unwrap().node;
        // By the guest, which has it open then, and by the host.
        let handle = share.open_node(file, RDWR).unwrap();
        share.write((file, handle), 0, b"upper").unwrap();
        share.release((file, handle)).unwrap();
        std::fs::write(merged.join("dir/sub/new"), "").unwrap();
        for node in [dir, sub, file] {
            share.attr(node);
        }
        assert_eq!(share.lookup_in(dir, "sub").unwrap().node, sub);
        assert_eq!(share.lookup_in(dir, "file").unwrap().node, file);
        drop(share.fs);
        unmount(&merged, UnmountFlags::DETACH).unwrap();
    });
}

/// To a guest's kernel that heeds ACLs, any error but ENODATA forbids all access.
#[test]
fn files_that_cannot_have_acls_have_none() {
    with_own_mounts("files_that_cannot_have_acls_have_none", || {
        const ACL: &std::ffi::CStr = c"system.posix_acl_access";
        let share = Share::with(|config| config.posix_acl(Feature::Always));
        begin(&share.fs, InitFlags::POSIX_ACL | InitFlags::DONT_MASK).unwrap();
        std::fs::create_dir(share.host("ramfs")).unwrap();
        let flags = MountFlags::empty();
        mount("ramfs", share.host("ramfs"), "ramfs", flags, None).unwrap();
        let node = share.node("ramfs");
        assert_eq!(errno(get_xattr(&share, node, ACL)), Errno::ENODATA);
        let empty = [2, 0, 0, 0];
        assert_eq!(
            errno(set_xattr(&share, node, ACL, &empty)),
            Errno::EOPNOTSUPP
        );
        drop(share.fs);
        unmount(share.path.join("ramfs"), UnmountFlags::DETACH).unwrap();
    });
}

fn mount_tmpfs(at: &std::path::Path) {
    std::fs::create_dir(at).unwrap();
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// What a guest that knows everything agrees on.
fn agree(share: &Share) {
    let init = InitIn {
        flags: u32::MAX,
        ..Default::default()
    };
    let mut negotiation = Negotiation::new(&init, InitFlags::empty());
    share.fs.init(&mut negotiation).unwrap();
}

#[test]
fn numbers_are_unique_where_the_guest_knows_no_submounts() {
    with_own_mounts("numbers_are_unique", || {
        let share = Share::new();
        let (first, second) = (share.host("first"), share.host("second"));
        for path in [&first, &second] {
            mount_tmpfs(path);
            std::fs::write(path.join("file"), "").unwrap();
        }
        let numbers = |announced: bool| {
            let root = share.opendir(NodeId::ROOT);
            let listed = share.list(root, 4096, true);
            ["first", "second"].map(|name| {
                let dir = share.lookup(name).unwrap();
                let file = share.lookup_in(dir.node, "file").unwrap();
                for entry in [&dir, &file] {
                    assert_eq!(share.attr(entry.node).ino, entry.attr.ino);
                    let statx = share.fs.statx(&me(), entry.node, &StatxIn::default());
                    assert_eq!(statx.unwrap().stat.ino, entry.attr.ino);
                }
                let open = share.opendir(dir.node);
                for plus in [false, true] {
                    let inside = share.list(open, 4096, plus);
                    let inside = inside.iter().find(|inside| inside.name == "file");
                    assert_eq!(inside.unwrap().ino, file.attr.ino);
                }
                let listed = listed.iter().find(|listed| listed.name == name);
                let listed_with_its_number = listed.unwrap().ino == dir.attr.ino;
                // As on the host, where what is below the mount is listed.
                assert_eq!(listed_with_its_number, !announced);
                (dir.attr.ino, file.attr.ino)
            })
        };
        let [of_first, of_second] = numbers(false);
        assert_ne!(of_first.0, of_second.0);
        assert_ne!(of_first.1, of_second.1);
        agree(&share);
        let [of_first, of_second] = numbers(true);
        assert_eq!(of_first, of_second, "each is a filesystem of its own");
        share.fs.destroy();
        unmount(&first, UnmountFlags::DETACH).unwrap();
        unmount(&second, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn numbers_stay_what_they_were_whoever_was_served_before() {
    with_own_mounts("numbers_stay_what_they_were", || {
        let here = Share::new();
        for name in ["first", "second"] {
            mount_tmpfs(&here.host(name));
        }
        let number = |name| here.lookup(name).unwrap().attr.ino;
        let numbers = ["first", "second"].map(number);
        let nodes = ["first", "second"].map(|name| here.node(name));
        let mut state = Vec::new();
        here.fs.state().unwrap().save(&mut state).unwrap();
        // As when a machine goes back to a snapshot: another run saw them the other way round.
        let there = PassthroughFs::new(Config::new(&here.path)).unwrap();
        for name in [c"second", c"first"] {
            let name = Name::new(name).unwrap();
            there.lookup(&me(), NodeId::ROOT, name).unwrap();
        }
        there.state().unwrap().load(&mut &*state).unwrap();
        let number = |node| there.getattr(&me(), node, None).unwrap().attr.ino;
        assert_eq!(nodes.map(number), numbers);
        for name in ["first", "second"] {
            unmount(here.host(name), UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn submounts_are_not_announced_unless_configured() {
    with_own_mounts("submounts_are_not_announced_unless_configured", || {
        let share = Share::with(|config| config.announce_submounts(false));
        mount_tmpfs(&share.host("tmpfs"));
        agree(&share);
        let tmpfs = share.lookup("tmpfs").unwrap();
        assert!(!tmpfs.attr.flags.contains(AttrFlags::SUBMOUNT));
        let host = share.host("tmpfs");
        assert_ne!(
            tmpfs.attr.ino,
            std::os::unix::fs::MetadataExt::ino(&host.metadata().unwrap())
        );
        share.fs.destroy();
        unmount(&host, UnmountFlags::empty()).unwrap();
    });
}

#[test]
fn inodes_below_mounts_are_opened_again() {
    with_own_mounts("inodes_below_mounts_are_opened_again", || {
        for mode in [InodeFileHandles::Prefer, InodeFileHandles::Never] {
            let share = Share::with(|config| config.max_open_inodes(0).inode_file_handles(mode));
            let tmpfs = share.host("tmpfs");
            mount_tmpfs(&tmpfs);
            std::fs::create_dir_all(tmpfs.join("a/b")).unwrap();
            std::fs::write(tmpfs.join("a/b/file"), "content").unwrap();
            for name in ["source", "bind"] {
                std::fs::create_dir(share.host(name)).unwrap();
            }
            std::fs::write(share.host("source/file"), "bound").unwrap();
            mount_bind(share.host("source"), share.host("bind")).unwrap();

            let inside = ["tmpfs", "a", "b", "file"]
                .iter()
                .fold(NodeId::ROOT, |dir, name| {
                    share.lookup_in(dir, name).unwrap().node
                });
            let source = share.lookup_in(share.node("source"), "file").unwrap();
            let bound = share.lookup_in(share.node("bind"), "file").unwrap();
            assert_eq!(share.attr(inside).size, 7);
            assert_ne!(source.node, bound.node);
            assert_eq!(
                (share.attr(source.node).size, share.attr(bound.node).size),
                (5, 5)
            );

            // The file below the mount is the same, but not the one that the guest found there.
            unmount(share.host("bind"), UnmountFlags::DETACH).unwrap();
            std::fs::hard_link(share.host("source/file"), share.host("bind/file")).unwrap();
            if mode == InodeFileHandles::Never {
                let gone = share.fs.getattr(&me(), bound.node, None);
                assert_eq!(errno(gone), Errno::ESTALE);
            }
            let below = share.lookup_in(share.node("bind"), "file").unwrap();
            assert_eq!(below.node, source.node);

            // The host can unmount what the guest has forgotten.
            share.fs.destroy();
            unmount(&tmpfs, UnmountFlags::empty()).unwrap();
        }
    });
}

/// procfs has no file handles that can be opened.
#[test]
fn file_handles_are_mandatory_for_the_root_only() {
    let mandatory = |config: Config| config.inode_file_handles(InodeFileHandles::Mandatory);
    let error = PassthroughFs::new(mandatory(Config::new("/proc/self"))).unwrap_err();
    let NewError::FileHandles { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::Unsupported);

    with_own_mounts("file_handles_are_mandatory_for_the_root_only", move || {
        let share = Share::with(|config| mandatory(config).max_descriptors(10));
        let proc = share.host("proc");
        std::fs::create_dir(&proc).unwrap();
        mount_bind("/proc/self", &proc).unwrap();
        let node = share.node("proc");
        let status = share.lookup_in(node, "status").unwrap().node;
        // What has none keeps its descriptor.
        let (mut found, mut refused) = (0, 0);
        for entry in std::fs::read_dir("/proc/self").unwrap() {
            let name = entry.unwrap().file_name();
            match share.lookup_in(node, name.to_str().unwrap()) {
                Ok(_) => found += 1,
                Err(Error::Errno(Errno::ENFILE)) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(found >= 9 && refused > 0, "{found} {refused}");
        share.attr(status);
        share.fs.destroy();
        unmount(&proc, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn by_handle_what_is_on_another_mount_is_found_on_it() {
    with_own_mounts("by_handle_what_is_on_another_mount_is_found_on_it", || {
        let by_handle = Migration::new().mode(MigrationMode::FileHandles);
        let outer = TempDir::new_in("/dev/shm").unwrap();
        let here = Share::in_dir(outer, |config| config.migration(by_handle));
        mount_tmpfs(&here.host("tmpfs"));
        std::fs::write(here.host("tmpfs/file"), "on another").unwrap();
        std::fs::create_dir_all(here.host("source")).unwrap();
        std::fs::write(here.host("source/file"), "the same").unwrap();
        std::fs::create_dir(here.host("bind")).unwrap();
        mount_bind(here.host("source"), here.host("bind")).unwrap();
        mount_remount(here.host("bind"), MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        let open = |dir: &str| {
            let node = here.lookup_in(here.node(dir), "file").unwrap().node;
            (node, here.open_node(node, RDONLY).unwrap())
        };
        let [tmpfs, source, bind] = ["tmpfs", "source", "bind"].map(open);

        let mut state = Vec::new();
        here.fs.state().unwrap().save(&mut state).unwrap();
        let there = Share {
            fs: PassthroughFs::new(Config::new(&here.path).migration(by_handle)).unwrap(),
            path: here.path.clone(),
            outer: TempDir::new().unwrap(),
        };
        there.fs.state().unwrap().load(&mut &*state).unwrap();
        assert_eq!(there.read(tmpfs, 0, 99).unwrap(), b"on another");
        assert_eq!(there.read(source, 0, 99).unwrap(), b"the same");
        assert_eq!(there.read(bind, 0, 99).unwrap(), b"the same");
        // What the mount forbids is forbidden still.
        there.open_node(source.0, RDWR).unwrap();
        assert_eq!(errno(there.open_node(bind.0, RDWR)), Errno::EROFS);

        for name in ["bind", "tmpfs"] {
            unmount(here.host(name), UnmountFlags::DETACH).unwrap();
        }
    });
}
