//! `share` on directories that hold what it has to cope with.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

fn share(args: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_share"))
        .args(args)
        .arg(directory)
        .output()
        .expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The number that the summary gives for `name`.
#[track_caller]
fn count(output: &Output, name: &str) -> u64 {
    let summary = stdout(output);
    let line = summary
        .lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name:?} in {output:?}"));
    line.trim().replace(',', "").parse().expect("a number")
}

/// Two directories, four files, two symbolic links, a socket.
fn make_tree(root: &Path) {
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("small"), "content").unwrap();
    // More than one READ, and not a multiple of its size.
    let large: Vec<u8> = (0..3_000_001_u32).map(|i| (i / 251) as u8).collect();
    fs::write(root.join("directory/large"), large).unwrap();
    fs::write(root.join("directory/tool"), "#!/bin/sh\n").unwrap();
    let mode = fs::Permissions::from_mode(0o4750);
    fs::set_permissions(root.join("directory/tool"), mode).unwrap();
    fs::hard_link(root.join("small"), root.join("directory/same")).unwrap();
    symlink("small", root.join("link")).unwrap();
    symlink("/no/where", root.join("directory/dangling")).unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
}

#[test]
fn small_tree_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    make_tree(root.path());
    for cache in ["never", "metadata", "auto", "always"] {
        let output = share(&["--cache", cache], root.path());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(count(&output, "directories"), 2);
        assert_eq!(count(&output, "files"), 5);
        assert_eq!(count(&output, "symbolic links"), 2);
        assert_eq!(count(&output, "special files"), 1);
        assert_eq!(count(&output, "bytes"), 3_000_001 + 10 + 7 + 7);
        assert_eq!(count(&output, "differences"), 0);
        assert_eq!(count(&output, "changed meanwhile"), 0);
    }
}

#[test]
fn wide_directory_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..2_000 {
        fs::write(root.path().join(format!("file with a name {number}")), "x").unwrap();
    }
    let output = share(&[], root.path());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(count(&output, "files"), 2_000);
}

#[test]
fn extended_attributes_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "content").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&file, "user.key", b"value", flags) {
        eprintln!("skipped: no extended attributes on the temporary directory: {error}");
        return;
    }
    let output = share(&["--xattr"], root.path());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(count(&output, "differences"), 0);
}

#[test]
fn what_may_not_be_read_is_counted() {
    let root = tempfile::tempdir().unwrap();
    make_tree(root.path());
    let secret = fs::Permissions::from_mode(0o000);
    fs::set_permissions(root.path().join("small"), secret.clone()).unwrap();
    fs::set_permissions(root.path().join("directory"), secret).unwrap();
    let output = share(&[], root.path());
    // So that it can be removed.
    let open = fs::Permissions::from_mode(0o700);
    fs::set_permissions(root.path().join("directory"), open).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(count(&output, "differences"), 0);
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    assert_eq!(count(&output, "unreadable"), 2);
}

#[test]
fn wrong_calls_are_told_apart() {
    let usage = share(&["--no-such-option"], Path::new("/tmp"));
    assert_eq!(usage.status.code(), Some(2));
    let missing = share(&[], Path::new("/no/such/directory"));
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(text.contains("/no/such/directory"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
