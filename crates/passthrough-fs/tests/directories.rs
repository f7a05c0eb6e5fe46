//! READDIR and READDIRPLUS.

mod common;

use std::collections::{HashMap, HashSet};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;

fn fill(share: &Share, count: usize) -> HashSet<String> {
    let names: HashSet<String> = (0..count).map(|n| format!("file-{n}")).collect();
    for name in &names {
        std::fs::write(share.host(name), "").unwrap();
    }
    names
}

fn without_dots(entries: &[Listed]) -> HashSet<String> {
    let names = entries.iter().map(|entry| entry.name.clone());
    names.filter(|name| name != "." && name != "..").collect()
}

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
        let expected = fill(&share, 500);
        let dir = share.opendir(NodeId::ROOT);
        for (size, plus) in [
            (200, true),
            (4096, true),
            (1 << 20, true),
            (64, false),
            (4096, false),
            (1 << 20, false),
        ] {
            let all = share.list(dir, size, plus);
            assert_eq!(all.len(), expected.len() + 2, "{size}");
            assert_eq!(without_dots(&all), expected);
        }
    }
}

#[test]
fn the_two_ways_of_listing_share_their_cookies() {
    let share = Share::new();
    let expected = fill(&share, 300);
    let dir = share.opendir(NodeId::ROOT);
    let mut all: Vec<Listed> = Vec::new();
    for round in 0.. {
        let offset = all.last().map_or(0, |last| last.cookie);
        let part = if round % 2 == 0 {
            share.readdir(dir, offset, 600)
        } else {
            share.readdirplus(&me(), dir, offset, 900)
        };
        match part.unwrap() {
            part if part.is_empty() => break,
            part => all.extend(part),
        }
    }
    assert_eq!(all.len(), expected.len() + 2);
    assert_eq!(without_dots(&all), expected);
}

#[test]
fn a_listing_goes_on_from_any_cookie_it_gave() {
    for share in [Share::new(), Share::in_memory()] {
        fill(&share, 200);
        let dir = share.opendir(NodeId::ROOT);
        let all = share.list(dir, 512, false);
        for at in [150, 3, 199, 3, 77, 0] {
            let rest = share.readdir(dir, all[at].cookie, 256).unwrap();
            assert_eq!(rest[0], all[at + 1]);
            let plus = share.readdirplus(&me(), dir, all[at].cookie, 1024).unwrap();
            assert_eq!(plus[0].name, all[at + 1].name);
        }
    }
}

#[test]
fn a_listing_from_the_start_shows_what_came_and_went() {
    let share = Share::new();
    let dir = share.opendir(NodeId::ROOT);
    assert_eq!(share.list(dir, 4096, false).len(), 2);
    fill(&share, 3);
    assert_eq!(share.list(dir, 4096, false).len(), 5);
    // In the middle of a chunk that was kept.
    assert_eq!(share.readdir(dir, 0, 64).unwrap().len(), 2);
    std::fs::remove_file(share.host("file-1")).unwrap();
    assert_eq!(share.list(dir, 4096, true).len(), 4);
}

#[test]
fn ten_thousand_entries_are_listed_while_others_vanish() {
    const STAYING: usize = 10_000;
    let share = Share::in_memory();
    let staying = fill(&share, STAYING);
    let going: Vec<_> = (0..500)
        .map(|n| share.host(&format!("going-{n}")))
        .collect();
    for path in &going {
        std::fs::write(path, "").unwrap();
    }
    let dir = share.opendir(NodeId::ROOT);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for path in &going {
                std::fs::remove_file(path).unwrap();
            }
        });
        let all = share.list(dir, 8192, true);
        let mut seen = without_dots(&all);
        seen.retain(|name| name.starts_with("file-"));
        assert_eq!(seen, staying);
    });
    assert_eq!(share.list(dir, 65536, true).len(), STAYING + 2);
}

#[test]
fn each_complete_entry_counts_as_one_lookup() {
    let share = Share::new();
    fill(&share, 20);
    let dir = share.opendir(NodeId::ROOT);
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for round in 0..3 {
        for entry in share.list(dir, 400 + round * 1000, true) {
            match entry.name.as_str() {
                "." | ".." => assert_eq!(entry.node, 0),
                name => {
                    assert_eq!(share.lookup(name).unwrap().node.0, entry.node);
                    *counts.entry(entry.node).or_default() += 2;
                }
            }
        }
    }
    assert_eq!(counts.len(), 20);
    for (node, count) in counts {
        let node = NodeId(node);
        assert_eq!(count, 6);
        share.fs.forget(node, count - 1);
        share.attr(node);
        share.fs.forget(node, 1);
        assert_eq!(errno(share.fs.getattr(&me(), node, None)), Errno::ESTALE);
    }
}

#[test]
fn an_entry_that_does_not_fit_is_no_end_of_the_directory() {
    let share = Share::new();
    let dir = share.opendir(NodeId::ROOT);
    assert_eq!(errno(share.readdir(dir, 0, 16)), Errno::EINVAL);
    assert_eq!(errno(share.readdirplus(&me(), dir, 0, 100)), Errno::EINVAL);
    assert_eq!(share.list(dir, 4096, false).len(), 2);
}

#[test]
fn a_cookie_that_was_never_given_does_no_harm() {
    let share = Share::new();
    fill(&share, 10);
    let dir = share.opendir(NodeId::ROOT);
    for cookie in [1, 0xdead_beef, i64::MAX as u64, 1 << 63, u64::MAX] {
        for plus in [false, true] {
            let result = if plus {
                share.readdirplus(&me(), dir, cookie, 4096)
            } else {
                share.readdir(dir, cookie, 4096)
            };
            assert!(matches!(result, Ok(_) | Err(Error::Errno(_))), "{result:?}");
        }
    }
    assert_eq!(share.list(dir, 4096, true).len(), 12);
}

#[test]
fn types_and_inode_numbers_are_those_of_the_attributes() {
    let share = Share::new();
    std::fs::write(share.host("file"), "").unwrap();
    std::fs::create_dir(share.host("dir")).unwrap();
    std::os::unix::fs::symlink("x", share.host("link")).unwrap();
    let dir = share.opendir(NodeId::ROOT);
    for entry in share.list(dir, 4096, true) {
        if entry.node != 0 {
            let found = share.lookup(&entry.name).unwrap();
            assert_eq!(found.attr.ino, entry.ino);
            assert_eq!(found.attr.mode >> 12, entry.kind);
        }
    }
}

#[test]
fn readers_of_one_handle_do_not_disturb_each_other() {
    let share = Share::in_memory();
    let expected = fill(&share, 300);
    let dir = share.opendir(NodeId::ROOT);
    std::thread::scope(|scope| {
        for size in [300, 500, 4096, 700] {
            let (share, expected) = (&share, &expected);
            scope.spawn(move || {
                assert_eq!(&without_dots(&share.list(dir, size, size > 500)), expected);
            });
        }
    });
}

#[test]
fn opendir_takes_directories_only() {
    let share = Share::new();
    let (node, _) = share.file("file", b"", RDONLY);
    let result = share.fs.opendir(&me(), node, &OpenIn::default());
    assert_eq!(errno(result), Errno::ENOTDIR);
    assert_eq!(errno(share.open_node(NodeId::ROOT, RDONLY)), Errno::EISDIR);
}
