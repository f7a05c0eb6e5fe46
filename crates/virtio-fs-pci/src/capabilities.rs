//! What the configuration space says of a virtio-fs device (virtio 1.2, section 4.1.4), and what lies
//! where in its memory.

use virtio_fs_config::{CONFIG_LEN, DEVICE_ID};

use crate::WindowMemory;
use crate::bytes;
use crate::config_space::{ConfigSpace, Identity, LARGE_MEMORY};
use crate::{msix, registers};

/// Bytes of the function's memory.
pub(crate) const MEMORY_LEN: u32 = 0x4000;
/// What lies where in it.
pub(crate) const COMMON: usize = 0x0000;
pub(crate) const INTERRUPT_STATUS: usize = 0x0800;
pub(crate) const DEVICE: usize = 0x0c00;
pub(crate) const VECTORS: usize = 0x1000;
pub(crate) const PENDING: usize = 0x2800;
pub(crate) const NOTIFY: usize = 0x3000;
/// Bytes from one queue's notification address to the next one's.
pub(crate) const NOTIFY_STRIDE: usize = 4;

const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;
/// Length of `virtio_pci_cap`.
const HEADER_LEN: usize = 16;

/// A configuration space, and where in it the capabilities are that the guest writes to.
pub(crate) struct Described {
    pub(crate) space: ConfigSpace,
    msix: usize,
    access: usize,
}

/// What the guest asks for by `virtio_pci_cfg_cap`: an access to the function's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Described {
    /// That of a device with its memory at `address`, with so many vectors, and a window and where it
    /// is.
    pub(crate) fn new(address: u32, vectors: u16, window: Option<(WindowMemory, u64)>) -> Self {
        const VENDOR: u16 = 0x1af4;
        /// The ids of devices as virtio 1 has them begin here.
        const FIRST_DEVICE: u16 = 0x1040;
        /// Mass storage, of another kind than those that have numbers.
        const CLASS: u16 = 0x0180;
        let mut space = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE | DEVICE_ID as u16,
            revision: 1,
            class: CLASS,
        });
        space.add_memory(address, MEMORY_LEN);
        let last = vectors.saturating_sub(1).to_le_bytes();
        let [table, pending] = [VECTORS, PENDING].map(offset_bytes);
        let msix = space.add_capability(MSIX, &[&last[..], &table, &pending].concat());
        let writable = (msix::ENABLED | msix::ALL_MASKED).to_le_bytes();
        space.allow(msix.saturating_add(2), &writable);
        let stride = offset_bytes(NOTIFY_STRIDE);
        let notify_len = (MEMORY_LEN as usize).saturating_sub(NOTIFY);
        for (kind, offset, len, more) in [
            (1, COMMON, registers::LEN, &[][..]),
            (2, NOTIFY, notify_len, &stride),
            (3, INTERRUPT_STATUS, 1, &[]),
            (4, DEVICE, CONFIG_LEN, &[]),
        ] {
            add_virtio(&mut space, [kind, 0], [offset, len].map(offset_bytes), more);
        }
        if let Some((window, address)) = window {
            add_window(&mut space, window, address);
        }
        let access = add_access(&mut space);
        Self {
            space,
            msix,
            access,
        }
    }

    /// The message control word, as the guest has it.
    pub(crate) fn msix_control(&self) -> u16 {
        (self.space.u32_at(self.msix) >> 16) as u16
    }

    /// What is accessed in the function's memory by an access to the configuration space at `offset`.
    pub(crate) fn access_at(&self, offset: usize) -> Option<Access> {
        let field = |at: usize| self.space.u32_at(self.access.saturating_add(at));
        let [memory, ..] = field(4).to_le_bytes();
        let [offset_there, len] = [8, 12].map(|at| field(at) as usize);
        let data = self.access.saturating_add(HEADER_LEN);
        let valid = matches!(len, 1 | 2 | 4) && offset_there & len.saturating_sub(1) == 0;
        (offset == data && memory == 0 && valid).then_some(Access {
            offset: offset_there,
            len,
        })
    }
}

/// Has the guest reach the function's memory by way of the configuration space, as firmware does:
/// `virtio_pci_cfg_cap`. Returns its offset.
fn add_access(space: &mut ConfigSpace) -> usize {
    const ACCESS: u8 = 5;
    let at = add_virtio(space, [ACCESS, 0], [[0; 4]; 2], &[0; 4]);
    space.allow(at.saturating_add(4), &[0xff]);
    space.allow(at.saturating_add(8), &[0xff; 8]);
    at
}

/// Says where the DAX window is: `virtio_pci_cap64`. It is the shared memory region 0.
fn add_window(space: &mut ConfigSpace, window: WindowMemory, address: u64) {
    const SHARED_MEMORY: u8 = 8;
    space.add_large_memory(address, window.len_on_bus());
    let [low, high] = bytes::halves(window.size()).map(u32::to_le_bytes);
    let nothing = [0; 4];
    let more = [nothing, high].concat();
    add_virtio(space, [SHARED_MEMORY, LARGE_MEMORY], [nothing, low], &more);
}

/// Says in which memory, and where in it, what is of a kind: `virtio_pci_cap`, and what follows it.
fn add_virtio(
    space: &mut ConfigSpace,
    [kind, memory]: [u8; 2],
    [offset, len]: [[u8; 4]; 2],
    more: &[u8],
) -> usize {
    let total = HEADER_LEN.saturating_add(more.len());
    let total = u8::try_from(total).unwrap_or(u8::MAX);
    // The first, or the only one, of its kind.
    let id = 0;
    let head = [total, kind, memory, id, 0, 0];
    let body = [&head[..], &offset, &len, more].concat();
    space.add_capability(VENDOR_SPECIFIC, &body)
}

fn offset_bytes(offset: usize) -> [u8; 4] {
    u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capabilities as a driver finds them: offset, id, and 24 bytes from there on.
    fn found(space: &ConfigSpace) -> Vec<(usize, u8, [u8; 24])> {
        let mut found = Vec::new();
        let mut next = space.u32_at(0x34) as u8;
        while next != 0 {
            let mut bytes = [0; 24];
            space.read(next.into(), &mut bytes);
            found.push((next.into(), bytes[0], bytes));
            next = bytes[1];
        }
        found
    }

    #[test]
    fn driver_finds_each_part_once() {
        let window = WindowMemory::new(6 << 20).unwrap();
        let described = Described::new(0xc000_0000, 3, Some((window, 1 << 32)));
        let all = found(&described.space);
        let kinds: Vec<_> = all.iter().map(|(_, id, bytes)| (*id, bytes[3])).collect();
        let expected = [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4), (9, 8), (9, 5)];
        assert_eq!(kinds, expected);
        let (_, _, msix) = &all[0];
        assert_eq!(msix[2..4], [2, 0]);
        let (_, _, shared) = &all[5];
        assert_eq!(shared[2..8], [24, 8, 2, 0, 0, 0]);
        assert_eq!(shared[8..12], [0; 4]);
        assert_eq!(shared[12..16], (6_u32 << 20).to_le_bytes());
        assert_eq!(shared[16..24], [0; 8]);
        let ends = all.iter().map(|(at, _, bytes)| at + usize::from(bytes[2]));
        assert!(ends.max().unwrap() <= crate::config_space::LEN);
    }

    /// No two parts share a byte, with as many queues as a device can have.
    #[test]
    fn parts_lie_apart() {
        let most_queues = usize::from(virtio_fs_device::MAX_REQUEST_QUEUES) + 1;
        let vectors = most_queues + 1;
        let parts = [
            (COMMON, registers::LEN),
            (INTERRUPT_STATUS, 1),
            (DEVICE, CONFIG_LEN),
            (VECTORS, vectors * 16),
            (PENDING, vectors.div_ceil(64) * 8),
            (NOTIFY, most_queues * NOTIFY_STRIDE),
            (MEMORY_LEN as usize, 0),
        ];
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn only_sound_accesses_go_to_the_memory() {
        let mut described = Described::new(0, 2, None);
        let at = described.access;
        let data = at + HEADER_LEN;
        assert_eq!(described.access_at(data), None);
        let mut set = |memory: u8, offset: u32, len: u32| {
            described.space.write(at + 4, &[memory]);
            described.space.write(at + 8, &offset.to_le_bytes());
            described.space.write(at + 12, &len.to_le_bytes());
            described.access_at(data)
        };
        let access = |offset, len| Some(Access { offset, len });
        assert_eq!(set(0, 0x14, 1), access(0x14, 1));
        assert_eq!(set(0, 0x3004, 4), access(0x3004, 4));
        assert_eq!(set(0, 0xffff_fffc, 4), access(0xffff_fffc, 4));
        for (memory, offset, len) in [(0, 0, 0), (0, 0, 3), (0, 0, 8), (0, 2, 4), (2, 0, 4)] {
            assert_eq!(set(memory, offset, len), None);
        }
        set(0, 0, 4);
        assert_eq!(described.access_at(data + 1), None);
        assert_eq!(described.access_at(usize::MAX), None);
    }
}
