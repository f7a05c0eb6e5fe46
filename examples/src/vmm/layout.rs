//! Where things are in the guest's address space, below 4 GiB as on any PC, and above its memory.

/// First address of the hole in the memory, where devices are.
pub(super) const HOLE: u64 = 0xc000_0000;
/// Where memory that found no room below the hole goes on.
pub(super) const HIGH_MEMORY: u64 = 1 << 32;

/// Where DAX windows may begin: above all of `memory_size` bytes of memory, and apart from its last
/// section (`SECTION_SIZE_BITS` of Linux, which has memory come and go in those).
pub(super) const fn windows(memory_size: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    (HIGH_MEMORY + memory_size.saturating_sub(HOLE)).next_multiple_of(GIB)
}

/// The registers of the PCI functions, one after the other.
pub(super) const PCI_WINDOW: u32 = 0xc000_0000;
pub(super) const PCI_WINDOW_SIZE: u32 = 0x0100_0000;
/// `IO_APIC_DEFAULT_PHYS_BASE` and `APIC_DEFAULT_PHYS_BASE` of Linux, where KVM has them.
pub(super) const IO_APIC: u32 = 0xfec0_0000;
pub(super) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM wants for itself on Intel's processors.
pub(super) const TASK_STATE: usize = 0xfffb_d000;

/// What the boot protocol of Linux hands over, all in the first 640 KiB.
pub(super) const DESCRIPTOR_TABLE: u64 = 0x500;
pub(super) const ZERO_PAGE: u64 = 0x7000;
pub(super) const STACK: u64 = 0x8ff0;
pub(super) const PAGE_TABLES: u64 = 0x9000;
pub(super) const COMMAND_LINE: u64 = 0x2_0000;
pub(super) const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Tables of the firmware, in what is not told to be memory.
pub(super) const ACPI_TABLES: u64 = 0xe_0000;
/// Where a processor of 1978 begins.
pub(super) const RESET_VECTOR: u64 = 0xf_fff0;
pub(super) const KERNEL: u64 = 0x10_0000;

pub(super) const SERIAL_PORT: u16 = 0x3f8;
pub(super) const SERIAL_PORT_END: u16 = SERIAL_PORT + 8;
pub(super) const SERIAL_INTERRUPT: u32 = 4;
pub(super) const SLEEP_PORT: u16 = 0x600;
pub(super) const RESET_PORT: u16 = 0x602;
/// What is written there to power off: sleep type 5 with the bit that enables it (ACPI 6.5, 4.8.3.7).
pub(super) const POWER_OFF: u8 = 5 << 2 | 1 << 5;
pub(super) const PCI_PORT: u16 = 0xcf8;
pub(super) const PCI_PORT_END: u16 = PCI_PORT + 8;
