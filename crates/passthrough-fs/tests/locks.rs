//! Locks that are taken on the host: between processes of a guest, between guests, and with the
//! host.

mod common;

use std::fs::File;
use std::thread;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, Extras, PassthroughFs};
use rustix::fs::FlockOperation;

const READ: u32 = 0;
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;
const NO_END: u64 = i64::MAX as u64;

/// A guest with one file of a directory that it shares with others.
struct Guest {
    fs: PassthroughFs,
    node: NodeId,
    fh: Handle,
}

/// A directory with one file.
struct Shared {
    directory: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("file"), "content").unwrap();
        Self { directory }
    }

    fn guest(&self) -> Guest {
        self.guest_with(|config| config)
    }

    fn guest_with(&self, configure: impl FnOnce(Config) -> Config) -> Guest {
        let config = Config::new(self.directory.path()).extras(Extras::POSIX_LOCK | Extras::FLOCK);
        let fs = PassthroughFs::new(configure(config)).unwrap();
        let mut guest = Guest {
            fs,
            node: NodeId::ROOT,
            fh: Handle::default(),
        };
        guest.begin();
        guest
    }

    fn host(&self) -> File {
        let path = self.directory.path().join("file");
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// Descriptors that this process has open of the file.
    fn descriptors(&self) -> usize {
        self.descriptor_numbers().len()
    }

    /// How many of them can be written to.
    fn writable_descriptors(&self) -> usize {
        let is_writable = |number: &String| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t"));
            u32::from_str_radix(flags.unwrap(), 8).unwrap() & (WRONLY | RDWR) != 0
        };
        let numbers = self.descriptor_numbers();
        numbers.iter().filter(|number| is_writable(number)).count()
    }

    fn descriptor_numbers(&self) -> Vec<String> {
        let path = self.directory.path().join("file");
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        links
            .map(|link| link.unwrap())
            .filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == path))
            .map(|link| link.file_name().into_string().unwrap())
            .collect()
    }
}

impl Guest {
    /// Begins a session and opens the file.
    fn begin(&mut self) {
        let mut negotiation = Negotiation::new(&InitIn::default(), InitFlags::empty());
        negotiation.offered = InitFlags::all();
        self.fs.init(&mut negotiation).unwrap();
        let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
        assert!(negotiation.enabled.contains(locks));
        let name = Name::new(c"file").unwrap();
        self.node = self.fs.lookup(&me(), NodeId::ROOT, name).unwrap().node;
        self.fh = self.open(RDWR);
    }

    fn open(&self, flags: u32) -> Handle {
        let args = OpenIn {
            flags,
            ..Default::default()
        };
        let opened = self.fs.open(&me(), self.node, &args).unwrap();
        assert!(!opened.flags.contains(OpenOutFlags::NOFLUSH));
        opened.handle
    }

    fn lock(&self, owner: u64, lock_type: u32, (start, end): (u64, u64)) -> LkIn {
        LkIn {
            fh: self.fh,
            owner,
            lk: FileLock {
                start,
                end,
                lock_type,
                pid: 1000 + u32::try_from(owner).unwrap(),
            },
            ..Default::default()
        }
    }

    fn set(&self, owner: u64, lock_type: u32, range: (u64, u64)) -> Result<()> {
        let args = self.lock(owner, lock_type, range);
        self.fs.setlk(&me(), self.node, &args, false)
    }

    fn test(&self, owner: u64, lock_type: u32, range: (u64, u64)) -> FileLock {
        let args = self.lock(owner, lock_type, range);
        self.fs.getlk(&me(), self.node, &args).unwrap()
    }

    fn wait(&self, unique: u64, owner: u64, range: (u64, u64)) -> Result<()> {
        let args = self.lock(owner, WRITE, range);
        let cx = Context { unique, ..me() };
        self.fs.setlk(&cx, self.node, &args, true)
    }

    fn flock_with(&self, cx: &Context<'_>, fh: Handle, lock_type: u32, wait: bool) -> Result<()> {
        let args = LkIn {
            fh,
            lk_flags: LkFlags::FLOCK,
            ..self.lock(fh.0, lock_type, (0, NO_END))
        };
        self.fs.setlk(cx, self.node, &args, wait)
    }

    fn flock(&self, fh: Handle, lock_type: u32) -> Result<()> {
        self.flock_with(&me(), fh, lock_type, false)
    }

    fn flush(&self, lock_owner: u64) {
        let args = FlushIn {
            fh: self.fh,
            lock_owner,
            ..Default::default()
        };
        self.fs.flush(&me(), self.node, &args).unwrap();
    }

    fn release(&self, fh: Handle, release_flags: ReleaseFlags) {
        let args = ReleaseIn {
            fh,
            release_flags,
            ..Default::default()
        };
        self.fs.release(&me(), self.node, &args).unwrap();
    }
}

#[track_caller]
fn assert_taken(result: Result<()>) {
    assert_eq!(errno(result), Errno::EAGAIN);
}

#[test]
fn posix_locks_exclude_other_processes_and_other_guests() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    a.set(1, WRITE, (10, 19)).unwrap();
    for (guest, owner) in [(&a, 2), (&b, 1), (&b, 2)] {
        assert_taken(guest.set(owner, READ, (19, 30)));
        assert_taken(guest.set(owner, WRITE, (0, NO_END)));
        guest.set(owner, WRITE, (20, 30)).unwrap();
        guest.set(owner, UNLOCK, (0, NO_END)).unwrap();
    }
    // The owner may do what it likes.
    a.set(1, READ, (15, 19)).unwrap();
    b.set(1, READ, (15, 30)).unwrap();
    assert_taken(a.set(1, WRITE, (30, 30)));
    assert_taken(b.set(1, READ, (14, 14)));
    a.set(1, UNLOCK, (0, 14)).unwrap();
    b.set(1, WRITE, (0, 14)).unwrap();
}

#[test]
fn what_stands_in_the_way_is_told() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    let free = |lock: FileLock| lock.lock_type == UNLOCK;
    assert!(free(a.test(1, WRITE, (0, NO_END))));
    a.set(1, WRITE, (10, NO_END)).unwrap();
    assert!(free(a.test(1, WRITE, (0, NO_END))));
    assert!(free(b.test(1, WRITE, (0, 9))));
    let found = FileLock {
        start: 10,
        end: NO_END,
        lock_type: WRITE,
        pid: 1001,
    };
    assert_eq!(a.test(2, READ, (5, 15)), found);
    // Processes of others mean nothing to a guest.
    let elsewhere = FileLock { pid: 0, ..found };
    assert_eq!(b.test(1, READ, (5, 15)), elsewhere);
    a.set(1, READ, (0, 9)).unwrap();
    assert!(free(b.test(1, READ, (0, 9))));
    let lock = a.lock(1, UNLOCK, (0, 9));
    assert_eq!(errno(a.fs.getlk(&me(), a.node, &lock)), Errno::EINVAL);
}

#[test]
fn locks_exclude_the_host() {
    let shared = Shared::new();
    let guest = shared.guest();
    let host = shared.host();
    let set = |operation| rustix::fs::fcntl_lock(&host, operation);
    set(FlockOperation::NonBlockingLockShared).unwrap();
    guest.set(1, READ, (0, NO_END)).unwrap();
    assert_taken(guest.set(1, WRITE, (0, 0)));
    set(FlockOperation::NonBlockingLockExclusive).unwrap_err();
    set(FlockOperation::NonBlockingUnlock).unwrap();
    guest.set(1, WRITE, (0, 0)).unwrap();
    set(FlockOperation::NonBlockingLockShared).unwrap_err();
}

#[test]
fn locks_go_when_their_owner_closes_the_file() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    let open = shared.descriptors();
    a.set(1, WRITE, (0, 9)).unwrap();
    a.set(2, WRITE, (10, 19)).unwrap();
    assert_eq!(shared.descriptors(), open + 2);
    a.flush(1);
    b.set(1, WRITE, (0, 9)).unwrap();
    assert_taken(b.set(1, WRITE, (10, 19)));
    b.set(1, UNLOCK, (0, NO_END)).unwrap();
    a.flush(2);
    b.set(1, WRITE, (0, NO_END)).unwrap();
    assert_eq!(shared.descriptors(), open + 1);
}

#[test]
fn locks_of_a_file_description_go_with_its_handle() {
    let shared = Shared::new();
    let (mut a, b) = (shared.guest(), shared.guest());
    let first = a.fh;
    // A process that locks by two handles, and a description that has but one.
    a.set(1, WRITE, (0, 4)).unwrap();
    a.fh = a.open(RDWR);
    a.set(1, WRITE, (5, 9)).unwrap();
    a.set(2, WRITE, (10, 19)).unwrap();
    a.release(a.fh, ReleaseFlags::empty());
    b.set(1, WRITE, (10, 19)).unwrap();
    assert_taken(b.set(1, WRITE, (5, 9)));
    a.fh = first;
    a.flush(1);
    b.set(1, WRITE, (0, NO_END)).unwrap();
}

#[test]
fn a_file_that_is_open_for_reading_can_be_locked_for_writing_by_another_handle() {
    let shared = Shared::new();
    let (mut a, b) = (shared.guest(), shared.guest());
    a.fh = a.open(RDONLY);
    a.set(1, READ, (0, 9)).unwrap();
    a.fh = a.open(WRONLY);
    a.set(1, WRITE, (0, 4)).unwrap();
    assert_taken(b.set(1, READ, (0, 0)));
    b.set(1, READ, (5, 9)).unwrap();
}

#[test]
fn a_file_that_is_open_for_reading_is_not_opened_for_writing_to_lock_it() {
    let shared = Shared::new();
    let mut guest = shared.guest();
    guest.release(guest.fh, ReleaseFlags::empty());
    guest.fh = guest.open(RDONLY);
    guest.set(1, READ, (0, 9)).unwrap();
    assert_eq!(shared.writable_descriptors(), 0);
    // A Linux guest refuses that by itself.
    assert_eq!(errno(guest.set(1, WRITE, (0, 4))), Errno::EBADF);
    assert_eq!(shared.writable_descriptors(), 0);
    assert_eq!(guest.test(2, WRITE, (0, 0)).lock_type, READ);
}

#[test]
fn flock_excludes_other_handles_guests_and_the_host() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    let other = a.open(RDONLY);
    let host = shared.host();
    a.flock(a.fh, READ).unwrap();
    a.flock(other, READ).unwrap();
    b.flock(b.fh, READ).unwrap();
    host.try_lock_shared().unwrap();
    assert_taken(b.flock(b.fh, WRITE));
    for unlock in [a.flock(a.fh, UNLOCK), b.flock(b.fh, UNLOCK)] {
        unlock.unwrap();
    }
    a.release(other, ReleaseFlags::FLOCK_UNLOCK);
    assert_taken(a.flock(a.fh, WRITE));
    host.unlock().unwrap();
    a.flock(a.fh, WRITE).unwrap();
    host.try_lock_shared().unwrap_err();
    // The two kinds have nothing to do with each other.
    b.set(1, WRITE, (0, NO_END)).unwrap();
}

#[test]
fn who_must_not_wait_is_told_to_come_again() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    let ask = |wait| {
        let posix =
            b.fs.setlk(&hasty(), b.node, &b.lock(1, WRITE, (0, 9)), wait);
        (posix, b.flock_with(&hasty(), b.fh, WRITE, wait))
    };
    assert_eq!(ask(true), (Ok(()), Ok(())));
    b.flush(1);
    b.flock(b.fh, UNLOCK).unwrap();
    a.set(1, READ, (9, 9)).unwrap();
    a.flock(a.fh, READ).unwrap();
    let (later, taken) = (Err(Error::WouldBlock), Err(Errno::EAGAIN.into()));
    assert_eq!(ask(true), (later, later));
    assert_eq!(ask(false), (taken, taken));
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    a.set(1, WRITE, (0, NO_END)).unwrap();
    a.set(2, WRITE, (0, 0)).unwrap_err();
    a.flock(a.fh, WRITE).unwrap();
    let host = shared.host();
    thread::scope(|scope| {
        let one = scope.spawn(|| b.wait(1, 1, (0, 4)));
        let two = scope.spawn(|| b.wait(2, 2, (5, 9)));
        let three = scope.spawn(|| a.wait(3, 2, (10, 19)));
        let four = scope.spawn(|| b.flock_with(&me(), b.fh, WRITE, true));
        a.set(1, UNLOCK, (0, 4)).unwrap();
        one.join().unwrap().unwrap();
        a.set(1, READ, (5, 19)).unwrap();
        a.flush(1);
        two.join().unwrap().unwrap();
        three.join().unwrap().unwrap();
        a.release(a.fh, ReleaseFlags::FLOCK_UNLOCK);
        four.join().unwrap().unwrap();
        b.flock(b.fh, UNLOCK).unwrap();
        // Of what others do, nobody tells.
        host.lock().unwrap();
        let five = scope.spawn(|| b.flock_with(&me(), b.fh, WRITE, true));
        host.unlock().unwrap();
        five.join().unwrap().unwrap();
    });
}

#[test]
fn a_wait_ends_when_it_is_interrupted_or_cancelled() {
    let shared = Shared::new();
    let (a, b) = (shared.guest(), shared.guest());
    a.set(1, WRITE, (0, NO_END)).unwrap();
    thread::scope(|scope| {
        let one = scope.spawn(|| b.wait(11, 1, (0, 4)));
        let two = scope.spawn(|| b.wait(12, 2, (0, 4)));
        b.fs.interrupt(11);
        assert_eq!(errno(one.join().unwrap()), Errno::EINTR);
        a.fs.cancel_waits();
        while !two.is_finished() {
            b.fs.cancel_waits();
            thread::yield_now();
        }
        assert_eq!(errno(two.join().unwrap()), Errno::ENOLCK);
    });
    a.flush(1);
    b.set(3, WRITE, (0, NO_END)).unwrap();
}

#[test]
fn nothing_outlives_the_session() {
    let shared = Shared::new();
    let (mut a, b) = (shared.guest(), shared.guest());
    a.set(1, WRITE, (0, 9)).unwrap();
    a.flock(a.fh, WRITE).unwrap();
    b.set(1, WRITE, (20, 29)).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.wait(1, 2, (20, 29)));
        while !waiting.is_finished() {
            a.fs.destroy();
            thread::yield_now();
        }
        let failed = errno(waiting.join().unwrap());
        assert!([Errno::ENOLCK, Errno::EBADF].contains(&failed));
    });
    b.set(1, WRITE, (0, 9)).unwrap();
    b.flock(b.fh, WRITE).unwrap();
    b.flush(1);
    a.begin();
    a.set(1, WRITE, (0, 9)).unwrap();
    let open = shared.descriptors();
    drop(a);
    assert_eq!(shared.descriptors(), open - 3, "node, handle, lock");
    b.set(1, WRITE, (0, NO_END)).unwrap();
}

#[test]
fn what_is_not_agreed_on_is_refused() {
    let share = Share::with(|config| config.extras(Extras::POSIX_LOCK | Extras::FLOCK));
    share.init(InitFlags::empty());
    let (node, fh) = share.file("file", b"", RDWR);
    for lk_flags in [LkFlags::empty(), LkFlags::FLOCK] {
        let args = LkIn {
            fh,
            lk_flags,
            ..Default::default()
        };
        let set = share.fs.setlk(&me(), node, &args, false);
        assert_eq!(errno(set), Errno::ENOSYS);
        assert_eq!(errno(share.fs.getlk(&me(), node, &args)), Errno::ENOSYS);
    }
    let share = Share::new();
    let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    assert!(!share.init(InitFlags::all()).intersects(locks));
}

#[test]
fn locks_are_limited() {
    let shared = Shared::new();
    let a = shared.guest();
    let b = shared.guest();
    let mut count = 0_u64;
    let error = loop {
        let owner = 1 + count / 1024;
        let at = 2 * count;
        match a.set(owner, READ, (at, at)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, count), (Errno::ENOLCK.into(), 8 * 1024));
    // One that takes no more room, and one that gives some back.
    a.set(1, WRITE, (0, 0)).unwrap();
    a.set(1, UNLOCK, (0, 0)).unwrap();
    a.set(1, READ, (1 << 40, 1 << 41)).unwrap();
    assert_eq!(
        errno(a.set(1, UNLOCK, ((1 << 40) + 1, 1 << 40 | 2))),
        Errno::ENOLCK
    );
    b.set(1, READ, (0, 0)).unwrap();
    for owner in 1..=8 {
        a.flush(owner);
    }
    a.set(1, READ, (0, 0)).unwrap();
}

#[test]
fn descriptions_for_locks_count_as_descriptors() {
    let shared = Shared::new();
    // The file as a node and as a handle, and two who lock it.
    let guest = shared.guest_with(|config| config.max_descriptors(4));
    guest.set(1, WRITE, (0, 0)).unwrap();
    guest.set(2, WRITE, (1, 1)).unwrap();
    assert_eq!(errno(guest.set(3, WRITE, (2, 2))), Errno::ENOLCK);
    assert_taken(guest.set(2, WRITE, (0, 0)));
    guest.set(1, UNLOCK, (0, 0)).unwrap();
    // Who asks in vain keeps none.
    assert_taken(guest.set(3, WRITE, (1, 1)));
    guest.set(1, WRITE, (0, 0)).unwrap();
}
