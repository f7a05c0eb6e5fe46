//! One virtual processor: how it begins, and what a snapshot has of it.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Error, Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

use super::vm::{Refused, Vm, refused, too_many};
use super::{boot, sys};

/// What a snapshot has of a processor.
#[derive(Serialize, Deserialize)]
pub(super) struct ProcessorState {
    activity: kvm_mp_state,
    general: kvm_regs,
    special: kvm_sregs,
    extended: kvm_xsave,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    interrupts: kvm_lapic_state,
    model_specific: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// Makes the processor `id`, with all that this host's have.
pub(super) fn new(kvm: &Kvm, vm: &Vm, id: u8) -> Result<VcpuFd, Refused> {
    let processor = vm.fd.create_vcpu(id.into());
    let processor = processor.map_err(refused("make a processor"))?;
    let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let mut features = features.map_err(refused("tell what it supports"))?;
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    describe(&mut features, id, deadline);
    let set = processor.set_cpuid2(&features);
    set.map_err(refused("give a processor its features"))?;
    Ok(processor)
}

/// The end of what processors can address of memory, in bytes.
pub(super) fn reach(kvm: &Kvm) -> Result<u64, Refused> {
    const SIZES_OF_ADDRESSES: u32 = 0x8000_0008;
    const FEWEST: u32 = 36;
    let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let features = features.map_err(refused("tell what it supports"))?;
    let sizes = features.as_slice().iter();
    let mut sizes = sizes.filter(|leaf| leaf.function == SIZES_OF_ADDRESSES);
    let bits = sizes.next().map_or(FEWEST, |leaf| leaf.eax & 0xff);
    Ok(1_u64.checked_shl(bits).unwrap_or(u64::MAX))
}

/// Has the first processor begin at `entry`. The others wait for it to start them.
pub(super) fn begin(processor: &VcpuFd, entry: u64) -> Result<(), Refused> {
    let set = || {
        let mut special = processor.get_sregs()?;
        boot::set_long_mode(&mut special);
        processor.set_sregs(&special)?;
        processor.set_regs(&boot::registers(entry))
    };
    set().map_err(refused("set a processor's registers"))
}

pub(super) fn state(kvm: &Kvm, processor: &VcpuFd) -> Result<ProcessorState, Refused> {
    let state = || {
        Ok(ProcessorState {
            // First: it has KVM finish what is pending.
            activity: processor.get_mp_state()?,
            general: processor.get_regs()?,
            special: processor.get_sregs()?,
            extended: processor.get_xsave()?,
            extended_control: processor.get_xcrs()?,
            debug: processor.get_debug_regs()?,
            interrupts: processor.get_lapic()?,
            model_specific: model_specific(kvm, processor)?,
            events: processor.get_vcpu_events()?,
        })
    };
    state().map_err(refused("tell the state of a processor"))
}

pub(super) fn restore(vm: &Vm, processor: &VcpuFd, state: &ProcessorState) -> Result<(), Refused> {
    let restore = || {
        processor.set_mp_state(state.activity)?;
        processor.set_regs(&state.general)?;
        processor.set_sregs(&state.special)?;
        sys::set_extended(&vm.fd, processor, &state.extended)?;
        processor.set_xcrs(&state.extended_control)?;
        processor.set_debug_regs(&state.debug)?;
        processor.set_lapic(&state.interrupts)?;
        // After the local APIC: one of them is its timer.
        for &register in &state.model_specific {
            let register = Msrs::from_entries(&[register]).map_err(|_| too_many())?;
            processor.set_msrs(&register)?;
        }
        processor.set_vcpu_events(&state.events)
    };
    restore().map_err(refused("restore a processor"))
}

/// The model-specific registers that can be read.
fn model_specific(kvm: &Kvm, processor: &VcpuFd) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut readable = Vec::new();
    for &index in kvm.get_msr_index_list()?.as_slice() {
        let register = kvm_msr_entry {
            index,
            ..Default::default()
        };
        let mut register = Msrs::from_entries(&[register]).map_err(|_| too_many())?;
        // One that this processor does not have after all is an error of its own.
        if processor
            .get_msrs(&mut register)
            .is_ok_and(|count| count == 1)
        {
            readable.extend_from_slice(register.as_slice());
        }
    }
    Ok(readable)
}

/// Says in `features` what differs between processors, and that they are virtual.
fn describe(features: &mut CpuId, id: u8, deadline_timer: bool) {
    const HYPERVISOR: u32 = 1 << 31;
    const DEADLINE_TIMER: u32 = 1 << 24;
    for leaf in features.as_mut_slice() {
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0x00ff_ffff | u32::from(id) << 24;
                leaf.ecx |= HYPERVISOR | if deadline_timer { DEADLINE_TIMER } else { 0 };
            }
            // The topology, by Intel and by AMD.
            0xb | 0x1f => leaf.edx = id.into(),
            0x8000_001e => leaf.eax = id.into(),
            _ => {}
        }
    }
}
