use std::collections::{HashMap, HashSet};

use super::*;

fn fill(share: &Share, prefix: &str, count: usize) -> HashSet<String> {
    let names = (0..count).map(|n| format!("{prefix}{n}"));
    names
        .inspect(|name| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                share.host(name),
                rustix::fs::FileType::RegularFile,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        })
        .collect()
}

fn is_dot(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// Lists the directory to its end, giving back each lookup, and returns how often each name came.
/// After each reply comes `between`.
fn count(
    share: &Share,
    size: usize,
    plus: bool,
    mut between: impl FnMut(),
) -> HashMap<String, usize> {
    let dir = share.opendir(ROOT);
    let (mut all, mut offset) = (HashMap::new(), 0);
    loop {
        let part = if plus {
            share.readdirplus(&me(), dir, offset, size)
        } else {
            share.readdir(dir, offset, size)
        };
        let part = part.unwrap();
        let Some(last) = part.last() else {
            break;
        };
        offset = last.cookie;
        for entry in part {
            if entry.node != 0 {
                share.fs.forget(NodeId(entry.node), 1);
            }
            *all.entry(entry.name).or_default() += 1;
        }
        between();
    }
    let args = ReleaseIn {
        fh: dir.1,
        ..Default::default()
    };
    share.fs.releasedir(&me(), ROOT, &args).unwrap();
    all
}

#[test]
fn a_hundred_thousand_entries_while_others_come_and_go() {
    // On disk, making them takes the most time.
    for (share, count_staying) in [(Share::in_memory(), 100_000), (Share::new(), 10_000)] {
        let staying = fill(&share, "staying-", count_staying);
        let mut passing = Vec::from_iter(fill(&share, "passing-", 200));
        let mut round = 0;
        for (size, plus) in [(4096, false), (32 * 1024, true)] {
            let all = count(&share, size, plus, || {
                for name in passing.drain(..20) {
                    std::fs::remove_file(share.host(&name)).unwrap();
                }
                round += 1;
                passing.extend(fill(&share, &format!("passing-{round}-"), 20));
            });
            for name in &staying {
                assert_eq!(all.get(name), Some(&1), "{name}, {size}, {plus}");
            }
        }
        assert!(round > count_staying / 1000, "{round}");
    }
}

#[test]
fn what_is_removed_as_it_is_listed_is_all_there_was() {
    for (share, plus) in [(Share::new(), true), (Share::in_memory(), false)] {
        fill(&share, "file-", 5000);
        let dir = share.opendir(ROOT);
        let mut offset = 0;
        loop {
            let part = if plus {
                share.readdirplus(&me(), dir, offset, 4096)
            } else {
                share.readdir(dir, offset, 4096)
            };
            let part = part.unwrap();
            let Some(last) = part.last() else {
                break;
            };
            offset = last.cookie;
            for entry in part {
                if entry.name.starts_with("file-") {
                    share.unlink(ROOT, &entry.name).unwrap();
                    share.fs.forget(NodeId(entry.node), u64::from(plus));
                }
            }
        }
        assert_eq!(std::fs::read_dir(&share.path).unwrap().count(), 0);
    }
}

#[test]
fn a_listing_whose_next_entries_vanished_goes_on_behind_them() {
    for share in [Share::new(), Share::in_memory()] {
        fill(&share, "file-", 100);
        let order: Vec<String> = share
            .list(share.opendir(ROOT), 1 << 16, false)
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let dir = share.opendir(ROOT);
        let first = share.readdirplus(&me(), dir, 0, 1024).unwrap();
        let next = first.len();
        // Those that come next, read from the host already.
        let mut gone: Vec<&String> = order[next..next + 10].iter().collect();
        gone.retain(|name| !is_dot(name));
        for name in &gone {
            std::fs::remove_file(share.host(name)).unwrap();
        }
        let offset = first.last().unwrap().cookie;
        let second = share.readdirplus(&me(), dir, offset, 1024).unwrap();
        let seen = second.iter().filter(|entry| !is_dot(&entry.name));
        let seen: Vec<_> = seen.collect();
        let expected = order[next..].iter().filter(|name| !is_dot(name));
        let expected = expected.filter(|name| !gone.contains(name));
        assert!(!seen.is_empty());
        assert!(seen.iter().all(|entry| entry.node != 0));
        let seen_names = seen.iter().map(|entry| &entry.name);
        assert!(seen_names.eq(expected.take(seen.len())));
        // All of them: that is the end, and no error.
        for entry in std::fs::read_dir(&share.path).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let mut offset = second.last().unwrap().cookie;
        while let Some(last) = share.readdirplus(&me(), dir, offset, 1024).unwrap().last() {
            assert!(is_dot(&last.name), "{last:?}");
            offset = last.cookie;
        }
    }
}

#[test]
fn telldir_and_seekdir_after_removals() {
    for share in [Share::new(), Share::in_memory()] {
        fill(&share, "file-", 300);
        let dir = share.opendir(ROOT);
        let all = share.list(dir, 2048, false);
        // Every other file goes, among them those at the places told.
        let gone: HashSet<&str> = all
            .iter()
            .map(|entry| entry.name.as_str())
            .filter(|name| name.starts_with("file-"))
            .step_by(2)
            .collect();
        for name in &gone {
            share.unlink(ROOT, name).unwrap();
        }
        for at in [150, 7, 8, 290, 33] {
            let mut offset = all[at].cookie;
            let mut rest = Vec::new();
            loop {
                let part = share.readdir(dir, offset, 2048).unwrap();
                let Some(last) = part.last() else {
                    break;
                };
                offset = last.cookie;
                rest.extend(part.into_iter().map(|entry| entry.name));
            }
            // Entries that were read ahead may show once more; what is there is complete, in order.
            rest.retain(|name| !gone.contains(name.as_str()));
            let expected = all[at + 1..].iter().map(|entry| entry.name.as_str());
            let expected = expected.filter(|name| !gone.contains(name));
            assert!(rest.iter().map(String::as_str).eq(expected), "from {at}");
        }
    }
}

#[test]
fn an_open_directory_is_the_same_after_it_was_moved() {
    let share = Share::new();
    let dir = share.make_dir(ROOT, "old", 0o755).unwrap().node;
    share.make(dir, "inner", OFlags::RDWR, 0o644).unwrap();
    let open = share.opendir(dir);
    share
        .rename((ROOT, "old"), (ROOT, "new"), RenameFlags::empty())
        .unwrap();
    std::fs::create_dir(share.host("old")).unwrap();
    std::fs::write(share.host("old/other"), "").unwrap();
    let listed = share.list(open, 4096, true);
    assert_eq!(names(&listed), [".", "..", "inner"]);
    assert_eq!(share.node("new"), dir);
}

#[test]
fn two_readers_of_a_directory_stand_where_each_stood() {
    let share = Share::new();
    fill(&share, "file-", 60);
    let (one, two) = (share.opendir(ROOT), share.opendir(ROOT));
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    let mut offsets = (0, 0);
    loop {
        let first = share.readdir(one, offsets.0, 256).unwrap();
        let second = share.readdirplus(&me(), two, offsets.1, 512).unwrap();
        if first.is_empty() && second.is_empty() {
            break;
        }
        offsets.0 = first.last().map_or(offsets.0, |last| last.cookie);
        offsets.1 = second.last().map_or(offsets.1, |last| last.cookie);
        ones.extend(first.into_iter().map(|entry| entry.name));
        twos.extend(second.into_iter().map(|entry| entry.name));
    }
    assert_eq!((ones.len(), &ones), (62, &twos));
}
