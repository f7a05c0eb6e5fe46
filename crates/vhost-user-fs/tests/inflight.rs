//! What is in flight when the process of a daemon ends, and the record of it.

mod common;

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{FsyncIn, InHeader};
use fuse_wire::{NodeId, Operation};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_get_seals, memfd_create};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost_user_fs::{Backend, BackendConfig, Daemon};
use virtio_fs_guest::{Connection, Offered, Options, Payload, Token};
use virtio_fs_queue::{InFlightRecord, PollLimit, Polling, Pool};

/// Where [`daemon`] listens, in the process of one.
const SOCKET: &str = "DAEMON_LISTENS_AT";

/// Serves in its own way and time: at once, by a thread of the pool, or by one that waits for long.
struct Various;

impl Serve for Various {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let unique = InHeader::peek(message).unwrap().unique / 2;
        match (unique % 4, blocking) {
            (1, Blocking::Forbidden) => return Outcome::WouldBlock,
            (2, Blocking::Forbidden) => return Outcome::WouldWait,
            (1 | 2, Blocking::Allowed) => {
                thread::sleep(Duration::from_micros(unique * 37 % 500));
            }
            _ => {}
        }
        succeed(message, reply)
    }

    fn reset(&self) {}
}

/// A process of its own, which is killed. This is no test unless it is one.
#[test]
fn daemon() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let listener = UnixListener::bind(socket).unwrap();
    let backend = Backend::new(BackendConfig {
        pool: Arc::new(Pool::new(3)),
        polling: Arc::new(Polling::new(PollLimit::default())),
        ..config(Arc::new(Various))
    });
    Daemon::new(backend.unwrap(), listener)
        .unwrap()
        .run()
        .unwrap();
}

struct Process(Child);

impl Process {
    /// One whose daemon listens at `socket`, and a connection to it.
    fn start(socket: &Path) -> (Self, UnixStream) {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon", "--test-threads=1"])
            .env(SOCKET, socket)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let process = Self(process);
        for _ in 0..5000 {
            if let Ok(stream) = UnixStream::connect(socket) {
                return (process, stream);
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("it does not listen");
    }
}

impl Drop for Process {
    /// SIGKILL: nothing is left in order.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Submits requests until there are `depth` in flight.
fn fill(connection: &mut Connection, in_flight: &mut HashSet<Token>, depth: usize) {
    let queue = &mut connection.request_queues()[0];
    while in_flight.len() < depth {
        let operation = Operation::FSync(FsyncIn::default());
        let token = queue
            .submit(NodeId::ROOT, operation, Payload::None)
            .unwrap();
        assert!(in_flight.insert(token));
    }
}

/// Takes the next completion, which has to be one of those in flight.
fn complete(connection: &mut Connection, in_flight: &mut HashSet<Token>) {
    let completion = connection.request_queues()[0].wait().unwrap();
    assert_eq!(completion.result().unwrap(), 0);
    assert!(in_flight.remove(&completion.token()));
}

#[test]
fn each_request_is_answered_once_though_the_daemon_is_killed_at_any_time() {
    const LIVES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        queue_size: 64,
        inflight: Offered::Accept,
        ..Options::default()
    };
    let (mut process, stream) = Process::start(&folder.path().join("0"));
    let mut connection = Connection::from_stream(stream, &options).unwrap();
    let mut in_flight = HashSet::new();
    for life in 1..=LIVES {
        fill(&mut connection, &mut in_flight, 48);
        // Some are given back to nobody: the daemon goes on while nobody looks.
        for _ in 0..(life * 7) % 31 {
            complete(&mut connection, &mut in_flight);
            fill(&mut connection, &mut in_flight, 48);
        }
        thread::sleep(Duration::from_micros((life as u64 * 271) % 1000));
        drop(process);
        let next = Process::start(&folder.path().join(life.to_string()));
        process = next.0;
        connection.reconnect(next.1).unwrap();
    }
    let left = in_flight.len();
    assert!(left > 0);
    for _ in 0..left {
        complete(&mut connection, &mut in_flight);
    }
    assert!(connection.request_queues()[0].poll().unwrap().is_none());
    let given_back = connection.request_queues()[0].raw().used_index();
    connection.stop().unwrap();
    assert_eq!(connection.stopped_at().unwrap()[1], given_back);
}

/// The record that a daemon makes when it is asked for one.
fn ask_for(frontend: &mut Frontend, queues: u16, size: u16) -> (VhostUserInflight, std::fs::File) {
    let asked = VhostUserInflight::new(0, 0, queues, size);
    frontend.get_inflight_fd(&asked).unwrap()
}

fn start() -> Running {
    Running::start(config(Arc::new(Quiet::default())))
}

#[test]
fn a_record_is_no_larger_than_the_device_needs_and_stays_as_large() {
    let running = start();
    let mut frontend = running.negotiate();
    // One request queue, and hiprio.
    for (queues, size, expected) in [(1, 128, (1, 128)), (0xffff, 0xffff, (2, 1024))] {
        let (made, file) = ask_for(&mut frontend, queues, size);
        let VhostUserInflight {
            mmap_size,
            mmap_offset,
            num_queues,
            queue_size,
        } = made;
        assert_eq!((num_queues, queue_size), expected);
        let len = InFlightRecord::len_for(queue_size) as u64 * u64::from(num_queues);
        assert_eq!((mmap_size, mmap_offset), (len, 0));
        assert_eq!(file.metadata().unwrap().len(), len);
        file.set_len(0).unwrap_err();
        frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
    }
}

#[test]
fn a_record_of_somebody_else_is_kept_from_becoming_shorter() {
    let running = start();
    let mut frontend = running.negotiate();
    let file = memfd_create("record", MemfdFlags::ALLOW_SEALING).unwrap();
    let file = std::fs::File::from(file);
    file.set_len(0x10000).unwrap();
    let given = VhostUserInflight::new(0x8000, 0x4000, 2, 16);
    frontend.set_inflight_fd(&given, file.as_raw_fd()).unwrap();
    let seals = fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK));
    file.set_len(0).unwrap_err();
    // One that cannot be sealed is taken, too.
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x10000).unwrap();
    frontend.set_inflight_fd(&given, file.as_raw_fd()).unwrap();
}

#[test]
fn what_is_no_record_ends_its_own_connection() {
    let running = start();
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    let versioned = tempfile::tempfile().unwrap();
    versioned.set_len(0x1000).unwrap();
    std::os::unix::fs::FileExt::write_at(&versioned, &[2], 8).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let read_only = {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(0x1000).unwrap();
        std::fs::File::open(named.path()).unwrap()
    };
    for (size, offset, queues, descriptors, file) in [
        // More than the device has.
        (0x1000, 0, 3, 16, &file),
        (0x100000, 0, 1, 1025, &file),
        // Too little, for what it is about or in the file.
        (0x100, 0, 2, 16, &file),
        (0x1000, 0x1000, 1, 16, &file),
        (0x10000, 0, 1, 1024, &file),
        (u64::MAX, u64::MAX, 1, 16, &file),
        (0x1000, 0x10, 1, 16, &file),
        // Not memory, or not to be written.
        (0x1000, 0, 1, 16, &null),
        (0x1000, 0, 1, 16, &read_only),
        // Written by nobody that is known.
        (0x1000, 0, 1, 16, &versioned),
    ] {
        let mut frontend = running.negotiate();
        let given = VhostUserInflight::new(size, offset, queues, descriptors);
        frontend
            .set_inflight_fd(&given, file.as_raw_fd())
            .unwrap_err();
        frontend.get_features().unwrap_err();
    }
    drop(running.negotiate());
}

#[test]
fn a_ring_that_does_not_fit_its_record_is_not_served() {
    let running = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    let (made, file) = ask_for(&mut frontend, 2, SIZE / 2);
    frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
    guest.set_up(&mut frontend, 1, 0);
    guest.offer();
    assert_eq!(frontend.get_vring_base(1).unwrap(), 0);
    // With one that it fits it is; and a record can be given while it is served.
    for _ in 0..2 {
        let (made, file) = ask_for(&mut frontend, 2, SIZE);
        frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
        guest.set_up(&mut frontend, 1, 0);
        guest.ask();
        let (made, file) = ask_for(&mut frontend, 2, SIZE);
        frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
        guest.ask();
    }
    assert_eq!(
        frontend.get_vring_base(1).unwrap(),
        u32::from(guest.used_idx())
    );
}

/// Who keeps the record can write to it whenever it likes.
#[test]
fn a_record_that_is_scribbled_over_harms_nobody_else() {
    let running = start();
    let guest = Guest::new();
    let mut random = 1u64;
    for _ in 0..50 {
        guest.clear_rings();
        let mut frontend = running.negotiate();
        guest.give_memory(&frontend);
        let (made, file) = ask_for(&mut frontend, 2, SIZE);
        frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
        guest.set_up(&mut frontend, 1, 0);
        guest.ask();
        for _ in 0..3 {
            frontend.get_vring_base(1).unwrap();
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                (random >> 56) as u8 & (random >> 48) as u8
            })
            .take(InFlightRecord::len_for(SIZE))
            .collect();
            let second = InFlightRecord::len_for(SIZE) as u64;
            std::os::unix::fs::FileExt::write_at(&file, &bytes, second).unwrap();
            guest.set_up(&mut frontend, 1, 0);
            guest.offer();
        }
        frontend.get_vring_base(1).unwrap();
    }
    guest.clear_rings();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}
