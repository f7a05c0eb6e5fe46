//! Names: made, moved, linked and removed.

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;

fn rename(
    share: &Share,
    from: (NodeId, &str),
    to: (NodeId, &str),
    flags: RenameFlags,
) -> Result<()> {
    let (name, new_name) = (cstr(from.1), cstr(to.1));
    let name = Name::new(&name).unwrap();
    let new_name = Name::new(&new_name).unwrap();
    share.fs.rename(&me(), from.0, name, to.0, new_name, flags)
}

fn remove(share: &Share, name: &str, directory: bool) -> Result<()> {
    let name = cstr(name);
    let name = Name::new(&name).unwrap();
    if directory {
        share.fs.rmdir(&me(), NodeId::ROOT, name)
    } else {
        share.fs.unlink(&me(), NodeId::ROOT, name)
    }
}

fn symlink(share: &Share, name: &str, target: &str) -> Result<Entry> {
    let (name, target) = (cstr(name), cstr(target));
    let target = SymlinkTarget::new(&target).unwrap();
    share
        .fs
        .symlink(&me(), NodeId::ROOT, Name::new(&name).unwrap(), target)
}

fn link(share: &Share, node: NodeId, name: &str) -> Result<Entry> {
    let name = cstr(name);
    share
        .fs
        .link(&me(), node, NodeId::ROOT, Name::new(&name).unwrap())
}

#[test]
fn directories_are_made_and_removed() {
    let share = Share::new();
    let entry = share.mkdir(&me(), "dir", 0o2750).unwrap();
    assert_eq!(entry.attr.mode & 0o777, 0o750);
    assert_eq!(entry.attr.mode >> 12, 0o4);
    std::fs::write(share.host("dir/file"), "").unwrap();
    assert_eq!(errno(remove(&share, "dir", true)), Errno::ENOTEMPTY);
    assert_eq!(errno(remove(&share, "dir", false)), Errno::EISDIR);
    std::fs::remove_file(share.host("dir/file")).unwrap();
    remove(&share, "dir", true).unwrap();
    assert_eq!(errno(remove(&share, "dir", true)), Errno::ENOENT);
    assert_eq!(share.attr(entry.node).nlink, 0);
}

#[test]
fn files_are_made_and_removed() {
    let share = Share::new();
    for (name, mode, expected) in [
        ("a", 0o100_644, 0o100_644),
        ("b", 0o600, 0o100_600),
        ("fifo", 0o010_622, 0o010_622),
        ("socket", 0o140_755, 0o140_755),
    ] {
        let cname = cstr(name);
        let args = MknodIn {
            mode,
            ..Default::default()
        };
        let entry = share
            .fs
            .mknod(&me(), NodeId::ROOT, Name::new(&cname).unwrap(), &args)
            .unwrap();
        assert_eq!(entry.attr.mode, expected);
        assert_eq!(errno(remove(&share, name, true)), Errno::ENOTDIR);
        remove(&share, name, false).unwrap();
        assert_eq!(errno(share.lookup(name)), Errno::ENOENT);
    }
    let name = cstr("x");
    for mode in [0o040_755, 0o120_777, 0o170_000] {
        let args = MknodIn {
            mode,
            ..Default::default()
        };
        let result = share
            .fs
            .mknod(&me(), NodeId::ROOT, Name::new(&name).unwrap(), &args);
        assert_eq!(errno(result), Errno::EINVAL);
    }
}

#[test]
fn the_target_of_a_link_is_kept_as_it_is() {
    let share = Share::new();
    let longest = "/x".repeat(2047) + "y";
    for target in ["a", "../..//", "\u{fe}", longest.as_str()] {
        let entry = symlink(&share, "link", target).unwrap();
        assert_eq!(entry.attr.size, target.len() as u64);
        let mut buffer = [0; 4096];
        let len = share.fs.readlink(&me(), entry.node, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], target.as_bytes());
        let mut short = [0; 1];
        assert_eq!(share.fs.readlink(&me(), entry.node, &mut short).unwrap(), 1);
        remove(&share, "link", false).unwrap();
    }
    let file = share.file("file", b"", RDONLY);
    assert_eq!(
        errno(share.fs.readlink(&me(), file.0, &mut [0; 9])),
        Errno::EINVAL
    );
}

#[test]
fn a_rename_keeps_the_node() {
    let share = Share::new();
    let file = share.file("old", b"content", RDWR);
    let dir = share.mkdir(&me(), "dir", 0o755).unwrap().node;
    let none = RenameFlags::empty();
    rename(&share, (NodeId::ROOT, "old"), (dir, "new"), none).unwrap();
    assert_eq!(errno(share.lookup("old")), Errno::ENOENT);
    assert_eq!(share.lookup_in(dir, "new").unwrap().node, file.0);
    assert_eq!(share.read(file, 0, 9).unwrap(), b"content");
    let into_itself = rename(&share, (NodeId::ROOT, "dir"), (dir, "dir"), none);
    assert_eq!(errno(into_itself), Errno::EINVAL);
}

#[test]
fn the_flags_of_rename_are_heeded() {
    let share = Share::new();
    std::fs::write(share.host("a"), "a").unwrap();
    std::fs::write(share.host("b"), "b").unwrap();
    let (a, b) = ((NodeId::ROOT, "a"), (NodeId::ROOT, "b"));
    assert_eq!(
        errno(rename(&share, a, b, RenameFlags::NOREPLACE)),
        Errno::EEXIST
    );
    rename(&share, a, b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(std::fs::read(share.host("a")).unwrap(), b"b");
    assert_eq!(std::fs::read(share.host("b")).unwrap(), b"a");
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    assert_eq!(errno(rename(&share, a, b, both)), Errno::EINVAL);
    if is_root("the_flags_of_rename_are_heeded (whiteout)") {
        rename(&share, a, b, RenameFlags::WHITEOUT).unwrap();
        let whiteout = share.lookup("a").unwrap().attr;
        assert_eq!((whiteout.mode >> 12, whiteout.rdev), (0o2, 0));
        assert_eq!(std::fs::read(share.host("b")).unwrap(), b"b");
    }
}

#[test]
fn a_link_is_another_name_of_the_same_node() {
    let share = Share::new();
    let file = share.file("file", b"content", RDONLY);
    let linked = link(&share, file.0, "other").unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (file.0, 2));
    assert_eq!(errno(link(&share, file.0, "other")), Errno::EEXIST);
    // The link itself, not what it points to.
    let to_secret = symlink(&share, "link", "../secret").unwrap();
    let linked = link(&share, to_secret.node, "second-link").unwrap();
    assert_eq!(
        (linked.node, linked.attr.mode >> 12),
        (to_secret.node, 0o12)
    );
    // Not of a directory.
    assert_eq!(errno(link(&share, NodeId::ROOT, "root")), Errno::EPERM);
}

#[test]
fn only_directories_have_entries() {
    let share = Share::new();
    let file = share.file("file", b"", RDONLY);
    assert_eq!(errno(share.lookup_in(file.0, "x")), Errno::ENOTDIR);
    let x = cstr("x");
    let x = Name::new(&x).unwrap();
    let fs = &share.fs;
    let mkdir = fs.mkdir(&me(), file.0, x, &MkdirIn::default());
    assert_eq!(errno(mkdir), Errno::ENOTDIR);
    let create = fs.create(&me(), file.0, x, &CreateIn::default());
    assert_eq!(errno(create), Errno::ENOTDIR);
    assert_eq!(
        errno(fs.tmpfile(&me(), file.0, &CreateIn::default())),
        Errno::ENOTDIR
    );
    assert_eq!(errno(fs.unlink(&me(), file.0, x)), Errno::ENOTDIR);
    assert_eq!(errno(fs.unlink(&me(), NodeId(99), x)), Errno::ESTALE);
    assert_eq!(errno(fs.link(&me(), file.0, file.0, x)), Errno::ENOTDIR);
}

#[test]
fn names_are_bytes() {
    let share = Share::new();
    for name in [
        "...",
        " ",
        "-rf",
        "new\nline",
        "\u{7f}\u{1}",
        &"x".repeat(255),
    ] {
        share.mkdir(&me(), name, 0o755).unwrap();
        assert!(share.host(name).is_dir());
        remove(&share, name, true).unwrap();
    }
}
