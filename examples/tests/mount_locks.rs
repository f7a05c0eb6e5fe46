//! Locks and attributes through the kernel's own FUSE client, on `mount`.

#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use support::Mount;

/// A directory with one file, and the same by way of a mount; none where that cannot be.
struct Rig {
    mount: Mount,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new(args: &[&str]) -> Option<Self> {
        if !Mount::is_possible() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["source", "mnt"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("source/file"), "content").unwrap();
        let [source, mnt] = ["source", "mnt"].map(|name| directory.path().join(name));
        let mount = Mount::start(source, mnt, args);
        Some(Self { mount, directory })
    }

    fn open(&self, place: &str) -> File {
        let path = self.directory.path().join(place).join("file");
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// Runs a program on the file of the mount.
    fn run(&self, program: &[&str], then: &[&str]) -> Child {
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(self.directory.path().join("mnt/file"))
            .args(then)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.spawn().expect("it is part of any Linux")
    }

    fn end(self) {
        self.mount.signal("TERM");
        assert!(self.mount.wait().success());
    }
}

#[test]
fn locks_exclude_the_host_and_who_waits_holds_up_nobody() {
    let Some(rig) = Rig::new(&["--flock", "--posix-lock", "--threads=2"]) else {
        return;
    };
    let (inside, outside) = (rig.open("mnt"), rig.open("source"));
    inside.lock().unwrap();
    outside.try_lock().unwrap_err();
    inside.unlock().unwrap();
    outside.lock().unwrap();
    inside.try_lock().unwrap_err();

    let wait = || rig.run(&["flock", "-x"], &["true"]);
    let mut waiting: Vec<_> = (0..4).map(|_| wait()).collect();
    inside.sync_all().unwrap();
    let mut killed = waiting.pop().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    outside.unlock().unwrap();
    for mut child in waiting {
        assert!(child.wait().unwrap().success());
    }

    let lock = |file: &File, operation| fcntl_lock(file, operation);
    lock(&inside, FlockOperation::LockExclusive).unwrap();
    lock(&outside, FlockOperation::NonBlockingLockShared).unwrap_err();
    drop(inside);
    lock(&outside, FlockOperation::NonBlockingLockExclusive).unwrap();
    let inside = rig.open("mnt");
    lock(&inside, FlockOperation::NonBlockingLockShared).unwrap_err();
    drop(inside);
    rig.end();
}

#[test]
fn who_waits_gives_up_when_the_mount_is_gone() {
    let Some(rig) = Rig::new(&["--flock"]) else {
        return;
    };
    let outside = rig.open("source");
    outside.lock().unwrap();
    let mut waiting = rig.run(&["flock", "-x"], &["true"]);
    // Where the kernel shows where it has it wait.
    let place = format!("/proc/{}/wchan", waiting.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_waiting = || fs::read_to_string(&place).is_ok_and(|it| it.contains("request_wait"));
    while !is_waiting() && Instant::now() < deadline {
        thread::yield_now();
    }
    let mountpoint = rig.mount.path();
    let mut forced = Command::new("umount");
    forced.arg("--force").arg(mountpoint).stderr(Stdio::null());
    forced.status().unwrap();
    assert!(!waiting.wait().unwrap().success());
    rig.mount.wait();
}

#[test]
fn chattr_and_lsattr_work() {
    let Some(rig) = Rig::new(&[]) else {
        return;
    };
    let status = rig.run(&["chattr", "+d"], &[]).wait().unwrap();
    if !status.success() {
        eprintln!("skipped: no attributes on the host");
        return;
    }
    let output = rig.run(&["lsattr"], &[]).wait_with_output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let flags = listed.split_whitespace().next().unwrap();
    assert!(flags.contains('d'), "{listed}");
    rig.end();
}
