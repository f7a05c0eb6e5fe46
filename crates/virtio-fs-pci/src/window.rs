/// The DAX window as memory on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMemory {
    size: u64,
}

impl WindowMemory {
    /// Linux maps files in pieces of so many bytes (`FUSE_DAX_SZ`), and takes memory of devices in
    /// such pieces only.
    pub const PIECE: u64 = 2 << 20;

    /// For a device with that [`window_size`](virtio_fs_device::Device::window_size). `None` where that
    /// is less than one piece, or more than a bus can have.
    #[must_use]
    pub fn new(window_size: u64) -> Option<Self> {
        let size = window_size & Self::PIECE.wrapping_neg();
        (size > 0 && size.checked_next_power_of_two().is_some()).then_some(Self { size })
    }

    /// Bytes that the guest is shown: as much of the window as makes whole pieces.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.size
    }

    /// Bytes that it takes on the bus, a power of two; its address is a multiple of that.
    #[must_use]
    pub fn len_on_bus(self) -> u64 {
        self.size.checked_next_power_of_two().unwrap_or(1 << 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = WindowMemory::PIECE;

    #[test]
    fn the_guest_sees_whole_pieces() {
        let both = |size| WindowMemory::new(size).map(|it| (it.size(), it.len_on_bus()));
        assert_eq!(both(6 * PIECE), Some((6 * PIECE, 8 * PIECE)));
        assert_eq!(both(5 * PIECE - 1), Some((4 * PIECE, 4 * PIECE)));
        assert_eq!(both(PIECE - 1), None);
        assert_eq!(both(1 << 63), Some((1 << 63, 1 << 63)));
        assert_eq!(both(u64::MAX), None);
    }
}
