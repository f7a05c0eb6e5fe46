use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

const PUNCH_HOLE: u32 = 2;
const KEEP_SIZE: u32 = 1;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

#[test]
fn git_add() {
    let share = Share::new();
    let objects = share.make_dir(ROOT, "objects", 0o755).unwrap().node;
    // Objects are made with mode 0444 and written all the same.
    let flags = OFlags::RDWR | OFlags::EXCL;
    let object = share.make(objects, "tmp_obj_a", flags, 0o444).unwrap();
    for (offset, part) in [(0, b"blob "), (5, b"1234\0")] {
        assert_eq!(share.write(object, offset, part).unwrap(), 5);
    }
    share.sync(object).unwrap();
    share.release(object).unwrap();
    share.make_link(object.0, objects, "0123").unwrap();
    share.unlink(objects, "tmp_obj_a").unwrap();
    let found = share.find(objects, "0123").unwrap();
    assert_eq!((found.node, found.attr.nlink), (object.0, 1));
    assert_eq!(found.attr.mode, 0o100_444);
    let content = std::fs::read(share.host("objects/0123")).unwrap();
    assert_eq!(content, b"blob 1234\0");
    assert_eq!(
        errno(share.make(objects, "0123", flags, 0o444)),
        Errno::EEXIST
    );
}

#[test]
fn a_file_of_mode_zero_is_written_by_its_maker() {
    let share = Share::new();
    let file = share.make(ROOT, "lock", OFlags::RDWR, 0).unwrap();
    assert_eq!(share.write(file, 0, b"pid").unwrap(), 3);
    assert_eq!(share.read(file, 0, 9).unwrap(), b"pid");
    assert_eq!(share.resize(file, 1).unwrap().size, 1);
    share.sync(file).unwrap();
}

#[test]
fn an_editor_that_replaces_a_file_leaves_readers_the_old_one() {
    let share = Share::new();
    let old = share.file("text", b"old text", RDWR);
    let new = share.make(ROOT, "text~", OFlags::RDWR, 0o600).unwrap();
    share.write(new, 0, b"new text").unwrap();
    share
        .rename((ROOT, "text~"), (ROOT, "text"), RenameFlags::empty())
        .unwrap();
    assert_eq!(share.read(old, 0, 9).unwrap(), b"old text");
    assert_eq!(share.attr(old.0).nlink, 0);
    assert_eq!(share.node("text"), new.0);
    assert_eq!(share.attr(new.0).nlink, 1);
    assert_eq!(share.write(old, 0, b"OLD").unwrap(), 3);
    assert_eq!(std::fs::read(share.host("text")).unwrap(), b"new text");
}

#[test]
fn a_file_that_is_open_moves_between_directories() {
    let share = Share::new();
    let dirs = ["from", "to"].map(|name| share.make_dir(ROOT, name, 0o755).unwrap().node);
    let file = share.make(dirs[0], "log", OFlags::RDWR, 0o644).unwrap();
    share.write(file, 0, b"before ").unwrap();
    share
        .rename((dirs[0], "log"), (dirs[1], "log"), RenameFlags::empty())
        .unwrap();
    share.write(file, 7, b"after").unwrap();
    assert_eq!(share.find(dirs[1], "log").unwrap().node, file.0);
    assert_eq!(
        std::fs::read(share.host("to/log")).unwrap(),
        b"before after"
    );
    // The name can be used again, for another file.
    let second = share.make(dirs[0], "log", OFlags::RDWR, 0o644).unwrap();
    assert_ne!(second.0, file.0);
    assert_eq!(share.attr(second.0).size, 0);
}

#[test]
fn a_file_that_was_removed_while_open_still_does_everything() {
    let share = Share::with(|config| config.xattr(passthrough_fs::Xattr::On));
    let file = share.make(ROOT, "temporary", OFlags::RDWR, 0o600).unwrap();
    share.unlink(ROOT, "temporary").unwrap();
    assert_eq!(errno(share.lookup("temporary")), Errno::ENOENT);

    assert_eq!(share.write(file, 0, &[7; 10_000]).unwrap(), 10_000);
    assert_eq!(share.read(file, 9_999, 9).unwrap(), [7]);
    assert_eq!(share.attr(file.0).nlink, 0);
    assert_eq!(share.resize(file, 5_000).unwrap().size, 5_000);
    share
        .allocate(file, KEEP_SIZE | PUNCH_HOLE, 0..4096)
        .unwrap();
    assert_eq!(share.read(file, 4095, 2).unwrap(), [0, 7]);
    share.sync(file).unwrap();
    let args = SetattrIn {
        mode: 0o400,
        mtime: 1,
        ..set(SetattrValid::MODE | SetattrValid::MTIME)
    };
    let attr = share.setattr(file.0, args).unwrap();
    assert_eq!((attr.mode, attr.mtime), (0o100_400, 1));
    let second = share.open_node(file.0, RDONLY).unwrap();
    assert_eq!(share.read((file.0, second), 4096, 1).unwrap(), [7]);
    // It does not come back.
    assert_eq!(errno(share.make_link(file.0, ROOT, "again")), Errno::ENOENT);
    share.release(file).unwrap();
    share.release((file.0, second)).unwrap();
}

#[test]
fn a_file_without_a_name_gets_one_unless_it_must_not() {
    let share = Share::new();
    let tmpfile = |flags: OFlags| {
        let args = CreateIn {
            flags: (OFlags::RDWR | flags).bits(),
            mode: 0o100_640,
            ..Default::default()
        };
        let (entry, opened) = share.fs.tmpfile(&me(), ROOT, &args).unwrap();
        (entry.node, opened.handle)
    };
    let file = tmpfile(OFlags::empty());
    share.write(file, 0, b"whole").unwrap();
    assert_eq!(errno(share.lookup("package.json")), Errno::ENOENT);
    let linked = share.make_link(file.0, ROOT, "package.json").unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (file.0, 1));
    assert_eq!(share.node("package.json"), file.0);
    share.write(file, 5, b"!").unwrap();
    let content = std::fs::read(share.host("package.json")).unwrap();
    assert_eq!(content, b"whole!");

    let secret = tmpfile(OFlags::EXCL);
    assert_eq!(
        errno(share.make_link(secret.0, ROOT, "secret")),
        Errno::ENOENT
    );
}

#[test]
fn direct_io_of_any_length_at_any_offset() {
    let share = Share::new();
    let (node, _) = share.file("data", b"", RDONLY);
    let fh = share.open_node(node, RDWR | OFlags::DIRECT.bits()).unwrap();
    let file = (node, fh);
    assert_eq!(share.write(file, 1, b"unaligned").unwrap(), 9);
    assert_eq!(share.write(file, 4095, &[9; 4099]).unwrap(), 4099);
    assert_eq!(share.read(file, 2, 3).unwrap(), b"nal");
    assert_eq!(share.read(file, 8191, 513).unwrap(), [9; 3]);
    assert_eq!(share.attr(node).size, 8194);
}

#[test]
fn several_appenders_lose_nothing() {
    const LINES: usize = 200;
    let share = Share::new();
    let append = OFlags::APPEND.bits();
    let (node, _) = share.file("log", b"", RDONLY);
    std::thread::scope(|scope| {
        for line in [*b"aaaaaaa\n", *b"bbbbbbb\n", *b"ccccccc\n"] {
            let share = &share;
            scope.spawn(move || {
                let fh = share.open_node(node, WRONLY | append).unwrap();
                let args = WriteIn {
                    flags: WRONLY | append,
                    ..Default::default()
                };
                for _ in 0..LINES {
                    share.write_with(&me(), (node, fh), args, &line).unwrap();
                }
            });
        }
    });
    let log = std::fs::read_to_string(share.host("log")).unwrap();
    assert_eq!(log.lines().count(), 3 * LINES);
    assert!(log.lines().all(|line| line.len() == 7));
}

#[test]
fn images_of_many_gibibytes_stay_sparse() {
    let share = Share::new();
    let image = share.make(ROOT, "disk.img", OFlags::RDWR, 0o600).unwrap();
    let gib = |n: u64| n << 30;
    share.resize(image, gib(100)).unwrap();
    for at in [gib(4) - 2, gib(4), gib(50) + 1, gib(100) - 4] {
        assert_eq!(share.write(image, at, b"data").unwrap(), 4);
        assert_eq!(share.read(image, at, 4).unwrap(), b"data");
    }
    let attr = share.attr(image.0);
    assert_eq!(attr.size, gib(100));
    assert!(attr.blocks * 512 < 1 << 20, "{}", attr.blocks);
    // What a backup tool does: from data to hole to data.
    let (mut at, mut pieces) = (0, 0);
    while let Ok(data) = share.seek(image, at, SEEK_DATA) {
        let hole = share.seek(image, data, SEEK_HOLE).unwrap();
        assert!(hole > data && hole - data <= 1 << 20, "{data} to {hole}");
        (at, pieces) = (hole, pieces + 1);
    }
    assert!((3..=4).contains(&pieces), "{pieces}");
    assert_eq!(errno(share.seek(image, gib(100), SEEK_HOLE)), Errno::ENXIO);
    // Trimmed beyond 4 GiB.
    let hole = KEEP_SIZE | PUNCH_HOLE;
    share.allocate(image, hole, gib(4)..gib(60)).unwrap();
    assert_eq!(share.read(image, gib(4) - 2, 4).unwrap(), b"da\0\0");
    assert_eq!(share.read(image, gib(50), 8).unwrap(), [0; 8]);
    assert_eq!(share.read(image, gib(100) - 4, 8).unwrap(), b"data");
}

#[test]
fn ranges_are_copied_beyond_four_gibibytes() {
    let share = Share::new();
    let far = (5 << 30) + 1;
    let from = share.file("from", b"", RDWR);
    let to = share.file("to", b"", RDWR);
    share.write(from, far, b"distant").unwrap();
    let args = CopyFileRangeIn {
        fh_in: from.1,
        off_in: far,
        nodeid_out: to.0,
        fh_out: to.1,
        off_out: far + 4096,
        len: 1 << 40,
        flags: 0,
    };
    assert_eq!(share.fs.copy_file_range(&me(), from.0, &args).unwrap(), 7);
    assert_eq!(share.read(to, far + 4096, 9).unwrap(), b"distant");
    // Within one file, but not onto itself.
    let within = CopyFileRangeIn {
        nodeid_out: from.0,
        fh_out: from.1,
        off_out: 0,
        ..args
    };
    assert_eq!(share.fs.copy_file_range(&me(), from.0, &within).unwrap(), 7);
    assert_eq!(share.read(from, 0, 7).unwrap(), b"distant");
    let onto = CopyFileRangeIn {
        off_out: far + 1,
        len: 5,
        ..within
    };
    assert_eq!(
        errno(share.fs.copy_file_range(&me(), from.0, &onto)),
        Errno::EINVAL
    );
}

#[test]
fn a_size_that_no_file_can_have_is_refused_and_changes_nothing() {
    let share = Share::new();
    let file = share.file("file", b"content", RDWR);
    for size in [1 << 63, u64::MAX] {
        assert_eq!(errno(share.resize(file, size)), Errno::EINVAL);
        let args = SetattrIn {
            size,
            ..set(SetattrValid::SIZE)
        };
        assert_eq!(errno(share.setattr(file.0, args)), Errno::EINVAL);
    }
    assert_eq!(std::fs::read(share.host("file")).unwrap(), b"content");
}

#[test]
fn chown_clears_what_a_new_owner_must_not_have() {
    if !is_root("chown_clears_what_a_new_owner_must_not_have") {
        return;
    }
    let share = Share::new();
    let (file, _) = share.file("tool", b"", RDONLY);
    let dir = share.make_dir(ROOT, "dir", 0o755).unwrap().node;
    for node in [file, dir] {
        let args = SetattrIn {
            mode: 0o6755,
            ..set(SetattrValid::MODE)
        };
        share.setattr(node, args).unwrap();
    }
    let args = SetattrIn {
        uid: 1000,
        gid: 1000,
        ..set(SetattrValid::UID | SetattrValid::GID)
    };
    assert_eq!(share.setattr(file, args).unwrap().mode, 0o100_755);
    // For a directory, SGID means something else.
    assert_eq!(share.setattr(dir, args).unwrap().mode, 0o046_755);
}

#[test]
fn hard_links_live_through_renames() {
    let share = Share::new();
    let file = share.file("a", b"one file", RDWR);
    share.make_link(file.0, ROOT, "b").unwrap();
    let none = RenameFlags::empty();
    // Two names of one file: nothing happens (rename(2)).
    share.rename((ROOT, "a"), (ROOT, "b"), none).unwrap();
    assert_eq!(share.attr(file.0).nlink, 2);
    share.rename((ROOT, "a"), (ROOT, "c"), none).unwrap();
    share.unlink(ROOT, "b").unwrap();
    assert_eq!((share.node("c"), share.attr(file.0).nlink), (file.0, 1));
    share.write(file, 0, b"ONE").unwrap();
    assert_eq!(std::fs::read(share.host("c")).unwrap(), b"ONE file");
    // Another file takes the name; a link to the first is still made by its node.
    share.rename((ROOT, "c"), (ROOT, "d"), none).unwrap();
    let other = share.file("c", b"other", RDWR);
    assert_ne!(other.0, file.0);
    let linked = share.make_link(file.0, ROOT, "e").unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (file.0, 2));
    let host = |name| std::fs::metadata(share.host(name)).unwrap().ino();
    assert_eq!(host("d"), host("e"));
}

#[test]
fn truncating_at_open_is_seen_by_other_handles() {
    let share = Share::new();
    let reader = share.file("file", b"content", RDONLY);
    let writer = share
        .open_node(reader.0, (OFlags::WRONLY | OFlags::TRUNC).bits())
        .unwrap();
    assert_eq!(share.read(reader, 0, 9).unwrap(), b"");
    share.write((reader.0, writer), 3, b"new").unwrap();
    assert_eq!(share.read(reader, 0, 9).unwrap(), b"\0\0\0new");
    let host = std::fs::File::open(share.host("file")).unwrap();
    let mut start = [1; 4];
    host.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"\0\0\0n");
}
