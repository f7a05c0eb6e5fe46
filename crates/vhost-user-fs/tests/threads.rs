//! Which threads serve queues, and what they wait for.

mod common;

use std::fs;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost_user_fs::{BackendConfig, MAX_REQUEST_QUEUES};

/// The threads that serve queues, by name, with the processors that they may run on.
fn workers() -> Vec<(String, String)> {
    let mut workers: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| {
            let field = |name| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().trim().to_owned()
            };
            (field("Name:"), field("Cpus_allowed_list:"))
        })
        .filter(|(name, _)| name.starts_with("virtio-fs-q"))
        .collect();
    workers.sort();
    workers
}

fn names() -> Vec<String> {
    workers().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn only_queues_that_are_served_have_threads() {
    if !alone("only_queues_that_are_served_have_threads") {
        return;
    }
    let running = Running::start(BackendConfig {
        request_queues: None,
        ..config(Arc::new(Quiet::default()))
    });
    let mut frontend = running.negotiate();
    let most = u64::from(MAX_REQUEST_QUEUES) + 1;
    assert_eq!(frontend.get_queue_num().unwrap(), most);
    let flags = VhostUserConfigFlags::empty();
    let (_, told) = frontend.get_config(36, 4, flags, &[0; 4]).unwrap();
    assert!((1..=8).contains(&told[0]), "{told:?}");

    let mut guest = Guest::new();
    guest.give_memory(&frontend);
    eventually(|| names().is_empty());
    guest.set_up(&mut frontend, 63, 0);
    guest.ask();
    guest.base = 0x8000;
    guest.set_up(&mut frontend, 0, 0);
    guest.ask();
    eventually(|| names() == ["virtio-fs-q0", "virtio-fs-q63"]);
    frontend.get_vring_base(63).unwrap();
    eventually(|| names() == ["virtio-fs-q0"]);
    frontend.set_vring_enable(0, false).unwrap();
    eventually(|| names().is_empty());
    frontend.set_vring_enable(0, true).unwrap();
    guest.ask();
    frontend.reset_device().unwrap();
    eventually(|| names().is_empty());
    guest.clear_rings();
    frontend
        .set_features(frontend.get_features().unwrap())
        .unwrap();
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    drop(frontend);
    running.stop.stop();
    running.join();
    eventually(|| names().is_empty());
}

#[test]
fn request_queues_run_where_they_are_to_run() {
    if !alone("request_queues_run_where_they_are_to_run") {
        return;
    }
    // Whatever this machine has, the first that it has.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = |status: &str| {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    };
    let all = list(&status);
    let first = all.split([',', '-']).next().unwrap();
    let running = Running::start(BackendConfig {
        queue_affinity: Some(first.parse().unwrap()),
        ..config(Arc::new(Quiet::default()))
    });
    let mut frontend = running.negotiate();
    let mut guest = Guest::new();
    guest.give_memory(&frontend);
    for (queue, base) in [(0, 0), (1, 0x8000)] {
        guest.base = base;
        guest.set_up(&mut frontend, queue, 0);
        // It is where it is to be when it serves something.
        guest.ask();
    }
    let expected = [("virtio-fs-q0", all.as_str()), ("virtio-fs-q1", first)];
    assert_eq!(
        workers(),
        expected.map(|(name, list)| (name.to_owned(), list.to_owned()))
    );
}

/// Keeps a request queue waiting for a word, in the thread of the queue, as no filesystem should.
struct Stuck {
    under_way: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Serve for Stuck {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        if std::thread::current().name() != Some("virtio-fs-q0") {
            self.under_way.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        succeed(message, reply)
    }

    fn reset(&self) {}
}

#[test]
fn hiprio_waits_for_no_request_queue() {
    let (under_way, seen) = sync_channel(1);
    let (word, go_on) = sync_channel(1);
    let running = Running::start(config(Arc::new(Stuck {
        under_way,
        go_on: Mutex::new(go_on),
    })));
    let mut frontend = running.negotiate();
    let (mut slow, mut quick) = (Guest::new(), Guest::new());
    // Both are queues of one guest.
    quick.memory = slow.memory.clone();
    (slow.base, quick.base) = (0, 0x8000);
    slow.give_memory(&frontend);
    slow.set_up(&mut frontend, 1, 0);
    quick.set_up(&mut frontend, 0, 0);
    slow.offer();
    seen.recv().unwrap();
    for _ in 0..100 {
        quick.ask();
    }
    assert_eq!(slow.used_idx(), 0);
    // hiprio can be stopped and started, too.
    assert_eq!(frontend.get_vring_base(0).unwrap(), 100);
    quick.set_up(&mut frontend, 0, 100);
    quick.ask();
    word.send(()).unwrap();
    slow.wait_beyond(0);
}
