//! The relay between a front-end and daemons that come and go.

#![forbid(unsafe_code)]

mod support;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use fuse_wire::abi::{FileLock, GetattrIn, LkIn};
use fuse_wire::{NodeId, Operation};
use rustix::fs::{FlockOperation, fcntl_lock};
use support::{Daemon, Program};
use tempfile::TempDir;
use virtio_fs_guest::{Connection, Error, Mount, MountOptions, Options, Payload, Token};

const O_RDWR: u32 = 2;
/// More than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// A directory, and the sockets of those who share it.
struct Place {
    directory: TempDir,
    program: Program,
}

impl Place {
    fn new() -> Self {
        Self::of(Program::Ours)
    }

    fn of(program: Program) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("shared")).unwrap();
        fs::write(directory.path().join("shared/file"), "content").unwrap();
        Self { directory, program }
    }

    /// With each daemon there is.
    fn each() -> impl Iterator<Item = Self> {
        Program::all().into_iter().map(Self::of)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn shared(&self) -> PathBuf {
        self.path("shared")
    }

    fn daemon(&self) -> Daemon {
        let shared = ["--shared-dir".into(), self.shared().into_os_string()];
        let locks = match self.program {
            Program::Ours => Some("--posix-lock".into()),
            Program::Peer(_) => None,
        };
        let args = shared.into_iter().chain(locks);
        Daemon::start_by(self.program.command(), &self.path("daemon"), args)
    }

    fn relay(&self) -> Daemon {
        let queues = format!("--num-request-queues={}", self.program.request_queues());
        self.relay_with(&[&queues])
    }

    fn relay_with(&self, args: &[&str]) -> Daemon {
        Daemon::relay(&self.path("relay"), &self.path("daemon"), args)
    }

    fn options(&self) -> Options {
        Options {
            request_queues: self.program.request_queues(),
            timeout: LONG,
            ..Options::default()
        }
    }

    fn mount(&self, relay: &Daemon) -> Mount {
        let connection = Connection::connect(relay.socket(), &self.options()).unwrap();
        connection.mount(&MountOptions::default()).unwrap()
    }
}

fn work(mount: &mut Mount, name: &std::ffi::CStr) {
    for queue in 0..mount.connection().request_queues().len() {
        mount.use_queue(queue);
        let node = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
        let handle = mount.open(node, 0).unwrap().fh;
        let mut text = [0; 100];
        let len = mount.read(node, handle, 0, &mut text).unwrap();
        assert_eq!(&text[..len], b"content");
        mount.release(node, handle).unwrap();
        mount.mkdir(NodeId::ROOT, name, 0o755).unwrap();
        mount.rmdir(NodeId::ROOT, name).unwrap();
        mount.forget(node, 1).unwrap();
    }
}

/// Requests that wait for a lock which somebody else has, on the host, as long as the file is open.
fn wait_for_lock(mount: &mut Mount, shared: &Path, count: usize) -> (File, HashSet<Token>) {
    let node = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
    let fh = mount.open(node, O_RDWR).unwrap().fh;
    let file = File::options().write(true).open(shared.join("file"));
    let file = file.unwrap();
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    let wait = LkIn {
        fh,
        owner: 1,
        lk: FileLock {
            start: 0,
            end: i64::MAX as u64,
            lock_type: 1,
            pid: 1,
        },
        ..Default::default()
    };
    let queue = &mut mount.connection().request_queues()[0];
    let mut submit = || queue.submit(node, Operation::SetLkW(wait), Payload::None);
    let waiting = (0..count).map(|_| submit().unwrap()).collect();
    // Others overtake them.
    for _ in 0..5 {
        let getattr = Operation::GetAttr(GetattrIn::default());
        queue.submit(node, getattr, Payload::None).unwrap();
        queue.wait().unwrap().result().unwrap();
    }
    (file, waiting)
}

/// Each of `waiting` is answered once, whatever the answer is of a daemon that does not know the
/// session; then the guest begins another one, and all is well.
fn answered_once(mount: &mut Mount, mut waiting: HashSet<Token>) {
    let queue = &mut mount.connection().request_queues()[0];
    while !waiting.is_empty() {
        let completion = queue.wait().unwrap();
        assert!(matches!(completion.result(), Err(Error::Errno(_))));
        assert!(waiting.remove(&completion.token()));
    }
    assert!(queue.poll().unwrap().is_none());
    mount.use_queue(0);
    mount.remount(&MountOptions::default()).unwrap();
    work(mount, c"again");
}

#[test]
fn one_front_end_after_another_works() {
    for place in Place::each() {
        let mut daemon = place.daemon();
        let relay = place.relay();
        for _ in 0..3 {
            let mut mount = place.mount(&relay);
            assert_eq!(mount.connection().config(), None);
            work(&mut mount, c"made");
            let mut connection = mount.destroy().unwrap();
            connection.reset().unwrap();
            work(
                &mut connection.mount(&MountOptions::default()).unwrap(),
                c"anew",
            );
        }
        assert!(relay.end("TERM").success());
        assert!(!place.path("relay").exists());
        assert!(place.program != Program::Ours || daemon.is_running());
    }
}

#[test]
fn a_machine_is_paused_and_goes_on() {
    for place in Place::each() {
        let _daemon = place.daemon();
        let relay = place.relay();
        let mut mount = place.mount(&relay);
        let node = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
        for _ in 0..3 {
            mount.connection().stop().unwrap();
            mount.connection().resume().unwrap();
            work(&mut mount, c"made");
            // The daemon still knows what the guest knows.
            mount.getattr(node, None).unwrap();
        }
        mount.connection().stop().unwrap();
        let bases = mount.connection().stopped_at().unwrap();
        assert!(bases.iter().all(|&base| base > 0), "{bases:?}");
    }
}

#[test]
fn the_device_can_have_a_tag() {
    let place = Place::new();
    let _daemon = place.daemon();
    let relay = place.relay_with(&["--tag=share", "--num-request-queues=2"]);
    let mut mount = place.mount(&relay);
    let config = mount.connection().config().unwrap().clone();
    assert_eq!(
        (&*config.tag, config.num_request_queues),
        (&b"share"[..], 2)
    );
    work(&mut mount, c"made");
    drop(mount);
    let more = Options {
        request_queues: 3,
        ..place.options()
    };
    assert!(Connection::connect(relay.socket(), &more).is_err());
}

#[test]
fn what_was_in_flight_is_answered_by_the_next_daemon() {
    let place = Place::new();
    let daemon = place.daemon();
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    let (_lock, waiting) = wait_for_lock(&mut mount, &place.shared(), 7);
    // It goes by SIGKILL.
    drop(daemon);
    relay.logs("the daemon is gone");
    let _next = place.daemon();
    relay.logs("a daemon is there again");
    answered_once(&mut mount, waiting);
}

#[test]
fn a_machine_is_paused_while_no_daemon_is_there() {
    let place = Place::new();
    let daemon = place.daemon();
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    let (_lock, waiting) = wait_for_lock(&mut mount, &place.shared(), 7);
    drop(daemon);
    relay.logs("the daemon is gone");
    mount.connection().stop().unwrap();
    mount.connection().resume().unwrap();
    mount.connection().stop().unwrap();
    let _next = place.daemon();
    relay.logs("a daemon is there again");
    mount.connection().resume().unwrap();
    answered_once(&mut mount, waiting);
}

#[test]
fn a_machine_is_reset_while_no_daemon_is_there() {
    let place = Place::new();
    let daemon = place.daemon();
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    let (_lock, _) = wait_for_lock(&mut mount, &place.shared(), 7);
    drop(daemon);
    relay.logs("the daemon is gone");
    mount.connection().reset().unwrap();
    let _next = place.daemon();
    relay.logs("a daemon is there again");
    // Nothing of what the driver before had in flight is done for this one.
    mount.remount(&MountOptions::default()).unwrap();
    work(&mut mount, c"made");
    assert_eq!(mount.connection().request_queues()[0].in_flight(), 0);
}

#[test]
fn daemons_are_killed_again_and_again_while_a_guest_works() {
    const TIMES: usize = 8;
    let place = Place::new();
    let mut daemon = Some(place.daemon());
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    let mut failed = 0;
    for _ in 0..TIMES {
        thread::scope(|scope| {
            let changing = scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                drop(daemon.take());
                daemon = Some(place.daemon());
            });
            // With many in flight, on both queues.
            while !changing.is_finished() {
                failed += round(&mut mount);
            }
        });
        mount.use_queue(0);
        mount.remount(&MountOptions::default()).unwrap();
        work(&mut mount, c"made");
    }
    println!("{failed} requests failed, none was lost");
    relay.logs_times("a daemon is there again", TIMES);
    assert!(!relay.log().contains("the guest has reset it"));
}

/// Has 64 requests done on each queue at once, and returns how many failed. Each is answered once.
fn round(mount: &mut Mount) -> usize {
    let getattr = Operation::GetAttr(GetattrIn::default());
    let mut failed = 0;
    let queues = mount.connection().request_queues();
    let mut all: Vec<HashSet<Token>> = Vec::new();
    for queue in &mut *queues {
        let mut submit = || queue.submit(NodeId::ROOT, getattr, Payload::None);
        all.push((0..64).map(|_| submit().unwrap()).collect());
    }
    for (queue, mut waiting) in queues.iter_mut().zip(all) {
        while !waiting.is_empty() {
            let completion = queue.wait().unwrap();
            failed += usize::from(completion.result().is_err());
            assert!(waiting.remove(&completion.token()));
        }
    }
    failed
}

#[test]
fn a_relay_that_is_killed_can_be_replaced() {
    let place = Place::new();
    let mut daemon = place.daemon();
    let relay = place.relay();
    let mut first = place.mount(&relay);
    work(&mut first, c"made");
    drop(relay);
    // The daemon serves until it sees that.
    while first.getattr(NodeId::ROOT, None).is_ok() {}
    // It left its socket behind.
    let relay = place.relay();
    work(&mut place.mount(&relay), c"made");
    assert!(daemon.is_running());
}

/// Where nothing is in flight, there is no record to be kept.
#[test]
fn idle_daemons_can_be_replaced() {
    for place in Place::each() {
        let mut daemon = place.daemon();
        let relay = place.relay();
        let mut mount = place.mount(&relay);
        for times in 1..=3 {
            work(&mut mount, c"made");
            daemon.kill();
            relay.logs_times("the daemon is gone", times);
            daemon = place.daemon();
            relay.logs_times("a daemon is there again", times);
            mount.use_queue(0);
            mount.remount(&MountOptions::default()).unwrap();
        }
        work(&mut mount, c"made");
        assert!(!relay.log().contains("the guest has reset it"));
    }
}

/// A daemon that keeps no record of what is in flight: what the guest had is lost with it, until its
/// driver begins anew.
#[test]
fn a_guest_whose_daemon_kept_nothing_is_reset() {
    let Some(peer) = Program::peer() else {
        return;
    };
    let place = Place::of(peer);
    let mut first = place.daemon();
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    work(&mut mount, c"made");
    first.signal("STOP");
    while !first.threads().all(|status| status.contains("State:\tT")) {
        thread::sleep(Duration::from_millis(1));
    }
    let getattr = Operation::GetAttr(GetattrIn::default());
    let queue = &mut mount.connection().request_queues()[0];
    queue.submit(NodeId::ROOT, getattr, Payload::None).unwrap();
    first.kill();
    relay.logs("the guest has reset it");
    let _second = place.daemon();
    relay.logs("a daemon is there again");
    // A pause helps nobody.
    mount.connection().stop().unwrap();
    mount.connection().resume().unwrap();
    mount.connection().reset().unwrap();
    mount.use_queue(0);
    mount.remount(&MountOptions::default()).unwrap();
    work(&mut mount, c"made");
}

/// As [`Daemon::switches`], when it has nothing more to do.
fn settled(daemon: &Daemon) -> u64 {
    loop {
        let before = daemon.switches();
        thread::sleep(Duration::from_millis(200));
        if daemon.switches() == before {
            return before;
        }
    }
}

/// The eventfds that a process has, by the numbers that the kernel gives them.
fn events(id: u32) -> HashSet<String> {
    let files = fs::read_dir(format!("/proc/{id}/fdinfo")).unwrap();
    // One may be closed by now.
    let infos = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    infos.filter_map(|info| event(&info)).collect()
}

fn event(info: &str) -> Option<String> {
    let line = info.lines().find(|line| line.starts_with("eventfd-id:"));
    line.map(str::to_owned)
}

/// The memfds that a process has mapped, by inode, where others may see what is written.
fn shared_memory(id: u32) -> HashSet<String> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let shared = maps
        .lines()
        .filter(|line| line.contains("rw-s") && line.contains("/memfd:"));
    shared
        .map(|line| line.split_whitespace().nth(4).unwrap().to_owned())
        .collect()
}

#[test]
fn it_has_no_part_in_requests() {
    const REQUESTS: usize = 5_000;
    let place = Place::new();
    let daemon = place.daemon();
    let relay = place.relay();
    let mut mount = place.mount(&relay);
    work(&mut mount, c"made");

    // The daemon has the driver's own events and memory.
    let events = events(daemon.id());
    for layout in mount.connection().layouts().unwrap() {
        for fd in [layout.kick.as_raw_fd(), layout.call.as_raw_fd()] {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
            assert!(events.contains(&event(&info).unwrap()), "{info}");
        }
    }
    let memory = shared_memory(process::id());
    assert!(!memory.is_disjoint(&shared_memory(daemon.id())));

    let before = settled(&relay);
    let daemon_before = daemon.switches();
    for _ in 0..REQUESTS {
        mount.getattr(NodeId::ROOT, None).unwrap();
    }
    assert_eq!(relay.switches(), before);
    assert!(daemon.switches() >= daemon_before + 1_000);
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    let daemon = place.path("none");
    let output = Command::new(env!("CARGO_BIN_EXE_relay"))
        .args(["--listen".as_ref(), place.path("relay").as_os_str()])
        .args(["--daemon".as_ref(), daemon.as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(daemon.to_str().unwrap()), "{said}");
    assert!(said.contains("a daemon must listen there"), "{said}");
    assert!(!place.path("relay").exists());

    let help = Command::new(env!("CARGO_BIN_EXE_relay"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    assert!(help.contains("INFLIGHT_SHMFD"), "{help}");
}
