//! The device's state on its way from one back-end to another.

mod common;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::stateful::*;
use common::*;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostUserProtocolFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use zerocopy::IntoBytes;

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
    // Nor one that waits for its memory, which may be there again at any time.
    let own = guest.region();
    let spare = VhostUserMemoryRegionInfo {
        guest_phys_addr: LEN,
        userspace_addr: USER + LEN,
        ..own
    };
    frontend.set_mem_table(&[spare]).unwrap();
    let (from, _to) = io::pipe().unwrap();
    begin(&frontend, Direction::LOAD, from).unwrap_err();
    frontend.set_mem_table(&[own]).unwrap();
    // It goes on, and once it is stopped the state can be saved.
    guest.ask();
    frontend.get_vring_base(1).unwrap();
    save(&frontend).1.unwrap();
    frontend.set_vring_call(1, &guest.call).unwrap();
    guest.set_up(&mut frontend, 1, 2);
    guest.ask();
}

/// A front-end that agrees to no protocol features has all of its queues enabled by that.
#[test]
fn agreeing_to_features_has_no_queue_served_meanwhile() {
    const SET_FEATURES: u32 = 2;
    const PROTOCOL_FEATURES: u64 = 1 << 30;
    let running = Running::start(config(Stateful::with(b"")));
    for ends in [false, true] {
        let (mut frontend, stream) = running.negotiate_raw();
        let features = frontend.get_features().unwrap() & !PROTOCOL_FEATURES;
        let guest = Guest::new();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        frontend.set_vring_enable(1, false).unwrap();
        let (from, to) = io::pipe().unwrap();
        begin(&frontend, Direction::LOAD, from).unwrap();
        let to = (!ends).then_some(to);
        assert_eq!(tell(&stream, SET_FEATURES, features.as_bytes(), &[]), ends);
        drop(to);
        if ends {
            guest.ask();
        }
    }
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
