use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use arc_swap::ArcSwap;
use virtio_fs_queue::WriteLog;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::bitmap::{self, WORD_PAGES, pages};

/// Which pages of the guest were written to.
#[derive(Default)]
pub(super) struct DirtyLog {
    /// As the guest's memory is now, by address.
    regions: ArcSwap<Vec<Arc<Region>>>,
}

/// The pages of a region of memory.
struct Region {
    pages: Range<u64>,
    words: Box<[AtomicU64]>,
}

impl DirtyLog {
    /// The guest's memory is `memory` from now on. What was noted of what is still there stays.
    pub(super) fn follow<M: GuestMemoryBackend>(&self, memory: &M) {
        let before = self.regions.load_full();
        let region = |region: &M::R| {
            let pages = pages(&(region.start_addr().0..end(region)));
            let same = before.iter().find(|before| before.pages == pages);
            same.map_or_else(|| Arc::new(Region::new(pages)), Arc::clone)
        };
        let mut regions: Vec<_> = memory.iter().map(region).collect();
        regions.sort_by_key(|region| region.pages.start);
        drop(before);
        self.take_over(&self.regions.swap(Arc::new(regions)));
    }

    /// Notes what was noted of regions that are others now.
    fn take_over(&self, before: &Arc<Vec<Arc<Region>>>) {
        // Who is about to note something there has them, and does not take long.
        while Arc::strong_count(before) > 1 {
            thread::yield_now();
        }
        let is_gone = |region: &&Arc<Region>| Arc::strong_count(region) == 1;
        for region in before.iter().filter(is_gone) {
            region.take(&(0..u64::MAX), &mut |page| {
                self.wrote(GuestAddress(page), 1)
            });
        }
    }

    /// Calls `found` with the address of each page within `range` that was noted since it was last
    /// asked for.
    pub(super) fn take(&self, range: &Range<u64>, found: &mut dyn FnMut(u64)) {
        let wanted = pages(range);
        for region in &**self.regions.load() {
            region.take(&wanted, found);
        }
    }
}

impl WriteLog for DirtyLog {
    fn wrote(&self, address: GuestAddress, len: usize) {
        let end = address.0.saturating_add(len as u64);
        let written = pages(&(address.0..end));
        let regions = self.regions.load();
        // A run of memory may lie in several regions that adjoin.
        let first = regions.partition_point(|region| region.pages.end <= written.start);
        let within = |region: &&Arc<Region>| region.pages.start < written.end;
        for region in regions.iter().skip(first).take_while(within) {
            region.mark(&written);
        }
    }
}

impl Region {
    fn new(pages: Range<u64>) -> Self {
        let count = pages.end.saturating_sub(pages.start).div_ceil(WORD_PAGES);
        Self {
            pages,
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn mark(&self, pages: &Range<u64>) {
        for (_, word, bits) in self.within(pages) {
            bitmap::note(word, bits);
        }
    }

    fn take(&self, pages: &Range<u64>, found: &mut dyn FnMut(u64)) {
        for (first, word, bits) in self.within(pages) {
            bitmap::each(bitmap::take(word, bits), first, found);
        }
    }

    /// The words that note `pages`, each with the page of its lowest bit and the bits that are meant.
    fn within(&self, pages: &Range<u64>) -> impl Iterator<Item = (u64, &AtomicU64, u64)> {
        let start = self.pages.start;
        let from = pages.start.max(start).saturating_sub(start);
        let to = pages.end.min(self.pages.end).saturating_sub(start);
        bitmap::words(&(from..to)).filter_map(move |(number, bits)| {
            let word = self.words.get(usize::try_from(number).ok()?)?;
            let first = start.saturating_add(number.saturating_mul(WORD_PAGES));
            Some((first, word, bits))
        })
    }
}

fn end(region: &impl GuestMemoryRegion) -> u64 {
    region.start_addr().0.saturating_add(region.len())
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::DIRTY_PAGE;

    const PAGE: u64 = DIRTY_PAGE;

    fn memory(ranges: &[(u64, u64)]) -> GuestMemoryMmap {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&(page, pages)| (GuestAddress(page * PAGE), (pages * PAGE) as usize))
            .collect();
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    fn following(memory: &GuestMemoryMmap) -> DirtyLog {
        let log = DirtyLog::default();
        log.follow(memory);
        log
    }

    fn taken(log: &DirtyLog, range: Range<u64>) -> Vec<u64> {
        let mut pages = Vec::new();
        log.take(&range, &mut |address| pages.push(address / PAGE));
        pages
    }

    #[test]
    fn what_is_written_is_found_once() {
        let log = following(&memory(&[(10, 200), (1000, 1), (1001, 130)]));
        log.wrote(GuestAddress(10 * PAGE), 1);
        log.wrote(GuestAddress(73 * PAGE - 1), 2);
        log.wrote(GuestAddress(209 * PAGE + 5), PAGE as usize - 5);
        log.wrote(GuestAddress(1000 * PAGE), 3 * PAGE as usize);
        // Nowhere.
        log.wrote(GuestAddress(500 * PAGE), 8);
        log.wrote(GuestAddress(u64::MAX), 8);
        log.wrote(GuestAddress(0), 0);
        let all = [10, 72, 73, 209, 1000, 1001, 1002];
        assert_eq!(taken(&log, 0..u64::MAX), all);
        assert!(taken(&log, 0..u64::MAX).is_empty());
    }

    #[test]
    fn any_range_is_taken_alone() {
        let log = following(&memory(&[(0, 300)]));
        let whole = || log.wrote(GuestAddress(0), 300 * PAGE as usize);
        for (from, to) in [
            (0, 0),
            (0, 1),
            (63, 64),
            (64, 65),
            (1, 129),
            (299, 300),
            (5, 9),
        ] {
            whole();
            let expected: Vec<_> = (from..to).collect();
            assert_eq!(taken(&log, from * PAGE..to * PAGE), expected);
            assert_eq!(taken(&log, 0..u64::MAX).len() as u64, 300 - (to - from));
        }
        whole();
        assert_eq!(
            taken(&log, PAGE + 1..PAGE + 2),
            [1],
            "a page is not taken in part"
        );
        assert!(taken(&log, 300 * PAGE..u64::MAX).is_empty());
    }

    #[test]
    fn what_was_noted_stays_when_memory_comes_and_goes() {
        let log = following(&memory(&[(0, 10), (20, 10)]));
        log.wrote(GuestAddress(3 * PAGE), 1);
        log.wrote(GuestAddress(23 * PAGE), 1);
        log.follow(&memory(&[(0, 10), (40, 10)]));
        log.wrote(GuestAddress(23 * PAGE), 1);
        log.wrote(GuestAddress(43 * PAGE), 1);
        assert_eq!(taken(&log, 0..u64::MAX), [3, 43]);
    }

    #[test]
    fn what_was_noted_stays_when_memory_is_cut_in_another_way() {
        let log = following(&memory(&[(0, 10), (10, 10)]));
        for page in [0, 9, 10, 19] {
            log.wrote(GuestAddress(page * PAGE), 1);
        }
        log.follow(&memory(&[(0, 5), (5, 10)]));
        assert_eq!(taken(&log, 0..u64::MAX), [0, 9, 10]);
    }

    #[test]
    fn nothing_is_missed_while_memory_changes() {
        let maps = [&[(0, 100)][..], &[(0, 150)]].map(memory);
        let log = following(&maps[0]);
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for page in (0..100).cycle().take(20_000) {
                    log.wrote(GuestAddress(page * PAGE), 1);
                }
            });
            while !writing.is_finished() {
                maps.iter().for_each(|memory| log.follow(memory));
            }
        });
        assert_eq!(taken(&log, 0..u64::MAX), Vec::from_iter(0..100));
    }
}
