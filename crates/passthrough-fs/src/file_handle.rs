use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::{Errno, Result};

use crate::sys::{MAX_HANDLE, RawHandle, name_to_handle_at, open_by_handle_at};

/// `AT_HANDLE_FID` (name_to_handle_at(2)), which takes Linux 6.5.
const HANDLE_FID: AtFlags = AtFlags::from_bits_retain(0x200);
/// `FILEID_INO64_GEN`: what the kernel makes up with [`HANDLE_FID`] where the filesystem itself has
/// no handles. Without a generation of the filesystem's, it is no more than the inode number.
const INO64_GEN: i32 = 0x81;

/// What tells an inode from all that its filesystem ever had (open_by_handle_at(2)): its number,
/// as a rule, and a generation, so that an inode that was given the same number has another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileHandle {
    kind: i32,
    bytes: Box<[u8]>,
}

impl FileHandle {
    /// The handle of an open file, O_PATH included. Fails where the filesystem has none.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        Self::telling(fd.as_fd(), c"", AtFlags::EMPTY_PATH)
    }

    /// The handle of what `name` names in `dir`, a symbolic link included.
    pub(crate) fn of_name(dir: impl AsFd, name: &CStr) -> Result<Self> {
        Self::telling(dir.as_fd(), name, AtFlags::empty())
    }

    /// The handle of an open file, O_PATH included, if it is one that can be [opened](Self::open).
    /// EOPNOTSUPP where the filesystem has none.
    pub(crate) fn to_open(fd: impl AsFd) -> Result<Self> {
        name_to_handle_at(fd.as_fd(), c"", AtFlags::EMPTY_PATH).and_then(Self::new)
    }

    /// The handle that can be opened or, where the filesystem has none (overlayfs, as a rule), the
    /// one that only tells inodes apart.
    fn telling(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Self> {
        let raw = match name_to_handle_at(dir, name, flags) {
            Err(Errno::OPNOTSUPP) => {
                let raw = name_to_handle_at(dir, name, flags | HANDLE_FID)?;
                if raw.kind == INO64_GEN {
                    return Err(Errno::OPNOTSUPP);
                }
                raw
            }
            raw => raw?,
        };
        Self::new(raw)
    }

    /// Opens the file on the mount that `mount` is on. EPERM without CAP_DAC_READ_SEARCH, ESTALE
    /// where the file is gone.
    pub(crate) fn open(&self, mount: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let mut raw = RawHandle {
            len: u32::try_from(self.bytes.len()).map_err(|_| Errno::STALE)?,
            kind: self.kind,
            bytes: [0; MAX_HANDLE],
        };
        let bytes = raw.bytes.get_mut(..self.bytes.len());
        bytes.ok_or(Errno::STALE)?.copy_from_slice(&self.bytes);
        open_by_handle_at(mount.as_fd(), &raw, flags | OFlags::CLOEXEC)
    }

    /// Its type and its bytes.
    pub(crate) fn parts(&self) -> (i32, &[u8]) {
        (self.kind, &self.bytes)
    }

    /// Of these parts, unless they are more than a handle can have.
    pub(crate) fn from_parts(kind: i32, bytes: &[u8]) -> Option<Self> {
        let bytes = (bytes.len() <= MAX_HANDLE).then(|| bytes.into())?;
        Some(Self { kind, bytes })
    }

    fn new(raw: RawHandle) -> Result<Self> {
        let len = usize::try_from(raw.len).map_err(|_| Errno::OVERFLOW)?;
        Ok(Self {
            kind: raw.kind,
            bytes: raw.bytes.get(..len).ok_or(Errno::OVERFLOW)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_with_a_reused_number_has_another_handle() {
        let dir = tempfile::TempDir::new_in("/dev/shm").unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let handle = FileHandle::of(&file).unwrap();
        assert_eq!(FileHandle::of(&file).unwrap(), handle);
        let dir_fd = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(FileHandle::of_name(&dir_fd, c"file").unwrap(), handle);
        drop(file);
        for _ in 0..100 {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "").unwrap();
            assert_ne!(FileHandle::of_name(&dir_fd, c"file").unwrap(), handle);
        }
    }

    #[test]
    fn a_handle_that_is_no_more_than_a_number_is_none() {
        let proc = std::fs::File::open("/proc/self").unwrap();
        assert!(FileHandle::of(&proc).is_err());
    }

    #[test]
    fn a_file_is_opened_by_its_handle_until_it_is_gone() {
        let dir = tempfile::TempDir::new_in("/dev/shm").unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let dir_fd = std::fs::File::open(dir.path()).unwrap();
        let handle = FileHandle::of_name(&dir_fd, c"file").unwrap();
        match handle.open(&dir_fd, OFlags::PATH) {
            Ok(fd) => assert_eq!(FileHandle::of(fd).unwrap(), handle),
            Err(errno) => {
                assert_eq!(errno, Errno::PERM);
                eprintln!("skipped: needs CAP_DAC_READ_SEARCH");
                return;
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            handle.open(&dir_fd, OFlags::PATH).unwrap_err(),
            Errno::STALE
        );
    }
}
