use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::channel::Deadline;
use super::regions::Region;
use super::session::Session;
use super::wire::{Message, Request};
use crate::bitmap::{self, WORD_PAGES};
use crate::{DIRTY_PAGE, Error};

/// A bitmap that is shared with the daemon: a bit for each page of guest addresses from 0 on, set when
/// the daemon writes there (the vhost-user specification, "Migration").
#[derive(Debug)]
pub(super) struct DirtyLog {
    map: MmapRegion<()>,
    file: FileOffset,
    /// The pages that there are, by address: a daemon can set any bit.
    pages: Vec<Range<u64>>,
}

/// Bytes of a word of the bitmap.
const WORD: usize = size_of::<u64>();

impl DirtyLog {
    /// An empty one for these regions.
    pub(super) fn new(regions: &[Region]) -> Result<Self, Error> {
        let log = Self::with_size(Self::size_for(regions));
        let mut log = log.map_err(Error::io("make a log of dirty pages"))?;
        log.follow(regions);
        Ok(log)
    }

    /// The guest's memory is in these regions from now on: no other page is one.
    pub(super) fn follow(&mut self, regions: &[Region]) {
        let pages = |region: &Region| bitmap::pages(&(region.guest..region.end()));
        self.pages = regions.iter().map(pages).collect();
        self.pages.sort_by_key(|pages| pages.start);
    }

    /// The daemon cannot cut the file short, which would end the VMM with a SIGBUS.
    fn with_size(size: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(c"virtio-fs-dirty-log", flags)?);
        file.set_len(size)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let file = FileOffset::new(file, 0);
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let map = MmapRegion::from_file(file.clone(), size).map_err(io::Error::other)?;
        Ok(Self {
            map,
            file,
            pages: Vec::new(),
        })
    }

    /// Bytes that it takes, in words.
    fn size_for(regions: &[Region]) -> u64 {
        let end = regions.iter().map(Region::end).max().unwrap_or(0);
        end.div_ceil(DIRTY_PAGE)
            .div_ceil(WORD_PAGES)
            .max(1)
            .saturating_mul(WORD as u64)
    }

    /// Whether it has room for these regions.
    pub(super) fn covers(&self, regions: &[Region]) -> bool {
        Self::size_for(regions) <= self.size()
    }

    fn size(&self) -> u64 {
        self.map.size() as u64
    }

    /// Gives it to the daemon.
    pub(super) fn give(&self, session: &Session, deadline: Deadline) -> Result<(), Error> {
        let deadline = deadline.to("give the daemon a log of dirty pages");
        let message = Message::new(Request::SetLogBase).u64(self.size()).u64(0);
        let file = self.file.file().as_fd();
        // What is in the answer differs from daemon to daemon.
        session.channel.ask(&message, &[file], deadline)?;
        Ok(())
    }

    /// Calls `found` with the address of each page of memory within `range` that is noted, and forgets
    /// it.
    pub(super) fn take(&self, range: &Range<u64>, found: &mut dyn FnMut(u64)) {
        let wanted = bitmap::pages(range);
        let end = wanted.end.min(self.words().saturating_mul(WORD_PAGES));
        for there in &self.pages {
            let pages = there.start.max(wanted.start)..there.end.min(end);
            for (number, bits) in bitmap::words(&pages) {
                let noted = self.word(number, |word| bitmap::take(word, bits));
                let first = number.saturating_mul(WORD_PAGES);
                bitmap::each(noted.unwrap_or(0), first, found);
            }
        }
    }

    /// Notes what `other` has noted.
    pub(super) fn merge(&self, other: &Self) {
        for number in 0..other.words() {
            let noted = other.word(number, |word| bitmap::take(word, u64::MAX));
            if let Some(noted @ 1..) = noted {
                self.word(number, |word| bitmap::note(word, noted));
            }
        }
    }

    fn words(&self) -> u64 {
        self.size().div_euclid(WORD as u64)
    }

    /// Does something to a word, where there is such a word.
    fn word<T>(&self, number: u64, change: impl FnOnce(&AtomicU64) -> T) -> Option<T> {
        let offset = usize::try_from(number.saturating_mul(WORD as u64)).ok()?;
        self.map.get_atomic_ref(offset).ok().map(change)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    fn taken(log: &DirtyLog, range: Range<u64>) -> Vec<u64> {
        let mut pages = Vec::new();
        log.take(&range, &mut |address| pages.push(address / DIRTY_PAGE));
        pages
    }

    fn log_with(pages: &[u64]) -> DirtyLog {
        let mut log = DirtyLog::with_size(32).unwrap();
        log.pages.push(0..256);
        for &page in pages {
            let byte: &std::sync::atomic::AtomicU8 =
                log.map.get_atomic_ref(page as usize / 8).unwrap();
            byte.fetch_or(1 << (page % 8), Ordering::Relaxed);
        }
        log
    }

    #[test]
    fn what_is_noted_is_taken_once() {
        let pages = [0, 7, 8, 63, 64, 200, 255];
        let log = log_with(&pages);
        assert_eq!(taken(&log, 0..u64::MAX), pages);
        assert!(taken(&log, 0..u64::MAX).is_empty());
    }

    #[test]
    fn only_a_range_is_taken() {
        let pages: Vec<u64> = (0..256).collect();
        for (first, last) in [(0, 1), (5, 70), (63, 64), (64, 128), (100, 101), (200, 300)] {
            let log = log_with(&pages);
            let found = taken(&log, first * DIRTY_PAGE..last * DIRTY_PAGE);
            assert_eq!(found, Vec::from_iter(first..last.min(256)));
            assert_eq!(taken(&log, 0..u64::MAX).len(), 256 - found.len());
        }
        let log = log_with(&pages);
        assert_eq!(taken(&log, 4095..4097), [0, 1], "parts of pages");
        assert!(taken(&log, 8192..8192).is_empty());
    }

    /// Whoever is told of one looks it up.
    #[test]
    fn what_is_no_memory_is_not_told() {
        let memory = |ranges: &[(u64, usize)]| {
            let range = |&(page, pages): &(u64, usize)| {
                let (start, size) = (page * DIRTY_PAGE, pages * DIRTY_PAGE as usize);
                let file = std::fs::File::from(
                    rustix::fs::memfd_create(c"memory", MemfdFlags::CLOEXEC).unwrap(),
                );
                file.set_len(size as u64).unwrap();
                (GuestAddress(start), size, Some(FileOffset::new(file, 0)))
            };
            let ranges: Vec<_> = ranges.iter().map(range).collect();
            Region::all(&GuestMemoryMmap::<()>::from_ranges_with_files(ranges).unwrap()).unwrap()
        };
        let set_all = |log: &DirtyLog| {
            for number in 0..log.words() {
                log.word(number, |word| bitmap::note(word, u64::MAX));
            }
        };
        let mut log = DirtyLog::new(&memory(&[(0, 3), (70, 60), (200, 1)])).unwrap();
        set_all(&log);
        let there: Vec<_> = (0..3).chain(70..130).chain([200]).collect();
        assert_eq!(taken(&log, 0..u64::MAX), there);
        set_all(&log);
        log.follow(&memory(&[(1, 1), (100, 2)]));
        assert_eq!(taken(&log, 0..u64::MAX), [1, 100, 101]);
    }

    #[test]
    fn a_larger_one_takes_over() {
        let small = log_with(&[1, 255]);
        let mut large = DirtyLog::with_size(64).unwrap();
        large.pages.push(0..512);
        large.merge(&small);
        assert_eq!(taken(&large, 0..u64::MAX), [1, 255]);
        assert!(taken(&small, 0..u64::MAX).is_empty());
    }
}
