//! The device's state on its way from one back-end to another.

mod common;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve, State};
use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase,
    VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// Has bytes for a state. Those that begin with `!` cannot be saved, nor loaded; those that begin
/// with `~` take long to load.
#[derive(Default)]
struct Stateful {
    bytes: Mutex<Vec<u8>>,
    resets: AtomicUsize,
}

impl Stateful {
    fn with(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(bytes.to_vec()),
            resets: AtomicUsize::new(0),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Serve for Stateful {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        succeed(message, reply)
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.bytes.lock().unwrap().clear();
    }

    fn state(&self) -> Option<&dyn State> {
        Some(self)
    }
}

impl State for Stateful {
    fn save(&self, to: &mut dyn Write) -> io::Result<()> {
        let bytes = self.bytes();
        to.write_all(&bytes)?;
        match bytes.first() {
            Some(b'!') => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(()),
        }
    }

    fn load(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut first = [0];
        if from.read(&mut first)? == 1 && first == *b"!" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if first == *b"~" {
            thread::sleep(Duration::from_secs(11));
        }
        let mut bytes = first.to_vec();
        from.read_to_end(&mut bytes)?;
        *self.bytes.lock().unwrap() = bytes;
        Ok(())
    }
}

fn start(filesystem: &Arc<Stateful>) -> (Running, Frontend) {
    let running = Running::start(config(Arc::clone(filesystem) as Arc<dyn Serve>));
    let frontend = running.negotiate();
    (running, frontend)
}

fn begin(frontend: &Frontend, direction: Direction, end: impl Into<OwnedFd>) -> vhost::Result<()> {
    let file = frontend.set_device_state_fd(direction, Phase::STOPPED, end.into())?;
    assert!(file.is_none());
    Ok(())
}

/// What a device saves.
fn save(frontend: &Frontend) -> (Vec<u8>, vhost::Result<()>) {
    let (mut from, to) = io::pipe().unwrap();
    begin(frontend, Direction::SAVE, to).unwrap();
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    (bytes, frontend.check_device_state())
}

fn load(frontend: &Frontend, bytes: &[u8]) -> vhost::Result<()> {
    let (from, mut to) = io::pipe().unwrap();
    begin(frontend, Direction::LOAD, from).unwrap();
    // Who does not want all of it closes its end.
    let _ = to.write_all(bytes);
    drop(to);
    frontend.check_device_state()
}

#[test]
fn a_state_goes_from_one_device_to_another() {
    for len in [0, 1, 4096, 4097, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| (n % 150) as u8 + 64).collect();
        let source = Stateful::with(&bytes);
        let (_running, frontend) = start(&source);
        // A session begins with a state that was there before it.
        let (saved, result) = save(&frontend);
        result.unwrap();
        assert_eq!(saved, bytes);
        // As often as one likes.
        assert_eq!(save(&frontend).0, bytes);

        let target = Stateful::with(b"");
        let (_running, mut frontend) = start(&target);
        let bytes = [b".", &bytes[..]].concat();
        load(&frontend, &bytes).unwrap();
        assert_eq!(target.bytes(), bytes);
        // It is served with it.
        let guest = Guest::new();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        guest.ask();
        assert_eq!(target.bytes(), bytes);
        assert_eq!(target.resets.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn who_has_no_state_does_not_offer_to_transfer_it() {
    let running = Running::start(config(Arc::new(Quiet::default())));
    let mut frontend = running.negotiate();
    let offered = frontend.get_protocol_features().unwrap();
    assert!(!offered.contains(VhostUserProtocolFeatures::DEVICE_STATE));
    let (_running, mut frontend) = start(&Stateful::with(b""));
    let offered = frontend.get_protocol_features().unwrap();
    assert!(offered.contains(VhostUserProtocolFeatures::DEVICE_STATE));
}

#[test]
fn what_goes_wrong_is_told_when_that_is_asked_for() {
    let filesystem = Stateful::with(b"!");
    let (_running, frontend) = start(&filesystem);
    // Nothing was to be transferred.
    frontend.check_device_state().unwrap_err();
    for _ in 0..2 {
        save(&frontend).1.unwrap_err();
        // Once.
        frontend.check_device_state().unwrap_err();
        load(&frontend, b"!what no other device saved").unwrap_err();
        load(&frontend, &vec![b'!'; 1 << 20]).unwrap_err();
    }
    load(&frontend, b"what one did").unwrap();
    assert_eq!(filesystem.bytes(), b"what one did");
    // Ends that are no good: not to be written, or read, or closed at the other end.
    let (from, to) = io::pipe().unwrap();
    begin(&frontend, Direction::SAVE, from.try_clone().unwrap()).unwrap_err();
    begin(&frontend, Direction::LOAD, to.try_clone().unwrap()).unwrap_err();
    frontend.check_device_state().unwrap_err();
    drop(from);
    begin(&frontend, Direction::SAVE, to).unwrap();
    frontend.check_device_state().unwrap_err();
    save(&frontend).1.unwrap();
}

#[test]
fn queues_are_not_served_meanwhile() {
    let (_running, mut frontend) = start(&Stateful::with(b"state"));
    let guest = Guest::new();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    let (from, to) = io::pipe().unwrap();
    begin(&frontend, Direction::SAVE, to).unwrap_err();
    begin(&frontend, Direction::LOAD, from).unwrap_err();
    frontend.check_device_state().unwrap_err();
    // It goes on, and once it is stopped the state can be saved.
    guest.ask();
    frontend.get_vring_base(1).unwrap();
    save(&frontend).1.unwrap();
    frontend.set_vring_call(1, &guest.call).unwrap();
    guest.set_up(&mut frontend, 1, 2);
    guest.ask();
}

#[test]
fn a_transfer_can_be_begun_anew() {
    let filesystem = Stateful::with(b"");
    let (_running, frontend) = start(&filesystem);
    let mut ends = Vec::new();
    for _ in 0..10 {
        let (from, to) = io::pipe().unwrap();
        begin(&frontend, Direction::LOAD, from).unwrap();
        ends.push(to);
    }
    load(&frontend, b"state").unwrap();
    assert_eq!(filesystem.bytes(), b"state");
    // Nobody reads any more at the other ends.
    for mut end in ends {
        end.write_all(b"x").unwrap_err();
    }
}

/// Neither keeps a daemon from the next front-end, nor from ending.
#[test]
fn a_front_end_that_has_part_in_nothing_is_given_up() {
    let filesystem = Stateful::with(&vec![b'x'; 1 << 20]);
    let (running, frontend) = start(&filesystem);
    let (_from, to) = io::pipe().unwrap();
    begin(&frontend, Direction::SAVE, to).unwrap();
    drop(frontend);
    let frontend = running.negotiate();
    let (from, _to) = io::pipe().unwrap();
    begin(&frontend, Direction::LOAD, from).unwrap();
    let begun = Instant::now();
    drop(running);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(frontend);
}

#[test]
fn who_asks_for_the_end_of_what_does_not_end_is_answered() {
    let (running, frontend) = start(&Stateful::with(b""));
    let (socket, mut other) = UnixStream::pair().unwrap();
    begin(&frontend, Direction::LOAD, socket).unwrap();
    let trickle = thread::spawn(move || while other.write_all(b"x").is_ok() {});
    frontend.check_device_state().unwrap_err();
    trickle.join().unwrap();
    assert!(frontend.get_features().is_ok());
    drop(running);
}

#[test]
fn what_takes_long_to_load_is_loaded() {
    let filesystem = Stateful::with(b"");
    let (_running, frontend) = start(&filesystem);
    let state = [b'~'; 100_000];
    load(&frontend, &state).unwrap();
    assert_eq!(filesystem.bytes(), state);
}
