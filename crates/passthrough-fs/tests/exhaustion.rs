//! Running out of descriptors. The limit of a process is for all its threads, so that the tests here
//! are one after the other.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn descriptors_run_out() {
    a_guest_gets_no_more_descriptors_than_it_may_have();
    running_out_of_descriptors_is_an_error_and_passes();
}

fn running_out_of_descriptors_is_an_error_and_passes() {
    let share = Share::new();
    for n in 0..100 {
        std::fs::write(share.host(&format!("file-{n}")), "content").unwrap();
    }
    let dir = share.opendir(NodeId::ROOT);
    let before = getrlimit(Resource::Nofile);
    let in_use = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit {
        current: Some(in_use + 20),
        ..before
    };
    setrlimit(Resource::Nofile, limit).unwrap();

    let mut found = Vec::new();
    let error = loop {
        match share.lookup(&format!("file-{}", found.len())) {
            Ok(entry) => found.push(entry.node),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::EMFILE.into());
    assert!((10..=30).contains(&found.len()), "{}", found.len());
    // All else goes on.
    assert_eq!(errno(share.open_node(found[0], RDONLY)), Errno::EMFILE);
    let create = share.create(&me(), "new", CreateIn::default());
    assert_eq!(errno(create), Errno::EMFILE);
    assert_eq!(share.attr(found[0]).size, 7);
    assert_eq!(
        share.node("file-0"),
        found[0],
        "known, so it takes no descriptor"
    );
    // Entries are listed even where they cannot be looked up.
    let all = share.list(dir, 4096, true);
    let looked_up = all.iter().filter(|entry| entry.node != 0).count();
    assert_eq!(all.len(), 102);
    assert_eq!(looked_up, found.len());

    share.fs.forget(found[0], u64::MAX);
    let node = share.node("file-99");
    assert_eq!(share.attr(node).size, 7);
    setrlimit(Resource::Nofile, before).unwrap();
    let handle = share.open_node(node, RDONLY).unwrap();
    assert_eq!(share.read((node, handle), 0, 9).unwrap(), b"content");
}

fn a_guest_gets_no_more_descriptors_than_it_may_have() {
    let share = Share::with(|config| config.max_descriptors(3));
    let file = share.file("file", b"content", RDONLY);
    let dir = share.opendir(NodeId::ROOT);
    std::fs::write(share.host("other"), "").unwrap();
    assert_eq!(errno(share.lookup("other")), Errno::ENFILE);
    assert_eq!(errno(share.open_node(file.0, RDONLY)), Errno::ENFILE);
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
    assert_eq!(errno(share.mkdir(&me(), "new", 0o755)), Errno::ENFILE);
    assert!(!share.host("new").exists());
    let opendir = share.fs.opendir(&me(), NodeId::ROOT, &OpenIn::default());
    assert_eq!(errno(opendir), Errno::ENFILE);
    assert_eq!(
        share.node("file"),
        file.0,
        "known, so it takes no descriptor"
    );
    assert_eq!(share.list(dir, 4096, true).len(), 5);

    share.release(file).unwrap();
    let other = share.node("other");
    share.fs.forget(other, 1);
    share.open_node(file.0, RDONLY).unwrap();
    share.fs.destroy();
    share.file("file", b"content", RDONLY);
    share.opendir(NodeId::ROOT);
}
