//! Several queues under load, while the front-end changes whatever it may change.

mod common;

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use common::*;
use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};
use vhost_user_fs::BackendConfig;
use virtio_fs_queue::Pool;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::IntoBytes;

/// hiprio and the request queues.
const QUEUES: usize = 4;
/// Requests of each queue from one reset to the next.
const REQUESTS: u64 = 2000;
const ROUNDS: u64 = 6;
/// Requests in flight on a queue: each has two descriptors.
const SLOTS: u16 = SIZE / 2;
/// Long enough for any answer; the test fails where one does not come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that a queue has of the guest's memory.
const PLACE: u64 = 0x8000;

/// Answers with a number made of the one in the request; sometimes only where it may wait.
struct Calculator;

const fn calculate(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Serve for Calculator {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let header = InHeader::peek(message).unwrap();
        let number = u64::from_le_bytes(message[40..48].try_into().unwrap());
        if blocking == Blocking::Forbidden && number.is_multiple_of(7) {
            return Outcome::WouldBlock;
        }
        reply[..16].copy_from_slice(OutHeader::success(header.unique, 8).as_bytes());
        reply[16..24].copy_from_slice(&calculate(number).to_le_bytes());
        Outcome::Reply {
            head: 24,
            payload: 0,
        }
    }

    fn reset(&self) {}
}

/// The driver of one queue.
struct Driver<'g> {
    guest: &'g Guest,
    next_avail: u16,
    next_used: u16,
    free: Vec<u16>,
    /// By its slot, the number in each request that was not answered yet.
    in_flight: HashMap<u16, u64>,
}

impl<'g> Driver<'g> {
    fn new(guest: &'g Guest) -> Self {
        Self {
            guest,
            next_avail: 0,
            next_used: 0,
            free: (0..SLOTS).collect(),
            in_flight: HashMap::new(),
        }
    }

    /// Has each of `numbers` answered once.
    fn run(&mut self, mut numbers: impl Iterator<Item = u64>) {
        loop {
            while let Some(slot) = self.free.pop() {
                let Some(number) = numbers.next() else {
                    self.free.push(slot);
                    break;
                };
                self.submit(slot, number);
            }
            if self.in_flight.is_empty() {
                return;
            }
            self.wait();
            while self.next_used != self.used_idx() {
                self.complete();
            }
        }
    }

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.guest.base + offset)
    }

    fn submit(&mut self, slot: u16, number: u64) {
        let buffer = 0x3000 + 0x100 * u64::from(slot);
        let header = InHeader {
            len: 48,
            opcode: 1000,
            unique: number << 1,
            ..Default::default()
        };
        let message = [header.as_bytes(), &number.to_le_bytes()].concat();
        let memory = &self.guest.memory;
        memory.write_slice(&message, self.at(buffer)).unwrap();
        memory
            .write_slice(&[0xff; 24], self.at(buffer + 0x80))
            .unwrap();
        let head = 2 * slot;
        let descriptor = 16 * u64::from(head);
        let next = u32::from(head + 1) << 16;
        self.guest.put(descriptor, self.guest.base + buffer);
        self.guest.put(descriptor + 8, [48u32, 1 | next]);
        self.guest
            .put(descriptor + 16, self.guest.base + buffer + 0x80);
        self.guest.put(descriptor + 24, [24u32, 2]);
        let entry = 0x1004 + 2 * u64::from(self.next_avail % SIZE);
        self.guest.put(entry, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        memory
            .store(self.next_avail, self.at(0x1002), Ordering::Release)
            .unwrap();
        assert_eq!(self.in_flight.insert(slot, number), None);
        self.guest.kick.write(1).unwrap();
    }

    fn used_idx(&self) -> u16 {
        let idx = self.guest.memory.load(self.at(0x2002), Ordering::Acquire);
        idx.unwrap()
    }

    /// Waits for an interrupt, unless something is done already.
    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let event = self.at(0x1004 + 2 * u64::from(SIZE));
        let memory = &self.guest.memory;
        memory
            .store(self.next_used, event, Ordering::Relaxed)
            .unwrap();
        fence(Ordering::SeqCst);
        while self.used_idx() == self.next_used {
            // Whoever missed an interrupt would not look.
            while self.guest.call.read().is_err() {
                assert!(Instant::now() < deadline, "lost: {:?}", self.in_flight);
                std::thread::yield_now();
            }
        }
    }

    fn complete(&mut self) {
        let entry = 0x2004 + 8 * u64::from(self.next_used % SIZE);
        let memory = &self.guest.memory;
        let [head, len]: [u32; 2] = memory.read_obj(self.at(entry)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        let slot = u16::try_from(head).unwrap() / 2;
        let number = self.in_flight.remove(&slot);
        let number = number.expect("nothing is answered that was not asked, or twice");
        assert_eq!((head % 2, len), (0, 24));
        let mut reply = [0; 24];
        let buffer = self.at(0x3080 + 0x100 * u64::from(slot));
        memory.read_slice(&mut reply, buffer).unwrap();
        let expected = OutHeader::success(number << 1, 8);
        assert_eq!(reply[..16], *expected.as_bytes());
        assert_eq!(reply[16..], calculate(number).to_le_bytes());
        self.free.push(slot);
    }
}

/// The queues of one guest.
fn guests() -> Vec<Guest> {
    let first = Guest::new();
    (0..QUEUES as u64)
        .map(|queue| Guest {
            memory: first.memory.clone(),
            file: first.file.try_clone().unwrap(),
            base: queue * PLACE,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        })
        .collect()
}

/// What a front-end may do while a queue is in use; the guest is to notice nothing of it.
struct Unrest {
    random: u64,
    spare: fs::File,
    plugged: bool,
}

impl Unrest {
    fn next(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn disturb(&mut self, frontend: &mut Frontend, guests: &[Guest]) {
        let queue = self.next(QUEUES as u64) as usize;
        let guest = &guests[queue];
        match self.next(10) {
            0 => {
                let base = frontend.get_vring_base(queue).unwrap();
                guest.set_up(frontend, queue, base as u16);
            }
            1 => {
                frontend.set_vring_enable(queue, false).unwrap();
                frontend.set_vring_enable(queue, true).unwrap();
            }
            2 => frontend.set_vring_kick(queue, &guest.kick).unwrap(),
            3 => frontend.set_vring_call(queue, &guest.call).unwrap(),
            4 => guest.set_addresses(frontend, queue),
            5 => self.plug(frontend),
            6 => record(frontend),
            7 => self.set_log(frontend),
            8 => self.toggle_log(frontend),
            _ => {
                guest.give_memory(frontend);
                self.plugged = false;
            }
        }
    }

    fn set_log(&mut self, frontend: &Frontend) {
        let region = VhostUserDirtyLogRegion {
            mmap_size: 2 * LEN / 4096 / 8,
            mmap_offset: 0,
            mmap_handle: self.spare.as_raw_fd(),
        };
        frontend.set_log_base(0, Some(region)).unwrap();
    }

    fn toggle_log(&mut self, frontend: &Frontend) {
        const LOG_ALL: u64 = 1 << 26;
        let features = frontend.get_features().unwrap();
        let unwanted = self.next(2) * LOG_ALL;
        frontend.set_features(features & !unwanted).unwrap();
    }

    /// Adds a region of memory, or removes it where it is there.
    fn plug(&mut self, frontend: &mut Frontend) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: LEN,
            memory_size: LEN,
            userspace_addr: USER + LEN,
            mmap_offset: 0,
            mmap_handle: self.spare.as_raw_fd(),
        };
        if self.plugged {
            frontend.remove_mem_region(&region).unwrap();
        } else {
            frontend.add_mem_region(&region).unwrap();
        }
        self.plugged = !self.plugged;
    }
}

/// Has what is in flight recorded anew.
fn record(frontend: &mut Frontend) {
    let asked = VhostUserInflight::new(0, 0, QUEUES as u16, SIZE);
    let (made, file) = frontend.get_inflight_fd(&asked).unwrap();
    frontend.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
}

/// Drives all queues until each has had its requests answered, and does not leave them alone.
fn round(frontend: &mut Frontend, guests: &[Guest], unrest: &mut Unrest, round: u64) -> usize {
    let running = AtomicUsize::new(QUEUES);
    let mut disturbances = 0;
    std::thread::scope(|scope| {
        for guest in guests {
            let running = &running;
            scope.spawn(move || {
                // However it ends, the others are not to be disturbed for ever.
                let _done = Done(running);
                Driver::new(guest).run((0..REQUESTS).map(|n| round * REQUESTS + n));
            });
        }
        while running.load(Ordering::SeqCst) > 0 {
            unrest.disturb(frontend, guests);
            disturbances += 1;
        }
    });
    disturbances
}

struct Done<'r>(&'r AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn set_up(frontend: &mut Frontend, guests: &[Guest]) {
    for (queue, guest) in guests.iter().enumerate() {
        guest.clear_rings();
        guest.set_up(frontend, queue, 0);
    }
}

fn queue_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("virtio-fs-q"))
        .count()
}

#[test]
fn no_request_is_lost_whatever_the_front_end_does() {
    if !alone("no_request_is_lost_whatever_the_front_end_does") {
        return;
    }
    let running = Running::start(BackendConfig {
        request_queues: None,
        pool: Arc::new(Pool::new(3)),
        ..config(Arc::new(Calculator))
    });
    let guests = guests();
    let spare = tempfile::tempfile().unwrap();
    spare.set_len(LEN).unwrap();
    let mut unrest = Unrest {
        random: 0x2545_f491_4f6c_dd1d,
        spare,
        plugged: false,
    };
    let mut disturbances = 0;
    for connection in 0..ROUNDS / 2 {
        let mut frontend = running.negotiate();
        guests[0].give_memory(&frontend);
        unrest.plugged = false;
        set_up(&mut frontend, &guests);
        disturbances += round(&mut frontend, &guests, &mut unrest, 2 * connection);
        frontend.reset_device().unwrap();
        eventually(|| queue_threads() == 0);
        let features = frontend.get_features().unwrap();
        frontend.set_features(features).unwrap();
        set_up(&mut frontend, &guests);
        disturbances += round(&mut frontend, &guests, &mut unrest, 2 * connection + 1);
        eventually(|| queue_threads() == QUEUES);
    }
    // The next one comes when the last one's threads have ended.
    drop(running.negotiate());
    eventually(|| queue_threads() == 0);
    for counts in &running.backend.counts()[..QUEUES] {
        assert_eq!(counts.chains, ROUNDS * REQUESTS);
    }
    eprintln!("{disturbances} disturbances");
    running.stop.stop();
    running.join();
}
