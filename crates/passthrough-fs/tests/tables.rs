//! Node ids and handles: exact counts, and what a hostile guest does with them.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use passthrough_fs::{Config, InodeFileHandles};
use tempfile::TempDir;

/// File handles take a descriptor of their own for each mount.
fn no_file_handles(config: Config) -> Config {
    config.inode_file_handles(InodeFileHandles::Never)
}

fn share() -> Share {
    Share::with(no_file_handles)
}

/// Descriptors that this process has open below `share`.
fn open_descriptors(share: &Share) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|target| target.starts_with(&share.path))
        .count()
}

#[track_caller]
fn assert_gone(share: &Share, node: NodeId) {
    assert_eq!(errno(share.fs.getattr(&me(), node, None)), Errno::ESTALE);
    assert_eq!(errno(share.open_node(node, RDONLY)), Errno::ESTALE);
}

#[test]
fn a_node_lives_until_its_last_lookup_is_given_back() {
    let share = share();
    std::fs::write(share.host("file"), "").unwrap();
    let node = share.node("file");
    for _ in 0..4 {
        assert_eq!(share.node("file"), node);
    }
    assert_eq!(open_descriptors(&share), 2, "the root and the file");
    share.fs.forget(node, 2);
    share.fs.forget(node, 2);
    share.attr(node);
    share.fs.forget(node, 1);
    assert_gone(&share, node);
    assert_eq!(open_descriptors(&share), 1);
    // A new node is another node.
    assert_ne!(share.node("file"), node);
    assert_gone(&share, node);
}

#[test]
fn everything_that_finds_a_node_counts_once() {
    let share = share();
    let name = cstr("file");
    let name = Name::new(&name).unwrap();
    let (entry, opened) = share
        .create(
            &me(),
            "file",
            CreateIn {
                mode: 0o644,
                ..Default::default()
            },
        )
        .unwrap();
    let other = cstr("other");
    share
        .fs
        .link(&me(), entry.node, NodeId::ROOT, Name::new(&other).unwrap())
        .unwrap();
    assert_eq!(share.node("other"), entry.node);
    assert_eq!(
        share.fs.lookup(&me(), NodeId::ROOT, name).unwrap().node,
        entry.node
    );
    // Opens what exists.
    let (again, _) = share.create(&me(), "file", CreateIn::default()).unwrap();
    assert_eq!(again.node, entry.node);
    share.fs.forget(entry.node, 4);
    share.attr(entry.node);
    share.fs.forget(entry.node, 1);
    assert_gone(&share, entry.node);
    // What is open stays open.
    assert_eq!(share.read((entry.node, opened.handle), 0, 1).unwrap(), b"");
    share.release((entry.node, opened.handle)).unwrap();

    let dir = share.mkdir(&me(), "dir", 0o755).unwrap();
    share.fs.forget(dir.node, 1);
    assert_gone(&share, dir.node);
}

#[test]
fn failures_count_nothing() {
    let share = share();
    let before = open_descriptors(&share);
    std::fs::create_dir(share.host("dir")).unwrap();
    assert_eq!(errno(share.lookup("absent")), Errno::ENOENT);
    assert_eq!(errno(share.mkdir(&me(), "dir", 0o755)), Errno::EEXIST);
    // Exists, but is no file.
    let args = CreateIn {
        flags: RDWR,
        ..Default::default()
    };
    assert_eq!(errno(share.create(&me(), "dir", args)), Errno::EISDIR);
    assert_eq!(open_descriptors(&share), before);
}

#[test]
fn forgetting_too_much_is_forgetting_all() {
    let share = share();
    std::fs::write(share.host("file"), "").unwrap();
    let node = share.node("file");
    share.fs.forget(node, u64::MAX);
    assert_gone(&share, node);
    share.fs.forget(node, 1);
    share.fs.forget(NodeId(0), 1);
    share.fs.forget(NodeId(u64::MAX), u64::MAX);
    share.fs.forget(NodeId::ROOT, u64::MAX);
    share.attr(NodeId::ROOT);
    share.node("file");
}

#[test]
fn lookups_and_forgets_of_one_node_race_without_a_loss() {
    let share = Share::in_dir(TempDir::new_in("/dev/shm").unwrap(), no_file_handles);
    std::fs::write(share.host("file"), "").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let node = share.node("file");
                    // Counted, so it must be there.
                    share.attr(node);
                    share.fs.forget(node, 1);
                }
            });
        }
    });
    assert_eq!(open_descriptors(&share), 1);
}

#[test]
fn a_name_that_stands_for_another_file_now_is_another_node() {
    let share = share();
    std::fs::write(share.host("name"), "first").unwrap();
    let first = share.node("name");
    assert_eq!(share.node("name"), first);
    std::fs::rename(share.host("name"), share.host("kept")).unwrap();
    std::fs::write(share.host("name"), "second one").unwrap();
    let second = share.lookup("name").unwrap();
    assert_ne!(second.node, first);
    assert_eq!(second.attr.size, 10);
    assert_eq!(share.node("kept"), first);
}

#[test]
fn hard_links_are_one_node() {
    let share = share();
    std::fs::write(share.host("a"), "").unwrap();
    std::fs::hard_link(share.host("a"), share.host("b")).unwrap();
    assert_eq!(share.node("a"), share.node("b"));
}

#[test]
fn handles_count_only_for_their_node_and_their_kind() {
    let share = share();
    let file = share.file("file", b"content", RDWR);
    let other = share.file("other", b"", RDWR);
    let dir = share.opendir(NodeId::ROOT);
    let bad = [
        (other.0, file.1),
        (file.0, other.1),
        (NodeId::ROOT, file.1),
        (file.0, dir.1),
        (NodeId::ROOT, dir.1),
        (file.0, Handle(0)),
        (file.0, Handle(u64::MAX)),
        (file.0, Handle(file.1.0 | 1 << 32)),
        (NodeId(0), Handle(0)),
    ];
    // The two tables count for themselves, so that numbers may be the same.
    for (node, fh) in bad.into_iter().filter(|&bad| bad != file) {
        assert_eq!(errno(share.read((node, fh), 0, 1)), Errno::EBADF);
        assert_eq!(errno(share.write((node, fh), 0, b"x")), Errno::EBADF);
        assert_eq!(errno(share.release((node, fh))), Errno::EBADF);
        let fsync = FsyncIn {
            fh,
            ..Default::default()
        };
        assert_eq!(errno(share.fs.fsync(&me(), node, &fsync)), Errno::EBADF);
        let flush = FlushIn {
            fh,
            ..Default::default()
        };
        assert_eq!(errno(share.fs.flush(&me(), node, &flush)), Errno::EBADF);
    }
    for (node, fh) in [
        file,
        (file.0, dir.1),
        (NodeId::ROOT, Handle(99)),
        (NodeId(7), dir.1),
    ] {
        assert_eq!(errno(share.readdir((node, fh), 0, 4096)), Errno::EBADF);
        assert_eq!(
            errno(share.readdirplus(&me(), (node, fh), 0, 4096)),
            Errno::EBADF
        );
        let release = ReleaseIn {
            fh,
            ..Default::default()
        };
        assert_eq!(
            errno(share.fs.releasedir(&me(), node, &release)),
            Errno::EBADF
        );
    }
    assert_eq!(share.read(file, 0, 9).unwrap(), b"content");
    assert_eq!(share.list(dir, 4096, false).len(), 4);
}

#[test]
fn a_released_handle_is_closed_and_stays_wrong() {
    let share = share();
    let file = share.file("file", b"content", RDWR);
    let before = open_descriptors(&share);
    share.release(file).unwrap();
    assert_eq!(open_descriptors(&share), before - 1);
    assert_eq!(errno(share.release(file)), Errno::EBADF);
    for _ in 0..10 {
        let next = share.open_node(file.0, RDWR).unwrap();
        assert_ne!(next, file.1);
        assert_eq!(errno(share.read(file, 0, 1)), Errno::EBADF);
        share.release((file.0, next)).unwrap();
    }
}

#[test]
fn the_end_of_a_session_closes_everything_but_the_root() {
    let share = share();
    let file = share.file("file", b"content", RDWR);
    let dir = share.opendir(NodeId::ROOT);
    share.fs.destroy();
    assert_eq!(open_descriptors(&share), 1);
    assert_gone(&share, file.0);
    assert_eq!(errno(share.read(file, 0, 1)), Errno::EBADF);
    assert_eq!(errno(share.readdir(dir, 0, 4096)), Errno::EBADF);
    // The next one works, and its ids are its own.
    let next = share.node("file");
    assert_ne!(next, file.0);
    share.fs.destroy();
    share.fs.destroy();
}
