//! The DAX windows of devices: in this process, where their daemons' files are mapped, and in the
//! guest's address space, above its memory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use kvm_ioctls::Error;
use virtio_fs_device::ReservedWindow;

use super::vm::Vm;
use super::{layout, sys};

/// Linux maps files in pieces of so many bytes, and takes memory of devices in such pieces only.
pub(super) const PIECE: u64 = 2 << 20;

/// A device's window. It lasts as long as the process: KVM has it.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) reserved: &'static Arc<ReservedWindow>,
    /// Bytes that the guest sees.
    pub(super) size: u64,
}

impl Window {
    /// Sets `size` bytes aside.
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let reserved = Arc::new(ReservedWindow::new(size)?);
        Ok(Self {
            reserved: Box::leak(Box::new(reserved)),
            size,
        })
    }

    /// As much of it as the daemon wants, if that is of use to Linux.
    pub(super) fn cut(self, size: u64) -> Option<Self> {
        let size = size - size % PIECE;
        (size > 0).then_some(Self { size, ..self })
    }

    /// Bytes of the PCI memory that contains it, a power of two.
    pub(super) fn memory_len(self) -> u64 {
        self.size.next_power_of_two()
    }
}

/// Where the windows of a machine's devices are, at first.
pub(super) struct Places {
    /// What the bus has for them: the guest may put them anywhere in there.
    pub(super) all: Range<u64>,
    /// For each device that has a window its address.
    pub(super) each: Vec<Option<u64>>,
}

impl Places {
    /// Places for windows that take so much memory on the bus, above all of `memory_size` bytes of
    /// the guest's memory.
    pub(super) fn new(memory_size: u64, lens: impl IntoIterator<Item = Option<u64>>) -> Self {
        let start = layout::windows(memory_size);
        let mut end = start;
        let place = |len: Option<u64>| {
            len.map(|len| {
                let address = end.next_multiple_of(len);
                end = address + len;
                address
            })
        };
        let each = lens.into_iter().map(place).collect();
        Self {
            all: start..end,
            each,
        }
    }
}

/// The memory of a window as a machine has it.
pub(super) struct Slot {
    vm: Arc<Vm>,
    number: u32,
    window: Window,
    bus: Range<u64>,
    address: Option<u64>,
}

impl Slot {
    /// That of the device `index`, which is nowhere yet, and can be on the bus within `bus`.
    pub(super) fn new(vm: &Arc<Vm>, index: u32, window: Window, bus: Range<u64>) -> Self {
        Self {
            vm: Arc::clone(vm),
            number: sys::MEMORY_SLOTS + index,
            window,
            bus,
            address: None,
        }
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// Has the guest find the window at `address`, if the bus has that, else nowhere.
    pub(super) fn place(&mut self, address: Option<u64>) -> Result<(), Error> {
        let len = self.window.memory_len();
        let address = address.filter(|address| {
            let end = address.checked_add(len);
            self.bus.start <= *address && end.is_some_and(|end| end <= self.bus.end)
        });
        if address == self.address {
            return Ok(());
        }
        if self.address.take().is_some() {
            sys::set_window(&self.vm.fd, self.number, self.window, None)?;
        }
        if address.is_some() {
            sys::set_window(&self.vm.fd, self.number, self.window, address)?;
        }
        self.address = address;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn windows_are_above_the_memory() {
        let places = |memory, lens: &[Option<u64>]| Places::new(memory, lens.iter().copied());
        let none = places(GIB, &[None, None]);
        assert!(none.all.is_empty());
        assert_eq!(none.each, [None, None]);
        let two = places(GIB, &[Some(64 << 20), None, Some(2 * GIB)]);
        assert_eq!(two.all, 4 * GIB..8 * GIB);
        assert_eq!(two.each, [Some(4 * GIB), None, Some(6 * GIB)]);
        let much = places(7 * GIB + PIECE, &[Some(PIECE)]);
        assert_eq!(much.each, [Some(9 * GIB)]);
    }

    #[test]
    fn the_guest_sees_as_much_as_the_daemon_wants() {
        let window = Window::new(6 * PIECE).unwrap();
        assert_eq!((window.size, window.memory_len()), (6 * PIECE, 8 * PIECE));
        assert_eq!(window.cut(5 * PIECE - 1).unwrap().size, 4 * PIECE);
        assert!(window.cut(PIECE - 1).is_none());
    }
}
