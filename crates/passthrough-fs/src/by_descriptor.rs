//! What is done to an inode by its descriptor, though that was opened with O_PATH.
//!
//! Newer kernels take such a descriptor for it, together with an empty path. On older ones, the
//! descriptor's entry in `/proc/self/fd` is a path of the inode, which takes longer to walk.

use std::ffi::CStr;

use fuse_fs::Result;
use rustix::fs::{ABS, AtFlags, Mode, Timespec, Timestamps};
use rustix::io::{Errno, Result as SysResult};

use crate::pin::Pinned;
use crate::volume::Learned;
use crate::{PassthroughFs, proc, sys};

/// What of it the host's kernel does.
#[derive(Debug)]
pub(crate) struct ByDescriptor {
    /// fchmodat2(2), since Linux 6.6.
    chmod: Learned,
    /// utimensat(2) with AT_EMPTY_PATH, since Linux 5.8.
    times: Learned,
    /// linkat(2) with AT_EMPTY_PATH, for who has CAP_DAC_READ_SEARCH, or opened the descriptor.
    link: Learned,
    /// getxattrat(2) and its kin, since Linux 6.13. They do take a directory and a path in it, but
    /// no descriptor that was opened with O_PATH.
    pub(crate) xattrs: Learned,
}

impl ByDescriptor {
    /// Asks the kernel for what is an error, but another one where it knows the call. What a filter
    /// forbids (seccomp(2)) is not there either, whatever errors it makes of it.
    pub(crate) fn probe() -> Self {
        let unknown = AtFlags::from_bits_retain(u32::MAX);
        let chmod = sys::fchmodat2(ABS, c"", 0, unknown);
        let xattrs = sys::getxattrat(ABS, c"", unknown, c"", &mut []);
        let now = Timespec::default();
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let times = rustix::fs::utimensat(ABS, c"", &times, AtFlags::EMPTY_PATH);
        Self {
            chmod: Learned::probed(chmod == Err(Errno::INVAL)),
            times: Learned::probed(times == Err(Errno::BADF)),
            link: Learned::probed(true),
            xattrs: Learned::probed(xattrs == Err(Errno::INVAL)),
        }
    }
}

impl PassthroughFs {
    /// Sets the mode of an inode that is no symbolic link.
    pub(crate) fn chmod(&self, inode: &Pinned, mode: Mode) -> Result<()> {
        let direct = || sys::fchmodat2(inode, c"", mode.as_raw_mode(), AtFlags::EMPTY_PATH);
        let done = if_known(&self.by_descriptor.chmod, direct).unwrap_or_else(|| {
            let path = proc::name(inode);
            rustix::fs::chmodat(self.proc.dir(), path.as_c_str(), mode, AtFlags::empty())
        });
        Ok(done?)
    }

    pub(crate) fn set_times(&self, inode: &Pinned, times: &Timestamps) -> Result<()> {
        let direct = || rustix::fs::utimensat(inode, c"", times, AtFlags::EMPTY_PATH);
        let done = if_known(&self.by_descriptor.times, direct).unwrap_or_else(|| {
            let path = proc::name(inode);
            rustix::fs::utimensat(self.proc.dir(), path.as_c_str(), times, AtFlags::empty())
        });
        Ok(done?)
    }

    /// Gives an inode another name.
    pub(crate) fn link_as(&self, inode: &Pinned, dir: &Pinned, name: &CStr) -> Result<()> {
        let known = &self.by_descriptor.link;
        // Who may not do it is told that it is not there. What has lost its last name is not, either.
        if known.holds() {
            match rustix::fs::linkat(inode, c"", dir, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT) => {}
                done => return Ok(done?),
            }
        }
        let path = proc::name(inode);
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(self.proc.dir(), path.as_c_str(), dir, name, follow)?;
        known.refuted();
        Ok(())
    }
}

/// What `call` says, unless the kernel does not know it.
pub(crate) fn if_known<T>(
    known: &Learned,
    call: impl FnOnce() -> SysResult<T>,
) -> Option<SysResult<T>> {
    if !known.holds() {
        return None;
    }
    match call() {
        Err(Errno::NOSYS) => {
            known.refuted();
            None
        }
        done => Some(done),
    }
}
