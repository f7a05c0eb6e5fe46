//! Memory that comes and goes while queues are served from it.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vmm_sys_util::eventfd::EventFd;

fn start() -> (Arc<Quiet>, Running) {
    let filesystem = Arc::new(Quiet::default());
    let running = Running::start(config(Arc::clone(&filesystem) as _));
    (filesystem, running)
}

/// The guest's memory; and memory that it has no use for, in the same file.
fn own_and_spare(guest: &Guest) -> [VhostUserMemoryRegionInfo; 2] {
    let own = guest.region();
    let spare = VhostUserMemoryRegionInfo {
        guest_phys_addr: LEN,
        userspace_addr: USER + LEN,
        ..own
    };
    [own, spare]
}

fn serve_by_slots(running: &Running, guest: &Guest) -> Frontend {
    let mut frontend = running.negotiate();
    let [own, spare] = own_and_spare(guest);
    frontend.add_mem_region(&spare).unwrap();
    frontend.add_mem_region(&own).unwrap();
    guest.set_up(&mut frontend, 1, 0);
    guest.ask();
    frontend
}

#[test]
fn a_queue_goes_on_when_its_memory_is_there_again() {
    let (filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = serve_by_slots(&running, &guest);
    let broken = EventFd::new(nonblock()).unwrap();
    frontend.set_vring_err(1, &broken).unwrap();
    let [own, spare] = own_and_spare(&guest);
    for round in 1..=20 {
        frontend.remove_mem_region(&own).unwrap();
        // Nobody sees that, not even when memory changes that is not the ring's.
        let next = guest.ask_for_interrupt();
        guest.offer();
        frontend.remove_mem_region(&spare).unwrap();
        frontend.add_mem_region(&spare).unwrap();
        assert_eq!(guest.used_idx(), 2 * round - 1);
        frontend.add_mem_region(&own).unwrap();
        guest.wait_beyond(next);
        guest.ask();
        assert_eq!(guest.used_idx(), 2 * round + 1);
    }
    broken.read().unwrap_err();
    assert_eq!(filesystem.resets.load(Ordering::SeqCst), 0);
    assert_eq!(frontend.get_vring_base(1).unwrap(), 41);
}

#[test]
fn a_queue_goes_on_when_another_table_has_its_memory_again() {
    let (_filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = running.negotiate();
    let [own, spare] = own_and_spare(&guest);
    guest.give_memory(&frontend);
    guest.set_up(&mut frontend, 1, 0);
    for _ in 0..20 {
        guest.ask();
        frontend.set_mem_table(&[spare]).unwrap();
        let next = guest.ask_for_interrupt();
        guest.offer();
        frontend.set_mem_table(&[own, spare]).unwrap();
        guest.wait_beyond(next);
    }
}

#[test]
fn where_a_queue_is_can_be_asked_and_said_while_its_memory_is_gone() {
    let (_filesystem, running) = start();
    let guest = Guest::new();
    let mut frontend = serve_by_slots(&running, &guest);
    let [own, _] = own_and_spare(&guest);
    frontend.remove_mem_region(&own).unwrap();
    assert_eq!(frontend.get_vring_base(1).unwrap(), 1);
    // Without a kick it is not served; nor before it is enabled.
    frontend.add_mem_region(&own).unwrap();
    guest.offer();
    guest.set_up(&mut frontend, 1, 1);
    guest.wait_beyond(1);
    frontend.remove_mem_region(&own).unwrap();
    frontend.set_vring_enable(1, false).unwrap();
    frontend.add_mem_region(&own).unwrap();
    guest.offer();
    assert_eq!(frontend.get_vring_base(1).unwrap(), 2);
    assert_eq!(guest.used_idx(), 2);
}

/// `EFD_NONBLOCK`.
fn nonblock() -> i32 {
    rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed()
}
