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

use super::layout;

const VENDOR: [u8; 6] = *b"EXAMPL";
const TABLE: [u8; 8] = *b"VMM     ";

/// The tables for `processors` processors, and a bus with `windows` of devices above the memory, as
/// they are at [`layout::ACPI_TABLES`].
pub(super) fn tables(windows: &Range<u64>, processors: u8) -> Vec<u8> {
    let mut bytes = vec![0; Rsdp::len()];
    let mut add = |table: &dyn Aml| {
        const ALIGNMENT: usize = 16;
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        let address = layout::ACPI_TABLES + bytes.len() as u64;
        table.to_aml_bytes(&mut bytes);
        address
    };
    let devices = add(&devices(windows));
    let mut all = XSDT::new(VENDOR, TABLE, 1);
    all.add_entry(add(&fixed(devices)));
    all.add_entry(add(&interrupts(processors)));
    let mut root = Vec::new();
    Rsdp::new(VENDOR, add(&all)).to_aml_bytes(&mut root);
    bytes.splice(..root.len(), root);
    bytes
}

/// The differentiated system description table.
fn devices(windows: &Range<u64>) -> Sdt {
    let name = |name, value: &dyn Aml| Name::new(Path::new(name), value);
    let range = |cacheable, start: u64, end: u64| {
        AddressSpace::new_memory(cacheable, true, start, end.saturating_sub(1), None)
    };
    let registers = u64::from(layout::PCI_WINDOW);
    let registers_end = registers + u64::from(layout::PCI_WINDOW_SIZE);
    let registers = range(
        AddressSpaceCacheable::NotCacheable,
        registers,
        registers_end,
    );
    let large = range(
        AddressSpaceCacheable::PreFetchable,
        windows.start,
        windows.end,
    );
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let ports = IO::new(layout::PCI_PORT, layout::PCI_PORT, 1, 8);
    let mut resources: Vec<&dyn Aml> = vec![&bus, &ports, &registers];
    if !windows.is_empty() {
        resources.push(&large);
    }
    let id = name("_HID", &EISAName::new("PNP0A03"));
    let resources = name("_CRS", &ResourceTemplate::new(resources));
    let bus = Device::new(Path::new("PCI0"), vec![&id, &resources]);

    let ports = IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8);
    let interrupt = Interrupt::new(true, true, false, false, layout::SERIAL_INTERRUPT);
    let id = name("_HID", &EISAName::new("PNP0501"));
    let resources = name("_CRS", &ResourceTemplate::new(vec![&ports, &interrupt]));
    let serial = Device::new(Path::new("COM1"), vec![&id, &resources]);

    let mut code = Vec::new();
    Scope::new(Path::new("_SB_"), vec![&bus, &serial]).to_aml_bytes(&mut code);
    name("_S5_", &Package::new(vec![&5_u8])).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 6, VENDOR, TABLE, 1);
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
