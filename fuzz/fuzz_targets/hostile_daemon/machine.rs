//! What a VMM has of a guest.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, LazyLock, Mutex};

use rustix::fs::{MemfdFlags, SealFlags};
use virtio_fs_device::{
    Activation, Event, FileMapping, Interrupt, QueueSetup, RingAddresses, WindowMapper,
};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::MEMORY;

pub(crate) type Memory = Arc<GuestMemoryMmap>;

/// The guest's memory, with and without a part that is plugged.
pub(crate) static MEMORIES: LazyLock<[Memory; 2]> = LazyLock::new(|| {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(c"guest", flags).unwrap());
    file.set_len(2 * MEMORY).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    let file = Arc::new(file);
    [1, 2].map(|regions| {
        let region = |number: u64| {
            let file = FileOffset::from_arc(Arc::clone(&file), number * MEMORY);
            let map = MmapRegion::from_file(file, MEMORY as usize).unwrap();
            GuestRegionMmap::new(map, GuestAddress(number * 2 * MEMORY)).unwrap()
        };
        Arc::new(GuestMemoryMmap::from_regions((0..regions).map(region).collect()).unwrap())
    })
});

/// How to interrupt it, by events or by calls.
pub(crate) struct Interrupts {
    pub(crate) direct: bool,
}

impl Interrupt for Interrupts {
    fn signal_queue(&self, _index: u16) {}

    fn signal_needs_reset(&self) {}

    fn queue_event(&self, _index: u16) -> Option<Event> {
        self.direct.then(|| Event::new().unwrap())
    }
}

pub(crate) fn queue(index: u16) -> QueueSetup {
    let at = u64::from(index) * 0x1000;
    QueueSetup {
        index,
        ring: RingAddresses {
            size: 16,
            descriptors: GuestAddress(at),
            avail: GuestAddress(at + 0x400),
            used: GuestAddress(at + 0x800),
        },
        kick: Event::new().unwrap(),
    }
}

pub(crate) fn activation(queues: u16, direct: bool) -> Activation<Memory> {
    Activation {
        memory: Arc::clone(&MEMORIES[0]),
        queues: (0..queues).map(queue).collect(),
        interrupt: Arc::new(Interrupts { direct }),
    }
}

/// A window that nothing is ever mapped into, and that notices what could not be.
#[derive(Default)]
pub(crate) struct Mapped(Mutex<BTreeMap<u64, u64>>);

impl Mapped {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl WindowMapper for Mapped {
    fn map(&self, mapping: FileMapping<'_>) -> std::io::Result<()> {
        let FileMapping { offset, len, .. } = mapping;
        let mut mapped = self.0.lock().unwrap();
        let before = mapped.range(..offset + len).next_back();
        assert!(before.is_none_or(|(at, len)| at + len <= offset));
        assert!(offset + len <= crate::WINDOW);
        mapped.insert(offset, len);
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> std::io::Result<()> {
        assert_eq!(self.0.lock().unwrap().remove(&offset), Some(len));
        Ok(())
    }
}
