//! A daemon that is killed, and the one that takes its place.

#![forbid(unsafe_code)]

mod support;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fuse_wire::abi::{FileLock, GetattrIn, LkIn};
use fuse_wire::{NodeId, Operation};
use rustix::fs::{FlockOperation, fcntl_lock};
use support::Daemon;
use virtio_fs_guest::{Connection, Error, MountOptions, Offered, Options, Payload};

/// Whatever the new daemon says to requests of a session that it does not know, it says it once.
#[test]
fn what_was_in_flight_is_answered_by_the_next_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "content").unwrap();
    let start = |name| Daemon::start(&directory.path().join(name), &shared, &["--posix-lock"]);
    let options = Options {
        inflight: Offered::Accept,
        ..Options::default()
    };

    let daemon = start("first");
    let connection = Connection::connect(daemon.socket(), &options).unwrap();
    let mut mount = connection.mount(&MountOptions::default()).unwrap();
    let node = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
    let fh = mount.open(node, 2).unwrap().fh;
    // Somebody else has the lock, on the host.
    let file = File::options()
        .write(true)
        .open(shared.join("file"))
        .unwrap();
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
    let mut waiting = HashSet::new();
    for _ in 0..3 {
        let lock = queue.submit(node, Operation::SetLkW(wait), Payload::None);
        waiting.insert(lock.unwrap());
        for _ in 0..5 {
            let getattr = Operation::GetAttr(GetattrIn::default());
            let completion = {
                queue.submit(node, getattr, Payload::None).unwrap();
                queue.wait().unwrap()
            };
            completion.result().unwrap();
        }
    }

    // It goes by SIGKILL.
    drop(daemon);
    let next = start("second");
    let stream = UnixStream::connect(next.socket()).unwrap();
    mount.connection().reconnect(stream).unwrap();
    let queue = &mut mount.connection().request_queues()[0];
    queue.set_timeout(Duration::from_secs(20));
    while !waiting.is_empty() {
        let completion = queue.wait().unwrap();
        assert!(matches!(completion.result(), Err(Error::Errno(_))));
        assert!(waiting.remove(&completion.token()));
    }
    assert!(queue.poll().unwrap().is_none());
    // The guest begins a session, and all is well.
    mount.remount(&MountOptions::default()).unwrap();
    mount.lookup(NodeId::ROOT, c"file").unwrap();
}
