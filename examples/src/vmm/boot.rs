//! What the 64-bit boot protocol of Linux asks for (`Documentation/arch/x86/boot.rst`).

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, Cmdline, Elf, KernelLoader as _, load_cmdline};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::machine::Design;
use super::memory::Memory;
use super::{acpi, layout};

/// Longest command line (`COMMAND_LINE_SIZE` of Linux on x86).
const COMMAND_LINE_LEN: usize = 2048;

/// Puts the kernel of `design` into `memory`, with what it is to know; of that, where `windows` of
/// devices can be. Returns where its first processor begins.
pub(super) fn load(memory: &Memory, windows: &Range<u64>, design: &Design) -> Result<u64> {
    let (entry, mut header) = load_kernel(&memory.mapped, &design.kernel)?;
    let line = Cmdline::try_from(&design.command_line, COMMAND_LINE_LEN);
    let line = line.context("the kernel's command line, with what --cmdline says")?;
    header.type_of_loader = 0xff;
    header.cmd_line_ptr = u32::try_from(layout::COMMAND_LINE)?;
    header.cmdline_size = u32::try_from(design.command_line.len())?;
    let tell = || -> Result<()> {
        let memory = &memory.mapped;
        load_cmdline(memory, GuestAddress(layout::COMMAND_LINE), &line)?;
        let page = zero_page(header, design.memory_size);
        memory.write_obj(page, GuestAddress(layout::ZERO_PAGE))?;
        write_tables(memory)?;
        memory.write_slice(&reset_code(), GuestAddress(layout::RESET_VECTOR))?;
        let tables = acpi::tables(windows, design.processors);
        Ok(memory.write_slice(&tables, GuestAddress(layout::ACPI_TABLES))?)
    };
    tell().context("what the kernel is told does not fit; give it a larger --memory")?;
    Ok(entry)
}

/// The general registers of the processor that begins at `entry`.
pub(super) fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsp: layout::STACK,
        rsi: layout::ZERO_PAGE,
        // The bit that is always set.
        rflags: 2,
        ..Default::default()
    }
}

/// Turns what a processor has after a reset into 64-bit mode with the tables in memory.
pub(super) fn set_long_mode(registers: &mut kvm_sregs) {
    const PROTECTED: u64 = 1;
    const PAGING: u64 = 1 << 31;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE_ENABLED_AND_ACTIVE: u64 = 1 << 8 | 1 << 10;
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 3 << 3,
        type_: 0b0011,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    registers.cs = kvm_segment {
        selector: 2 << 3,
        type_: 0b1011,
        db: 0,
        l: 1,
        ..data
    };
    (registers.ds, registers.es, registers.ss) = (data, data, data);
    registers.gdt.base = layout::DESCRIPTOR_TABLE;
    registers.gdt.limit = 4 * 8 - 1;
    registers.cr0 |= PROTECTED | PAGING;
    registers.cr3 = layout::PAGE_TABLES;
    registers.cr4 |= PHYSICAL_ADDRESS_EXTENSION;
    registers.efer |= LONG_MODE_ENABLED_AND_ACTIVE;
}

/// Returns where its 64-bit code begins, and what it says of itself.
fn load_kernel(memory: &GuestMemoryMmap, path: &Path) -> Result<(u64, setup_header)> {
    /// Where 64-bit code begins in a bzImage.
    const ENTRY_64: u64 = 0x200;
    let mut file =
        File::open(path).with_context(|| format!("cannot open the kernel {}", path.display()))?;
    let start = Some(GuestAddress(layout::KERNEL));
    if let Ok(loaded) = BzImage::load(memory, None, &mut file, start) {
        let header = loaded.setup_header.unwrap_or_default();
        return Ok((loaded.kernel_load.0 + ENTRY_64, header));
    }
    let loaded = Elf::load(memory, None, &mut file, start).with_context(|| {
        let what = "is no bzImage or vmlinux for x86-64, or does not fit into the memory";
        format!("{} {what}", path.display())
    })?;
    let header = setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        ..Default::default()
    };
    Ok((loaded.kernel_load.0, header))
}

/// `boot_params` of Linux: the kernel's own header, and where there is memory.
fn zero_page(header: setup_header, memory_size: u64) -> boot_params {
    const USABLE: u32 = 1;
    let usable = |addr, end| boot_e820_entry {
        addr,
        size: end - addr,
        r#type: USABLE,
    };
    let mut page = boot_params {
        hdr: header,
        acpi_rsdp_addr: layout::ACPI_TABLES,
        e820_entries: 1,
        ..Default::default()
    };
    page.e820_table[0] = usable(0, layout::LOW_MEMORY_END);
    for (address, len, _) in Memory::ranges(memory_size) {
        let entry = usable(address.max(layout::KERNEL), address + len);
        page.e820_table[usize::from(page.e820_entries)] = entry;
        page.e820_entries += 1;
    }
    page
}

/// A descriptor table, and page tables that map the first GiB to itself.
fn write_tables(memory: &GuestMemoryMmap) -> vm_memory::GuestMemoryResult<()> {
    const PAGE: u64 = 0x1000;
    const LARGE_PAGE: u64 = 2 << 20;
    const PRESENT_AND_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let code = 0x00af_9b00_0000_ffff_u64;
    let data = 0x00cf_9300_0000_ffff_u64;
    let descriptors = GuestAddress(layout::DESCRIPTOR_TABLE);
    memory.write_obj([0, 0, code, data], descriptors)?;
    let [first, second, third] = [0, 1, 2].map(|table| layout::PAGE_TABLES + table * PAGE);
    memory.write_obj(second | PRESENT_AND_WRITABLE, GuestAddress(first))?;
    memory.write_obj(third | PRESENT_AND_WRITABLE, GuestAddress(second))?;
    for index in 0..512 {
        let entry = (index * LARGE_PAGE) | PRESENT_AND_WRITABLE | LARGE;
        memory.write_obj(entry, GuestAddress(third + index * 8))?;
    }
    Ok(())
}

/// What is where firmware begins. Where there is no EFI, Linux resets a machine of reduced hardware
/// by jumping there in real mode, whatever the tables say of a register for it.
fn reset_code() -> [u8; 5] {
    const MOV_DX: u8 = 0xba;
    const OUT_DX_AL: u8 = 0xee;
    const HLT: u8 = 0xf4;
    let [low, high] = layout::RESET_PORT.to_le_bytes();
    [MOV_DX, low, high, OUT_DX_AL, HLT]
}
