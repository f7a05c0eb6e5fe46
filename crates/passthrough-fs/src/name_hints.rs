use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use fuse_fs::{Name, NodeId};

use crate::lookup::Guess;

/// Names that fit in each table, the first one first: 2, 8 and 32 KiB. Powers of two.
const SLOTS: [usize; 3] = [1 << 10, 1 << 12, 1 << 14];
/// A table gives way to the next one when one in so many of its slots was used: beyond that, ever
/// more names share a slot.
const ROOM: usize = 4;

const LAST: usize = SLOTS.len() - 1;

/// Remembers, roughly, which names were looked up of late.
///
/// A name that was is likely to stand for a node that is still known, and then a lookup needs no
/// descriptor. A wrong guess costs a system call, nothing else: what is here is never an answer.
///
/// A guest that uses few names takes little memory. What a small table remembered is forgotten when
/// a larger one takes its place.
#[derive(Debug)]
pub(crate) struct NameHints {
    hasher: RandomState,
    tables: [OnceLock<Box<[AtomicU16]>>; SLOTS.len()],
    /// Times that something new was remembered, as long as there is a larger table.
    news: AtomicU32,
}

impl NameHints {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            tables: [const { OnceLock::new() }; SLOTS.len()],
            news: AtomicU32::new(0),
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
                self.count_news();
            }
        }
    }

    /// Leads to a larger table. News that two threads count as one make no difference.
    fn count_news(&self) {
        let news = self.news.load(Ordering::Relaxed);
        if table_for(news) < LAST {
            self.news.store(news.saturating_add(1), Ordering::Relaxed);
        }
    }

    fn slot(&self, parent: NodeId, name: Name<'_>) -> Option<(&AtomicU16, u16)> {
        let hash = self.hasher.hash_one((parent, name));
        let table = table_for(self.news.load(Ordering::Relaxed));
        let len = *SLOTS.get(table)?;
        let vacant = || (0..len).map(|_| AtomicU16::new(0)).collect();
        let slots = self.tables.get(table)?.get_or_init(vacant);
        let slot = slots.get(hash as usize & len.wrapping_sub(1))?;
        // Bits that do not choose the slot; one more, as nothing is remembered by 0.
        Some((slot, (hash >> 48) as u16 | 1))
    }
}

/// The table to use after so many news.
fn table_for(news: u32) -> usize {
    let has_room = |&slots: &usize| (news as usize) < slots / ROOM;
    SLOTS.iter().position(has_room).unwrap_or(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_remembered_in_ever_larger_tables() {
        let hints = NameHints::new();
        let name = Name::new(c"name").unwrap();
        assert_eq!(hints.guess(NodeId(0), name), Guess::Unknown);
        let mut in_use = 0;
        for parent in (0..2 * SLOTS[LAST] as u64).map(NodeId) {
            hints.remember(parent, name);
            hints.remember(parent, name);
            let table = table_for(hints.news.load(Ordering::Relaxed));
            assert!((in_use..=LAST).contains(&table));
            if table == in_use {
                assert_eq!(hints.guess(parent, name), Guess::Known);
            }
            in_use = table;
        }
        assert_eq!(in_use, LAST);
    }
}
