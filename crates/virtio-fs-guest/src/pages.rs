use crate::memory::{PAGE, Segment};

/// Pages of the guest's memory for data, handed out singly, the last returned first: as in a
/// guest, a request's pages end up scattered.
#[derive(Debug)]
pub(crate) struct PagePool {
    /// Offset of the first page.
    start: usize,
    free: Vec<u32>,
}

impl PagePool {
    /// `count` pages from `start` on.
    pub(crate) fn new(start: usize, count: usize) -> Self {
        Self {
            start,
            free: (0..count as u32).rev().collect(),
        }
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
        for segment in segments.iter().rev() {
            if let Some(offset) = segment.offset.checked_sub(self.start) {
                self.free.push((offset / PAGE) as u32);
            }
        }
    }
}
