//! One virtual processor: how it begins, and what a snapshot has of it.

use anyhow::{Context as _, Result};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Error, Kvm, VcpuFd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::vm::Vm;
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
pub(super) fn new(kvm: &Kvm, vm: &Vm, id: u8) -> Result<VcpuFd> {
    let make = || {
        let processor = vm.fd.create_vcpu(id.into())?;
        let mut features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        describe(
            &mut features,
            id,
            kvm.check_extension(Cap::TscDeadlineTimer),
        );
        processor.set_cpuid2(&features)?;
        Ok::<_, Error>(processor)
    };
    make().context("KVM cannot make a processor")
}

/// The end of what processors can address of memory, in bytes.
pub(super) fn reach(kvm: &Kvm) -> Result<u64> {
    const SIZES_OF_ADDRESSES: u32 = 0x8000_0008;
    const FEWEST: u32 = 36;
    let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let features = features.context("KVM cannot tell what processors support")?;
    let mut leaves = features.as_slice().iter();
    let sizes = leaves.find(|leaf| leaf.function == SIZES_OF_ADDRESSES);
    let bits = sizes.map_or(FEWEST, |leaf| leaf.eax & 0xff);
    Ok(1_u64.checked_shl(bits).unwrap_or(u64::MAX))
}

/// Has the first processor begin at `entry`. The others wait for it to start them.
pub(super) fn begin(processor: &VcpuFd, entry: u64) -> Result<(), Error> {
    let mut special = processor.get_sregs()?;
    boot::set_long_mode(&mut special);
    processor.set_sregs(&special)?;
    processor.set_regs(&boot::registers(entry))
}

pub(super) fn state(kvm: &Kvm, processor: &VcpuFd) -> Result<ProcessorState, Error> {
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
}

pub(super) fn restore(vm: &Vm, processor: &VcpuFd, state: &ProcessorState) -> Result<(), Error> {
    processor.set_mp_state(state.activity)?;
    processor.set_regs(&state.general)?;
    processor.set_sregs(&state.special)?;
    sys::set_extended(&vm.fd, processor, &state.extended)?;
    processor.set_xcrs(&state.extended_control)?;
    processor.set_debug_regs(&state.debug)?;
    processor.set_lapic(&state.interrupts)?;
    // After the local APIC: one of them is its timer.
    for &register in &state.model_specific {
        processor.set_msrs(&one(register)?)?;
    }
    processor.set_vcpu_events(&state.events)
}

/// The model-specific registers that can be read.
fn model_specific(kvm: &Kvm, processor: &VcpuFd) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut readable = Vec::new();
    for &index in kvm.get_msr_index_list()?.as_slice() {
        let mut register = one(kvm_msr_entry {
            index,
            ..Default::default()
        })?;
        // One that this processor does not have after all is an error of its own.
        if let Ok(1) = processor.get_msrs(&mut register) {
            readable.extend_from_slice(register.as_slice());
        }
    }
    Ok(readable)
}

fn one(register: kvm_msr_entry) -> Result<Msrs, Error> {
    Msrs::from_entries(&[register]).map_err(|_| Error::new(Errno::TOOBIG.raw_os_error()))
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
