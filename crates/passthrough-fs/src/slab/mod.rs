//! Values by ids that are never given out twice.

mod refill;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

pub(crate) use self::refill::{Refill, Refused, SlotImage};

/// Slots of the first page; each page has twice as many as the one before it.
const FIRST_PAGE: u64 = 64;
/// Enough pages for every index of 32 bits.
const PAGES: usize = 27;

/// Values found by an id that is never given out twice.
///
/// An id is a slot's index and, in the upper half, how often the slot was used before: finding a
/// value is an array access, and an id that was given back finds nothing. Index 0 is not used, so
/// the first id of all is 1.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    pages: [OnceLock<Page<T>>; PAGES],
    free: Mutex<Free>,
}

type Page<T> = Box<[RwLock<Slot<T>>]>;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

#[derive(Debug)]
struct Free {
    indexes: Vec<u32>,
    /// The lowest index that was never used.
    next: u32,
}

/// Every id is in use.
#[derive(Debug)]
pub(crate) struct Full;

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            pages: [const { OnceLock::new() }; PAGES],
            free: Mutex::new(Free {
                indexes: Vec::new(),
                next: 1,
            }),
        }
    }

    /// Starts with a value, whose id is 1.
    pub(crate) fn with_first(value: Arc<T>) -> Self {
        let slab = Self::new();
        let first = slab.insert(value);
        debug_assert!(matches!(first, Ok(1)));
        slab
    }

    /// Keeps `value` and returns its id.
    pub(crate) fn insert(&self, value: Arc<T>) -> Result<u64, Full> {
        let index = self.take_index().ok_or(Full)?;
        let mut slot = write(self.slot_or_new(index).ok_or(Full)?);
        slot.value = Some(value);
        Ok(join(slot.generation, index))
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<T>> {
        let (generation, index) = split(id);
        let slot = self.slot(index)?.read();
        let slot = slot.unwrap_or_else(PoisonError::into_inner);
        if slot.generation == generation {
            slot.value.clone()
        } else {
            None
        }
    }

    /// Removes the value with this `id` if `condition` holds for it. It is dropped by the caller,
    /// outside of all locks.
    pub(crate) fn remove_if(&self, id: u64, condition: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let (generation, index) = split(id);
        let (value, reusable) = {
            let mut slot = write(self.slot(index)?);
            if slot.generation != generation || !slot.value.as_deref().is_some_and(condition) {
                return None;
            }
            // A slot whose generations are used up is never used again.
            let next = slot.generation.checked_add(1);
            slot.generation = next.unwrap_or(u32::MAX);
            (slot.value.take(), next.is_some_and(|next| next < u32::MAX))
        };
        if reusable {
            self.lock_free().indexes.push(index);
        }
        value
    }

    /// Removes all values, one at a time.
    pub(crate) fn clear(&self) {
        self.remove_all_if(|_| true);
    }

    /// Removes the values for which `condition` holds, one at a time.
    pub(crate) fn remove_all_if(&self, condition: impl Fn(&T) -> bool) {
        let end = self.lock_free().next;
        for index in 1..end {
            let Some(slot) = self.slot(index) else {
                continue;
            };
            let generation = slot
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .generation;
            drop(self.remove_if(join(generation, index), &condition));
        }
    }

    fn take_index(&self) -> Option<u32> {
        let mut free = self.lock_free();
        if let Some(index) = free.indexes.pop() {
            return Some(index);
        }
        let index = free.next;
        free.next = index.checked_add(1)?;
        Some(index)
    }

    fn slot(&self, index: u32) -> Option<&RwLock<Slot<T>>> {
        let (page, offset) = place(index)?;
        self.pages.get(page)?.get()?.get(offset)
    }

    fn slot_or_new(&self, index: u32) -> Option<&RwLock<Slot<T>>> {
        let (page, offset) = place(index)?;
        let len = FIRST_PAGE.checked_shl(u32::try_from(page).ok()?)?;
        let slots = self.pages.get(page)?.get_or_init(|| {
            let vacant = || {
                RwLock::new(Slot {
                    generation: 0,
                    value: None,
                })
            };
            (0..len).map(|_| vacant()).collect()
        });
        slots.get(offset)
    }

    fn lock_free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write<T>(slot: &RwLock<Slot<T>>) -> std::sync::RwLockWriteGuard<'_, Slot<T>> {
    slot.write().unwrap_or_else(PoisonError::into_inner)
}

/// The page of an index and the place in it.
fn place(index: u32) -> Option<(usize, usize)> {
    let shifted = u64::from(index).checked_add(FIRST_PAGE)?;
    let page = shifted.ilog2().checked_sub(FIRST_PAGE.ilog2())?;
    let offset = shifted.checked_sub(FIRST_PAGE.checked_shl(page)?)?;
    Some((usize::try_from(page).ok()?, usize::try_from(offset).ok()?))
}

fn join(generation: u32, index: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(index)
}

pub(crate) fn split(id: u64) -> (u32, u32) {
    ((id >> 32) as u32, id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_start_at_one_and_are_never_given_out_twice() {
        let slab = Slab::new();
        let mut seen = std::collections::HashSet::new();
        assert_eq!(slab.insert(Arc::new(0)).unwrap(), 1);
        for n in 0..1000 {
            let id = slab.insert(Arc::new(n)).unwrap();
            assert!(seen.insert(id));
            assert_eq!(slab.get(id).as_deref(), Some(&n));
            if n % 3 != 0 {
                assert_eq!(slab.remove_if(id, |_| true).as_deref(), Some(&n));
                assert!(slab.get(id).is_none());
                assert!(slab.remove_if(id, |_| true).is_none());
            }
        }
    }

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut next = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index).unwrap(), next, "{index}");
            next.1 += 1;
            if next.1 == 64 << next.0 {
                next = (next.0 + 1, 0);
            }
        }
        let (page, offset) = place(u32::MAX).unwrap();
        assert!(page < PAGES && offset < 64 << page);
    }

    #[test]
    fn ids_that_were_never_given_out_find_nothing() {
        let slab = Slab::new();
        slab.insert(Arc::new(())).unwrap();
        for id in [
            0,
            2,
            63,
            64,
            1 << 32,
            (1 << 32) | 1,
            u64::MAX,
            u64::from(u32::MAX),
        ] {
            assert!(slab.get(id).is_none(), "{id:#x}");
            assert!(slab.remove_if(id, |_| true).is_none(), "{id:#x}");
        }
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let slab = Slab::new();
        let id = slab.insert(Arc::new(())).unwrap();
        write(slab.slot(1).unwrap()).generation = u32::MAX - 1;
        let last = join(u32::MAX - 1, split(id).1);
        assert!(slab.remove_if(last, |_| true).is_some());
        assert_eq!(slab.insert(Arc::new(())).unwrap(), 2);
    }

    #[test]
    fn clear_removes_all() {
        let slab = Slab::new();
        let ids: Vec<_> = (0..200)
            .map(|n| slab.insert(Arc::new(n)).unwrap())
            .collect();
        slab.clear();
        assert!(ids.iter().all(|&id| slab.get(id).is_none()));
    }
}
