use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fuse_fs::abi::{Attr, Kstatfs, LkIn, OpenIn, ReadIn};
use fuse_fs::flags::{InitFlags, OpenOutFlags};
use fuse_fs::{
    Attributes, Context, DirentWriter, Entry, Error, FileSystem, Handle, Name, NodeId, Opened,
    Result, Session,
};

use super::super::mounted::{Mounted, Request};
use super::*;

const ROOT: Attr = attr(NodeId::ROOT, 0o040_755);
const FILE: Attr = attr(NodeId(2), 0o100_644);

const fn attr(node: NodeId, mode: u32) -> Attr {
    let mut attr: Attr = zerocopy::transmute!([0_u8; size_of::<Attr>()]);
    attr.ino = node.0;
    attr.mode = mode;
    attr.nlink = 1;
    attr.size = 1 << 20;
    attr
}

/// One file, `file`. Reading and locking it waits until it is interrupted.
#[derive(Default)]
struct Endless {
    reads: Mutex<Reads>,
    changed: Condvar,
}

#[derive(Default)]
struct Reads {
    /// Those that wait.
    waiting: HashSet<u64>,
    /// Those that were not allowed to.
    refused: HashSet<u64>,
    interrupted: HashSet<u64>,
}

impl Endless {
    fn change(&self, change: impl FnOnce(&mut Reads)) {
        change(&mut self.reads.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits until `done` says yes.
    #[track_caller]
    fn wait_until(&self, done: impl Fn(&Reads) -> bool) {
        let reads = self.reads.lock().unwrap();
        let patience = Duration::from_secs(30);
        let waited = self
            .changed
            .wait_timeout_while(reads, patience, |reads| !done(reads));
        assert!(!waited.unwrap().1.timed_out(), "it does not happen");
    }

    /// Waits until the request is interrupted.
    fn wait<T>(&self, cx: &Context<'_>) -> Result<T> {
        if !cx.may_block() {
            self.change(|reads| {
                reads.refused.insert(cx.unique);
            });
            return Err(Error::WouldBlock);
        }
        self.change(|reads| {
            reads.waiting.insert(cx.unique);
        });
        self.wait_until(|reads| reads.interrupted.contains(&cx.unique));
        self.change(|reads| {
            reads.waiting.remove(&cx.unique);
        });
        Err(Errno::EINTR.into())
    }
}

impl FileSystem for Endless {
    fn lookup(&self, _: &Context<'_>, _: NodeId, name: Name<'_>) -> Result<Entry> {
        if name.as_bytes() != b"file" {
            return Err(Errno::ENOENT.into());
        }
        Ok(Entry {
            node: NodeId(FILE.ino),
            generation: 0,
            attr: FILE,
            attr_valid: Duration::ZERO,
            entry_valid: Duration::ZERO,
        })
    }

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<Handle>) -> Result<Attributes> {
        let attr = if node == NodeId::ROOT { ROOT } else { FILE };
        let valid = Duration::ZERO;
        Ok(Attributes { attr, valid })
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened {
            handle: Handle(0),
            flags: OpenOutFlags::DIRECT_IO,
        })
    }

    fn read(
        &self,
        cx: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        _: &mut dyn PayloadSink,
    ) -> Result<usize> {
        self.wait(cx)
    }

    fn setlk(&self, cx: &Context<'_>, _: NodeId, _: &LkIn, _: bool) -> Result<()> {
        self.wait(cx)
    }

    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        negotiation.enable(InitFlags::FLOCK_LOCKS);
        Ok(())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        _: &mut DirentWriter<'_>,
    ) -> Result<()> {
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs::default())
    }

    fn interrupt(&self, unique: u64) {
        self.change(|reads| {
            reads.interrupted.insert(unique);
        });
    }
}

/// Whether this process can mount; says so where it cannot.
fn is_possible() -> bool {
    let device = super::super::device::PATH;
    let possible = rustix::process::geteuid().is_root() && Path::new(device).exists();
    if !possible {
        eprintln!("skipped: needs root and {device}");
    }
    possible
}

/// Mounts `session` on `path`, calls `test`, and checks that unmounting ends the threads.
fn with_mount(path: &Path, session: &Session<Endless>, max_threads: usize, test: impl FnOnce()) {
    let (mounted, device) = Mounted::new(&Request {
        source: "endless".to_owned(),
        kind: "test",
        mountpoint: path,
        readonly: false,
    })
    .expect("it is mounted");
    thread::scope(|scope| {
        let unmount = || mounted.unmount().unwrap();
        let served = scope.spawn(move || serve(device, session, max_threads, &|| {}));
        let tested = catch_unwind(AssertUnwindSafe(test));
        unmount();
        if let Err(panic) = tested {
            std::panic::resume_unwind(panic);
        }
        served.join().unwrap().expect("the device works");
    });
}

fn read(file: &Path) -> Child {
    run("cat", &[file.as_os_str()])
}

fn run(program: &str, args: &[&OsStr]) -> Child {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn requests_that_wait_hold_up_nothing() {
    if !is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let session = Session::new(Endless::default());
    let file = directory.path().join("file");
    with_mount(directory.path(), &session, 2, || {
        let endless = session.filesystem();
        let mut readers = vec![read(&file)];
        endless.wait_until(|reads| reads.waiting.len() == 1);
        // More than there are threads.
        readers.extend([read(&file), read(&file)]);
        // The first may have been refused, too, before a thread took it up.
        endless.wait_until(|reads| reads.refused.union(&reads.waiting).count() == 3);
        assert_eq!(fs::metadata(&file).unwrap().len(), FILE.size);
        // Also those that nobody has begun can be interrupted.
        for mut reader in readers.into_iter().rev() {
            reader.kill().unwrap();
            reader.wait().unwrap();
        }
        endless.wait_until(|reads| reads.waiting.is_empty());
        // Who is answered may be gone before the filesystem is told.
        endless.wait_until(|reads| reads.interrupted.len() == 3);
    });
}

#[test]
fn what_is_put_aside_is_served_later() {
    if !is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let session = Session::new(Endless::default());
    let file = directory.path().join("file");
    with_mount(directory.path(), &session, 2, || {
        let endless = session.filesystem();
        let mut first = read(&file);
        endless.wait_until(|reads| reads.waiting.len() == 1);
        let mut second = read(&file);
        endless.wait_until(|reads| reads.refused.len() == 1);
        first.kill().unwrap();
        first.wait().unwrap();
        endless.wait_until(|reads| reads.waiting.is_subset(&reads.refused));
        endless.wait_until(|reads| reads.waiting.len() == 1);
        second.kill().unwrap();
        second.wait().unwrap();
    });
}

#[test]
fn each_wait_for_a_lock_has_a_thread() {
    if !is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let session = Session::new(Endless::default());
    let file = directory.path().join("file");
    with_mount(directory.path(), &session, 2, || {
        let endless = session.filesystem();
        // More than there are threads.
        let lockers = [(); 4].map(|()| run("flock", &[file.as_os_str(), "true".as_ref()]));
        endless.wait_until(|reads| reads.waiting.len() == 4);
        let mut reader = read(&file);
        endless.wait_until(|reads| reads.waiting.len() == 5);
        for mut locker in lockers {
            locker.kill().unwrap();
            locker.wait().unwrap();
        }
        endless.wait_until(|reads| reads.waiting.len() == 1);
        reader.kill().unwrap();
        reader.wait().unwrap();
    });
}
