//! Running out of descriptors. The limit is the process's, so this test is alone in its own.

mod common;

use common::*;
use fuse_fs::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
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
    let create = share.create(&me(), "new", fuse_fs::abi::CreateIn::default());
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
