//! The ranges of a file that one owner has locked.

use fuse_fs::abi::FileLock;
use fuse_fs::{Errno, Result};

/// `F_RDLCK`, `F_WRLCK` and `F_UNLCK` as they travel.
const READ: u32 = 0;
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;

/// Last byte of a range that has no end.
const NO_END: u64 = i64::MAX as u64;

/// What a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Locks for writing.
    Read,
    /// All others.
    Write,
}

/// Bytes of a file, from the first to the last, which is no less. Neither exceeds `NO_END`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// All that a file can have.
    pub(crate) const ALL: Self = Self {
        first: 0,
        last: NO_END,
    };

    /// What the guest wants of which bytes; `None` is to unlock them.
    ///
    /// # Errors
    /// EINVAL for what is no range or no kind of lock.
    pub(crate) fn of(lock: &FileLock) -> Result<(Self, Option<Kind>)> {
        let kind = match lock.lock_type {
            READ => Some(Kind::Read),
            WRITE => Some(Kind::Write),
            UNLOCK => None,
            _ => return Err(Errno::EINVAL.into()),
        };
        let range = Self::between(lock.start, lock.end).ok_or(Errno::EINVAL)?;
        Ok((range, kind))
    }

    /// From the first to the last byte, if that is a range.
    pub(crate) fn between(first: u64, last: u64) -> Option<Self> {
        (first <= last && last <= NO_END).then_some(Self { first, last })
    }

    /// As fcntl(2) has it: a length of 0 has no end.
    pub(crate) fn start_and_len(self) -> (i64, i64) {
        let len = match self.last {
            NO_END => 0,
            last => last.saturating_sub(self.first).saturating_add(1),
        };
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        (signed(self.first), signed(len))
    }

    pub(crate) fn from_start_and_len(start: i64, len: i64) -> Option<Self> {
        let first = u64::try_from(start).ok()?;
        let last = match u64::try_from(len).ok()? {
            0 => NO_END,
            len => first.checked_add(len)?.checked_sub(1)?,
        };
        Some(Self { first, last })
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A range that is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    range: Range,
    kind: Kind,
}

impl Held {
    pub(crate) fn new(range: Range, kind: Kind) -> Self {
        Self { range, kind }
    }

    /// As the guest is told, of a process of its own or, with 0, of somebody else.
    pub(crate) fn to_guest(self, pid: u32) -> FileLock {
        FileLock {
            start: self.range.first,
            end: self.range.last,
            lock_type: match self.kind {
                Kind::Read => READ,
                Kind::Write => WRITE,
            },
            pid,
        }
    }
}

/// There is no lock in the way, as the guest is told.
pub(crate) fn no_conflict(asked: &FileLock) -> FileLock {
    FileLock {
        lock_type: UNLOCK,
        ..*asked
    }
}

/// All that one owner has locked: as many ranges as the host's kernel keeps for it. They are in
/// order, do not overlap, and do not touch where they are of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Held>);

impl Ranges {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range, Kind)> {
        self.0.iter().map(|held| (held.range, held.kind))
    }

    /// What is locked when `range` is of `kind`, or unlocked.
    pub(crate) fn with(&self, range: Range, kind: Option<Kind>) -> Self {
        let mut parts = Vec::with_capacity(self.0.len().saturating_add(2));
        for held in &self.0 {
            if !held.range.overlaps(range) {
                parts.push(*held);
                continue;
            }
            if held.range.first < range.first {
                let last = range.first.saturating_sub(1);
                let range = Range { last, ..held.range };
                parts.push(Held { range, ..*held });
            }
            if held.range.last > range.last {
                let first = range.last.saturating_add(1);
                let range = Range {
                    first,
                    ..held.range
                };
                parts.push(Held { range, ..*held });
            }
        }
        parts.extend(kind.map(|kind| Held { range, kind }));
        parts.sort_unstable_by_key(|held| held.range.first);
        let mut ranges: Vec<Held> = Vec::with_capacity(parts.len());
        for part in parts {
            match ranges.last_mut() {
                Some(last)
                    if last.kind == part.kind
                        && last.range.last.saturating_add(1) == part.range.first =>
                {
                    last.range.last = part.range.last;
                }
                _ => ranges.push(part),
            }
        }
        Self(ranges)
    }

    /// The first of them that excludes a lock of `kind` on `range` by somebody else.
    pub(crate) fn conflict(&self, range: Range, kind: Kind) -> Option<Held> {
        let excludes = |held: &&Held| {
            held.range.overlaps(range) && (held.kind == Kind::Write || kind == Kind::Write)
        };
        self.0.iter().find(excludes).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> Range {
        Range { first, last }
    }

    fn held(ranges: &Ranges) -> Vec<(u64, u64, Kind)> {
        let all = ranges.0.iter();
        all.map(|held| (held.range.first, held.range.last, held.kind))
            .collect()
    }

    #[test]
    fn locks_are_split_and_joined() {
        use Kind::{Read, Write};
        let ranges = Ranges::default().with(range(10, 19), Some(Read));
        let ranges = ranges.with(range(20, 29), Some(Read));
        assert_eq!(held(&ranges), [(10, 29, Read)]);
        let ranges = ranges.with(range(15, 24), Some(Write));
        let three = [(10, 14, Read), (15, 24, Write), (25, 29, Read)];
        assert_eq!(held(&ranges), three);
        let holed = ranges.with(range(16, 16), None);
        assert_eq!(holed.len(), 4);
        assert_eq!(held(&holed.with(range(16, 16), Some(Write))), three);
        let joined = ranges.with(range(0, NO_END), Some(Write));
        assert_eq!(held(&joined), [(0, NO_END, Write)]);
        assert!(joined.with(Range::ALL, None).is_empty());
        assert_eq!(held(&joined.with(range(0, 0), None)), [(1, NO_END, Write)]);
        let cut = joined.with(range(NO_END, NO_END), None);
        assert_eq!(held(&cut), [(0, NO_END - 1, Write)]);
    }

    #[test]
    fn readers_exclude_writers_only() {
        let ranges = Ranges::default().with(range(10, 19), Some(Kind::Read));
        let conflict = |first, last, kind| ranges.conflict(range(first, last), kind).is_some();
        assert!(!conflict(10, 19, Kind::Read));
        assert!(conflict(19, 25, Kind::Write) && conflict(0, 10, Kind::Write));
        assert!(!conflict(20, 25, Kind::Write) && !conflict(0, 9, Kind::Write));
    }

    #[test]
    fn ranges_travel_to_the_host_and_back() {
        for range in [range(0, 0), range(5, 9), range(7, NO_END), Range::ALL] {
            let (start, len) = range.start_and_len();
            assert_eq!(Range::from_start_and_len(start, len), Some(range));
        }
        assert_eq!(range(5, 9).start_and_len(), (5, 5));
        assert_eq!(range(7, NO_END).start_and_len(), (7, 0));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let lock = |start, end, lock_type| FileLock {
            start,
            end,
            lock_type,
            pid: 1,
        };
        assert!(Range::of(&lock(0, NO_END, UNLOCK)).is_ok());
        for wrong in [
            lock(1, 0, READ),
            lock(0, NO_END + 1, READ),
            lock(0, u64::MAX, WRITE),
            lock(0, 0, 3),
            lock(0, 0, u32::MAX),
        ] {
            assert!(Range::of(&wrong).is_err());
        }
    }
}
