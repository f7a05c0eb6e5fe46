//! What the firmware tells the kernel (ACPI 6.5): its processors, the PCI bus, the serial port, and
//! how to power off and reset. It is the model of "reduced hardware": nothing else is there.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap, GuestMemoryResult};

use super::layout;

const VENDOR: [u8; 6] = *b"EXAMPL";
const TABLE: [u8; 8] = *b"VMM     ";

/// Writes the tables for `processors` processors, and a bus with `windows` of devices above the
/// memory, to where the kernel is told to look.
pub(super) fn write(
    memory: &GuestMemoryMmap,
    windows: &Range<u64>,
    processors: u8,
) -> GuestMemoryResult<()> {
    let mut tables = Tables {
        memory,
        next: layout::ACPI_TABLES + Rsdp::len() as u64,
    };
    let devices = tables.add(&devices(windows))?;
    let fixed = tables.add(&fixed(devices))?;
    let interrupts = tables.add(&interrupts(processors))?;
    let mut all = XSDT::new(VENDOR, TABLE, 1);
    all.add_entry(fixed);
    all.add_entry(interrupts);
    let all = tables.add(&all)?;
    tables.next = layout::ACPI_TABLES;
    tables.add(&Rsdp::new(VENDOR, all)).map(drop)
}

struct Tables<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Tables<'_> {
    /// Returns its address.
    fn add(&mut self, table: &dyn Aml) -> GuestMemoryResult<u64> {
        const ALIGNMENT: u64 = 16;
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let address = self.next.next_multiple_of(ALIGNMENT);
        self.memory.write_slice(&bytes, GuestAddress(address))?;
        self.next = address + bytes.len() as u64;
        Ok(address)
    }
}

/// The differentiated system description table.
fn devices(windows: &Range<u64>) -> Sdt {
    let last = layout::PCI_WINDOW + (layout::PCI_WINDOW_SIZE - 1);
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let registers = AddressSpace::new_memory(cacheable, true, layout::PCI_WINDOW, last, None);
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let ports = IO::new(layout::PCI_ADDRESS_PORT, layout::PCI_ADDRESS_PORT, 1, 8);
    let bus_id = Name::new(Path::new("_HID"), &EISAName::new("PNP0A03"));
    let mut bus_resources: Vec<&dyn Aml> = vec![&bus, &ports, &registers];
    let prefetchable = AddressSpaceCacheable::PreFetchable;
    let last = windows.end.saturating_sub(1);
    let large = AddressSpace::new_memory(prefetchable, true, windows.start, last, None);
    if !windows.is_empty() {
        bus_resources.push(&large);
    }
    let bus_resources = ResourceTemplate::new(bus_resources);
    let bus_resources = Name::new(Path::new("_CRS"), &bus_resources);
    let bus = Device::new(Path::new("PCI0"), vec![&bus_id, &bus_resources]);

    let ports = IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8);
    let interrupt = Interrupt::new(true, true, false, false, layout::SERIAL_INTERRUPT);
    let serial_id = Name::new(Path::new("_HID"), &EISAName::new("PNP0501"));
    let serial_resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let serial_resources = Name::new(Path::new("_CRS"), &serial_resources);
    let serial = Device::new(Path::new("COM1"), vec![&serial_id, &serial_resources]);

    let power_off = Name::new(Path::new("_S5_"), &Package::new(vec![&5_u8]));
    let mut table = Sdt::new(*b"DSDT", 36, 6, VENDOR, TABLE, 1);
    let mut code = Vec::new();
    Scope::new(Path::new("_SB_"), vec![&bus, &serial]).to_aml_bytes(&mut code);
    power_off.to_aml_bytes(&mut code);
    table.append_slice(&code);
    table
}

/// The fixed description table.
fn fixed(devices: u64) -> impl Aml {
    const NO_VGA_AND_NO_CMOS_CLOCK: u16 = 1 << 2 | 1 << 5;
    let port = |port: u16| GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut table = FADTBuilder::new(VENDOR, TABLE, 1)
        .dsdt_64(devices)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup);
    table.iapc_boot_arch = NO_VGA_AND_NO_CMOS_CLOCK.into();
    table.reset_reg = port(layout::RESET_PORT);
    table.sleep_control_reg = port(layout::SLEEP_PORT);
    table.sleep_status_reg = port(layout::SLEEP_PORT + 1);
    table.finalize()
}

/// The multiple APIC description table.
fn interrupts(processors: u8) -> impl Aml {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut table = MADT::new(VENDOR, TABLE, 1, controller);
    for id in 0..processors {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(processors, layout::IO_APIC, 0));
    table
}
