//! How often the guest's memory map is searched for an address.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use virtio_fs_queue::{Drained, Pool};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestRegionMmap};

/// Memory that counts how often a region is looked for.
struct Counting {
    memory: Memory,
    searches: AtomicUsize,
}

impl GuestMemoryBackend for Counting {
    type R = GuestRegionMmap;

    fn find_region(&self, address: GuestAddress) -> Option<&Self::R> {
        self.searches.fetch_add(1, Ordering::Relaxed);
        self.memory.find_region(address)
    }

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.memory.iter()
    }
}

/// Serves what is available, and returns how many searches that took.
fn drain(rig: &mut Rig<Arc<Counting>>, chains: usize) -> usize {
    let space = Arc::clone(&rig.space);
    let before = space.searches.load(Ordering::Relaxed);
    assert_eq!(rig.queue.drain(), Drained::Idle);
    let searches = space.searches.load(Ordering::Relaxed) - before;
    assert_eq!(rig.used().len(), chains);
    searches
}

#[test]
fn a_descriptor_takes_one_search_at_most_and_a_drain_one_for_each_part_of_its_ring() {
    const CHAINS: u16 = 4;
    const BUFFERS: usize = 6;
    const RING: usize = 3;
    let space = Arc::new(Counting {
        memory: memory(),
        searches: AtomicUsize::new(0),
    });
    let mut rig = Rig::new(space, config(64), Echo, Pool::new(0));
    let sent = request(1, &[7; 5000]);
    rig.put(REQUEST, &sent);
    for _ in 0..3 {
        for chain in 0..CHAINS {
            // Each buffer is in another region than the one before.
            let reply = REPLY + 0x4000 * u64::from(chain);
            let request_rest = BORDER + 0x1000;
            rig.put(request_rest, &sent[100..200]);
            let buffers: [_; BUFFERS] = [
                readable(REQUEST, 100),
                readable(request_rest, 100),
                readable(REQUEST + 200, sent.len() - 200),
                writable(BORDER + 0x8000 + 0x1000 * u64::from(chain), 0x400),
                writable(reply, 0x400),
                writable(BORDER + 0x2_0000 + 0x1000 * u64::from(chain), 0x1000),
            ];
            rig.offer_chain(chain * BUFFERS as u16, &buffers);
        }
        let searches = drain(&mut rig, CHAINS.into());
        let most = RING + usize::from(CHAINS) * BUFFERS;
        assert!(searches <= most, "{searches}");
    }
    // Where all buffers are in one region it is one for the whole chain.
    for chain in 0..CHAINS {
        let reply = REPLY + 0x4000 * u64::from(chain);
        let buffers: [_; BUFFERS] = [
            readable(REQUEST, 100),
            readable(REQUEST + 100, 100),
            readable(REQUEST + 200, 100),
            writable(reply, 0x400),
            writable(reply + 0x1000, 0x400),
            writable(reply + 0x2000, 0x400),
        ];
        rig.offer_chain(chain * BUFFERS as u16, &buffers);
    }
    let searches = drain(&mut rig, CHAINS.into());
    assert!(searches <= RING + usize::from(CHAINS), "{searches}");
}
