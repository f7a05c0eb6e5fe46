use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use fuse_fs::{Name, NodeId};

use crate::lookup::Guess;

/// Names remembered: 64 KiB of them.
const SLOTS: usize = 1 << 14;

/// Remembers, roughly, which names were looked up of late.
///
/// A name that was is likely to stand for a node that is still known, and then a lookup needs no
/// descriptor. A wrong guess costs a system call, nothing else: what is here is never an answer.
#[derive(Debug)]
pub(crate) struct NameHints {
    hasher: RandomState,
    slots: Box<[AtomicU32]>,
}

impl NameHints {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Whether `name` in `parent` was looked up of late.
    pub(crate) fn guess(&self, parent: NodeId, name: Name<'_>) -> Guess {
        match self.slot(parent, name) {
            Some((slot, tag)) if slot.load(Ordering::Relaxed) == tag => Guess::Known,
            _ => Guess::Unknown,
        }
    }

    /// `name` in `parent` was looked up just now.
    pub(crate) fn remember(&self, parent: NodeId, name: Name<'_>) {
        if let Some((slot, tag)) = self.slot(parent, name) {
            // Reading first leaves the cache line shared where nothing is new.
            if slot.load(Ordering::Relaxed) != tag {
                slot.store(tag, Ordering::Relaxed);
            }
        }
    }

    fn slot(&self, parent: NodeId, name: Name<'_>) -> Option<(&AtomicU32, u32)> {
        let hash = self.hasher.hash_one((parent, name));
        let slot = self.slots.get(hash as usize % SLOTS)?;
        Some((slot, (hash >> 32) as u32))
    }
}
