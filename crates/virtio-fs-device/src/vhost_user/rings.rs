use virtio_fs_config::EVENT_IDX;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::{Error, QueueSetup};

/// Checks that each ring is where a ring can be: a daemon has no way to refuse one but to end the
/// connection, and what the driver does wrong is not to cost the device its daemon.
///
/// # Errors
/// Says which is not.
pub(super) fn check<M: GuestMemoryBackend>(
    queues: &[QueueSetup],
    memory: &M,
    features: u64,
) -> Result<(), Error> {
    for queue in queues {
        for area in areas(queue, features & EVENT_IDX != 0) {
            let wrong = if !area.address.0.is_multiple_of(area.alignment) {
                "not aligned"
            } else if !memory.check_range(area.address, area.len) {
                "not in memory"
            } else {
                continue;
            };
            return Err(Error::Ring {
                index: queue.index,
                why: format!("its {} at {:#x} is {wrong}", area.name, area.address.0).into(),
            });
        }
    }
    Ok(())
}

/// A part of a ring.
struct Area {
    name: &'static str,
    address: GuestAddress,
    len: usize,
    alignment: u64,
}

/// The parts of a split virtqueue (virtio 1.x, section 2.7).
fn areas(queue: &QueueSetup, event_idx: bool) -> [Area; 3] {
    let ring = queue.ring;
    let size = usize::from(ring.size);
    // `flags` and `idx` before a ring, and the event behind it.
    let around: usize = if event_idx { 6 } else { 4 };
    [
        Area {
            name: "descriptor table",
            address: ring.descriptors,
            len: size.saturating_mul(16),
            alignment: 16,
        },
        Area {
            name: "available ring",
            address: ring.avail,
            len: size.saturating_mul(2).saturating_add(around),
            alignment: 2,
        },
        Area {
            name: "used ring",
            address: ring.used,
            len: size.saturating_mul(8).saturating_add(around),
            alignment: 4,
        },
    ]
}
