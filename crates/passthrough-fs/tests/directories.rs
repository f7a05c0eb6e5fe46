//! READDIR and READDIRPLUS.

mod common;

use std::collections::HashSet;

use common::*;
use fuse_fs::*;

#[test]
fn an_empty_directory_has_itself_and_its_parent() {
    let share = Share::new();
    let dir = share.opendir(NodeId::ROOT);
    for plus in [false, true] {
        let all = share.list(dir, 4096, plus);
        assert_eq!(names(&all), [".", ".."]);
        assert!(all.iter().all(|entry| entry.node == 0 && entry.kind == 4));
    }
}

#[test]
fn replies_of_any_size_list_everything_once() {
    for share in [Share::new(), Share::in_memory()] {
        let mut expected: HashSet<String> = (0..500).map(|n| format!("file-{n}")).collect();
        for name in &expected {
            std::fs::write(share.host(name), "").unwrap();
        }
        expected.extend([".".to_owned(), "..".to_owned()]);
        let dir = share.opendir(NodeId::ROOT);
        for (size, plus) in [
            (200, true),
            (4096, true),
            (65536, true),
            (64, false),
            (4096, false),
        ] {
            let all = share.list(dir, size, plus);
            assert_eq!(all.len(), expected.len(), "{size}");
            let names: HashSet<_> = all.iter().map(|entry| entry.name.clone()).collect();
            assert_eq!(names, expected);
        }
    }
}
