//! What is written to guest memory is logged.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use fuse_fs::{Blocking, IoFlags, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_fs_guest::PAGE;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const LOG_ALL: u64 = 1 << 26;
const EVENT_IDX: u64 = 1 << 29;
/// Guest address of memory that is added later.
const ADDED: u64 = 0x40_0000;
/// Where the used ring is, and with it all else that is the device's.
const USED: u64 = 0x2000;
/// Enough for all of it.
const LOG_LEN: u64 = (ADDED + LEN) / 4096 / 8;
/// Bytes of a reply's body at most.
const LONGEST: usize = 50_000;

/// Answers with data, now from a file and now from memory, at once or later.
struct Data(File);

impl Data {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0xa5; LONGEST / 2], 0).unwrap();
        Self(file)
    }
}

impl Serve for Data {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let unique = InHeader::peek(message).unwrap().unique;
        if unique.is_multiple_of(3) && blocking == Blocking::Forbidden {
            return Outcome::WouldBlock;
        }
        let len = unique as usize * 7919 % LONGEST;
        let sink = sink.unwrap();
        let payload = match unique % 2 {
            0 => sink.write(&vec![unique as u8 | 1; len]),
            // Where it is longer than the file, less is written than there is room for.
            _ => sink
                .write_from_file(self.0.as_fd(), 0, len, IoFlags::default())
                .unwrap(),
        };
        let header = OutHeader::success(unique, payload);
        reply[..16].copy_from_slice(header.as_bytes());
        Outcome::Reply { head: 16, payload }
    }

    fn reset(&self) {}
}

/// A front-end that moves its guest.
struct Migration {
    guest: Guest,
    /// As in the guest, and what is added.
    added: (GuestMemoryMmap, File),
    log: File,
    running: Running,
    frontend: Frontend,
    features: u64,
}

impl Migration {
    fn new(withheld: u64) -> Self {
        let running = Running::start(config(Arc::new(Data::new())));
        let frontend = running.negotiate();
        let features = frontend.get_features().unwrap() & !withheld;
        frontend.set_features(features).unwrap();
        let guest = Guest::new();
        guest.give_memory(&frontend);
        let log = tempfile::tempfile().unwrap();
        log.set_len(0x3000).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let range = (GuestAddress(ADDED), LEN as usize, Some(offset));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        Self {
            guest,
            added: (memory, file),
            log,
            running,
            frontend,
            features,
        }
    }

    fn set_log_base(&self, offset: u64, len: u64) -> vhost::Result<()> {
        let region = VhostUserDirtyLogRegion {
            mmap_size: len,
            mmap_offset: offset,
            mmap_handle: self.log.as_raw_fd(),
        };
        self.frontend.set_log_base(0, Some(region))
    }

    fn want(&self, log_all: bool) {
        let features = if log_all {
            self.features
        } else {
            self.features & !LOG_ALL
        };
        self.frontend.set_features(features).unwrap();
    }

    fn add_memory(&mut self) -> vhost::Result<()> {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: ADDED,
            memory_size: LEN,
            userspace_addr: USER + ADDED,
            mmap_offset: 0,
            mmap_handle: self.added.1.as_raw_fd(),
        };
        self.frontend.add_mem_region(&region).map(|_| ())
    }

    /// The pages that are logged at `offset`, which are then no more.
    fn take_log(&self, offset: u64) -> BTreeSet<u64> {
        let mut bytes = vec![0; LOG_LEN as usize];
        self.log.read_exact_at(&mut bytes, offset).unwrap();
        self.log
            .write_all_at(&vec![0; bytes.len()], offset)
            .unwrap();
        let bits = (0..8 * LOG_LEN).filter(|page| bytes[*page as usize / 8] >> (page % 8) & 1 != 0);
        bits.collect()
    }

    /// All of guest memory, page by page.
    fn memory(&self) -> Vec<(u64, Vec<u8>)> {
        let mut pages = Vec::new();
        for (start, memory) in [(0, &self.guest.memory), (ADDED, &self.added.0)] {
            for page in 0..LEN / PAGE as u64 {
                let address = start + page * PAGE as u64;
                let mut bytes = vec![0; PAGE];
                memory
                    .read_slice(&mut bytes, GuestAddress(address))
                    .unwrap();
                pages.push((address / PAGE as u64, bytes));
            }
        }
        pages
    }

    /// The pages that are not as they were.
    fn changed_since(&self, before: &[(u64, Vec<u8>)]) -> BTreeSet<u64> {
        let now = self.memory();
        let changed = before.iter().zip(&now).filter(|(was, is)| was != is);
        changed.map(|((page, _), _)| *page).collect()
    }

    /// Has a request served whose reply goes to two places, and returns which pages changed and
    /// which were written to at all.
    fn serve(&mut self, unique: u64, places: [(u64, u32); 2]) -> [BTreeSet<u64>; 2] {
        offer(&self.guest, unique, places);
        let before = self.memory();
        let base = self.guest.used_idx();
        self.guest.set_up(&mut self.frontend, 1, base);
        self.guest.kick.write(1).unwrap();
        self.guest.wait_beyond(base);
        // What follows the request on the ring is done then, too.
        self.frontend.get_vring_base(1).unwrap();
        let slot = u64::from(base % SIZE);
        let len: u32 = self
            .guest
            .memory
            .read_obj(GuestAddress(USED + 8 + 8 * slot))
            .unwrap();
        let mut written = BTreeSet::from([USED / PAGE as u64]);
        let mut left = u64::from(len);
        for (address, room) in places {
            let here = left.min(room.into());
            written.extend(address / PAGE as u64..(address + here).div_ceil(PAGE as u64));
            left -= here;
        }
        [self.changed_since(&before), written]
    }
}

/// Offers a request with room for a reply in two places.
fn offer(guest: &Guest, unique: u64, [first, second]: [(u64, u32); 2]) {
    guest.offer_silently();
    let header = InHeader {
        len: 40,
        opcode: 1000,
        unique,
        ..Default::default()
    };
    let request = GuestAddress(0x3000);
    guest
        .memory
        .write_slice(header.as_bytes(), request)
        .unwrap();
    guest.put(16, first.0);
    guest.put(24, [first.1, 1 | 2 | 2 << 16]);
    guest.put(32, second.0);
    guest.put(40, [second.1, 2]);
}

/// Places for a reply that begins and ends in the middle of pages.
fn places(n: u64, second: u64) -> [(u64, u32); 2] {
    let first = 0x1_0000 + n * 4099 % 0x4_0000;
    let second = second + n * 5003 % 0x4_0000;
    [(first, 16 + (n * 977 % 20_000) as u32), (second, 60_000)]
}

#[test]
fn what_is_written_is_logged_and_nothing_else() {
    for withheld in [0, EVENT_IDX] {
        let mut migration = Migration::new(withheld);
        migration.set_log_base(0, LOG_LEN).unwrap();
        for n in 0..60 {
            let [changed, written] = migration.serve(n, places(n, 0x8_0000));
            assert!(changed.len() > 1 || n == 0, "{changed:?}");
            let logged = migration.take_log(0);
            assert!(logged.is_superset(&changed), "{changed:?}, {logged:?}");
            assert!(written.is_superset(&logged), "{logged:?}, {written:?}");
        }
    }
}

#[test]
fn nothing_is_logged_unless_that_is_wanted() {
    let mut migration = Migration::new(0);
    // Wanted, but nowhere to be put.
    migration.serve(1, places(1, 0x8_0000));
    migration.set_log_base(0, LOG_LEN).unwrap();
    for n in 1..10 {
        migration.want(n % 2 == 0);
        migration.serve(n, places(n, 0x8_0000));
        assert_eq!(migration.take_log(0).is_empty(), n % 2 != 0);
    }
}

#[test]
fn a_device_that_is_reset_logs_nothing_until_that_is_wanted_again() {
    let mut migration = Migration::new(0);
    migration.set_log_base(0, LOG_LEN).unwrap();
    migration.serve(1, places(1, 0x8_0000));
    assert!(!migration.take_log(0).is_empty());
    migration.frontend.reset_device().unwrap();
    migration.want(false);
    migration.guest.clear_rings();
    migration.serve(1, places(1, 0x8_0000));
    assert!(migration.take_log(0).is_empty());
    migration.want(true);
    migration.serve(1, places(1, 0x8_0000));
    assert!(!migration.take_log(0).is_empty());
}

#[test]
fn a_log_can_be_given_again() {
    let mut migration = Migration::new(0);
    for n in 0..10 {
        let offset = n % 2 * 0x1000;
        migration.set_log_base(offset, LOG_LEN).unwrap();
        let [changed, _] = migration.serve(n, places(n, 0x8_0000));
        assert!(migration.take_log(offset).is_superset(&changed));
        assert!(migration.take_log(0x1000 - offset).is_empty());
    }
}

#[test]
fn memory_that_is_added_later_is_logged_too() {
    let mut migration = Migration::new(0);
    migration.set_log_base(0, LOG_LEN).unwrap();
    migration.add_memory().unwrap();
    let mut seen = BTreeSet::<u64>::new();
    for n in (0..20).map(|n| 7 * n) {
        let [changed, written] = migration.serve(n, places(n, ADDED));
        let logged = migration.take_log(0);
        assert!(logged.is_superset(&changed));
        assert!(written.is_superset(&logged));
        seen.extend(logged.range(ADDED / PAGE as u64..));
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn a_log_that_is_too_short_is_refused() {
    let beyond = |migration: &Migration| migration.frontend.get_features().is_err();
    let migration = Migration::new(0);
    migration.set_log_base(0, LEN / 4096 / 8 - 1).unwrap_err();
    assert!(beyond(&migration));
    // So is one that is not there, or that is not long enough for what is added.
    let migration = Migration::new(0);
    migration.set_log_base(0x1000, 0x2001).unwrap_err();
    assert!(beyond(&migration));
    let mut migration = Migration::new(0);
    migration.set_log_base(0, LEN / 4096 / 8).unwrap();
    migration.add_memory().unwrap_err();
    assert!(beyond(&migration));
    drop(migration.running.negotiate());
}

#[test]
fn a_used_ring_can_be_logged_elsewhere() {
    let mut migration = Migration::new(0);
    migration.set_log_base(0, LOG_LEN).unwrap();
    let area = |offset| USER + offset;
    for (flags, noted_at) in [(1, 0x9_0800), (1, USED), (0, 0x9_0800)] {
        let addresses = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags,
            desc_table_addr: area(0),
            avail_ring_addr: area(0x1000),
            used_ring_addr: area(USED),
            log_addr: Some(noted_at),
        };
        migration.guest.clear_rings();
        let Migration {
            guest, frontend, ..
        } = &mut migration;
        guest.set_up(frontend, 1, 0);
        frontend.set_vring_addr(1, &addresses).unwrap();
        guest.ask();
        frontend.get_vring_base(1).unwrap();
        let logged = migration.take_log(0);
        let moved = flags == 1 && noted_at != USED;
        assert_eq!(
            logged.contains(&(noted_at / 4096)),
            moved || noted_at == USED
        );
        assert!(logged.contains(&(USED / 4096)));
    }
}

/// As a VMM does: from when it was told that all is logged, no page changes that is not.
#[test]
fn a_log_that_is_begun_under_load_misses_nothing() {
    let mut migration = Migration::new(0);
    migration.guest.set_up(&mut migration.frontend, 1, 0);
    for round in 0..20 {
        migration.want(false);
        migration.set_log_base(0, LOG_LEN).unwrap();
        let done = AtomicBool::new(false);
        let changed = thread::scope(|scope| {
            let guest = &migration.guest;
            let load = scope.spawn(|| {
                for n in round.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let used = guest.ask_for_interrupt();
                    offer(guest, n, places(n, 0x8_0000));
                    guest.kick.write(1).unwrap();
                    guest.wait_beyond(used);
                }
            });
            thread::sleep(Duration::from_millis(3));
            migration.want(true);
            let before = migration.memory();
            thread::sleep(Duration::from_millis(3));
            done.store(true, Ordering::SeqCst);
            load.join().unwrap();
            migration.changed_since(&before)
        });
        let mut logged = migration.take_log(0);
        // The driver's own: its descriptors, its ring and its request.
        logged.extend([0, 1, 3]);
        assert!(logged.is_superset(&changed), "{changed:?}, {logged:?}");
    }
}
