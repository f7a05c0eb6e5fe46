//! The slots of a slab, as they were in another process.

use std::cell::Cell;
use std::sync::Arc;

use super::{Slab, join, place, split, write};

/// A slot that was used.
#[derive(Debug)]
pub(crate) struct SlotImage<T> {
    pub(crate) index: u32,
    /// How often it was used before.
    pub(crate) generation: u32,
    pub(crate) value: Option<Arc<T>>,
}

impl<T> SlotImage<T> {
    /// What the value is found by.
    pub(crate) fn id(&self) -> u64 {
        join(self.generation, self.index)
    }
}

/// Fills a slab with what another one had, under the same ids, and sees to it that none of the ids
/// that the other one ever gave out is given out again. Until it is dropped, the slab gives out
/// none.
#[derive(Debug)]
pub(crate) struct Refill<'s, T> {
    slab: &'s Slab<T>,
    /// The highest index that there may be.
    limit: u32,
    /// The last index that was said to have no value.
    worn: Cell<u32>,
}

/// Why an id is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is beyond what there may be")]
    Beyond,
    #[error("it is there twice")]
    Twice,
}

impl<T> Slab<T> {
    /// All slots that were used so far, in the order of their indexes.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotImage<T>> {
        let end = self.lock_free().next;
        (1..end).filter_map(|index| {
            let slot = self.slot(index)?.read();
            let slot = slot.unwrap_or_else(std::sync::PoisonError::into_inner);
            Some(SlotImage {
                index,
                generation: slot.generation,
                value: slot.value.clone(),
            })
        })
    }

    /// Begins to fill this slab, of which no more than `limit` slots are used. How often its slots
    /// that have no value were used is forgotten: ids were given out to another guest, or to this
    /// one later than it remembers.
    pub(crate) fn refill(&self, limit: u32) -> Refill<'_, T> {
        let end = {
            let mut free = self.lock_free();
            free.indexes.clear();
            free.next
        };
        for slot in (1..end).filter_map(|index| self.slot(index)) {
            let mut slot = write(slot);
            if slot.value.is_none() {
                slot.generation = 0;
            }
        }
        Refill {
            slab: self,
            limit,
            worn: Cell::new(0),
        }
    }
}

impl<T> Refill<'_, T> {
    /// Keeps `value` under `id`.
    pub(crate) fn put(&self, id: u64, value: Arc<T>) -> Result<(), Refused> {
        let (generation, index) = split(id);
        self.check(index, index)?;
        let slot = self.slab.slot_or_new(index).ok_or(Refused::Beyond)?;
        let mut slot = write(slot);
        if slot.value.is_some() || slot.generation > generation {
            return Err(Refused::Twice);
        }
        slot.generation = generation;
        slot.value = Some(value);
        Ok(())
    }

    /// What `id` stood for is no more.
    pub(crate) fn lose(&self, id: u64) -> Result<(), Refused> {
        let (generation, index) = split(id);
        self.vacate(index, index, generation.saturating_add(1))
    }

    /// `count` slots from `first` on had no value, and were used `generation` times. This is said in
    /// the order of the slots.
    pub(crate) fn wear(&self, first: u32, count: u32, generation: u32) -> Result<(), Refused> {
        let last = count
            .checked_sub(1)
            .and_then(|more| first.checked_add(more))
            .ok_or(Refused::Beyond)?;
        // So that what takes few bytes to say is not done again and again.
        if first <= self.worn.replace(last) {
            return Err(Refused::Twice);
        }
        self.vacate(first, last, generation)
    }

    fn vacate(&self, first: u32, last: u32, generation: u32) -> Result<(), Refused> {
        self.check(first, last)?;
        for index in first..=last {
            let mut slot = write(self.slab.slot_or_new(index).ok_or(Refused::Beyond)?);
            if slot.value.is_none() {
                slot.generation = slot.generation.max(generation);
            }
        }
        Ok(())
    }

    /// Makes sure that these slots may be used.
    fn check(&self, first: u32, last: u32) -> Result<(), Refused> {
        let (page, _) = place(last).ok_or(Refused::Beyond)?;
        if first == 0 || last > self.limit || page >= self.slab.pages.len() {
            return Err(Refused::Beyond);
        }
        let mut free = self.slab.lock_free();
        free.next = free.next.max(last.saturating_add(1));
        Ok(())
    }
}

impl<T> Drop for Refill<'_, T> {
    /// Slots that have no value can be used again, the first ones first.
    fn drop(&mut self) {
        let vacant = |slot: &SlotImage<T>| slot.value.is_none() && slot.generation < u32::MAX;
        let slots = self.slab.slots().filter(vacant);
        let mut indexes: Vec<u32> = slots.map(|slot| slot.index).collect();
        indexes.reverse();
        self.slab.lock_free().indexes = indexes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slab with values, with holes, and with slots that were used several times.
    fn used() -> Slab<u64> {
        let slab = Slab::new();
        let ids: Vec<u64> = (0..200)
            .map(|n| slab.insert(Arc::new(n)).unwrap())
            .collect();
        for id in ids.iter().step_by(3) {
            slab.remove_if(*id, |_| true).unwrap();
        }
        for n in 0..20 {
            slab.insert(Arc::new(1000 + n)).unwrap();
        }
        slab
    }

    fn copy(slab: &Slab<u64>, to: &Slab<u64>) {
        let refill = to.refill(1000);
        for slot in slab.slots() {
            match &slot.value {
                Some(value) => refill.put(slot.id(), Arc::clone(value)).unwrap(),
                None => refill.wear(slot.index, 1, slot.generation).unwrap(),
            }
        }
    }

    fn all(slab: &Slab<u64>) -> Vec<(u32, u32, Option<u64>)> {
        let slots = slab.slots();
        slots
            .map(|slot| (slot.index, slot.generation, slot.value.as_deref().copied()))
            .collect()
    }

    #[test]
    fn a_slab_becomes_what_another_one_was() {
        let (slab, copied) = (used(), Slab::new());
        copy(&slab, &copied);
        assert_eq!(all(&copied), all(&slab));
        // What is new on both sides was an id on neither.
        let mut seen: std::collections::HashSet<u64> = slab.slots().map(|slot| slot.id()).collect();
        for n in 0..300 {
            let id = copied.insert(Arc::new(n)).unwrap();
            assert_eq!(copied.get(id).as_deref(), Some(&n));
            let vacant = slab
                .slots()
                .any(|slot| slot.id() == id && slot.value.is_none());
            assert!(seen.insert(id) || vacant);
        }
    }

    #[test]
    fn a_slab_that_was_used_before_can_be_filled() {
        let (slab, copied) = (used(), used());
        for _ in 0..400 {
            copied.insert(Arc::new(7)).unwrap();
        }
        copied.clear();
        // Slots were used more often here than there, and there are more of them.
        copy(&slab, &copied);
        let (there, here) = (all(&slab), all(&copied));
        assert_eq!(here[..there.len()], there);
        assert!(
            here[there.len()..]
                .iter()
                .all(|&(_, generation, value)| (generation, value) == (0, None))
        );
    }

    #[test]
    fn what_is_lost_is_not_given_out_again() {
        let slab = Slab::new();
        let refill = slab.refill(10);
        let lost = join(7, 3);
        refill.lose(lost).unwrap();
        refill.put(join(0, 5), Arc::new(5)).unwrap();
        drop(refill);
        let ids: Vec<u64> = (0..6).map(|n| slab.insert(Arc::new(n)).unwrap()).collect();
        assert_eq!(ids, [1, 2, join(8, 3), 4, 6, 7]);
    }

    #[test]
    fn what_is_beyond_or_there_twice_is_refused() {
        let slab = Slab::with_first(Arc::new(0));
        let refill = slab.refill(100);
        for id in [0, 101, u64::MAX, join(5, 0)] {
            assert_eq!(refill.put(id, Arc::new(1)), Err(Refused::Beyond));
        }
        for (first, count) in [(1, 0), (100, 2), (1, u32::MAX), (u32::MAX, 1)] {
            let refill = slab.refill(100);
            assert_eq!(refill.wear(first, count, 1), Err(Refused::Beyond));
        }
        assert_eq!(refill.wear(0, 1, 1), Err(Refused::Twice));
        assert_eq!(refill.put(join(1, 1), Arc::new(1)), Err(Refused::Twice));
        refill.wear(1, 100, u32::MAX).unwrap();
        assert_eq!(refill.wear(100, 1, 1), Err(Refused::Twice));
        drop(refill);
        assert_eq!(slab.insert(Arc::new(1)).unwrap(), 101);
        assert_eq!(slab.get(1).as_deref(), Some(&0));
    }
}
