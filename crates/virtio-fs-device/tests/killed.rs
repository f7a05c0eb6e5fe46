//! A daemon in a process of its own that is killed while requests are in flight.

mod support;

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{AccessIn, InHeader, OutHeader};
use fuse_wire::{NodeId, Operation};
use support::*;
use virtio_fs_device::{Device, DeviceConfig, Error, Recovery, State, VhostUser};
use virtio_fs_guest::Payload;
use zerocopy::IntoBytes;

/// Where a process that is to be a daemon listens, and whether it answers.
const SOCKET: &str = "TEST_DAEMON_SOCKET";
const STUCK: &str = "TEST_DAEMON_IS_STUCK";

/// Answers every request with success, or none ever, and leaves a file for each.
struct Answers {
    stuck: bool,
    folder: std::path::PathBuf,
    seen: AtomicUsize,
}

impl Serve for Answers {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        if blocking == Blocking::Forbidden {
            return Outcome::WouldBlock;
        }
        if self.stuck {
            let number = self.seen.fetch_add(1, Ordering::SeqCst);
            std::fs::write(self.folder.join(format!("seen{number}")), "").unwrap();
            loop {
                std::thread::park();
            }
        }
        let header = InHeader::peek(message).unwrap();
        reply[..16].copy_from_slice(OutHeader::success(header.unique, 0).as_bytes());
        Outcome::Reply {
            head: 16,
            payload: 0,
        }
    }

    fn reset(&self) {}
}

/// Not a test: what the processes run that are killed.
#[test]
fn be_a_daemon() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let socket = Path::new(&socket);
    let _daemon = Daemon::start(
        socket,
        Arc::new(Answers {
            stuck: std::env::var_os(STUCK).is_some(),
            folder: socket.parent().unwrap().to_owned(),
            seen: AtomicUsize::new(0),
        }),
        TAG,
    );
    loop {
        std::thread::park();
    }
}

struct Process(Child);

impl Process {
    fn start(place: &Place, stuck: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "be_a_daemon", "--nocapture"])
            .env(SOCKET, place.socket())
            .stdout(std::process::Stdio::null());
        if stuck {
            command.env(STUCK, "1");
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn seen(place: &Place) -> usize {
    let files = std::fs::read_dir(place.socket().parent().unwrap()).unwrap();
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name();
    let seen = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("seen");
    files.map(name).filter(seen).count()
}

/// A daemon that knows all that the last one did, and may take a while to start.
fn options(place: &Place) -> VhostUser {
    let mut options = VhostUser::new(place.socket());
    options.recovery = Recovery::Resume;
    options.timeouts.connect = LONG;
    options
}

/// A device that is active, and a guest that has not mounted it.
fn active(options: VhostUser, calls: Calls) -> (Device<Memory>, Guest) {
    let mut device = Device::vhost_user(&DeviceConfig::default(), options).unwrap();
    let guest = Guest::new(&device, calls);
    guest.machine.start(&mut device);
    (device, guest)
}

#[test]
fn what_was_in_flight_is_answered_by_the_next_daemon() {
    const REQUESTS: usize = 7;
    for calls in [Calls::Direct, Calls::Relayed] {
        let place = Place::new();
        let first = Process::start(&place, true);
        let (device, mut guest) = active(options(&place), calls);
        let queues = guest.connection.request_queues();
        let access = Operation::Access(AccessIn::default());
        for number in 0..REQUESTS {
            let queue = &mut queues[number % 2];
            queue.submit(NodeId::ROOT, access, Payload::None).unwrap();
        }
        // As many as wait for the pool's two threads are in flight, too.
        eventually("some wait", || seen(&place) == 2);
        drop(first);
        eventually("it is gone", || device.state() == State::Disconnected);
        std::fs::remove_file(place.socket()).unwrap();
        // What is made available meanwhile is served, too.
        queues[0]
            .submit(NodeId::ROOT, access, Payload::None)
            .unwrap();
        let _second = Process::start(&place, false);
        for _ in 0..5 {
            queues[0].wait().unwrap().reply().unwrap();
        }
        for _ in 0..3 {
            queues[1].wait().unwrap().reply().unwrap();
        }
        eventually("it is active", || device.state() == State::Active);
        assert_eq!(guest.machine.resets_needed(), 0);
        assert_eq!(guest.connection.request_queues()[0].in_flight(), 0);
    }
}

#[test]
fn no_request_is_lost_however_often_the_daemon_is_killed() {
    const KILLS: usize = 12;
    let place = Place::new();
    let mut daemon = Some(Process::start(&place, false));
    let (mut device, mut guest) = active(options(&place), Calls::Direct);
    let done = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for queue in guest.connection.request_queues() {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for _ in 0..20 {
                        let access = Operation::Access(AccessIn::default());
                        queue.submit(NodeId::ROOT, access, Payload::None).unwrap();
                    }
                    for _ in 0..20 {
                        queue.wait().unwrap().reply().unwrap();
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                    assert_eq!(queue.in_flight(), 0);
                }
            });
        }
        for kill in 0..KILLS {
            let before = served.load(Ordering::SeqCst);
            eventually("the guest goes on", || {
                served.load(Ordering::SeqCst) > before + 100
            });
            drop(daemon.take());
            // Whatever the VMM does meanwhile.
            match kill % 4 {
                // It may be noticed in the middle of it; then the device is active still, or paused
                // until it is told again.
                0 => drop(device.pause().and_then(|()| device.resume())),
                1 => drop(device.update_memory(Arc::clone(&guest.machine.memory))),
                2 => eventually("it is noticed", || device.state() == State::Disconnected),
                _ => {}
            }
            std::fs::remove_file(place.socket()).unwrap();
            daemon = Some(Process::start(&place, false));
            eventually("the next one is there", || {
                device.status().reconnects > kill as u64
            });
            if device.state() == State::Paused {
                device.resume().unwrap();
            }
            assert_eq!(device.state(), State::Active);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(guest.machine.resets_needed(), 0);
}

#[test]
fn a_device_with_requests_in_a_dead_daemon_is_not_saved_without_them() {
    let place = Place::new();
    let first = Process::start(&place, true);
    let (mut device, mut guest) = active(options(&place), Calls::Direct);
    let queue = &mut guest.connection.request_queues()[0];
    let access = Operation::Access(AccessIn::default());
    queue.submit(NodeId::ROOT, access, Payload::None).unwrap();
    eventually("it waits", || seen(&place) == 1);
    drop(first);
    eventually("it is gone", || device.state() == State::Disconnected);
    device.pause().unwrap();
    std::fs::remove_file(place.socket()).unwrap();
    let _second = Process::start(&place, false);
    eventually("it is paused", || device.state() == State::Paused);
    let error = device.save().unwrap_err();
    assert!(
        matches!(error, Error::State(_) | Error::Unsupported(_)),
        "{error}"
    );
    assert_eq!(queue.in_flight(), 1);
    device.resume().unwrap();
    queue.wait().unwrap().reply().unwrap();
    device.pause().unwrap();
}

#[test]
fn a_pause_does_not_wait_for_ever_for_what_is_in_flight() {
    let place = Place::new();
    let first = Process::start(&place, true);
    let mut options = options(&place);
    options.timeouts.stop = Duration::from_millis(100);
    let (mut device, mut guest) = active(options, Calls::Direct);
    let queue = &mut guest.connection.request_queues()[0];
    let access = Operation::Access(AccessIn::default());
    queue.submit(NodeId::ROOT, access, Payload::None).unwrap();
    eventually("it waits", || seen(&place) == 1);
    let error = device.pause().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    eventually("it is given up", || device.state() == State::Disconnected);
    drop(first);
    std::fs::remove_file(place.socket()).unwrap();
    let _second = Process::start(&place, false);
    queue.wait().unwrap().reply().unwrap();
    eventually("it goes on", || device.state() == State::Active);
    device.pause().unwrap();
}
