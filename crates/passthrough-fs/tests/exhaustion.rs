//! Running out of descriptors. The limit of a process is for all its threads, so that the tests here
//! are one after the other.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use passthrough_fs::{Config, InodeFileHandles, PassthroughFs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn descriptors_run_out() {
    for mode in [InodeFileHandles::Prefer, InodeFileHandles::Never] {
        a_guest_gets_no_more_descriptors_than_it_may_have(mode);
        a_big_tree_is_walked_with_few_descriptors(mode);
    }
    what_was_used_of_late_makes_room_too();
    running_out_of_descriptors_is_an_error_and_passes();
}

/// Lets this process have so many more descriptors than it has, while `test` runs.
fn with_spare_descriptors(spare: u64, test: impl FnOnce()) {
    let before = getrlimit(Resource::Nofile);
    let in_use = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit {
        current: Some(in_use + spare),
        ..before
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    test();
    setrlimit(Resource::Nofile, before).unwrap();
}

/// However many inodes the guest has just used, it can still open one of them.
fn what_was_used_of_late_makes_room_too() {
    const INODES: usize = 6000;
    let before = getrlimit(Resource::Nofile);
    if before.maximum.is_some_and(|most| most < 2 * INODES as u64) {
        eprintln!("skipped: needs more descriptors than {before:?}");
        return;
    }
    let current = before.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    let share = Share::with(|config| config.max_descriptors(INODES).max_open_inodes(INODES));
    let look_up = |n: usize| {
        std::fs::write(share.host(&n.to_string()), "").unwrap();
        share.node(&n.to_string())
    };
    let nodes: Vec<_> = (0..INODES).map(look_up).collect();
    for &node in &nodes {
        share.attr(node);
    }
    let open = share.open_node(nodes[0], RDONLY);
    assert!(open.is_ok(), "{open:?}");
    drop(share);
    setrlimit(Resource::Nofile, before).unwrap();
}

fn running_out_of_descriptors_is_an_error_and_passes() {
    let share = Share::new();
    for n in 0..100 {
        std::fs::write(share.host(&format!("file-{n}")), "content").unwrap();
    }
    let dir = share.opendir(NodeId::ROOT);
    with_spare_descriptors(20, || {
        // Inodes give theirs back, though the share does not know of the limit.
        let nodes: Vec<_> = (0..100).map(|n| share.node(&format!("file-{n}"))).collect();
        assert_eq!(share.list(dir, 4096, true).len(), 102);
        // What is open does not.
        let mut open = Vec::new();
        let error = loop {
            match share.open_node(nodes[open.len()], RDONLY) {
                Ok(handle) => open.push(handle),
                Err(error) => break error,
            }
        };
        assert_eq!(error, Errno::EMFILE.into());
        assert!((5..=20).contains(&open.len()), "{}", open.len());
        // All else goes on.
        let create = share.create(&me(), "new", CreateIn::default());
        assert_eq!(errno(create), Errno::EMFILE);
        assert_eq!(share.attr(nodes[0]).size, 7);
        assert_eq!(share.node("file-0"), nodes[0]);
        assert_eq!(share.read((nodes[0], open[0]), 0, 9).unwrap(), b"content");
        let all = share.list(dir, 4096, true);
        assert_eq!(all.len(), 102, "listed, even if it cannot be looked up");

        share.release((nodes[0], open[0])).unwrap();
        let handle = share.open_node(nodes[99], RDONLY).unwrap();
        assert_eq!(share.read((nodes[99], handle), 0, 9).unwrap(), b"content");
    });
}

fn a_guest_gets_no_more_descriptors_than_it_may_have(mode: InodeFileHandles) {
    let share = Share::with(|config| config.max_descriptors(3).inode_file_handles(mode));
    let file = share.file("file", b"content", RDONLY);
    let dir = share.opendir(NodeId::ROOT);
    std::fs::write(share.host("other"), "").unwrap();
    // An inode takes one for a moment only.
    let other = share.node("other");
    assert_eq!(share.attr(other).size, 0);
    assert_eq!(errno(share.open_node(other, RDONLY)), Errno::ENFILE);
    assert_eq!(errno(share.open_node(file.0, RDONLY)), Errno::ENFILE);
    // What is not opened is not truncated.
    const TRUNC: u32 = 0o1000;
    let truncating = share.open_node(file.0, RDWR | TRUNC);
    assert_eq!(errno(truncating), Errno::ENFILE);
    let args = CreateIn {
        flags: RDWR | TRUNC,
        ..Default::default()
    };
    let truncating = share.create(&me(), "file", args);
    assert_eq!(errno(truncating), Errno::ENFILE);
    assert_eq!(share.attr(file.0).size, 7);
    // Found by a name that was never looked up.
    std::fs::hard_link(share.host("file"), share.host("same")).unwrap();
    assert_eq!(share.node("same"), file.0);
    // Nothing is left behind of what could not be told of.
    let create = share.create(
        &me(),
        "new",
        CreateIn {
            mode: 0o644,
            ..Default::default()
        },
    );
    assert_eq!(errno(create), Errno::ENFILE);
    assert!(!share.host("new").exists());
    share.mkdir(&me(), "new", 0o755).unwrap();
    let opendir = share.fs.opendir(&me(), NodeId::ROOT, &OpenIn::default());
    assert_eq!(errno(opendir), Errno::ENFILE);
    assert_eq!(
        share.node("file"),
        file.0,
        "known, so it takes no descriptor"
    );
    assert_eq!(share.list(dir, 4096, true).len(), 6);

    share.release(file).unwrap();
    share.open_node(other, RDONLY).unwrap();
    share.fs.destroy();
    share.file("file", b"content", RDONLY);
    share.opendir(NodeId::ROOT);
}

/// As `ls -lR` does it: lists each directory, with the attributes of what is in it, and stays in a
/// directory until those below it are done. Then all files are read, which the guest knows already.
fn a_big_tree_is_walked_with_few_descriptors(mode: InodeFileHandles) {
    const DIRECTORIES: usize = 200;
    const FILES: usize = 100;
    let outer = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let path = outer.path().join("share");
    let mut deepest = path.clone();
    for _ in 0..DIRECTORIES {
        std::fs::create_dir(&deepest).unwrap();
        for file in 0..FILES {
            std::fs::write(deepest.join(format!("file-{file}")), "content").unwrap();
        }
        // Long paths do not matter, as none is ever used here.
        deepest.push("d");
    }
    with_spare_descriptors(300, || {
        let config = Config::new(&path).inode_file_handles(mode);
        let share = Share {
            fs: PassthroughFs::new(config).unwrap(),
            path: path.clone(),
            outer,
        };
        let mut files = Vec::new();
        let mut directories = vec![NodeId::ROOT];
        while let Some(directory) = directories.pop() {
            let open = share.opendir(directory);
            for entry in share.list(open, 4096, true) {
                match entry.name.as_str() {
                    "." | ".." => {}
                    "d" => directories.push(NodeId(entry.node)),
                    _ => files.push(NodeId(entry.node)),
                }
            }
            let release = ReleaseIn {
                fh: open.1,
                ..Default::default()
            };
            share.fs.releasedir(&me(), directory, &release).unwrap();
        }
        assert_eq!(files.len(), DIRECTORIES * FILES);
        for (n, &node) in files.iter().enumerate() {
            assert_eq!(share.attr(node).size, 7);
            if n % 10 == 0 {
                let handle = share.open_node(node, RDONLY).unwrap();
                assert_eq!(share.read((node, handle), 0, 9).unwrap(), b"content");
                share.release((node, handle)).unwrap();
            }
        }
    });
}
