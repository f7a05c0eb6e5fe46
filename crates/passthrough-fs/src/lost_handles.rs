use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuse_fs::{Errno, Handle};

use crate::slab::split;

/// Handles that the guest has of what could not be taken up from another process.
///
/// They are told from those that never were. EBADF is what a program makes a mistake by, and some
/// end where close(2) says so (systemd, which may be the guest's first process); that a file is there
/// no more is ESTALE, as on a network filesystem.
#[derive(Debug, Default)]
pub(crate) struct LostHandles(Mutex<HashMap<u32, u32>>);

impl LostHandles {
    /// Of those of one slot, the last one is remembered: a state leads to no more of them than a
    /// table has slots.
    pub(crate) fn add(&self, handle: Handle) {
        let (generation, index) = split(handle.0);
        self.lock().insert(index, generation);
    }

    /// Why nothing is open by the name of `handle`.
    pub(crate) fn why(&self, handle: Handle) -> Errno {
        let (generation, index) = split(handle.0);
        match self.lock().get(&index) {
            Some(&lost) if lost == generation => Errno::ESTALE,
            _ => Errno::EBADF,
        }
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
