//! Another way to an open file: its entry in `/proc/self/fd`, which leads to the same inode
//! whatever became of its names, and which can be opened anew with other flags (proc(5)).

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fuse_fs::{Errno, Result};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::NewError;

/// Digits of the largest descriptor, and a NUL.
const NAME_LEN: usize = 11;

/// `/proc/self/fd` of this process.
#[derive(Debug)]
pub(crate) struct ProcSelfFd(OwnedFd);

impl ProcSelfFd {
    /// Takes `given`, or opens it.
    pub(crate) fn new(given: Option<OwnedFd>) -> std::result::Result<Self, NewError> {
        let fd = match given {
            Some(fd) => fd,
            None => rustix::fs::open(
                c"/proc/self/fd",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| NewError::Proc {
                source: errno.into(),
            })?,
        };
        Ok(Self(fd))
    }

    /// Makes sure that what is shown for `fd` is `fd`.
    pub(crate) fn check(&self, fd: impl AsFd) -> std::result::Result<(), NewError> {
        let shown = FdName::new(&fd).ok().and_then(|name| {
            rustix::fs::statx(&self.0, name.as_c_str(), AtFlags::empty(), StatxFlags::INO).ok()
        });
        let own = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO).ok();
        let identity =
            |stat: rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if shown.is_some() && shown.map(identity) == own.map(identity) {
            Ok(())
        } else {
            Err(NewError::ForeignProc)
        }
    }

    /// Opens the inode of `fd` anew.
    pub(crate) fn reopen(&self, fd: impl AsFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name = FdName::new(fd).map_err(|_| rustix::io::Errno::BADF)?;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name.as_c_str(), flags, Mode::empty())
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.0
    }
}

/// The name of a descriptor in `/proc/self/fd`: its number.
#[derive(Debug)]
pub(crate) struct FdName([u8; NAME_LEN]);

impl FdName {
    pub(crate) fn new(fd: impl AsFd) -> Result<Self> {
        let mut name = [0; NAME_LEN];
        write!(&mut name[..], "{}\0", fd.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?;
        Ok(Self(name))
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_named_by_its_number() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let name = FdName::new(&file).unwrap();
        assert_eq!(
            name.as_c_str().to_str().unwrap(),
            file.as_raw_fd().to_string()
        );
        assert_eq!(i32::MAX.to_string().len() + 1, NAME_LEN);
    }
}
