//! `mount` as its users see it: options, signals, unmounting, and what it says.

#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use support::Mount;

fn mount(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mount"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

#[track_caller]
fn assert_refused(args: &[&str], code: i32, parts: &[&str]) {
    let output = mount(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?}: no {part:?} in {text:?}");
    }
}

/// A directory with one file, and a place for a mount.
fn directories() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["source", "mnt"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("source/file"), "content").unwrap();
    directory
}

fn start(directory: &Path, args: &[&str]) -> Mount {
    Mount::start(directory.join("source"), directory.join("mnt"), args)
}

fn is_mounted(path: &Path) -> bool {
    let parent = path.parent().unwrap();
    fs::metadata(path).unwrap().dev() != fs::metadata(parent).unwrap().dev()
}

fn umount(args: &[&str], path: &Path) {
    let status = Command::new("umount").args(args).arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn usage_errors_are_one_line() {
    assert_refused(&[], 2, &["SOURCE", "MOUNTPOINT", "--help"]);
    assert_refused(&["/tmp"], 2, &["required", "SOURCE"]);
    assert_refused(&["/tmp", "/srv", "/mnt"], 2, &["NAME=DIR", "--help"]);
    assert_refused(&["a=/tmp", "memory:", "/mnt"], 2, &["NAME=DIR"]);
    assert_refused(&["a=/", "a=/srv", "/"], 1, &["\"a\"", "two exports"]);
    assert_refused(&["memory:1X", "/tmp"], 2, &["1X", "K, M or G"]);
    assert_refused(&["--threads=1", "/tmp", "/mnt"], 2, &["--threads", "2.."]);
    assert_refused(
        &["--cache=some", "/tmp", "/mnt"],
        2,
        &["never, metadata, auto, always"],
    );
}

#[test]
fn help_teaches() {
    let help = mount(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for part in [
        "Examples:",
        "memory:64M",
        "umount /mnt",
        "fusermount3",
        "--cache",
    ] {
        assert!(text.contains(part), "no {part:?} in the help");
    }
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let directory = directories();
    let file = directory.path().join("source/file");
    let file = file.to_str().unwrap();
    assert_refused(
        &["/no/such/source", "/tmp"],
        1,
        &["/no/such/source", "No such file"],
    );
    assert_refused(
        &["memory:", "/no/such/mnt"],
        1,
        &["/no/such/mnt", "No such file"],
    );
    assert_refused(&[file, "/tmp"], 1, &[file, "Not a directory"]);
    assert_refused(&["memory:", file], 1, &[file, "not a directory"]);
}

#[test]
fn mount_inside_of_itself_is_refused() {
    let directory = directories();
    let source = directory.path().to_str().unwrap();
    let mountpoint = format!("{source}/mnt");
    assert_refused(&[source, &mountpoint], 1, &["inside of it", &mountpoint]);
}

#[test]
fn directory_is_mounted_on_itself() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let source = directory.path().join("source");
    let mount = Mount::start(&source, &source, &[]);
    fs::write(mount.path().join("new"), "").unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2);
    mount.signal("TERM");
    assert!(mount.wait().success());
    assert!(!is_mounted(&source));
    assert!(source.join("new").exists());
}

#[test]
fn directory_is_mounted() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = start(directory.path(), &[]);
    let (inside, outside) = (mount.path(), directory.path().join("source"));
    assert!(is_mounted(inside));
    assert_eq!(fs::read(inside.join("file")).unwrap(), b"content");
    // More than a request carries.
    let data: Vec<u8> = (0..3_000_001_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(inside.join("new"), &data).unwrap();
    assert!(fs::read(outside.join("new")).unwrap() == data, "other data");
    assert!(fs::read(inside.join("new")).unwrap() == data, "other data");
    fs::remove_file(inside.join("file")).unwrap();
    assert!(!outside.join("file").exists());
}

#[test]
fn running_programs_are_not_truncated() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let directory_mount = start(directory.path(), &[]);
    let memory_mount = Mount::start("memory:", directory.path().join("memory"), &[]);
    for mount in [directory_mount, memory_mount] {
        let program = mount.path().join("cat");
        let len = fs::copy("/bin/cat", &program).unwrap();
        // It runs until its standard input is closed.
        let mut cat = Command::new(&program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let opened = rustix::fs::open(&program, OFlags::TRUNC, Mode::empty());
        assert_eq!(opened.err(), Some(Errno::TXTBSY));
        assert_eq!(fs::metadata(&program).unwrap().len(), len);
        drop(cat.stdin.take());
        assert!(cat.wait().unwrap().success());
    }
}

#[test]
fn several_directories_are_mounted() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let source = directory.path().join("source").display().to_string();
    let (one, two) = (format!("one={source}"), format!("two={source}:ro"));
    let mount = Mount::start(two, directory.path().join("mnt"), &[&one]);
    let path = |name: &str| mount.path().join(name);
    assert_eq!(fs::read(path("one/file")).unwrap(), b"content");
    assert_eq!(fs::read(path("two/file")).unwrap(), b"content");
    fs::write(path("one/new"), "").unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    use std::io::ErrorKind::{CrossesDevices, ReadOnlyFilesystem};
    assert_eq!(kind(fs::write(path("two/more"), "")), ReadOnlyFilesystem);
    assert_eq!(kind(fs::write(path("more"), "")), ReadOnlyFilesystem);
    assert_eq!(
        kind(fs::rename(path("one/new"), path("two/new"))),
        CrossesDevices
    );
    let names = fs::read_dir(mount.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    mount.signal("TERM");
    assert!(mount.wait().success());
}

#[test]
fn memory_is_mounted() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = Mount::start("memory:1M", directory.path().join("mnt"), &[]);
    let file = mount.path().join("file");
    fs::write(&file, "content").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"content");
    let error = fs::write(&file, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn signals_unmount() {
    if !Mount::is_possible() {
        return;
    }
    for signal in ["TERM", "INT"] {
        let directory = directories();
        let mount = start(directory.path(), &[]);
        assert!(is_mounted(mount.path()));
        mount.signal(signal);
        assert!(mount.wait().success());
        assert!(!is_mounted(&directory.path().join("mnt")));
    }
}

#[test]
fn unmounting_ends_it() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = start(directory.path(), &[]);
    umount(&[], mount.path());
    assert!(mount.wait().success());
}

#[test]
fn open_files_are_served_to_their_end() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = start(directory.path(), &["--cache=never"]);
    let mut file = File::options()
        .read(true)
        .append(true)
        .open(mount.path().join("file"))
        .unwrap();
    mount.signal("TERM");
    assert!(mount.wait_for("is in use"), "{}", mount.log());
    file.write_all(b"!").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content!");
    drop(file);
    assert!(mount.wait().success());
    assert!(!is_mounted(&directory.path().join("mnt")));
}

#[test]
fn second_signal_ends_it() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = start(directory.path(), &[]);
    let file = File::open(mount.path().join("file")).unwrap();
    mount.signal("TERM");
    assert!(mount.wait_for("is in use"), "{}", mount.log());
    mount.signal("TERM");
    assert_eq!(mount.wait().code(), Some(1));
    drop(file);
}

#[test]
fn read_only_mount_refuses_changes() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mount = start(directory.path(), &["--readonly"]);
    let new = mount.path().join("new");
    let refused = || fs::write(&new, "").unwrap_err().kind();
    assert_eq!(refused(), std::io::ErrorKind::ReadOnlyFilesystem);
    // The session refuses what the kernel lets through.
    rustix::mount::mount_remount(mount.path(), MountFlags::empty(), "").unwrap();
    assert_eq!(refused(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn mount_of_a_killed_process_is_named() {
    if !Mount::is_possible() {
        return;
    }
    let directory = directories();
    let mut mount = start(directory.path(), &[]);
    mount.kill();
    let path = mount.path().to_str().unwrap().to_owned();
    assert_refused(&["memory:", &path], 1, &["has ended", "umount", &path]);
}

#[test]
fn ordinary_users_are_told_what_they_need() {
    let has_helper = Command::new("fusermount3").arg("-V").output().is_ok();
    if rustix::process::geteuid().is_root() || has_helper {
        eprintln!("skipped: needs an ordinary user without fusermount3");
        return;
    }
    let directory = directories();
    let path = directory.path().to_str().unwrap();
    assert_refused(&["memory:", path], 1, &["fusermount3", "apt install fuse3"]);
}
