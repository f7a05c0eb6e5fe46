//! A device for the tests of the driver's side: it does by hand what it is told.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fuse_wire::abi::OutHeader;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::IntoBytes;

use crate::Backing;
use crate::buffers::Buffers;
use crate::link::{self, Link};
use crate::memory::{Memory, Segment};
use crate::queue::{Events, Queue, QueueContext};
use crate::ring::{Descriptor, Ring, RingFeatures, RingLayout};

/// A queue, and the device at its other end.
pub(crate) struct Rig {
    pub(crate) queue: Queue,
    pub(crate) device: Device,
}

pub(crate) struct Device {
    memory: Arc<Memory>,
    layout: RingLayout,
    kick: EventFd,
    call: EventFd,
    available: u16,
    used: u16,
    /// The back-end's end of the connection: closed when this is dropped.
    _stream: UnixStream,
}

/// A chain as the device sees it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) head: u16,
    pub(crate) indirect: bool,
    pub(crate) readable: Vec<Segment>,
    pub(crate) writable: Vec<Segment>,
}

pub(crate) const FEATURES: RingFeatures = RingFeatures {
    event_idx: true,
    indirect: true,
};

pub(crate) fn rig(size: u16, pages: usize, features: RingFeatures) -> Rig {
    let layout = RingLayout::new(0, size);
    let len = layout.end() + Buffers::len(size, pages);
    let memory = Arc::new(Memory::new(len, Backing::Shared).unwrap());
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let events = Events {
        kick: event(),
        call: event(),
        error: event(),
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Device {
        memory: Arc::clone(&memory),
        layout: layout.clone(),
        kick: events.kick.try_clone().unwrap(),
        call: events.call.try_clone().unwrap(),
        available: 0,
        used: 0,
        _stream: theirs,
    };
    let context = QueueContext {
        memory: Arc::clone(&memory),
        link: Arc::new(Link::new(Some(ours), Duration::ZERO)),
        uniques: Arc::new(AtomicU64::new(2)),
        interrupt_delay: Duration::ZERO,
        timeout: Duration::from_secs(5),
    };
    let buffers = Buffers::new(Arc::clone(&memory), layout.end(), size, pages);
    let ring = Ring::new(memory, layout, features);
    Rig {
        queue: Queue::new(context, ring, buffers, events),
        device,
    }
}

impl Device {
    /// Whether the driver kicked since this was last asked.
    pub(crate) fn kicked(&self) -> bool {
        link::clear(&self.kick) > 0
    }

    /// Takes the next chain, if there is one.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        let index = self
            .memory
            .load_u16(self.layout.available + 2, Ordering::Acquire);
        if index == self.available {
            return None;
        }
        let entry = self.layout.available + 4 + 2 * usize::from(self.available % self.layout.size);
        let head = self.memory.load_u16(entry, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        Some(self.walk(head))
    }

    fn walk(&self, head: u16) -> Taken {
        let mut taken = Taken {
            head,
            indirect: false,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut table = self.layout.descriptors;
        let mut index = head;
        loop {
            let descriptor = self.descriptor(table + usize::from(index) * Descriptor::SIZE);
            let offset = (descriptor.address - self.memory.base()) as usize;
            if descriptor.flags & Descriptor::INDIRECT != 0 {
                taken.indirect = true;
                (table, index) = (offset, 0);
                continue;
            }
            let len = descriptor.len as usize;
            let part = match descriptor.flags & Descriptor::WRITE {
                0 => &mut taken.readable,
                _ => &mut taken.writable,
            };
            part.push(Segment { offset, len });
            if descriptor.flags & Descriptor::NEXT == 0 {
                return taken;
            }
            index = descriptor.next;
        }
    }

    fn descriptor(&self, offset: usize) -> Descriptor {
        let mut bytes = [0; Descriptor::SIZE];
        self.memory.fetch(offset, &mut bytes);
        let (address, rest) = bytes.split_first_chunk().unwrap();
        let (len, rest) = rest.split_first_chunk().unwrap();
        let (flags, next) = rest.split_first_chunk().unwrap();
        Descriptor {
            address: u64::from_le_bytes(*address),
            len: u32::from_le_bytes(*len),
            flags: u16::from_le_bytes(*flags),
            next: u16::from_le_bytes(next.try_into().unwrap()),
        }
    }

    /// What the driver sent.
    pub(crate) fn request(&self, taken: &Taken) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in &taken.readable {
            let start = bytes.len();
            bytes.resize(start + segment.len, 0);
            self.memory.fetch(segment.offset, &mut bytes[start..]);
        }
        bytes
    }

    /// Writes `reply` to the writable part, and returns the chain as used with its length.
    pub(crate) fn reply(&mut self, taken: &Taken, reply: &[u8]) {
        let mut left = reply;
        for segment in &taken.writable {
            let (now, later) = left.split_at(segment.len.min(left.len()));
            self.memory.put(segment.offset, now);
            left = later;
        }
        self.put_used(u32::from(taken.head), reply.len() as u32);
        self.interrupt();
    }

    /// Appends an entry to the used ring.
    pub(crate) fn put_used(&mut self, id: u32, len: u32) {
        let slot = usize::from(self.used % self.layout.size);
        let entry = self.layout.used + 4 + 8 * slot;
        self.memory.put(entry, &id.to_le_bytes());
        self.memory.put(entry + 4, &len.to_le_bytes());
        self.set_used_index(self.used.wrapping_add(1));
    }

    pub(crate) fn set_used_index(&mut self, index: u16) {
        self.used = index;
        let offset = self.layout.used + 2;
        self.memory.store_u16(offset, index, Ordering::Release);
    }

    /// Asks for a kick once the driver passes entry `index`, or, without EVENT_IDX, for none.
    pub(crate) fn set_avail_event(&self, index: u16) {
        let offset = self.layout.used + 4 + 8 * usize::from(self.layout.size);
        self.memory.store_u16(offset, index, Ordering::Release);
    }

    pub(crate) fn set_used_flags(&self, flags: u16) {
        self.memory
            .store_u16(self.layout.used, flags, Ordering::Release);
    }

    /// The entry at which the driver wants its next interrupt.
    pub(crate) fn used_event(&self) -> u16 {
        let offset = self.layout.available + 4 + 2 * usize::from(self.layout.size);
        self.memory.load_u16(offset, Ordering::Acquire)
    }

    pub(crate) fn interrupt(&self) {
        link::signal(&self.call).unwrap();
    }
}

/// A reply as it travels, whatever is in it.
pub(crate) fn message(unique: u64, error: i32, len: u32, body: &[u8]) -> Vec<u8> {
    let header = OutHeader { len, error, unique };
    [header.as_bytes(), body].concat()
}
