//! Messages that few front-ends send, and what lacks for others.

mod common;

use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::EventFd;
use zerocopy::IntoBytes;

const SET_MEM_TABLE: u32 = 5;
const SET_VRING_KICK: u32 = 12;
/// `VHOST_USER_VRING_NOFD_MASK`.
const NO_DESCRIPTOR: u64 = 0x100;

fn start() -> Running {
    Running::start(config(Arc::new(Quiet::default())))
}

#[test]
fn a_ring_whose_driver_does_not_kick_is_polled() {
    let running = start();
    let guest = Guest::new();
    let (mut frontend, stream) = running.negotiate_raw();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    let ask_silently = || {
        let next = guest.ask_for_interrupt();
        guest.offer_silently();
        guest.wait_beyond(next);
    };
    let no_kick = || {
        let body = 1 | NO_DESCRIPTOR;
        assert!(tell(&stream, SET_VRING_KICK, body.as_bytes(), &[]));
    };
    // While it is served, from its start on, and with kicks again.
    no_kick();
    ask_silently();
    assert_eq!(frontend.get_vring_base(1).unwrap(), 2);
    frontend.set_vring_call(1, &guest.call).unwrap();
    no_kick();
    ask_silently();
    frontend.set_vring_kick(1, &guest.kick).unwrap();
    guest.ask();
}

#[test]
fn one_event_can_kick_several_rings() {
    let running = start();
    let mut guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    for (queue, base) in [(0, 0), (1, 0x8000)] {
        guest.base = base;
        guest.set_up(&mut frontend, queue, 0);
    }
    for round in 1..=100 {
        for base in [0, 0x8000] {
            guest.base = base;
            guest.ask();
            assert_eq!(guest.used_idx(), round);
        }
    }
}

#[test]
fn a_kick_can_be_given_again() {
    let running = start();
    let mut guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    for _ in 0..50 {
        // The same one.
        frontend.set_vring_kick(1, &guest.kick).unwrap();
        guest.ask();
        // Another one, which was signalled before.
        let next = guest.ask_for_interrupt();
        guest.kick = EventFd::new(0).unwrap();
        guest.offer();
        frontend.set_vring_kick(1, &guest.kick).unwrap();
        guest.wait_beyond(next);
    }
    assert_eq!(frontend.get_vring_base(1).unwrap(), 100);
}

#[test]
fn the_front_end_is_told_of_a_broken_ring() {
    let running = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    let error = EventFd::new(0).unwrap();
    frontend.set_vring_err(1, &error).unwrap();
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    guest.put(0x1002, 1000u16);
    guest.kick.write(1).unwrap();
    assert_eq!(error.read().unwrap(), 1);
    // It can be set up anew.
    frontend.get_vring_base(1).unwrap();
    guest.clear_rings();
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}

/// A memory table with `count` regions, which says that it has `says`.
fn table(guest: &Guest, says: u32, count: usize) -> (Vec<u8>, Vec<RawFd>) {
    let mut body = [says, 0].as_bytes().to_vec();
    for _ in 0..count {
        let region = [0, LEN, USER, 0];
        body.extend(region.as_bytes());
    }
    (body, vec![guest.file.as_raw_fd()])
}

/// As User Mode Linux sends it.
#[test]
fn a_memory_table_may_have_room_to_spare() {
    let running = start();
    let guest = Guest::new();
    let (mut frontend, stream) = running.negotiate_raw();
    for _ in 0..2 {
        let (body, files) = table(&guest, 1, 2);
        assert!(tell(&stream, SET_MEM_TABLE, &body, &files));
    }
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}

#[test]
fn a_memory_table_that_is_wrong_ends_its_own_connection() {
    let running = start();
    let guest = Guest::new();
    let many = [guest.file.as_raw_fd(); 2];
    for (says, count, files) in [
        (0, 1, 1),
        (2, 1, 1),
        (2, 1, 2),
        // Room to spare, but not as many descriptors as regions.
        (1, 2, 0),
        (1, 2, 2),
        (2, 3, 1),
        // Regions that overlap.
        (2, 2, 2),
        (2, 3, 2),
        (u32::MAX, 3, 1),
    ] {
        let (_frontend, mut stream) = running.negotiate_raw();
        let (body, _) = table(&guest, says, count);
        let taken = tell(&stream, SET_MEM_TABLE, &body, &many[..files]);
        assert!(!taken, "{says} regions, {count} there, {files} descriptors");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    drop(running.negotiate());
}

#[test]
fn what_a_device_does_not_have_is_refused() {
    let running = start();
    let refused = |act: &dyn Fn(&mut vhost::vhost_user::Frontend) -> bool| {
        let mut frontend = running.negotiate();
        guest_memory(&frontend);
        assert!(!act(&mut frontend));
        // The connection ended.
        assert!(frontend.get_features().is_err());
    };
    refused(&|frontend| frontend.set_vring_num(2, SIZE).is_ok());
    refused(&|frontend| frontend.set_vring_num(1, 2048).is_ok());
    refused(&|frontend| frontend.set_vring_base(2, 0).is_ok());
    refused(&|frontend| frontend.get_vring_base(2).is_ok());
    refused(&|frontend| frontend.set_vring_enable(2, true).is_ok());
    refused(&|frontend| frontend.set_features(1 << 33).is_ok());
    refused(&|frontend| {
        frontend
            .set_vring_kick(2, &EventFd::new(0).unwrap())
            .is_ok()
    });
    refused(&|frontend| {
        frontend
            .set_vring_call(2, &EventFd::new(0).unwrap())
            .is_ok()
    });
    refused(&|frontend| frontend.set_vring_err(2, &EventFd::new(0).unwrap()).is_ok());
}

fn guest_memory(frontend: &vhost::vhost_user::Frontend) {
    Guest::new().give_memory(frontend);
}

/// The most descriptors that this process may have.
fn limit_descriptors(current: u64) {
    limit(Resource::Nofile, Some(current));
}

fn limit(resource: Resource, current: Option<u64>) {
    let limit = getrlimit(resource);
    setrlimit(resource, Rlimit { current, ..limit }).unwrap();
}

/// That is no fault of the driver's, and the front-end is not to believe that its queue is served.
#[test]
fn a_daemon_without_memory_says_so() {
    // The limit is that of the whole process.
    if !alone("a_daemon_without_memory_says_so") {
        return;
    }
    let running = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    frontend.set_vring_enable(1, false).unwrap();

    // Not one mapping more.
    limit(Resource::As, Some(0));
    frontend.set_vring_enable(1, true).unwrap_err();
    limit(Resource::As, None);

    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.clear_rings();
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}

#[test]
fn a_daemon_without_descriptors_goes_on_when_there_are_some() {
    // The limit is that of the whole process.
    if !alone("a_daemon_without_descriptors_goes_on_when_there_are_some") {
        return;
    }
    let running = start();
    let guest = Guest::new();
    let (frontend, mut stream) = running.negotiate_raw();
    guest.give_memory(&frontend);
    let kick = EventFd::new(0).unwrap();
    let second = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();

    // None is left for a kick: 0, 1 and 2 are taken, and all others that there are stay.
    let before = getrlimit(Resource::Nofile).current.unwrap();
    limit_descriptors(3);
    frontend.set_vring_kick(1, &kick).unwrap_err();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);

    // Nor for the next front-end, which has to wait.
    let address = SocketAddrUnix::new(running.path()).unwrap();
    rustix::net::connect(&second, &address).unwrap();
    let second = UnixStream::from(second);
    limit_descriptors(before);
    let mut frontend = negotiate(second);
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}

/// Counts lines of a log.
struct Lines;

static LINES: AtomicUsize = AtomicUsize::new(0);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        LINES.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// QEMU passes on whatever size a driver gives its queue, as often as that starts the device.
#[test]
fn a_driver_that_sets_its_queue_up_wrongly_does_not_fill_the_log() {
    if !alone("a_driver_that_sets_its_queue_up_wrongly_does_not_fill_the_log") {
        return;
    }
    tracing::subscriber::set_global_default(Lines).unwrap();
    let running = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    frontend.set_vring_num(1, 3).unwrap();
    for _ in 0..1000 {
        frontend.set_vring_enable(1, true).unwrap();
    }
    assert_eq!(LINES.load(Ordering::SeqCst), 10);
    frontend.set_vring_num(1, SIZE).unwrap();
    frontend.set_vring_enable(1, true).unwrap();
    guest.ask();
}
