use std::collections::VecDeque;

use crate::memory::{PAGE, Segment};

/// Which free pages are used first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PageReuse {
    /// Those that were freed last: what is in flight at once stays in the processor's caches, as
    /// with a guest's direct I/O from a few buffers.
    #[default]
    LastFreed,
    /// Those that were freed first: data goes round through all of
    /// [`Options::data_memory`](crate::Options::data_memory), as it does where a guest fills its
    /// page cache.
    FirstFreed,
}

/// Pages of the guest's memory for data, handed out singly: as in a guest, a request's pages end
/// up scattered.
#[derive(Debug)]
pub(crate) struct PagePool {
    /// Offset of the first page.
    start: usize,
    /// Those at the end are used first.
    free: VecDeque<u32>,
    reuse: PageReuse,
}

impl PagePool {
    /// `count` pages from `start` on.
    pub(crate) fn new(start: usize, count: usize) -> Self {
        Self {
            start,
            free: (0..count as u32).rev().collect(),
            reuse: PageReuse::default(),
        }
    }

    pub(crate) const fn set_reuse(&mut self, reuse: PageReuse) {
        self.reuse = reuse;
    }

    /// Appends segments of a page each, the last one shorter, that hold `len` bytes. Appends
    /// nothing and returns false where there are not enough free pages.
    #[must_use]
    pub(crate) fn take(&mut self, len: usize, segments: &mut Vec<Segment>) -> bool {
        let Some(rest) = self.free.len().checked_sub(len.div_ceil(PAGE)) else {
            return false;
        };
        let mut left = len;
        for page in self.free.drain(rest..).rev() {
            let len = left.min(PAGE);
            left -= len;
            segments.push(Segment {
                offset: self.start + page as usize * PAGE,
                len,
            });
        }
        true
    }

    /// Takes back the pages of those `segments` that [`take`](Self::take) made.
    pub(crate) fn give_back(&mut self, segments: &[Segment]) {
        let start = self.start;
        let page = |segment: &Segment| Some((segment.offset.checked_sub(start)? / PAGE) as u32);
        // In an order that has them come out in theirs.
        match self.reuse {
            PageReuse::LastFreed => self.free.extend(segments.iter().rev().filter_map(page)),
            PageReuse::FirstFreed => {
                for page in segments.iter().filter_map(page) {
                    self.free.push_front(page);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which page is used when one at a time is.
    fn in_turn(reuse: PageReuse) -> [usize; 4] {
        let mut pool = PagePool::new(0, 3);
        pool.set_reuse(reuse);
        std::array::from_fn(|_| {
            let mut taken = Vec::new();
            assert!(pool.take(PAGE, &mut taken));
            pool.give_back(&taken);
            taken[0].offset / PAGE
        })
    }

    #[test]
    fn pages_are_used_again_at_once_or_in_turn() {
        let [first, then @ ..] = in_turn(PageReuse::LastFreed);
        assert_eq!(then, [first; 3]);
        let [first, second, third, again] = in_turn(PageReuse::FirstFreed);
        assert_ne!(first, second);
        assert_ne!(second, third);
        assert_eq!(again, first);
    }

    #[test]
    fn no_pages_are_taken_where_there_are_too_few() {
        let mut pool = PagePool::new(0, 2);
        let mut taken = Vec::new();
        assert!(!pool.take(2 * PAGE + 1, &mut taken));
        assert!(taken.is_empty());
        assert!(pool.take(PAGE + 1, &mut taken));
        assert_eq!(taken.iter().map(|s| s.len).collect::<Vec<_>>(), [PAGE, 1]);
    }
}
