//! Another way to an open file: its entry in `/proc/self/fd`, which leads to the same inode
//! whatever became of its names, and which can be opened anew with other flags (proc(5)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::path::DecInt;

use crate::NewError;

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
        let name = name(&fd);
        let shown =
            rustix::fs::statx(&self.0, name.as_c_str(), AtFlags::empty(), StatxFlags::INO).ok();
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
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name(fd).as_c_str(), flags, Mode::empty())
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.0
    }
}

/// The name of a descriptor in `/proc/self/fd`: its number.
pub(crate) fn name(fd: impl AsFd) -> DecInt {
    DecInt::from_fd(fd)
}
