//! What a VMM sees of its guest's memory.

use virtio_fs_device::RingAddresses;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::support::Machine;

const PAGE: usize = 4096;

/// Where the queues are, hiprio first.
pub(crate) fn rings(machine: &Machine) -> Vec<RingAddresses> {
    let queues = machine.activation().queues;
    queues.into_iter().map(|queue| queue.ring).collect()
}

/// How much was given back on each queue.
pub(crate) fn used_indexes(machine: &Machine) -> Vec<u16> {
    let index = |ring: RingAddresses| {
        let at = GuestAddress(ring.used.0 + 2);
        machine.memory.read_obj::<u16>(at).unwrap()
    };
    rings(machine).into_iter().map(index).collect()
}

/// The addresses of the pages that hold a page of `data`.
pub(crate) fn pages_like(machine: &Machine, data: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let mut page = [0; PAGE];
    for region in machine.memory.iter() {
        let start = region.start_addr().0;
        for at in (start..start + region.len()).step_by(PAGE) {
            machine
                .memory
                .read_slice(&mut page, GuestAddress(at))
                .unwrap();
            if data.chunks(PAGE).any(|part| *part == page) {
                found.push(at);
            }
        }
    }
    found
}
