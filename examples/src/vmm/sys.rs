//! What hands memory to KVM.

#![allow(unsafe_code)]

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Cap, Error, VcpuFd, VmFd};
use rustix::io::Errno;
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

use super::fs::Window;

/// How many slots of KVM's the guest's memory has at most. Others have numbers from here on.
pub(super) const MEMORY_SLOTS: u32 = 2;

/// Gives the guest all of `memory`.
///
/// # Errors
/// Those of `KVM_SET_USER_MEMORY_REGION`.
pub(super) fn set_memory(vm: &VmFd, memory: &'static GuestMemoryMmap) -> Result<(), Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the address and the size are those of a mapping that lasts as long as the process,
        // because `memory` does, and that nobody holds Rust references into: `GuestMemoryMmap` hands
        // out volatile accesses only.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}

/// Gives the guest `window` at `address`, or takes away what it has by the slot.
///
/// # Errors
/// Those of `KVM_SET_USER_MEMORY_REGION`.
pub(super) fn set_window(
    vm: &VmFd,
    slot: u32,
    window: Window,
    address: Option<u64>,
) -> Result<(), Error> {
    let size = window.memory.size().min(window.reserved.size());
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: address.unwrap_or(0),
        // Without a size the slot is removed.
        memory_size: address.map_or(0, |_| size),
        userspace_addr: window.reserved.address() as u64,
    };
    // SAFETY: the address and the size are within address space that is reserved for as long as the
    // process, because `reserved` is never dropped, and in which there is no object of Rust's.
    unsafe { vm.set_user_memory_region(region) }
}

/// Restores the floating point registers and the like of a processor of `vm`.
///
/// # Errors
/// Those of `KVM_SET_XSAVE`; E2BIG where processors have more of them than `registers` can hold.
pub(super) fn set_extended(
    vm: &VmFd,
    processor: &VcpuFd,
    registers: &kvm_xsave,
) -> Result<(), Error> {
    let needed = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
    if needed > size_of_val(registers) {
        return Err(Error::new(Errno::TOOBIG.raw_os_error()));
    }
    // SAFETY: the kernel reads as many bytes as the capability says, which is 0 where it knows
    // nothing beyond `kvm_xsave`, and they are there.
    unsafe { processor.set_xsave(registers) }
}
