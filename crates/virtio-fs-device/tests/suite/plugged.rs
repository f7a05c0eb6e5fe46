//! Memory that is plugged and unplugged.

use std::sync::Arc;

use virtio_fs_guest::{Descriptor, Mount};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::support::{LONG, Memory};

/// Where nothing else is.
const PLUGGED: u64 = 1 << 40;
const SIZE: usize = 0x10000;

/// A guest's memory, and more.
pub(crate) struct Plugged {
    pub(crate) memory: Memory,
}

impl Plugged {
    /// `memory` and a region, in a file where it has to be shared.
    pub(crate) fn new(shared: bool, memory: &GuestMemoryMmap) -> Self {
        let memory = memory.insert_region(region(shared)).unwrap();
        Self {
            memory: Arc::new(memory),
        }
    }

    /// Where the region is.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        PLUGGED..PLUGGED + SIZE as u64
    }

    /// That region, and nothing else.
    pub(crate) fn alone(shared: bool) -> Memory {
        Arc::new(GuestMemoryMmap::from_arc_regions(vec![region(shared)]).unwrap())
    }

    /// Asks for the attributes of the root directory by a request that lies in the region, and
    /// returns how long the reply is.
    pub(crate) fn ask(&self, mount: &mut Mount) -> u32 {
        const GETATTR: u32 = 3;
        let mut request = Vec::new();
        for word in [56, GETATTR, 7, 0, 1, 0, 0, 0, 0, 0] {
            request.extend(u32::to_le_bytes(word));
        }
        request.resize(56, 0);
        let at = GuestAddress(PLUGGED + 0x100);
        self.memory.write_slice(&request, at).unwrap();
        let descriptor = |offset: u64, len: u32, flags| Descriptor {
            address: PLUGGED + offset,
            len,
            flags,
            next: 0,
        };
        let chain = [
            descriptor(0x100, 56, 0),
            descriptor(0x1000, 16 + 104, Descriptor::WRITE),
        ];
        let mut queue = mount.connection().request_queues()[0].raw();
        let head = queue.post(&chain).unwrap();
        let used = queue.wait(LONG).unwrap().unwrap();
        assert_eq!(used.id, u32::from(head));
        let mut reply = [0u8; 16];
        let out = GuestAddress(PLUGGED + 0x1000);
        self.memory.read_slice(&mut reply, out).unwrap();
        if used.len > 0 {
            assert_eq!(reply[..8], [120, 0, 0, 0, 0, 0, 0, 0]);
        }
        used.len
    }
}

fn region(shared: bool) -> Arc<GuestRegionMmap> {
    let mapping = match shared {
        false => MmapRegion::new(SIZE).unwrap(),
        true => {
            let file = tempfile::tempfile().unwrap();
            file.set_len(SIZE as u64).unwrap();
            MmapRegion::from_file(FileOffset::new(file, 0), SIZE).unwrap()
        }
    };
    Arc::new(GuestRegionMmap::new(mapping, GuestAddress(PLUGGED)).unwrap())
}
