use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

#[test]
fn names_of_any_bytes_and_full_length() {
    let share = Share::new();
    let every: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    for name in [
        every.as_slice(),
        &[0xff; 255],
        &[b'.'; 255],
        b"\xed\xa0\x80 not UTF-8 \xc0",
        b"\x1b[31m",
        b"...",
    ] {
        let file = share.make(ROOT, name, OFlags::RDWR, 0o644).unwrap();
        assert_eq!(share.find(ROOT, name).unwrap().node, file.0);
        for plus in [false, true] {
            let (node, fh) = share.opendir(ROOT);
            let args = ReadIn {
                fh,
                size: 4096,
                ..Default::default()
            };
            let mut buffer = [0; 4096];
            let len = if plus {
                let mut writer = DirentPlusWriter::new(&mut buffer);
                share
                    .fs
                    .readdirplus(&me(), node, &args, &mut writer)
                    .unwrap();
                writer.len()
            } else {
                let mut writer = DirentWriter::new(&mut buffer);
                share.fs.readdir(&me(), node, &args, &mut writer).unwrap();
                writer.len()
            };
            let listed = dirents(&buffer[..len], plus);
            assert!(listed.iter().any(|entry| entry.name == name), "{name:?}");
        }
        named(name, |name| {
            named("plain", |plain| {
                let none = RenameFlags::empty();
                share.fs.rename(&me(), ROOT, name, ROOT, plain, none)
            })
        })
        .unwrap();
        assert_eq!(share.node("plain"), file.0);
        share.unlink(ROOT, "plain").unwrap();
    }
}

#[test]
fn special_files_of_each_kind() {
    let share = Share::new();
    let encode = |major: u32, minor: u32| minor & 0xff | major << 8 | (minor & 0xf_ff00) << 12;
    for (name, mode, rdev) in [
        ("file", 0o100_604, 0),
        ("fifo", 0o010_622, 0),
        ("socket", 0o140_755, 0),
        ("null", 0o020_666, encode(1, 3)),
        ("disk", 0o060_660, encode(0xfff, 0xf_ffff)),
        ("whiteout", 0o020_000, 0),
    ] {
        let is_device = matches!(mode & 0o170_000, 0o020_000 | 0o060_000);
        if is_device && !is_root("special_files_of_each_kind (devices)") {
            continue;
        }
        let entry = share.make_node(ROOT, name, mode, rdev).unwrap();
        assert_eq!((entry.attr.mode, entry.attr.rdev), (mode, rdev), "{name}");
        assert_eq!(share.find(ROOT, name).unwrap().node, entry.node);
        let host = std::fs::symlink_metadata(share.host(name)).unwrap();
        assert_eq!(host.mode(), mode);
        assert_eq!(host.file_type().is_socket(), name == "socket");
        if is_device {
            let (major, minor) = (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00);
            assert_eq!(host.rdev(), rustix::fs::makedev(major, minor));
        }
        share.unlink(ROOT, name).unwrap();
    }
}

#[test]
fn a_directory_that_is_somebodys_current_one_is_removed() {
    let share = Share::new();
    let dir = share.make_dir(ROOT, "build", 0o755).unwrap().node;
    let open = share.opendir(dir);
    share.rmdir(ROOT, "build").unwrap();
    assert_eq!(share.attr(dir).nlink, 0);
    assert_eq!(errno(share.find(dir, "x")), Errno::ENOENT);
    assert_eq!(
        errno(share.make(dir, "x", OFlags::RDWR, 0o644)),
        Errno::ENOENT
    );
    assert_eq!(errno(share.make_dir(dir, "x", 0o755)), Errno::ENOENT);
    // Linux says ENOENT; there may also be nothing in it.
    match share.readdir(open, 0, 4096) {
        Ok(entries) => assert!(without_dots(&entries).is_empty()),
        Err(error) => assert_eq!(error, Errno::ENOENT.into()),
    }
    // A new one of the same name is another.
    let new = share.make_dir(ROOT, "build", 0o755).unwrap().node;
    assert_ne!(new, dir);
    share.make(new, "x", OFlags::RDWR, 0o644).unwrap();
    assert_eq!(errno(share.find(dir, "x")), Errno::ENOENT);
}

fn without_dots(entries: &[Listed]) -> Vec<&Listed> {
    let dots = [".", ".."];
    let others = entries.iter();
    others
        .filter(|entry| !dots.contains(&entry.name.as_str()))
        .collect()
}

#[test]
fn trees_are_deeper_than_a_path_can_be_long() {
    const DEPTH: usize = 300;
    let share = Share::new();
    let mut path = vec![ROOT];
    for level in 0..DEPTH {
        let name = [b'd'; 255];
        let parent = path[level];
        let made = share.make_dir(parent, name, 0o755).unwrap();
        assert_eq!(share.find(parent, name).unwrap().node, made.node);
        share.fs.forget(made.node, 1);
        path.push(made.node);
    }
    let bottom = path[DEPTH];
    let file = share.make(bottom, "file", OFlags::RDWR, 0o644).unwrap();
    share.write(file, 0, b"deep").unwrap();
    let none = RenameFlags::empty();
    share
        .rename((bottom, "file"), (ROOT, "file"), none)
        .unwrap();
    assert_eq!(std::fs::read(share.host("file")).unwrap(), b"deep");
    for parent in path[..DEPTH].iter().rev() {
        share.rmdir(*parent, [b'd'; 255]).unwrap();
    }
}

#[test]
fn renames_that_are_refused_change_nothing() {
    let share = Share::new();
    std::fs::create_dir_all(share.host("full/inner")).unwrap();
    std::fs::create_dir(share.host("empty")).unwrap();
    std::fs::write(share.host("file"), "file").unwrap();
    let (full, none) = (share.node("full"), RenameFlags::empty());
    for (from, to, flags, expected) in [
        ("empty", "full", none, Errno::ENOTEMPTY),
        ("file", "empty", none, Errno::EISDIR),
        ("empty", "file", none, Errno::ENOTDIR),
        ("absent", "file", none, Errno::ENOENT),
        ("file", "empty", RenameFlags::NOREPLACE, Errno::EEXIST),
        ("file", "absent", RenameFlags::EXCHANGE, Errno::ENOENT),
    ] {
        let result = share.rename((ROOT, from), (ROOT, to), flags);
        assert_eq!(errno(result), expected, "{from} to {to}");
    }
    let inner = share.find(full, "inner").unwrap().node;
    let below = share.rename((ROOT, "full"), (inner, "full"), none);
    assert_eq!(errno(below), Errno::EINVAL);
    let unknown = RenameFlags::from_bits_retain(1 << 7);
    let result = share.rename((ROOT, "file"), (ROOT, "new"), unknown);
    assert_eq!(errno(result), Errno::EINVAL);
    let mut left: Vec<_> = std::fs::read_dir(&share.path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["empty", "file", "full"]);
    // What may be: an empty directory gives way, and a name stays itself.
    share.rename((ROOT, "full"), (ROOT, "empty"), none).unwrap();
    share.rename((ROOT, "file"), (ROOT, "file"), none).unwrap();
    assert_eq!(share.node("empty"), full);
}

#[test]
fn a_file_and_a_directory_change_places() {
    let share = Share::new();
    let file = share.file("file", b"content", RDWR);
    let dir = share.make_dir(ROOT, "dir", 0o755).unwrap().node;
    let inner = share.make(dir, "inner", OFlags::RDWR, 0o644).unwrap();
    let sub = share.make_dir(ROOT, "sub", 0o755).unwrap().node;
    share
        .rename((ROOT, "file"), (ROOT, "dir"), RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!((share.node("file"), share.node("dir")), (dir, file.0));
    assert_eq!(share.find(dir, "inner").unwrap().node, inner.0);
    share
        .rename((ROOT, "file"), (sub, "new"), RenameFlags::NOREPLACE)
        .unwrap();
    assert_eq!(share.find(sub, "new").unwrap().node, dir);
    assert_eq!(share.read(file, 0, 9).unwrap(), b"content");
}

#[test]
fn an_overlay_leaves_whiteouts() {
    if !is_root("an_overlay_leaves_whiteouts") {
        return;
    }
    let share = Share::new();
    let upper = share.make_dir(ROOT, "upper", 0o755).unwrap().node;
    let file = share.make(upper, "file", OFlags::RDWR, 0o644).unwrap();
    share
        .rename((upper, "file"), (upper, "moved"), RenameFlags::WHITEOUT)
        .unwrap();
    assert_eq!(share.find(upper, "moved").unwrap().node, file.0);
    let whiteout = share.find(upper, "file").unwrap();
    assert_ne!(whiteout.node, file.0);
    assert_eq!((whiteout.attr.mode >> 12, whiteout.attr.rdev), (0o2, 0));
    let listed = share.list(share.opendir(upper), 4096, true);
    let kind = |name| listed.iter().find(|entry| entry.name == name).unwrap().kind;
    assert_eq!((kind("file"), kind("moved")), (0o2, 0o10));
    // A new file takes its place.
    share.unlink(upper, "file").unwrap();
    share
        .make(upper, "file", OFlags::RDWR | OFlags::EXCL, 0o644)
        .unwrap();
    share.unlink(upper, "file").unwrap();
    share.unlink(upper, "moved").unwrap();
    share.rmdir(ROOT, "upper").unwrap();
}

#[test]
fn sticky_and_sgid_directories() {
    let share = Share::new();
    let tmp = share.make_dir(ROOT, "tmp", 0o1777).unwrap();
    assert_eq!(tmp.attr.mode, 0o041_777);
    let args = SetattrIn {
        mode: 0o3775,
        ..set(SetattrValid::MODE)
    };
    assert_eq!(share.setattr(tmp.node, args).unwrap().mode, 0o043_775);
    // SGID is handed down, the sticky bit is not.
    let sub = share.make_dir(tmp.node, "sub", 0o755).unwrap();
    assert_eq!(sub.attr.mode, 0o042_755);
    let (file, _) = share.make(sub.node, "file", OFlags::RDWR, 0o644).unwrap();
    assert_eq!(share.attr(file).gid, share.attr(tmp.node).gid);
    assert_eq!(share.attr(file).mode, 0o100_644);
}

#[test]
fn a_link_as_long_as_a_path_can_be() {
    let share = Share::new();
    let target = CString::new(vec![b'x'; 4095]).unwrap();
    let made = named("link", |name| {
        let target = SymlinkTarget::new(&target).unwrap();
        share.fs.symlink(&me(), ROOT, name, target)
    });
    let made = made.unwrap();
    assert_eq!(made.attr.size, 4095);
    let mut buffer = [0; 4096];
    let len = share.fs.readlink(&me(), made.node, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], target.as_bytes());
    let linked = share.make_link(made.node, ROOT, "second").unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (made.node, 2));
}
