//! How an inode is named to the system calls for extended attributes.
//!
//! They take a path or a descriptor that is open for I/O, and a FIFO or a device node must not be
//! opened for that. In `/proc/self/fd` the inode has a path of one component (proc(5)), and a
//! directory is `.` in itself. Before Linux 6.13 there are none that take a directory and a path in
//! it: then the calling thread, which has a working directory of its own, goes there.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use fuse_fs::Result;
use rustix::fs::{AtFlags, XattrFlags};
use rustix::io::{Errno, Result as SysResult};

use crate::by_descriptor::if_known;
use crate::credentials::own_umask_and_cwd;
use crate::pin::Pinned;
use crate::{PassthroughFs, proc, sys};

/// A path of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct XattrPath<'a> {
    /// Where it starts, if not in the working directory.
    dir: Option<BorrowedFd<'a>>,
    path: &'a CStr,
}

impl PassthroughFs {
    /// Calls with a path of `inode`, maybe once more with another one.
    pub(crate) fn with_path<T>(
        &self,
        inode: &Pinned,
        mut call: impl FnMut(XattrPath<'_>) -> SysResult<T>,
    ) -> Result<T> {
        let known = &self.by_descriptor.xattrs;
        if inode.is_directory() {
            let path = XattrPath {
                dir: Some(inode.as_fd()),
                path: c".",
            };
            match if_known(known, || call(path)) {
                // Maybe for want of permission to search it, which the other path does not take.
                None | Some(Err(Errno::ACCESS)) => {}
                Some(done) => return Ok(done?),
            }
        }
        let name = proc::name(inode);
        let path = name.as_c_str();
        let dir = Some(self.proc.dir().as_fd());
        if let Some(done) = if_known(known, || call(XattrPath { dir, path })) {
            return Ok(done?);
        }
        own_umask_and_cwd()?;
        rustix::process::fchdir(self.proc.dir())?;
        Ok(call(XattrPath { dir: None, path })?)
    }
}

impl XattrPath<'_> {
    /// The value of an attribute, at the front of `value`, and its length; that alone where there
    /// is no room at all.
    pub(crate) fn get(self, name: &CStr, value: &mut [u8]) -> SysResult<usize> {
        match self.dir {
            Some(dir) => sys::getxattrat(dir, self.path, AtFlags::empty(), name, value),
            // The crate asks for the length with a call of its own.
            None if value.is_empty() => rustix::fs::getxattr_query(self.path, name),
            None => rustix::fs::getxattr(self.path, name, value),
        }
    }

    /// The names of all attributes, each with a NUL, likewise.
    pub(crate) fn list(self, list: &mut [u8]) -> SysResult<usize> {
        match self.dir {
            Some(dir) => sys::listxattrat(dir, self.path, list),
            None => rustix::fs::listxattr(self.path, list),
        }
    }

    pub(crate) fn set(self, name: &CStr, value: &[u8], flags: XattrFlags) -> SysResult<()> {
        match self.dir {
            Some(dir) => sys::setxattrat(dir, self.path, name, value, flags),
            None => rustix::fs::setxattr(self.path, name, value, flags),
        }
    }

    pub(crate) fn remove(self, name: &CStr) -> SysResult<()> {
        match self.dir {
            Some(dir) => sys::removexattrat(dir, self.path, name),
            None => rustix::fs::removexattr(self.path, name),
        }
    }
}
