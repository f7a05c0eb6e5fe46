//! Extended attributes, of inodes of any kind.
//!
//! The system calls take a path or a descriptor that is open for I/O, and a FIFO or a device node
//! must not be opened for that. So the calling thread, which has a working directory of its own,
//! goes to `/proc/self/fd`, where the inode has a path of one component (proc(5)).

use fuse_fs::{Context, Errno, NodeId, Result, XattrName};
use rustix::fs::XattrFlags;

use crate::PassthroughFs;
use crate::config::Xattr;
use crate::credentials::own_umask_and_cwd;
use crate::proc::FdName;

/// What the guest's kernel would show, but not heed: POSIX_ACL is not agreed on.
const HIDDEN: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

impl PassthroughFs {
    pub(crate) fn do_setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.check_xattr(name)?;
        let flags = XattrFlags::from_bits_retain(flags);
        self.with_path(cx, node, |path| {
            rustix::fs::setxattr(path.as_c_str(), name.as_c_str(), value, flags)
        })
    }

    pub(crate) fn do_getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.check_xattr(name)?;
        self.with_path(cx, node, |path| {
            // The crate asks for the length with a call of its own.
            if buffer.is_empty() {
                rustix::fs::getxattr_query(path.as_c_str(), name.as_c_str())
            } else {
                rustix::fs::getxattr(path.as_c_str(), name.as_c_str(), buffer)
            }
        })
    }

    /// The length alone, which an empty buffer asks for, counts the hidden names too: the list may
    /// turn out shorter, as it may whenever the file has changed in between.
    pub(crate) fn do_listxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.check_xattrs()?;
        if buffer.is_empty() {
            return self.with_path(cx, node, |path| {
                rustix::fs::listxattr_query(path.as_c_str())
            });
        }
        let len = self.with_path(cx, node, |path| {
            rustix::fs::listxattr(path.as_c_str(), &mut *buffer)
        })?;
        Ok(remove_hidden(buffer, len))
    }

    pub(crate) fn do_removexattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
    ) -> Result<()> {
        self.check_xattr(name)?;
        self.with_path(cx, node, |path| {
            rustix::fs::removexattr(path.as_c_str(), name.as_c_str())
        })
    }

    fn check_xattrs(&self) -> Result<()> {
        match self.xattr {
            Xattr::On => Ok(()),
            Xattr::Off => Err(Errno::ENOSYS.into()),
        }
    }

    fn check_xattr(&self, name: XattrName<'_>) -> Result<()> {
        self.check_xattrs()?;
        if HIDDEN.contains(&name.as_bytes()) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Ok(())
    }

    fn with_path<T>(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        call: impl FnOnce(&FdName) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let inode = self.inode(cx, node)?;
        own_umask_and_cwd()?;
        rustix::process::fchdir(self.proc.dir())?;
        Ok(call(&FdName::new(&inode)?)?)
    }
}

/// Takes the hidden names out of the list in the first `len` bytes of `buffer`, each of which ends
/// with a NUL, and returns how long it is then.
fn remove_hidden(buffer: &mut [u8], len: usize) -> usize {
    let (mut read, mut written) = (0, 0);
    while read < len {
        let rest = buffer.get(read..len).unwrap_or_default();
        let name_len = rest
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(rest.len());
        let hidden = rest
            .get(..name_len)
            .is_some_and(|name| HIDDEN.contains(&name));
        let end = read.saturating_add(name_len).saturating_add(1).min(len);
        if !hidden {
            buffer.copy_within(read..end, written);
            written = written.saturating_add(end.saturating_sub(read));
        }
        read = end;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_are_taken_out_of_the_list_wherever_they_are() {
        let acl = b"system.posix_acl_access\0";
        let default = b"system.posix_acl_default\0";
        for (list, expected) in [
            ([&acl[..], b"user.a\0", default].concat(), &b"user.a\0"[..]),
            ([&b"user.a\0"[..], acl, b"b\0"].concat(), b"user.a\0b\0"),
            (acl.to_vec(), b""),
            (vec![], b""),
        ] {
            let mut buffer = list.clone();
            buffer.extend([0xff; 3]);
            let len = remove_hidden(&mut buffer, list.len());
            assert_eq!(&buffer[..len], expected);
        }
    }
}
