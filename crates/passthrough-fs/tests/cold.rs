//! Inodes whose descriptors were closed: what the guest does with them works, and is done to them
//! and to no other file.

mod common;

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, InodeFileHandles, Xattr};
use rustix::fs::OFlags;
use tempfile::TempDir;

/// Runs `test` for each way in which an inode is opened again, on disk and in memory, with no
/// descriptor of an inode kept for longer than a request.
fn each_way(test: impl Fn(Share)) {
    each_way_with(|config| config.max_open_inodes(0), test);
}

fn each_way_with(configure: impl Fn(Config) -> Config, test: impl Fn(Share)) {
    for mode in [InodeFileHandles::Prefer, InodeFileHandles::Never] {
        for outer in [TempDir::new(), TempDir::new_in("/dev/shm")] {
            let outer = outer.unwrap();
            eprintln!("{mode:?} in {}", outer.path().display());
            let configure = |config: Config| configure(config.inode_file_handles(mode));
            test(Share::in_dir(outer, configure));
        }
    }
}

fn only_by_name(test: impl Fn(Share)) {
    let by_name = |config: Config| {
        config
            .max_open_inodes(0)
            .inode_file_handles(InodeFileHandles::Never)
    };
    test(Share::with(by_name));
    test(Share::in_dir(TempDir::new_in("/dev/shm").unwrap(), by_name));
}

fn name(name: &str) -> std::ffi::CString {
    cstr(name)
}

fn rename(share: &Share, from: (NodeId, &str), to: (NodeId, &str), flags: RenameFlags) {
    let (old, new) = (name(from.1), name(to.1));
    let (old, new) = (Name::new(&old).unwrap(), Name::new(&new).unwrap());
    share
        .fs
        .rename(&me(), from.0, old, to.0, new, flags)
        .unwrap();
}

fn link(share: &Share, node: NodeId, to: &str) {
    let to = name(to);
    let to = Name::new(&to).unwrap();
    assert_eq!(
        share.fs.link(&me(), node, NodeId::ROOT, to).unwrap().node,
        node
    );
}

fn unlink(share: &Share, from: &str) {
    let from = name(from);
    let from = Name::new(&from).unwrap();
    share.fs.unlink(&me(), NodeId::ROOT, from).unwrap();
}

fn descriptors_below(path: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|target| target.starts_with(path))
        .count()
}

#[test]
fn every_operation_works() {
    each_way_with(
        |config| config.max_open_inodes(0).xattr(Xattr::On),
        |share| {
            std::fs::create_dir_all(share.host("a/b/c")).unwrap();
            std::fs::write(share.host("a/b/c/file"), "content").unwrap();
            let dir = ["a", "b", "c"].iter().fold(NodeId::ROOT, |parent, name| {
                share.lookup_in(parent, name).unwrap().node
            });
            let file = share.lookup_in(dir, "file").unwrap();
            let before = descriptors_below(&share.path);
            // The root, and what file handles take.
            assert!(before <= 2, "{before}");
            assert_eq!(share.lookup_in(dir, "file").unwrap().node, file.node);
            assert_eq!(share.attr(file.node).size, 7);
            let args = SetattrIn {
                valid: SetattrValid::MODE,
                mode: 0o600,
                ..Default::default()
            };
            assert_eq!(share.setattr(file.node, args).unwrap().mode, 0o100_600);
            let handle = share.open_node(file.node, RDWR).unwrap();
            let open = (file.node, handle);
            assert_eq!(share.read(open, 0, 9).unwrap(), b"content");
            assert_eq!(share.write(open, 7, b"!").unwrap(), 1);
            assert_eq!(share.attr(file.node).size, 8);
            share.release(open).unwrap();
            let listing = share.opendir(dir);
            let listed = share.list(listing, 4096, true);
            assert!(listed.iter().any(|entry| entry.node == file.node.0));
            share
                .fs
                .releasedir(
                    &me(),
                    dir,
                    &ReleaseIn {
                        fh: listing.1,
                        ..Default::default()
                    },
                )
                .unwrap();
            let made = name("made");
            let made = Name::new(&made).unwrap();
            let args = MkdirIn {
                mode: 0o755,
                umask: 0,
            };
            let made = share.fs.mkdir(&me(), dir, made, &args).unwrap();
            assert_eq!(share.attr(made.node).mode, 0o40_755);
            let target = name("target");
            let target = SymlinkTarget::new(&target).unwrap();
            let symlink = name("symlink");
            let symlink = Name::new(&symlink).unwrap();
            let symlink = share.fs.symlink(&me(), dir, symlink, target).unwrap();
            let mut buffer = [0; 100];
            let len = share.fs.readlink(&me(), symlink.node, &mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"target");
            assert_eq!(descriptors_below(&share.path), before);
            share.fs.destroy();
        },
    );
}

/// What would have to wait must not have been begun: the request is made once more then.
#[test]
fn what_is_made_is_made_once() {
    let share = Share::with(|config| config.max_open_inodes(0));
    let args = CreateIn {
        flags: (OFlags::RDWR | OFlags::EXCL).bits(),
        mode: 0o100_644,
        ..Default::default()
    };
    match share.create(&hasty(), "file", args) {
        Ok((entry, opened)) => {
            assert_eq!(share.write((entry.node, opened.handle), 0, b"x"), Ok(1));
        }
        Err(error) => {
            assert_eq!(error, Error::WouldBlock);
            assert!(!share.host("file").exists());
        }
    }
    let result = share.fs.tmpfile(&hasty(), NodeId::ROOT, &args);
    assert!(result.is_ok() || result == Err(Error::WouldBlock));
}

#[test]
fn what_the_guest_renames_is_found() {
    each_way(|share| {
        std::fs::create_dir_all(share.host("a/b")).unwrap();
        std::fs::create_dir(share.host("c")).unwrap();
        std::fs::write(share.host("a/b/file"), "file").unwrap();
        std::fs::write(share.host("other"), "another").unwrap();
        let (a, c) = (share.node("a"), share.node("c"));
        let b = share.lookup_in(a, "b").unwrap().node;
        let file = share.lookup_in(b, "file").unwrap().node;
        let other = share.node("other");
        rename(&share, (a, "b"), (c, "d"), RenameFlags::empty());
        assert_eq!(share.attr(file).size, 4);
        rename(&share, (NodeId::ROOT, "c"), (a, "c"), RenameFlags::empty());
        assert_eq!(share.attr(file).size, 4);
        rename(&share, (b, "file"), (b, "renamed"), RenameFlags::empty());
        assert_eq!(share.attr(file).size, 4);
        rename(
            &share,
            (b, "renamed"),
            (NodeId::ROOT, "other"),
            RenameFlags::EXCHANGE,
        );
        assert_eq!((share.attr(file).size, share.attr(other).size), (4, 7));
        // What is replaced is gone, and what replaces it is not taken for it.
        rename(
            &share,
            (NodeId::ROOT, "other"),
            (b, "renamed"),
            RenameFlags::empty(),
        );
        assert_eq!(share.attr(file).size, 4);
        assert_eq!(errno(share.fs.getattr(&me(), other, None)), Errno::ESTALE);
    });
}

#[test]
fn a_file_is_found_by_any_of_its_names() {
    each_way(|share| {
        std::fs::write(share.host("first"), "content").unwrap();
        let node = share.node("first");
        link(&share, node, "second");
        unlink(&share, "first");
        assert_eq!(share.attr(node).size, 7);
        link(&share, node, "third");
        unlink(&share, "third");
        assert_eq!(share.attr(node).size, 7);
        // Given by the host, seen by the guest.
        std::fs::hard_link(share.host("second"), share.host("fourth")).unwrap();
        assert_eq!(share.node("fourth"), node);
        unlink(&share, "second");
        assert_eq!(share.attr(node).size, 7);
        unlink(&share, "fourth");
        assert_eq!(errno(share.fs.getattr(&me(), node, None)), Errno::ESTALE);
    });
}

#[test]
fn what_is_removed_while_it_is_open_stays_usable() {
    each_way(|share| {
        let file = share.file("file", b"content", RDWR);
        std::fs::create_dir(share.host("dir")).unwrap();
        let dir = share.opendir(share.node("dir"));
        unlink(&share, "file");
        std::fs::remove_dir(share.host("dir")).unwrap();
        assert_eq!(share.attr(file.0).nlink, 0);
        assert_eq!(share.attr(dir.0).mode & 0o170_000, 0o40_000);
        let args = SetattrIn {
            valid: SetattrValid::SIZE,
            size: 3,
            ..Default::default()
        };
        assert_eq!(share.setattr(file.0, args).unwrap().size, 3);
        share.release(file).unwrap();
        // The guest has let it go; it stays while there is no need for its descriptor.
        share.fs.forget(file.0, 1);
        assert_eq!(errno(share.fs.getattr(&me(), file.0, None)), Errno::ESTALE);

        let name = name("anonymous");
        let name = Name::new(&name).unwrap();
        let args = CreateIn {
            flags: RDWR,
            mode: 0o600,
            ..Default::default()
        };
        let (entry, opened) = share.fs.tmpfile(&me(), NodeId::ROOT, &args).unwrap();
        assert_eq!(share.attr(entry.node).nlink, 0);
        let linked = share
            .fs
            .link(&me(), entry.node, NodeId::ROOT, name)
            .unwrap();
        assert_eq!(linked.node, entry.node);
        share.release((entry.node, opened.handle)).unwrap();
        assert_eq!(share.attr(entry.node).nlink, 1);
    });
}

#[test]
fn a_directory_that_another_takes_the_place_of_stays_until_it_is_forgotten() {
    each_way(|share| {
        let old = share.mkdir(&me(), "old", 0o700).unwrap().node;
        let new = share.mkdir(&me(), "new", 0o755).unwrap().node;
        let (from, to) = ((NodeId::ROOT, "new"), (NodeId::ROOT, "old"));
        rename(&share, from, to, RenameFlags::empty());
        assert_eq!(share.attr(old).nlink, 0);
        assert_eq!(share.node("old"), new);
    });
}

/// A process of the guest may have its working directory there.
#[test]
fn a_directory_that_the_guest_removes_stays_until_it_is_forgotten() {
    each_way(|share| {
        let me = me();
        let made = share.mkdir(&me, "dir", 0o700).unwrap().node;
        let before = descriptors_below(&share.path);
        let dir = name("dir");
        let rmdir = || share.fs.rmdir(&me, NodeId::ROOT, Name::new(&dir).unwrap());
        rmdir().unwrap();
        assert_eq!(share.attr(made).nlink, 0);
        assert_eq!(errno(share.lookup_in(made, "any")), Errno::ENOENT);
        share.fs.forget(made, 1);
        assert_eq!(errno(rmdir()), Errno::ENOENT);

        let full = share.mkdir(&me, "dir", 0o700).unwrap().node;
        std::fs::write(share.host("dir/file"), "").unwrap();
        assert_eq!(errno(rmdir()), Errno::ENOTEMPTY);
        share.attr(full);
        assert_eq!(descriptors_below(&share.path), before);
    });
}

/// The name that the guest knows goes, by which alone the file could be found; it has another.
#[test]
fn a_file_whose_other_names_the_guest_does_not_know_stays_until_it_is_forgotten() {
    each_way(|share| {
        for take_away in [
            |share: &Share| unlink(share, "known"),
            |share: &Share| {
                let (from, to) = ((NodeId::ROOT, "other"), (NodeId::ROOT, "known"));
                rename(share, from, to, RenameFlags::empty());
            },
        ] {
            std::fs::write(share.host("unknown"), "the file").unwrap();
            std::fs::hard_link(share.host("unknown"), share.host("known")).unwrap();
            std::fs::write(share.host("other"), "another").unwrap();
            let node = share.node("known");
            let before = descriptors_below(&share.path);
            take_away(&share);
            assert_eq!(share.attr(node).nlink, 1);
            share.fs.forget(node, 1);
            assert_eq!(descriptors_below(&share.path), before);
            for name in ["known", "unknown", "other"] {
                let _ = std::fs::remove_file(share.host(name));
            }
        }
    });
}

#[test]
fn what_the_host_puts_in_the_place_of_a_file_is_not_taken_for_it() {
    only_by_name(|share| {
        std::fs::create_dir_all(share.host("dir/sub")).unwrap();
        std::fs::write(share.host("dir/sub/file"), "content").unwrap();
        let dir = share.node("dir");
        let sub = share.lookup_in(dir, "sub").unwrap().node;
        let file = share.lookup_in(sub, "file").unwrap().node;
        assert_eq!(share.attr(file).size, 7);
        let stale = |node| assert_eq!(errno(share.fs.getattr(&me(), node, None)), Errno::ESTALE);

        std::fs::rename(share.host("dir/sub/file"), share.host("kept")).unwrap();
        stale(file);
        std::fs::write(share.host("dir/sub/file"), "other").unwrap();
        stale(file);
        assert_eq!(errno(share.open_node(file, RDONLY)), Errno::ESTALE);
        // Found again, it is the same.
        assert_eq!(share.node("kept"), file);
        assert_eq!(share.attr(file).size, 7);

        // Another directory, with all that was in the first one; a link to the outside.
        std::fs::rename(share.host("dir"), share.host("moved")).unwrap();
        stale(sub);
        std::fs::create_dir_all(share.host("dir/sub")).unwrap();
        stale(sub);
        std::fs::remove_dir_all(share.host("dir")).unwrap();
        std::os::unix::fs::symlink(share.outside(), share.host("dir")).unwrap();
        stale(dir);
        stale(sub);
        assert_eq!(share.node("moved"), dir);
        share.attr(sub);
    });
}

/// Looks the file `name` up, and replaces it, until the host gives the number of the one that was
/// looked up to the one that replaces it. Returns the node of the former, or none if that never
/// happens.
fn reuse_number(share: &Share, name: &str) -> Option<NodeId> {
    let path = share.host(name);
    for _ in 0..1000 {
        let entry = share.lookup(name).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other one").unwrap();
        if path.metadata().unwrap().ino() == entry.attr.ino {
            return Some(entry.node);
        }
        share.fs.forget(entry.node, 1);
    }
    eprintln!("skipped: {} reuses no inode number", path.display());
    None
}

#[test]
fn an_inode_with_a_reused_number_is_another_node() {
    each_way(|share| {
        std::fs::write(share.host("file"), "content").unwrap();
        let Some(first) = reuse_number(&share, "file") else {
            return;
        };
        let getattr = |node| share.fs.getattr(&me(), node, None);
        assert_eq!(errno(getattr(first)), Errno::ESTALE);
        assert_eq!(errno(share.open_node(first, RDONLY)), Errno::ESTALE);
        // The name is one that was looked up before, of a number that is known.
        let second = share.lookup("file").unwrap();
        assert_ne!(second.node, first);
        assert_eq!(second.attr.size, 9);
        assert_eq!(share.attr(second.node).size, 9);
        assert_eq!(errno(getattr(first)), Errno::ESTALE);
        share.fs.forget(first, 1);
        assert_eq!(share.node("file"), second.node);
        // Listing finds it too.
        let Some(third) = reuse_number(&share, "file") else {
            return;
        };
        let dir = share.opendir(NodeId::ROOT);
        let listed = share.list(dir, 4096, true);
        let fourth = listed.iter().find(|entry| entry.name == "file").unwrap();
        assert_ne!(fourth.node, third.0);
        assert_eq!(errno(getattr(third)), Errno::ESTALE);
        assert_eq!(share.attr(NodeId(fourth.node)).size, 9);
    });
}

#[test]
fn an_inode_with_a_reused_number_that_was_not_looked_at_since_is_stale() {
    each_way(|share| {
        std::fs::write(share.host("file"), "content").unwrap();
        let Some(node) = reuse_number(&share, "file") else {
            return;
        };
        assert_eq!(errno(share.open_node(node, RDONLY)), Errno::ESTALE);
        assert_eq!(
            errno(share.setattr(node, set(SetattrValid::MTIME_NOW))),
            Errno::ESTALE
        );
    });
}

/// A request that must not wait is made again where it may, so that it must not have done anything
/// before.
#[test]
fn what_must_not_wait_is_put_off_before_it_is_begun() {
    each_way(|share| {
        std::fs::write(share.host("file"), "content").unwrap();
        let name = name("new");
        let name = Name::new(&name).unwrap();
        let args = CreateIn {
            flags: RDWR | rustix::fs::OFlags::EXCL.bits(),
            mode: 0o600,
            ..Default::default()
        };
        let (created, _) = share
            .fs
            .create(&hasty(), NodeId::ROOT, name, &args)
            .unwrap();
        assert_eq!(share.attr(created.node).mode, 0o100_600);
        let node = share.node("file");
        match share.fs.getattr(&hasty(), node, None) {
            Ok(attributes) => assert_eq!(attributes.attr.size, 7),
            Err(error) => assert_eq!(error, Error::WouldBlock),
        }
        // In memory nothing waits.
        if share.path.starts_with("/dev/shm") {
            share.fs.getattr(&hasty(), node, None).unwrap();
        }
    });
}

#[test]
fn what_is_used_keeps_its_descriptor() {
    each_way_with(
        |config| config.max_open_inodes(10),
        |share| {
            for n in 0..100 {
                std::fs::write(share.host(&n.to_string()), "").unwrap();
            }
            let hot = share.node("0");
            for n in 1..100 {
                share.attr(hot);
                share.node(&n.to_string());
                let open = descriptors_below(&share.path.join("0"));
                assert_eq!(open, 1, "after {n} others");
            }
            assert!(descriptors_below(&share.path) <= 12);
        },
    );
}

#[test]
fn a_deep_tree_is_dropped_without_going_deep() {
    let share = Share::with(|config| {
        config
            .max_open_inodes(100)
            .inode_file_handles(InodeFileHandles::Never)
    });
    let mut parent = NodeId::ROOT;
    let d = name("d");
    let d = Name::new(&d).unwrap();
    let args = MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    // More than what is opened again from the top down.
    for _ in 0..6000 {
        parent = share.fs.mkdir(&me(), parent, d, &args).unwrap().node;
    }
    share.attr(parent);
    let outer = share.outer;
    let fs = Box::new(share.fs);
    std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(move || {
            fs.destroy();
            drop(fs);
        })
        .unwrap()
        .join()
        .unwrap();
    // The standard library goes deep to remove it.
    let path = outer.keep();
    std::process::Command::new("rm")
        .arg("-rf")
        .arg(path)
        .status()
        .unwrap();
}

#[test]
fn threads_that_close_each_others_descriptors_find_the_right_files() {
    each_way_with(
        |config| config.max_open_inodes(2),
        |share| {
            const FILES: usize = 8;
            for n in 0..FILES {
                let dir = share.host(&format!("dir-{n}"));
                std::fs::create_dir(&dir).unwrap();
                std::fs::write(dir.join("file"), vec![b'x'; n]).unwrap();
            }
            std::thread::scope(|scope| {
                for n in 0..FILES {
                    let share = &share;
                    scope.spawn(move || {
                        let dir = share.node(&format!("dir-{n}"));
                        let file = share.lookup_in(dir, "file").unwrap().node;
                        for round in 0..100 {
                            let (from, to) = match round % 2 {
                                0 => ("file", "other"),
                                _ => ("other", "file"),
                            };
                            std::thread::scope(|scope| {
                                scope.spawn(|| {
                                    rename(share, (dir, from), (dir, to), RenameFlags::empty());
                                });
                                assert_eq!(share.attr(file).size, n as u64);
                            });
                            let handle = share.open_node(file, RDONLY).unwrap();
                            let content = share.read((file, handle), 0, 100).unwrap();
                            assert_eq!(content.len(), n);
                            share.release((file, handle)).unwrap();
                            assert_eq!(share.lookup_in(dir, to).unwrap().node, file);
                        }
                    });
                }
            });
        },
    );
}

/// The host replaces a file all the time, mostly by one with the number of one before it.
#[test]
fn a_node_is_one_file_however_often_the_host_replaces_it() {
    each_way_with(
        |config| config.max_open_inodes(2),
        |share| {
            const ROUNDS: usize = 300;
            let replace = |round: usize| {
                std::fs::write(share.host("new"), round.to_string()).unwrap();
                std::fs::rename(share.host("new"), share.host("file")).unwrap();
            };
            replace(0);
            let done = AtomicBool::new(false);
            let contents = Mutex::new(HashMap::new());
            let read = |node| {
                let handle = share.open_node(node, RDONLY)?;
                let content = share.read((node, handle), 0, 100);
                share.release((node, handle)).unwrap();
                content
            };
            std::thread::scope(|scope| {
                for lazy in [false, true, true] {
                    let (contents, done, share) = (&contents, &done, &share);
                    scope.spawn(move || {
                        let mut kept = VecDeque::new();
                        while !done.load(Ordering::Relaxed) {
                            let node = share.node("file");
                            kept.push_back(node);
                            for &node in &kept {
                                // What was replaced is gone.
                                let Ok(content) = read(node) else { continue };
                                let mut contents = contents.lock().unwrap();
                                let known = contents.entry(node).or_insert(content.clone());
                                assert_eq!(*known, content, "{node:?}");
                            }
                            if !lazy || kept.len() > 5 {
                                share.fs.forget(kept.pop_front().unwrap(), 1);
                            }
                        }
                    });
                }
                (1..ROUNDS).for_each(replace);
                done.store(true, Ordering::Relaxed);
            });
        },
    );
}
