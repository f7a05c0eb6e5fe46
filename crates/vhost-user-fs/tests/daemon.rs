//! A daemon and its front-ends.

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost_user_fs::{Backend, BackendConfig, ConfigError, MAX_REQUEST_QUEUES};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn start() -> (Arc<Quiet>, Running) {
    let filesystem = Arc::new(Quiet::default());
    let running = Running::start(config(Arc::clone(&filesystem) as Arc<dyn Serve>));
    (filesystem, running)
}

#[test]
fn one_front_end_after_the_other_gets_a_clean_session() {
    let (filesystem, running) = start();
    for session in 0..3 {
        let guest = Guest::new();
        let mut frontend = running.negotiate();
        assert_eq!(filesystem.resets.load(Ordering::SeqCst), session);
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        for _ in 0..3 {
            guest.ask();
        }
        assert_eq!(frontend.get_vring_base(1).unwrap(), 3);
        // It goes on from there.
        guest.set_up(&mut frontend, 1, 3);
        guest.ask();
        assert_eq!(guest.used_idx(), 4);
        let counts = running.backend.counts();
        assert_eq!(counts[1].chains, 4 * (session as u64 + 1));
        assert_eq!(counts[0].chains, 0);
        drop(frontend);
    }
    // It takes its turn after the last one.
    drop(running.negotiate());
    let seen = filesystem.resets.load(Ordering::SeqCst);
    assert!(seen >= 3);
}

#[test]
fn what_is_set_up_anew_elsewhere_starts_where_the_front_end_says() {
    let (_filesystem, running) = start();
    let mut guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    guest.ask();
    // As User Mode Linux does: disabled, but never asked for where it is.
    frontend.set_vring_enable(1, false).unwrap();
    guest.base = 0x8000;
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    assert_eq!(guest.used_idx(), 1);
    assert_eq!(frontend.get_vring_base(1).unwrap(), 1);
}

#[test]
fn what_is_set_up_anew_in_the_same_place_starts_where_the_front_end_says() {
    let (_filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    for _ in 0..3 {
        guest.clear_rings();
        guest.set_up(&mut frontend, 1, 0);
        for used in 1..=5 {
            guest.ask();
            assert_eq!(guest.used_idx(), used);
        }
        frontend.set_vring_enable(1, false).unwrap();
    }
}

#[test]
fn what_is_offered_while_a_queue_is_disabled_is_served_after() {
    let (_filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    frontend.set_vring_enable(1, false).unwrap();
    guest.offer();
    assert_eq!(guest.used_idx(), 1);
    frontend.set_vring_enable(1, true).unwrap();
    guest.wait_beyond(1);
    assert_eq!(frontend.get_vring_base(1).unwrap(), 2);
}

/// Waits for a word, wherever it may wait.
struct Slow {
    under_way: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Serve for Slow {
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
        self.under_way.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        succeed(message, reply)
    }

    fn reset(&self) {}
}

#[test]
fn a_queue_is_stopped_when_what_was_in_flight_is_done() {
    for disable in [false, true] {
        let (under_way, seen) = sync_channel(1);
        let (word, go_on) = sync_channel(1);
        let running = Running::start(config(Arc::new(Slow {
            under_way,
            go_on: Mutex::new(go_on),
        })));
        let guest = Guest::new();
        let mut frontend = running.negotiate();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        guest.offer();
        seen.recv().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| word.send(()).unwrap());
            if disable {
                frontend.set_vring_enable(1, false).unwrap();
            } else {
                assert_eq!(frontend.get_vring_base(1).unwrap(), 1);
            }
        });
        assert_eq!(guest.used_idx(), 1);
    }
}

#[test]
fn a_reset_of_the_device_ends_the_session() {
    let (filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    for resets in 1..=3 {
        let features = frontend.get_features().unwrap();
        frontend.set_features(features).unwrap();
        guest.clear_rings();
        guest.set_up(&mut frontend, 1, 0);
        guest.ask();
        frontend.reset_device().unwrap();
        assert_eq!(filesystem.resets.load(Ordering::SeqCst), resets);
    }
}

#[test]
fn giving_the_addresses_again_changes_nothing() {
    let (_filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    for used in 1..4 {
        guest.ask();
        // As QEMU does when it begins to migrate.
        guest.set_addresses(&frontend, 1);
        assert_eq!(guest.used_idx(), used);
    }
    assert_eq!(frontend.get_vring_base(1).unwrap(), 3);
}

#[test]
fn junk_ends_only_its_own_connection() {
    let (filesystem, running) = start();
    for junk in [
        &[0xff; 64][..],
        &[0; 12],
        &[1, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = running.connect();
        stream.write_all(junk).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Until it is closed at the other end.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    assert_eq!(filesystem.resets.load(Ordering::SeqCst), 4);
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
}

#[test]
fn a_stop_handle_ends_it_while_it_waits_and_while_it_serves() {
    let (_filesystem, running) = start();
    running.stop.stop();
    running.stop.clone().stop();
    running.join();

    let (filesystem, running) = start();
    let frontend = running.negotiate();
    running.stop.stop();
    running.join();
    assert!(frontend.get_features().is_err());
    assert_eq!(filesystem.resets.load(Ordering::SeqCst), 1);
}

/// While it serves a request it makes the next one available.
struct Busy {
    memory: GuestMemoryMmap,
    stopping: AtomicBool,
    under_way: SyncSender<()>,
}

impl Serve for Busy {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        let at = GuestAddress(0x1002);
        let idx: u16 = self.memory.read_obj(at).unwrap();
        self.memory.write_obj(idx.wrapping_add(1), at).unwrap();
        let _ = self.under_way.try_send(());
        succeed(message, reply)
    }

    fn reset(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_guest_that_keeps_its_queue_busy_does_not_keep_the_daemon_from_ending() {
    for hang_up in [false, true] {
        let guest = Guest::new();
        let (under_way, seen) = sync_channel(1);
        let filesystem = Arc::new(Busy {
            memory: guest.memory.clone(),
            stopping: AtomicBool::new(false),
            under_way,
        });
        let running = Running::start(config(Arc::clone(&filesystem) as Arc<dyn Serve>));
        let mut frontend = running.negotiate();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 1, 0);
        guest.offer();
        seen.recv().unwrap();
        if hang_up {
            drop(frontend);
            // The next one is served.
            drop(running.negotiate());
            assert!(filesystem.stopping.load(Ordering::SeqCst));
        }
        running.stop.stop();
        running.join();
        assert!(filesystem.stopping.load(Ordering::SeqCst));
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn no_descriptor_is_leaked() {
    // The other tests of this program open some too.
    if !alone("no_descriptor_is_leaked") {
        return;
    }
    let (_filesystem, running) = start();
    let connect = || {
        let guest = Guest::new();
        let mut frontend = running.negotiate();
        guest.give_memory(&frontend);
        guest.set_up(&mut frontend, 0, 0);
        guest.ask();
    };
    // How many there are while the same front-end is connected.
    let count = || {
        let frontend = running.negotiate();
        // With the answer, the daemon has done all that was asked before.
        frontend.get_features().unwrap();
        let count = open_descriptors();
        drop(frontend);
        count
    };
    connect();
    let before = count();
    for _ in 0..20 {
        connect();
    }
    assert_eq!(count(), before);
}

fn read_config(frontend: &mut Frontend, offset: u32, size: u32) -> Option<Vec<u8>> {
    let room = vec![0; size as usize];
    let flags = VhostUserConfigFlags::empty();
    let reply = frontend.get_config(offset, size, flags, &room).ok()?;
    Some(reply.1)
}

#[test]
fn the_config_space_can_be_read() {
    let filesystem = Arc::new(Quiet::default());
    let running = Running::start(BackendConfig {
        request_queues: Some(3),
        ..config(filesystem)
    });
    let mut frontend = running.negotiate();
    assert_eq!(frontend.get_queue_num().unwrap(), 4);
    let mut whole = b"myfs".to_vec();
    whole.resize(36, 0);
    whole.extend([3, 0, 0, 0]);
    assert_eq!(read_config(&mut frontend, 0, 40), Some(whole.clone()));
    assert_eq!(read_config(&mut frontend, 36, 4), Some(vec![3, 0, 0, 0]));
    assert_eq!(read_config(&mut frontend, 0, 4), Some(b"myfs".to_vec()));
    whole.resize(256, 0);
    assert_eq!(read_config(&mut frontend, 0, 256), Some(whole));
}

#[test]
fn a_device_without_a_tag_has_no_config_space() {
    let running = Running::start(BackendConfig {
        tag: None,
        ..config(Arc::new(Quiet::default()))
    });
    let mut frontend = running.negotiate();
    assert_eq!(read_config(&mut frontend, 0, 40), None);
    // That was refused at this end; the connection goes on.
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
}

#[test]
fn a_device_has_some_request_queues_but_not_too_many() {
    let new = |request_queues| {
        Backend::new(BackendConfig {
            request_queues: Some(request_queues),
            ..config(Arc::new(Quiet::default()))
        })
        .map(|_| ())
    };
    assert_eq!(new(0), Err(ConfigError::RequestQueues(0)));
    assert_eq!(new(1), Ok(()));
    assert_eq!(new(MAX_REQUEST_QUEUES), Ok(()));
    for many in [MAX_REQUEST_QUEUES + 1, u16::MAX] {
        assert_eq!(new(many), Err(ConfigError::RequestQueues(many)));
    }
    // The most there can be work, the last of them too.
    let running = Running::start(BackendConfig {
        request_queues: Some(MAX_REQUEST_QUEUES),
        ..config(Arc::new(Quiet::default()))
    });
    let mut frontend = running.negotiate();
    assert_eq!(frontend.get_queue_num().unwrap(), 64);
}
