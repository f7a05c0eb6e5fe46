//! Inode numbers as the guest sees them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::PassthroughFs;

/// Bits of a number of the host that are passed on; the device's are above them.
const HOST_BITS: u32 = 48;
/// Devices beyond this one have no bits of their own.
const MAX_DEVICE: u64 = (1 << (63 - HOST_BITS)) - 1;
/// Tells a number that is a hash.
const HASHED: u64 = 1 << 63;

/// Makes inode numbers unique across the devices of the host, for a guest that takes all of the
/// share for one filesystem.
///
/// Numbers on the root's device stay as they are. Those on the others get the device's place in
/// the order in which they were seen as their upper bits. What does not fit, be it a number or a
/// device, is hashed to 63 bits.
#[derive(Debug)]
pub(crate) struct InodeNumbers {
    root: (u32, u32),
    /// The other devices. The host has so many; the guest adds none.
    others: Mutex<Vec<(u32, u32)>>,
}

impl InodeNumbers {
    pub(crate) fn new(root: (u32, u32)) -> Self {
        Self {
            root,
            others: Mutex::default(),
        }
    }

    /// What the guest is told for the inode `ino` on the device `dev`.
    pub(crate) fn unique(&self, dev: (u32, u32), ino: u64) -> u64 {
        let device = if dev == self.root { 0 } else { self.place(dev) };
        if ino >> HOST_BITS == 0 && device <= MAX_DEVICE {
            return (device << HOST_BITS) | ino;
        }
        let mut hasher = DefaultHasher::new();
        (dev, ino).hash(&mut hasher);
        hasher.finish() | HASHED
    }

    /// The devices but the root's, in the order in which they were seen.
    pub(crate) fn others(&self) -> Vec<(u32, u32)> {
        self.lock().clone()
    }

    /// None of the others was seen yet.
    pub(crate) fn begin_anew(&self) {
        self.lock().clear();
    }

    /// A device that was seen in another process, after those that were.
    pub(crate) fn add(&self, dev: (u32, u32)) {
        if dev != self.root {
            self.place(dev);
        }
    }

    fn place(&self, dev: (u32, u32)) -> u64 {
        let mut others = self.lock();
        let place = others.iter().position(|&other| other == dev);
        let place = place.unwrap_or_else(|| {
            others.push(dev);
            others.len().saturating_sub(1)
        });
        (place as u64).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u32, u32)>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PassthroughFs {
    /// The number that the guest is told for the inode `ino` on the device `dev`. One that knows
    /// submounts tells devices apart by itself.
    pub(crate) fn number(&self, dev: (u32, u32), ino: u64) -> u64 {
        if self.announces_submounts() {
            ino
        } else {
            self.numbers.unique(dev, ino)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_those_of_the_root_stay() {
        let numbers = InodeNumbers::new((8, 1));
        let devices = [(8, 1), (8, 2), (0, 1)];
        let inos = [1, 2, (1 << 48) - 1, 1 << 48, (1 << 48) | 1, u64::MAX];
        let mut seen = std::collections::HashSet::new();
        for dev in devices {
            for ino in inos {
                let unique = numbers.unique(dev, ino);
                assert!(seen.insert(unique), "{dev:?} {ino:#x}");
                assert_eq!(numbers.unique(dev, ino), unique);
            }
        }
        assert_eq!(numbers.unique((8, 1), 12), 12);
    }

    #[test]
    fn more_devices_than_have_bits_are_still_told_apart() {
        let numbers = InodeNumbers {
            root: (0, 0),
            others: Mutex::new((1..=40_000).map(|minor| (0, minor)).collect()),
        };
        let last = u32::try_from(MAX_DEVICE).unwrap();
        let mut seen = std::collections::HashSet::new();
        for minor in (0..100).chain(last - 100..last + 100) {
            assert!(seen.insert(numbers.unique((0, minor), 1)), "{minor}");
        }
    }
}
