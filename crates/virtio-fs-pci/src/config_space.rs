//! The configuration space of a PCI function (PCI 3.0, section 6.1), as bytes of which the guest may
//! change some bits.

use crate::bytes;

/// Length of a configuration space.
pub(crate) const LEN: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const FIRST_BAR: usize = 0x10;
/// That of a memory which takes two registers, the third and the fourth.
const LARGE_BAR: usize = 0x18;
/// The number by which capabilities name it.
pub(crate) const LARGE_MEMORY: u8 = 2;
const MEMORY_ENABLED: u16 = 1 << 1;
const CAPABILITIES: usize = 0x34;
const HEADER_LEN: usize = 0x40;

/// What identifies a function.
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Class and subclass.
    pub(crate) class: u16,
}

/// The configuration space of one function.
pub(crate) struct ConfigSpace {
    bytes: [u8; LEN],
    /// Ones where the guest may write.
    writable: [u8; LEN],
    /// Where the next capability goes, and what is to point to it.
    next: usize,
    link: usize,
}

impl ConfigSpace {
    pub(crate) fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            next: HEADER_LEN,
            link: CAPABILITIES,
        };
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        space.put(0x08, &[identity.revision]);
        space.put(0x0a, &identity.class.to_le_bytes());
        // The subsystem, which drivers of virtio do not look at.
        space.put(0x2c, &identity.vendor.to_le_bytes());
        space.put(0x2e, &identity.device.to_le_bytes());
        space
    }

    /// Gives it the first base address register: memory of `size` bytes, a power of two, at
    /// `address`. The guest may move it.
    pub(crate) fn add_memory(&mut self, address: u32, size: u32) {
        const BUS_MASTER: u16 = 1 << 2;
        self.put(FIRST_BAR, &address.to_le_bytes());
        self.allow(FIRST_BAR, &size.wrapping_neg().to_le_bytes());
        self.allow(COMMAND, &(MEMORY_ENABLED | BUS_MASTER).to_le_bytes());
    }

    /// Where its memory is, as the guest has it now, if it lets it be used.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory_is_enabled()
            .then(|| self.u32_at(FIRST_BAR).into())
    }

    /// Gives it memory that can be above 4 GiB, and that nothing happens by reading of: `size` bytes,
    /// a power of two, at `address`. The guest may move it.
    pub(crate) fn add_large_memory(&mut self, address: u64, size: u64) {
        const WIDE_AND_PREFETCHABLE: u64 = 2 << 1 | 1 << 3;
        self.put(LARGE_BAR, &(address | WIDE_AND_PREFETCHABLE).to_le_bytes());
        self.allow(LARGE_BAR, &size.wrapping_neg().to_le_bytes());
    }

    /// Where its large memory is, as the guest has it now, if it lets it be used.
    pub(crate) fn large_memory(&self) -> Option<u64> {
        const ADDRESS: u64 = !0xf;
        let [low, high] = [self.u32_at(LARGE_BAR), self.u32_at(LARGE_BAR + 4)].map(u64::from);
        self.memory_is_enabled()
            .then_some((high << 32 | low) & ADDRESS)
    }

    /// Adds a capability with what follows its two header bytes, and returns its offset.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        const HAS_CAPABILITIES: u16 = 1 << 4;
        let offset = self.next;
        self.put(STATUS, &HAS_CAPABILITIES.to_le_bytes());
        self.put(offset, &[id, 0]);
        self.put(offset.saturating_add(2), body);
        self.put(self.link, &[u8::try_from(offset).unwrap_or(0)]);
        self.link = offset.saturating_add(1);
        let end = offset.saturating_add(2).saturating_add(body.len());
        self.next = end.checked_next_multiple_of(4).unwrap_or(LEN);
        offset
    }

    /// Lets the guest write where `mask` has ones.
    pub(crate) fn allow(&mut self, offset: usize, mask: &[u8]) {
        bytes::write(&mut self.writable, offset, mask);
    }

    /// Reads at `offset`, beyond the end zeros.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        bytes::read(&self.bytes, offset, data);
    }

    /// Writes what the guest may write.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), value) in bytes.zip(data) {
            *byte = *byte & !mask | value & mask;
        }
    }

    pub(crate) fn u32_at(&self, offset: usize) -> u32 {
        bytes::u32_at(&self.bytes, offset)
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes over what was saved. `false`, and nothing is changed, where it differs in more than
    /// what the guest may write.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: &[u8]) -> bool {
        let Ok(saved) = <[u8; LEN]>::try_from(saved) else {
            return false;
        };
        let bytes = self.bytes.iter().zip(&saved).zip(&self.writable);
        let mut differences = bytes.map(|((now, saved), writable)| (now ^ saved) & !writable);
        let same = differences.all(|difference| difference == 0);
        if same {
            self.bytes = saved;
        }
        same
    }

    fn memory_is_enabled(&self) -> bool {
        self.u32_at(COMMAND) & u32::from(MEMORY_ENABLED) != 0
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        bytes::write(&mut self.bytes, offset, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(&Identity {
            vendor: 0x1af4,
            device: 0x105a,
            revision: 1,
            class: 0x0180,
        })
    }

    #[test]
    fn function_is_identified() {
        let space = space();
        assert_eq!(space.u32_at(0), 0x105a_1af4);
        assert_eq!(space.u32_at(8), 0x0180_0001);
        // No capabilities, and one function only.
        assert_eq!(
            (space.u32_at(4), space.u32_at(0x34), space.u32_at(0x0c)),
            (0, 0, 0)
        );
    }

    #[test]
    fn size_of_the_memory_is_found_as_linux_does() {
        let mut space = space();
        space.add_memory(0xc000_4000, 0x4000);
        space.write(FIRST_BAR, &u32::MAX.to_le_bytes());
        assert_eq!(space.u32_at(FIRST_BAR), 0xffff_c000);
        space.write(FIRST_BAR, &0xc000_8000_u32.to_le_bytes());
        assert_eq!(space.memory(), None);
        space.write(COMMAND, &MEMORY_ENABLED.to_le_bytes());
        assert_eq!(space.memory(), Some(0xc000_8000));
        // There is no second one.
        space.write(FIRST_BAR + 4, &u32::MAX.to_le_bytes());
        assert_eq!(space.u32_at(FIRST_BAR + 4), 0);
    }

    #[test]
    fn large_memory_can_be_anywhere() {
        const SIZE: u64 = 64 << 20;
        let mut space = space();
        space.add_memory(0, 0x4000);
        space.add_large_memory(1 << 32, SIZE);
        assert_eq!(space.large_memory(), None);
        space.write(COMMAND, &MEMORY_ENABLED.to_le_bytes());
        assert_eq!(space.large_memory(), Some(1 << 32));
        for half in [LARGE_BAR, LARGE_BAR + 4] {
            space.write(half, &u32::MAX.to_le_bytes());
        }
        assert_eq!(space.u32_at(LARGE_BAR), !(SIZE as u32 - 1) | 0b1100);
        assert_eq!(space.u32_at(LARGE_BAR + 4), u32::MAX);
        space.write(LARGE_BAR, &[0; 4]);
        space.write(LARGE_BAR + 4, &3_u32.to_le_bytes());
        assert_eq!(space.large_memory(), Some(3 << 32));
    }

    #[test]
    fn what_the_guest_writes_makes_no_other_function() {
        let [mut one, mut other] = [space(), space()];
        for space in [&mut one, &mut other] {
            space.add_memory(0xc000_0000, 0x4000);
            space.add_large_memory(1 << 32, 4 << 20);
        }
        other.write(FIRST_BAR, &[0xff; 16]);
        assert!(one.restore(&other.save()));
        assert_eq!(one.bytes, other.bytes);
        other.add_capability(0x09, &[2; 15]);
        assert!(!one.restore(&other.save()));
        assert!(!one.restore(&[]));
        assert_eq!(one.u32_at(CAPABILITIES), 0);
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut space = space();
        assert_eq!(space.add_capability(0x11, &[1; 10]), 0x40);
        assert_eq!(space.add_capability(0x09, &[2; 15]), 0x4c);
        assert_eq!(space.u32_at(CAPABILITIES), 0x40);
        assert_eq!(space.u32_at(0x40), 0x0101_4c11);
        assert_eq!(space.u32_at(0x4c), 0x0202_0009);
        assert_eq!(space.u32_at(COMMAND) >> 16, 1 << 4);
    }

    #[test]
    fn only_what_is_allowed_is_written() {
        let mut space = space();
        space.add_memory(0, 0x4000);
        let before = space.bytes;
        for offset in (0..LEN + 8).filter(|offset| !(FIRST_BAR..FIRST_BAR + 4).contains(offset)) {
            space.write(offset, &[0xff]);
        }
        space.write(usize::MAX, &[0xff; 4]);
        assert_eq!(space.u32_at(COMMAND), 6);
        space.write(COMMAND, &[0; 2]);
        assert_eq!(space.bytes, before);
    }
}
