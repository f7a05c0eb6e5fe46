//! The descriptors by which front-end and back-end signal each other.

mod common;

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{ReadWriteFlags, preadv2};
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost_user_fs::BackendConfig;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use zerocopy::IntoBytes;

const GET_FEATURES: u32 = 1;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const SET_BACKEND_REQ_FD: u32 = 21;
/// `VHOST_USER_VRING_NOFD_MASK`.
const NO_DESCRIPTOR: u64 = 0x100;
/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn start() -> Running {
    Running::start(config(Arc::new(Quiet::default())))
}

/// Gives a descriptor as an event of queue 1, or as the channel to the front-end.
fn give(stream: &UnixStream, request: u32, file: RawFd) -> bool {
    let body = if request == SET_BACKEND_REQ_FD {
        &[][..]
    } else {
        1u64.as_bytes()
    };
    tell(stream, request, body, &[file])
}

/// Whether a front-end that connects is served before long.
fn serves(running: &Running) -> bool {
    let mut stream = running.connect();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all([GET_FEATURES, 1, 0].as_bytes()).unwrap();
    stream.read_exact(&mut [0; 20]).is_ok()
}

#[test]
fn what_is_no_event_is_refused() {
    let running = start();
    let file = File::open("/dev/null").unwrap();
    let (_reader, pipe) = std::io::pipe().unwrap();
    let socket = UnixStream::pair().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let event = EventFd::new(0).unwrap();
    let all = [
        ("a file", file.as_raw_fd(), &[][..]),
        ("a pipe", pipe.as_raw_fd(), &[]),
        ("a listener", listener.as_raw_fd(), &[]),
        (
            "a socket",
            socket.0.as_raw_fd(),
            &[SET_VRING_CALL, SET_VRING_ERR, SET_BACKEND_REQ_FD],
        ),
        (
            "an eventfd",
            event.as_raw_fd(),
            &[SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR],
        ),
    ];
    for (what, given, taken) in all {
        for request in [
            SET_VRING_KICK,
            SET_VRING_CALL,
            SET_VRING_ERR,
            SET_BACKEND_REQ_FD,
        ] {
            let (_frontend, stream) = running.negotiate_raw();
            let expected = taken.contains(&request);
            assert_eq!(give(&stream, request, given), expected, "{what}, {request}");
        }
    }
}

/// Its end of the connection would be open as long as the connection is.
#[test]
fn a_front_end_that_gives_its_own_socket_away_is_gone_when_it_is() {
    let running = start();
    for request in [
        SET_VRING_KICK,
        SET_VRING_CALL,
        SET_VRING_ERR,
        SET_BACKEND_REQ_FD,
    ] {
        let (frontend, stream) = running.negotiate_raw();
        give(&stream, request, stream.as_raw_fd());
        drop((frontend, stream));
        assert!(serves(&running), "{request}");

        // In a socket that is given: on the way there before, and after.
        for before in [true, false] {
            let (frontend, stream) = running.negotiate_raw();
            let (given, other) = UnixStream::pair().unwrap();
            let hide = || other.send_with_fd(&b"x"[..], stream.as_raw_fd());
            if before {
                hide().unwrap();
            }
            give(&stream, request, given.as_raw_fd());
            if !before {
                let _ = hide();
            }
            drop((frontend, stream, given, other));
            assert!(serves(&running), "{request}, {before}");
        }
    }
}

#[test]
fn who_is_to_be_interrupted_late_hears_of_what_was_done_before() {
    let running = start();
    let guest = Guest::new();
    let (mut frontend, stream) = running.negotiate_raw();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    let body = 1 | NO_DESCRIPTOR;
    assert!(tell(&stream, SET_VRING_CALL, body.as_bytes(), &[]));
    guest.offer();
    while guest.used_idx() == 0 {
        std::thread::yield_now();
    }
    frontend.set_vring_call(1, &guest.call).unwrap();
    guest.call.read().unwrap();
}

#[test]
fn a_message_may_come_in_pieces() {
    let running = start();
    let mut stream = running.connect();
    for byte in [GET_FEATURES, 1, 0].as_bytes() {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    stream.read_exact(&mut [0; 20]).unwrap();
}

/// Whom to signal can be a socket, as with User Mode Linux.
#[test]
fn who_does_not_take_its_interrupts_holds_nothing_up() {
    let running = start();
    let event = EventFd::new(0).unwrap();
    event.write(u64::MAX - 1).unwrap();
    let (socket, _other_end) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    while (&socket).write(&[0; 8]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    for full in [event.as_raw_fd(), socket.as_raw_fd()] {
        let guest = Guest::new();
        let (mut frontend, stream) = running.negotiate_raw();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        let body = 1u64;
        assert!(tell(&stream, SET_VRING_CALL, body.as_bytes(), &[full]));
        guest.offer();
        while guest.used_idx() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(frontend.get_vring_base(1).unwrap(), 1);
    }
}

/// Has the front-end leave no room in its event between the device's look for some and its write.
/// It takes some luck.
fn freeze(guest: &Guest, call: &Arc<OwnedFd>) {
    let turn = Arc::new(AtomicUsize::new(0));
    // It may wait for room itself.
    thread::spawn({
        let (turn, call) = (Arc::clone(&turn), Arc::clone(call));
        move || {
            for round in 1.. {
                while turn.load(Ordering::SeqCst) < round {
                    thread::yield_now();
                }
                rustix::io::write(&call, (u64::MAX - 1).as_bytes()).unwrap();
            }
        }
    });
    let serves = || {
        let next = guest.ask_for_interrupt();
        guest.offer();
        let deadline = Instant::now() + Duration::from_millis(100);
        while guest.used_idx() == next && Instant::now() < deadline {
            thread::yield_now();
        }
        guest.used_idx() != next
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let mut count = [0; 8];
        let _ = preadv2(
            call,
            &mut [IoSliceMut::new(&mut count)],
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        );
        turn.fetch_add(1, Ordering::SeqCst);
        if !(serves() && serves()) {
            break;
        }
    }
}

#[test]
fn a_front_end_that_freezes_its_queue_does_not_keep_the_daemon_from_ending() {
    let end = |replace: bool| {
        let running = start();
        let guest = Guest::new();
        let (mut frontend, stream) = running.negotiate_raw();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        let call = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        assert!(give(&stream, SET_VRING_CALL, call.as_raw_fd()));
        freeze(&guest, &call);
        if replace {
            frontend
                .set_vring_call(1, &EventFd::new(0).unwrap())
                .unwrap();
        }
        running.stop.stop();
        running.join();
    };
    thread::scope(|scope| {
        for replace in [true, false] {
            scope.spawn(move || end(replace));
        }
    });
}

/// Leaves every request to the pool, and has its thread wait there for room in the front-end's event,
/// as where the front-end leaves none between the device's look for some and its write.
struct Frozen {
    call: Arc<OwnedFd>,
    begun: AtomicUsize,
}

impl Serve for Frozen {
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
        self.begun.fetch_add(1, Ordering::SeqCst);
        rustix::io::write(&self.call, 1u64.as_bytes()).unwrap();
        succeed(message, reply)
    }

    fn reset(&self) {}
}

/// What is in flight there may have to wait for the thread that is frozen.
#[test]
fn a_queue_that_is_frozen_does_not_keep_another_one_from_ending() {
    let ways: [fn(&mut Frontend); 3] = [
        |frontend| assert_eq!(frontend.get_vring_base(1).unwrap(), 1),
        |frontend| frontend.reset_device().unwrap(),
        |_| {},
    ];
    for end in ways {
        let call = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let filesystem = Arc::new(Frozen {
            call: Arc::clone(&call),
            begun: AtomicUsize::new(0),
        });
        let running = Running::start(BackendConfig {
            request_queues: Some(2),
            ..config(Arc::clone(&filesystem) as Arc<dyn Serve>)
        });
        let offloaded = |queue: usize| running.backend.counts()[queue].offloaded;
        let (mut frontend, stream) = running.negotiate_raw();
        let mut guest = Guest::new();
        guest.give_memory(&frontend);
        guest.base = 0x8000;
        guest.set_up(&mut frontend, 2, 0);
        let body = 2u64;
        assert!(tell(
            &stream,
            SET_VRING_CALL,
            body.as_bytes(),
            &[call.as_raw_fd()]
        ));
        rustix::io::write(&call, (u64::MAX - 1).as_bytes()).unwrap();
        guest.offer();
        eventually(|| filesystem.begun.load(Ordering::SeqCst) == 1);
        guest.base = 0;
        guest.set_up(&mut frontend, 1, 0);
        guest.offer();
        eventually(|| offloaded(1) == 1);
        end(&mut frontend);
        drop((frontend, stream));
        running.stop.stop();
        running.join();
    }
}
