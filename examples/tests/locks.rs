//! Locks between two guests, each with a daemon of its own, on one directory.

#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;

use fuse_wire::abi::{FileLock, LkIn, ReleaseIn};
use fuse_wire::flags::{LkFlags, ReleaseFlags};
use fuse_wire::{Errno, Handle, NodeId, Operation};
use rustix::fs::{FlockOperation, fcntl_lock};
use support::Daemon;
use tempfile::TempDir;
use virtio_fs_guest::{Connection, Error, Mount, MountOptions, Options, Payload, Queue};

const READ: u32 = 0;
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;
const ALL: (u64, u64) = (0, i64::MAX as u64);

/// A directory with a file that all lock.
struct Shared {
    directory: TempDir,
}

impl Shared {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("shared")).unwrap();
        let shared = Self { directory };
        fs::write(shared.file(), "content").unwrap();
        shared
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("shared/file")
    }

    fn daemon(&self, name: &str) -> Daemon {
        let directory = self.directory.path();
        let args = ["--posix-lock", "--flock", "--thread-pool-size=1"];
        Daemon::start(&directory.join(name), &directory.join("shared"), &args)
    }
}

/// A guest that has the file open.
struct Guest {
    mount: Mount,
    node: NodeId,
    fh: Handle,
}

impl Guest {
    fn of(daemon: &Daemon) -> Self {
        let connection = Connection::connect(daemon.socket(), &Options::default()).unwrap();
        let mut mount = connection.mount(&MountOptions::default()).unwrap();
        let node = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
        let fh = mount.open(node, 2).unwrap().fh;
        Self { mount, node, fh }
    }

    fn lock(&self, owner: u64, lock_type: u32, (start, end): (u64, u64)) -> LkIn {
        LkIn {
            fh: self.fh,
            owner,
            lk: FileLock {
                start,
                end,
                lock_type,
                pid: 1,
            },
            ..Default::default()
        }
    }

    /// Sets a POSIX lock without waiting.
    fn set(&mut self, owner: u64, lock_type: u32, range: (u64, u64)) -> Result<(), Error> {
        let lk = self.lock(owner, lock_type, range).lk;
        self.mount.setlk(self.node, self.fh, owner, lk)
    }

    fn flock(&mut self, lock_type: u32) -> Result<(), Error> {
        let args = LkIn {
            lk_flags: LkFlags::FLOCK,
            ..self.lock(7, lock_type, ALL)
        };
        self.ask(Operation::SetLk(args))
    }

    /// Closes the file, with its flock(2) lock, and opens it again.
    fn reopen(&mut self) {
        let args = ReleaseIn {
            fh: self.fh,
            release_flags: ReleaseFlags::FLOCK_UNLOCK,
            ..Default::default()
        };
        self.ask(Operation::Release(args)).unwrap();
        self.fh = self.mount.open(self.node, 2).unwrap().fh;
    }

    fn ask(&mut self, operation: Operation<'_>) -> Result<(), Error> {
        let completion = self.mount.call(self.node, operation, Payload::None)?;
        completion.result().map(|_| ())
    }

    /// Begins to wait for a lock on all of the file, POSIX or flock(2). Everything that comes
    /// after it on the queue is served, by the daemon's thread that may wait for a device, too.
    fn begin_to_wait(&mut self, lk_flags: LkFlags) {
        let args = LkIn {
            lk_flags,
            ..self.lock(9, WRITE, ALL)
        };
        let (node, fh) = (self.node, self.fh);
        let queue = self.queue();
        let lock = queue.submit(node, Operation::SetLkW(args), Payload::None);
        let lock = lock.unwrap();
        let fsync = fuse_wire::abi::FsyncIn {
            fh,
            ..Default::default()
        };
        for operation in [Operation::StatFs, Operation::FSync(fsync)] {
            let other = queue.submit(node, operation, Payload::None).unwrap();
            let completion = queue.wait().unwrap();
            assert!(completion.token() == other && other != lock);
            completion.result().unwrap();
        }
    }

    /// What became of the wait.
    fn end_of_wait(&mut self) -> Result<(), Error> {
        self.queue().wait().unwrap().result().map(|_| ())
    }

    fn queue(&mut self) -> &mut Queue {
        &mut self.mount.connection().request_queues()[0]
    }
}

#[track_caller]
fn assert_errno(result: Result<(), Error>, errno: Errno) {
    assert_eq!(result.unwrap_err().errno(), Some(errno));
}

#[test]
fn fcntl_locks_exclude_other_guests_and_the_host() {
    let shared = Shared::new();
    let daemons = [shared.daemon("a"), shared.daemon("b")];
    let [mut a, mut b] = [Guest::of(&daemons[0]), Guest::of(&daemons[1])];
    a.set(1, WRITE, (0, 9)).unwrap();
    assert_errno(b.set(1, READ, (9, 9)), Errno::EAGAIN);
    b.set(1, WRITE, (10, 19)).unwrap();
    assert_errno(a.set(1, READ, (0, 10)), Errno::EAGAIN);
    let asked = b.lock(1, READ, (0, 100)).lk;
    let found = b.mount.getlk(b.node, b.fh, 1, asked).unwrap();
    assert_eq!((found.start, found.end, found.lock_type), (0, 9, WRITE));

    let host = File::options().read(true).write(true).open(shared.file());
    let host = host.unwrap();
    fcntl_lock(&host, FlockOperation::NonBlockingLockShared).unwrap_err();
    a.mount.flush(a.node, a.fh, 1).unwrap();
    b.set(1, READ, ALL).unwrap();
    fcntl_lock(&host, FlockOperation::NonBlockingLockShared).unwrap();
    b.set(1, UNLOCK, ALL).unwrap();
    fcntl_lock(&host, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_errno(a.set(1, READ, (0, 0)), Errno::EAGAIN);
}

#[test]
fn flock_excludes_other_guests_and_the_host() {
    let shared = Shared::new();
    let daemons = [shared.daemon("a"), shared.daemon("b")];
    let [mut a, mut b] = [Guest::of(&daemons[0]), Guest::of(&daemons[1])];
    let host = File::open(shared.file()).unwrap();
    a.flock(READ).unwrap();
    b.flock(READ).unwrap();
    host.try_lock().unwrap_err();
    assert_errno(a.flock(WRITE), Errno::EAGAIN);
    b.reopen();
    a.flock(WRITE).unwrap();
    assert_errno(b.flock(READ), Errno::EAGAIN);
    host.try_lock_shared().unwrap_err();
    a.flock(UNLOCK).unwrap();
    host.try_lock().unwrap();
    assert_errno(b.flock(READ), Errno::EAGAIN);
}

#[test]
fn who_waits_holds_up_nobody_and_gets_the_lock() {
    let shared = Shared::new();
    let daemons = [shared.daemon("a"), shared.daemon("b")];
    let [mut a, mut b] = [Guest::of(&daemons[0]), Guest::of(&daemons[1])];
    for kind in [LkFlags::empty(), LkFlags::FLOCK] {
        a.set(1, WRITE, ALL).unwrap();
        a.flock(WRITE).unwrap();
        b.begin_to_wait(kind);
        a.set(1, UNLOCK, ALL).unwrap();
        a.flock(UNLOCK).unwrap();
        b.end_of_wait().unwrap();
        b.mount.flush(b.node, b.fh, 9).unwrap();
        b.reopen();
    }
}

#[test]
fn locks_of_a_guest_that_is_killed_go_with_it() {
    let shared = Shared::new();
    let daemons = [shared.daemon("a"), shared.daemon("b")];
    let [mut a, mut b] = [Guest::of(&daemons[0]), Guest::of(&daemons[1])];
    a.set(1, WRITE, ALL).unwrap();
    b.begin_to_wait(LkFlags::empty());
    drop(a);
    b.end_of_wait().unwrap();
    // It waits itself when it is killed, and another guest takes its place.
    let mut a = Guest::of(&daemons[0]);
    a.begin_to_wait(LkFlags::empty());
    drop(a);
    let mut a = Guest::of(&daemons[0]);
    assert_errno(a.set(1, READ, ALL), Errno::EAGAIN);
    b.mount.flush(b.node, b.fh, 9).unwrap();
    a.set(1, WRITE, ALL).unwrap();
}

#[test]
fn a_wait_ends_when_the_device_has_to_stop() {
    let shared = Shared::new();
    let daemons = [shared.daemon("a"), shared.daemon("b")];
    let [mut a, mut b] = [Guest::of(&daemons[0]), Guest::of(&daemons[1])];
    a.set(1, WRITE, ALL).unwrap();
    b.begin_to_wait(LkFlags::empty());
    b.mount.connection().stop().unwrap();
    b.mount.connection().resume().unwrap();
    assert_errno(b.end_of_wait(), Errno::ENOLCK);
    b.begin_to_wait(LkFlags::empty());
    let [keeper, waiter] = daemons;
    assert!(waiter.end("TERM").success());
    assert!(keeper.end("TERM").success());
}
