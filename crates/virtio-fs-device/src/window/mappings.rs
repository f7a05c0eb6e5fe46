use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::io::Errno;

use super::{FileMapping, Window, WindowMapper, WindowStatus, has_larger_pages, is_of_pages};

/// Most mappings at a time. Linux maps files in pieces of 2 MiB, of which so many make a window of
/// 32 GiB; and each can cost the VMM two areas of its address space, of which Linux lets a process
/// have 65530 (`vm.max_map_count`).
pub(crate) const MAX_MAPPINGS: usize = 16384;

/// What is mapped into a window. What it is asked comes from a daemon, and is checked here.
pub(crate) struct Mappings {
    /// Bytes, as the guest sees it.
    size: u64,
    mapper: Arc<dyn WindowMapper>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Whether anything may be mapped: a driver uses the device, and a daemon is there to do it.
    open: bool,
    /// Lengths by offset; none overlaps another.
    ranges: BTreeMap<u64, u64>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the driver does not use the device")]
    Closed,
    #[error("there is no such shared memory region")]
    Region,
    #[error("there are no such flags")]
    Flags,
    #[error("it is not of whole pages of this host")]
    Pages,
    #[error("it is not in the window")]
    Outside,
    #[error("something is mapped there")]
    Overlap,
    #[error("it is no whole mapping")]
    NotMapped,
    #[error("there are {MAX_MAPPINGS} mappings already")]
    TooMany,
    #[error("it is no regular file")]
    FileType,
    #[error("its pages are larger than this host's")]
    LargerPages,
    #[error("cannot look at the file: {0}")]
    File(#[from] Errno),
    #[error(transparent)]
    Mapper(#[from] io::Error),
}

impl Mappings {
    /// Those of a window that is there for nobody yet, of which the guest sees `size` bytes.
    pub(crate) fn new(window: &Window, size: u64) -> Self {
        Self {
            size,
            mapper: Arc::clone(&window.mapper),
            inner: Mutex::new(Inner {
                open: false,
                ranges: BTreeMap::new(),
            }),
        }
    }

    pub(crate) fn status(&self) -> WindowStatus {
        WindowStatus {
            size: self.size,
            mappings: self.lock().ranges.len(),
        }
    }

    /// From now on there may be mappings.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Drops all mappings, and takes no more. Returns how many there were.
    pub(crate) fn close(&self) -> usize {
        let mut inner = self.lock();
        inner.open = false;
        let ranges = std::mem::take(&mut inner.ranges);
        for (&offset, &len) in &ranges {
            if let Err(error) = self.mapper.unmap(offset, len) {
                tracing::error!(offset, len, %error, "a file stays mapped into the DAX window");
            }
        }
        ranges.len()
    }

    pub(crate) fn map(&self, mapping: FileMapping<'_>) -> Result<(), Refusal> {
        let FileMapping { offset, len, .. } = mapping;
        let end = self.check(offset, len)?;
        if !is_of_pages(mapping.file_offset) || mapping.file_offset.checked_add(len).is_none() {
            return Err(Refusal::Pages);
        }
        check_file(&mapping)?;
        let mut inner = self.lock();
        if !inner.open {
            return Err(Refusal::Closed);
        }
        if inner.ranges.len() >= MAX_MAPPINGS {
            return Err(Refusal::TooMany);
        }
        // The last one that begins before the end is the only one that could reach in.
        let before = inner.ranges.range(..end).next_back();
        if before.is_some_and(|(&at, &len)| at.saturating_add(len) > offset) {
            return Err(Refusal::Overlap);
        }
        self.mapper.map(mapping)?;
        inner.ranges.insert(offset, len);
        Ok(())
    }

    pub(crate) fn unmap(&self, offset: u64, len: u64) -> Result<(), Refusal> {
        self.check(offset, len)?;
        let mut inner = self.lock();
        if inner.ranges.get(&offset) != Some(&len) {
            return Err(Refusal::NotMapped);
        }
        self.mapper.unmap(offset, len)?;
        inner.ranges.remove(&offset);
        Ok(())
    }

    /// Returns the end of a range that can be one of the window.
    fn check(&self, offset: u64, len: u64) -> Result<u64, Refusal> {
        match offset.checked_add(len) {
            _ if len == 0 || !is_of_pages(offset) || !is_of_pages(len) => Err(Refusal::Pages),
            Some(end) if end <= self.size => Ok(end),
            _ => Err(Refusal::Outside),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        self.close();
    }
}

/// Checks that it is a regular file, of this host's pages: what a device would map is not for a
/// guest. The file system is not asked for more than it has at hand, as it could be one that never
/// answers.
fn check_file(mapping: &FileMapping<'_>) -> Result<(), Refusal> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(mapping.file, "", flags, StatxFlags::TYPE)?;
    match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile if has_larger_pages(mapping.file)? => Err(Refusal::LargerPages),
        FileType::RegularFile => Ok(()),
        _ => Err(Refusal::FileType),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// Notes what it is asked, and can refuse.
    #[derive(Default)]
    struct Notes {
        mapped: Mutex<BTreeMap<u64, u64>>,
        fails: Mutex<bool>,
    }

    impl WindowMapper for Notes {
        fn map(&self, mapping: FileMapping<'_>) -> io::Result<()> {
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let mut mapped = self.mapped.lock().unwrap();
            assert_eq!(mapped.insert(mapping.offset, mapping.len), None);
            Ok(())
        }

        fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            assert_eq!(self.mapped.lock().unwrap().remove(&offset), Some(len));
            Ok(())
        }
    }

    /// A window of 16 pages.
    fn window() -> (Arc<Notes>, Mappings, u64) {
        let notes = Arc::new(Notes::default());
        let page = rustix::param::page_size() as u64;
        let window = Window {
            size: 32 * page,
            mapper: Arc::clone(&notes) as _,
        };
        let mappings = Mappings::new(&window, 16 * page);
        mappings.open();
        (notes, mappings, page)
    }

    fn map(mappings: &Mappings, offset: u64, len: u64) -> Result<(), Refusal> {
        map_at(mappings, offset, len, 0, &tempfile::tempfile().unwrap())
    }

    fn map_at(
        mappings: &Mappings,
        offset: u64,
        len: u64,
        file_offset: u64,
        file: &File,
    ) -> Result<(), Refusal> {
        mappings.map(FileMapping {
            offset,
            len,
            file: file.as_fd(),
            file_offset,
            writable: true,
        })
    }

    macro_rules! refused {
        ($result:expr, $why:pat) => {
            let result = $result;
            assert!(matches!(result, Err($why)), "{result:?}");
        };
    }

    #[test]
    fn what_cannot_be_in_the_window_is_refused() {
        let (_, mappings, page) = window();
        let size = 16 * page;
        for (offset, len) in [(1, page), (page - 1, page), (0, page + 1), (0, 1), (0, 0)] {
            refused!(map(&mappings, offset, len), Refusal::Pages);
            refused!(mappings.unmap(offset, len), Refusal::Pages);
        }
        let last = u64::MAX - (page - 1);
        for (offset, len) in [
            (0, size + page),
            (size, page),
            (page, size),
            (last, page),
            (page, last),
            (last, last),
        ] {
            refused!(map(&mappings, offset, len), Refusal::Outside);
            refused!(mappings.unmap(offset, len), Refusal::Outside);
        }
        let file = tempfile::tempfile().unwrap();
        for file_offset in [1, page + 1, u64::MAX, last] {
            refused!(
                map_at(&mappings, 0, page, file_offset, &file),
                Refusal::Pages
            );
        }
        assert_eq!(mappings.status().mappings, 0);
        map(&mappings, 0, size).unwrap();
    }

    #[test]
    fn only_regular_files_are_mapped() {
        let (_, mappings, page) = window();
        for path in ["/dev/zero", "/", "/proc"] {
            let file = File::open(path).unwrap();
            refused!(map_at(&mappings, 0, page, 0, &file), Refusal::FileType);
        }
    }

    /// Whatever maps them, it would map more than is asked for.
    #[test]
    fn files_of_larger_pages_are_not_mapped() {
        let (_, mappings, page) = window();
        let Ok(file) = memfd_create("huge", MemfdFlags::HUGETLB) else {
            eprintln!("files_of_larger_pages_are_not_mapped: skipped: the host has no such pages");
            return;
        };
        let file = File::from(file);
        refused!(map_at(&mappings, 0, page, 0, &file), Refusal::LargerPages);
        let memory = memfd_create("memory", MemfdFlags::empty()).unwrap();
        map_at(&mappings, 0, page, 0, &memory.into()).unwrap();
    }

    #[test]
    fn nothing_is_mapped_twice() {
        let (_, mappings, page) = window();
        map(&mappings, 4 * page, 4 * page).unwrap();
        for (offset, len) in [(4, 4), (0, 5), (7, 1), (5, 2), (0, 16), (4, 1), (7, 9)] {
            refused!(map(&mappings, offset * page, len * page), Refusal::Overlap);
        }
        map(&mappings, 0, 4 * page).unwrap();
        map(&mappings, 8 * page, page).unwrap();
        assert_eq!(mappings.status().mappings, 3);
    }

    #[test]
    fn only_whole_mappings_are_unmapped() {
        let (notes, mappings, page) = window();
        map(&mappings, 4 * page, 4 * page).unwrap();
        map(&mappings, 8 * page, 4 * page).unwrap();
        for (offset, len) in [(4, 3), (5, 3), (4, 8), (4, 5), (0, 16), (0, 4), (12, 4)] {
            refused!(
                mappings.unmap(offset * page, len * page),
                Refusal::NotMapped
            );
        }
        mappings.unmap(4 * page, 4 * page).unwrap();
        refused!(mappings.unmap(4 * page, 4 * page), Refusal::NotMapped);
        map(&mappings, 4 * page, 2 * page).unwrap();
        assert_eq!(mappings.close(), 2);
        assert!(notes.mapped.lock().unwrap().is_empty());
        refused!(map(&mappings, 0, page), Refusal::Closed);
        mappings.open();
        map(&mappings, 0, page).unwrap();
        drop(mappings);
        assert!(notes.mapped.lock().unwrap().is_empty());
    }

    #[test]
    fn what_the_mapper_refuses_changes_nothing() {
        let (notes, mappings, page) = window();
        map(&mappings, 0, page).unwrap();
        *notes.fails.lock().unwrap() = true;
        refused!(map(&mappings, page, page), Refusal::Mapper(_));
        refused!(mappings.unmap(0, page), Refusal::Mapper(_));
        assert_eq!(mappings.status().mappings, 1);
        *notes.fails.lock().unwrap() = false;
        mappings.unmap(0, page).unwrap();
    }

    #[test]
    fn there_are_only_so_many() {
        let page = rustix::param::page_size() as u64;
        let size = (MAX_MAPPINGS as u64 + 1) * page;
        let mapper = Arc::new(Notes::default());
        let window = Window {
            size,
            mapper: mapper as _,
        };
        let mappings = Mappings::new(&window, size);
        mappings.open();
        let file = tempfile::tempfile().unwrap();
        for number in 0..MAX_MAPPINGS as u64 {
            map_at(&mappings, number * page, page, 0, &file).unwrap();
        }
        refused!(
            map_at(&mappings, size - page, page, 0, &file),
            Refusal::TooMany
        );
        mappings.unmap(0, page).unwrap();
        map_at(&mappings, size - page, page, 0, &file).unwrap();
    }
}
