//! A driver that lays its rings out by hand, and doubles to serve its requests.

#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use virtio_fs_queue::{
    Counts, Drained, GuestSpace, Polling, Pool, Position, Queue, QueueConfig, Resources, Stats,
};
use vm_memory::bitmap::Bitmap;
use vm_memory::mmap::NewBitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Where things are in the guest. Two regions meet at `BORDER`; behind `END` there is nothing.
pub(crate) const DESCRIPTORS: u64 = 0;
pub(crate) const AVAIL: u64 = 0x1_0000;
pub(crate) const USED: u64 = 0x2_0000;
pub(crate) const TABLE: u64 = 0x3_0000;
pub(crate) const REQUEST: u64 = 0x5_0000;
pub(crate) const REPLY: u64 = 0x8_0000;
pub(crate) const BORDER: u64 = 0x10_0000;
pub(crate) const END: u64 = 0x20_0000;

pub(crate) type Memory<B = ()> = GuestMemoryMmap<B>;

pub(crate) fn memory() -> Memory {
    tracked_memory()
}

pub(crate) fn tracked_memory<B: Bitmap + NewBitmap>() -> Memory<B> {
    let half = usize::try_from(BORDER).unwrap();
    Memory::from_ranges(&[(GuestAddress(0), half), (GuestAddress(BORDER), half)]).unwrap()
}

/// A descriptor, or a buffer where `next` and `NEXT` are filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

pub(crate) fn readable(address: u64, len: usize) -> Descriptor {
    Descriptor {
        address,
        len: u32::try_from(len).unwrap(),
        flags: 0,
        next: 0,
    }
}

pub(crate) fn writable(address: u64, len: usize) -> Descriptor {
    Descriptor {
        flags: WRITE,
        ..readable(address, len)
    }
}

pub(crate) fn indirect(address: u64, len: usize) -> Descriptor {
    Descriptor {
        flags: INDIRECT,
        ..readable(address, len)
    }
}

/// The driver's side of a queue, and the queue.
pub(crate) struct Rig<AS: GuestSpace = Arc<Memory>> {
    pub(crate) space: AS,
    pub(crate) config: QueueConfig,
    pub(crate) queue: Arc<Queue<AS>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) interrupts: Arc<AtomicUsize>,
    /// Next `idx` of the available ring.
    pub(crate) offered: u16,
    /// `idx` of the used ring up to where it was looked at.
    pub(crate) seen: u16,
}

pub(crate) fn config(size: u16) -> QueueConfig {
    QueueConfig {
        size,
        descriptors: GuestAddress(DESCRIPTORS),
        avail: GuestAddress(AVAIL),
        used: GuestAddress(USED),
        event_idx: false,
        indirect: true,
        position: Position::default(),
    }
}

pub(crate) fn rig(size: u16, serve: impl Serve + 'static) -> Rig {
    Rig::new(Arc::new(memory()), config(size), serve, Pool::new(2))
}

impl<AS: GuestSpace> Rig<AS> {
    pub(crate) fn new(
        space: AS,
        config: QueueConfig,
        serve: impl Serve + 'static,
        pool: Pool,
    ) -> Self {
        Self::with(space, config, serve, pool, |_| ())
    }

    /// As [`new`](Self::new), after `change` has changed what the queue gets.
    pub(crate) fn with(
        space: AS,
        config: QueueConfig,
        serve: impl Serve + 'static,
        pool: Pool,
        change: impl FnOnce(&mut Resources<AS>),
    ) -> Self {
        let interrupts: Arc<AtomicUsize> = Arc::default();
        let stats: Arc<Stats> = Arc::default();
        let rung = Arc::clone(&interrupts);
        let mut resources = Resources {
            memory: space.clone(),
            filesystem: Arc::new(serve),
            pool: Arc::new(pool),
            polling: Arc::new(Polling::never()),
            log: None,
            stats: Arc::clone(&stats),
            notify: Box::new(move || {
                rung.fetch_add(1, Ordering::SeqCst);
            }),
        };
        change(&mut resources);
        let rig = Self {
            queue: Arc::new(Queue::start(config, resources).unwrap()),
            space,
            config,
            stats,
            interrupts,
            offered: config.position.next_avail,
            seen: config.position.next_used,
        };
        rig.put(AVAIL + 2, &rig.offered.to_le_bytes());
        rig.put(USED + 2, &rig.seen.to_le_bytes());
        rig
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        let memory = self.space.memory();
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let memory = self.space.memory();
        memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    pub(crate) fn word(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.get(address, 2).try_into().unwrap())
    }

    /// Writes descriptor `index` of the table at `table`.
    pub(crate) fn describe(&self, table: u64, index: u16, descriptor: Descriptor) {
        let mut bytes = Vec::new();
        bytes.extend(descriptor.address.to_le_bytes());
        bytes.extend(descriptor.len.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
        self.put(table + 16 * u64::from(index), &bytes);
    }

    /// Links `buffers` from descriptor `first` of the table at `table` on.
    pub(crate) fn link(&self, table: u64, first: u16, buffers: &[Descriptor]) {
        for (index, buffer) in (first..).zip(buffers) {
            let last = usize::from(index - first) + 1 == buffers.len();
            let mut descriptor = *buffer;
            if !last {
                descriptor.flags |= NEXT;
                descriptor.next = index + 1;
            }
            self.describe(table, index, descriptor);
        }
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.offered % self.config.size);
        self.put(AVAIL + 4 + 2 * slot, &head.to_le_bytes());
        self.offered = self.offered.wrapping_add(1);
        self.put(AVAIL + 2, &self.offered.to_le_bytes());
    }

    /// Makes `buffers` available as a chain from descriptor `first` on.
    pub(crate) fn offer_chain(&mut self, first: u16, buffers: &[Descriptor]) {
        self.link(DESCRIPTORS, first, buffers);
        self.offer(first);
    }

    /// What was given back since it was asked last, as (head, length).
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        let mut used = Vec::new();
        while self.seen != self.word(USED + 2) {
            let slot = u64::from(self.seen % self.config.size);
            let bytes = self.get(USED + 4 + 8 * slot, 8);
            let [head, len] = <[[u8; 4]; 2]>::read_from_bytes(&bytes).unwrap();
            used.push((u32::from_le_bytes(head), u32::from_le_bytes(len)));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    pub(crate) fn set_used_event(&self, event: u16) {
        self.put(
            AVAIL + 4 + 2 * u64::from(self.config.size),
            &event.to_le_bytes(),
        );
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.word(USED + 4 + 8 * u64::from(self.config.size))
    }

    pub(crate) fn interrupts(&self) -> usize {
        self.interrupts.load(Ordering::SeqCst)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.stats.read()
    }

    pub(crate) fn out_header(&self, address: u64) -> OutHeader {
        OutHeader::read_from_bytes(&self.get(address, 16)).unwrap()
    }

    /// Sends `request` in a plain chain at descriptor `first`, and returns the reply.
    pub(crate) fn ask(&mut self, first: u16, request: &[u8], room: usize) -> Vec<u8> {
        self.put(REQUEST, request);
        self.put(REPLY, &vec![0xee; room]);
        let buffers = [readable(REQUEST, request.len()), writable(REPLY, room)];
        self.offer_chain(first, &buffers);
        assert_eq!(self.queue.drain(), Drained::Idle);
        let [(head, len)] = self.used()[..] else {
            panic!("not one chain was given back");
        };
        assert_eq!(head, u32::from(first));
        self.get(REPLY, len as usize)
    }

    /// A well-formed request is served.
    pub(crate) fn assert_alive(&mut self) {
        let reply = self.ask(0, &request(77, b"alive?"), 200);
        assert_eq!(reply, echo_reply(&request(77, b"alive?"), 200));
    }
}

/// A request that [`Echo`] understands: a header of unknown opcode, and `body`.
pub(crate) fn request(unique: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
        opcode: 1000,
        unique,
        ..Default::default()
    };
    [header.as_bytes(), body].concat()
}

/// What [`Echo`] answers to `request` where there is room for `room` bytes.
pub(crate) fn echo_reply(request: &[u8], room: usize) -> Vec<u8> {
    let Some(header) = InHeader::peek(request) else {
        return Vec::new();
    };
    if room < size_of::<OutHeader>() {
        return Vec::new();
    }
    let body = &request[..request.len().min(room - size_of::<OutHeader>())];
    let out = OutHeader::success(header.unique, body.len());
    [out.as_bytes(), body].concat()
}

/// Answers with what it was asked.
pub(crate) struct Echo;

impl Serve for Echo {
    fn serve(
        &self,
        message: &[u8],
        source: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        let (Some(header), Some(sink)) = (InHeader::peek(message), sink) else {
            return Outcome::NoReply;
        };
        let mut all = message.to_vec();
        let start = all.len();
        all.resize(start + source.remaining(), 0);
        assert_eq!(source.read(&mut all[start..]), all.len() - start);
        assert_eq!(source.remaining(), 0);
        // Part of it from the buffer, part of it as payload.
        let payload = sink.write(&all);
        let out = OutHeader::success(header.unique, payload);
        reply[..16].copy_from_slice(out.as_bytes());
        Outcome::Reply { head: 16, payload }
    }

    fn reset(&self) {}
}

/// A request as a [`double`] gets it.
pub(crate) struct Call<'c> {
    pub(crate) header: InHeader,
    pub(crate) source: &'c mut dyn PayloadSource,
    pub(crate) sink: Option<&'c mut dyn PayloadSink>,
    pub(crate) reply: &'c mut [u8],
    pub(crate) blocking: Blocking,
}

impl Call<'_> {
    /// A reply without a body.
    pub(crate) fn done(self) -> Outcome {
        self.done_with(0)
    }

    /// A reply whose body is in the sink.
    pub(crate) fn done_with(self, payload: usize) -> Outcome {
        let out = OutHeader::success(self.header.unique, payload);
        self.reply[..16].copy_from_slice(out.as_bytes());
        Outcome::Reply { head: 16, payload }
    }
}

/// Serves as a closure does.
pub(crate) struct Double<F>(F);

pub(crate) fn double<F: Fn(Call<'_>) -> Outcome + Send + Sync>(serve: F) -> Double<F> {
    Double(serve)
}

impl<F: Fn(Call<'_>) -> Outcome + Send + Sync> Serve for Double<F> {
    fn serve(
        &self,
        message: &[u8],
        source: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let Some(header) = InHeader::peek(message) else {
            return Outcome::NoReply;
        };
        (self.0)(Call {
            header,
            source,
            sink: match sink {
                Some(sink) => Some(sink),
                None => None,
            },
            reply,
            blocking,
        })
    }

    fn reset(&self) {}
}
