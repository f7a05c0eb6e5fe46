use std::io;

use super::sys::Reservation;
use super::{FileMapping, WindowMapper};

/// Address space of this process that is set aside for a window: the memory of one slot of KVM's,
/// say, in which files come and go.
///
/// What is not mapped cannot be touched, neither by this process (SIGSEGV) nor by the guest, for
/// which KVM ends `KVM_RUN` with EFAULT. Nothing is counted as used for it.
#[derive(Debug)]
pub struct ReservedWindow(Reservation);

impl ReservedWindow {
    /// Sets `size` bytes aside, which is a number of whole pages.
    ///
    /// # Errors
    /// There is no room in the address space, or `size` is 0.
    pub fn new(size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Reservation::new(size).map(Self)
    }

    /// Where it is in this process, until it is dropped.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.0.address()
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size() as u64
    }
}

impl WindowMapper for ReservedWindow {
    fn map(&self, mapping: FileMapping<'_>) -> io::Result<()> {
        self.0.map(mapping)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.clear(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn files_come_and_go() {
        let page = rustix::param::page_size();
        let window = ReservedWindow::new(4 * page as u64).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * page as u64).unwrap();
        file.write_all_at(b"here", page as u64).unwrap();
        let mapping = FileMapping {
            offset: 2 * page as u64,
            len: page as u64,
            file: file.as_fd(),
            file_offset: page as u64,
            writable: true,
        };
        window.map(mapping).unwrap();
        assert_eq!(window.0.peek(2 * page), b'h');
        window.0.poke(2 * page, b't');
        let mut byte = [0];
        file.read_exact_at(&mut byte, page as u64).unwrap();
        assert_eq!(byte, *b"t");
        window.unmap(mapping.offset, mapping.len).unwrap();
        window
            .map(FileMapping {
                file_offset: 0,
                ..mapping
            })
            .unwrap();
        assert_eq!(window.0.peek(2 * page), 0);
    }

    #[test]
    fn nothing_is_mapped_outside() {
        let page = rustix::param::page_size() as u64;
        let window = ReservedWindow::new(4 * page).unwrap();
        let file = tempfile::tempfile().unwrap();
        for (offset, len) in [
            (4, 1),
            (3, 2),
            (0, 5),
            (u64::MAX / page, 1),
            (1, u64::MAX / page),
        ] {
            let (offset, len) = (offset * page, len * page);
            let mapping = FileMapping {
                offset,
                len,
                file: file.as_fd(),
                file_offset: 0,
                writable: false,
            };
            assert!(window.map(mapping).is_err());
            assert!(window.unmap(offset, len).is_err());
        }
        assert!(ReservedWindow::new(0).is_err());
        assert!(ReservedWindow::new(u64::MAX).is_err());
    }

    #[test]
    fn a_file_that_is_not_to_be_written_is_not() {
        let page = rustix::param::page_size() as u64;
        let window = ReservedWindow::new(page).unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mapping = |writable| FileMapping {
            offset: 0,
            len: page,
            file: file.as_fd(),
            file_offset: 0,
            writable,
        };
        assert!(window.map(mapping(true)).is_err());
        window.map(mapping(false)).unwrap();
    }

    /// Whatever this process mapped next would be in the gap, and the guest's.
    #[test]
    fn what_cannot_be_mapped_leaves_no_gap() {
        let page = rustix::param::page_size() as u64;
        let window = ReservedWindow::new(4 * page).unwrap();
        // A regular file that has an operation to be mapped, which fails.
        let file = File::open("/sys/kernel/fscaps").unwrap();
        let mapping = FileMapping {
            offset: page,
            len: page,
            file: file.as_fd(),
            file_offset: 0,
            writable: false,
        };
        assert!(window.map(mapping).is_err());
        assert!(is_set_aside(&window));
    }

    /// Of those the kernel maps whole pages, and a page of theirs is larger than what was asked for:
    /// it would be over what is mapped behind it, and beyond the window.
    #[test]
    fn what_has_larger_pages_is_not_mapped() {
        let window = ReservedWindow::new(4 << 20).unwrap();
        let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let Ok(file) = memfd_create("huge", flags) else {
            eprintln!("what_has_larger_pages_is_not_mapped: skipped: the host has no such pages");
            return;
        };
        rustix::fs::ftruncate(&file, 2 << 20).unwrap();
        let into_page = window.address() as u64 % (2 << 20);
        for len in [rustix::param::page_size() as u64, 2 << 20] {
            let mapping = FileMapping {
                offset: ((2 << 20) - into_page) % (2 << 20),
                len,
                file: file.as_fd(),
                file_offset: 0,
                writable: true,
            };
            let refused = window.map(mapping).unwrap_err();
            // Were the host asked, which may have none left: ENOMEM.
            assert_eq!(
                refused.raw_os_error(),
                Some(Errno::OPNOTSUPP.raw_os_error())
            );
        }
    }

    /// Whether each address of the window belongs to a mapping of this process.
    fn is_set_aside(window: &ReservedWindow) -> bool {
        let start = window.address() as u64;
        let end = start + window.size();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut covered = start;
        for line in maps.lines() {
            let (range, _) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            if from <= covered && covered < to {
                covered = to;
            }
        }
        covered >= end
    }
}
