//! Extended attributes, of inodes of any kind.

use fuse_fs::flags::SetxattrFlags;
use fuse_fs::{Context, Errno, Error, NodeId, Result, XattrName};
use rustix::fs::XattrFlags;

use crate::PassthroughFs;
use crate::acl;
use crate::attr::stat_fd;
use crate::config::Xattr;
use crate::fsetid::SuidSgid;
use crate::namespace::permissions;
use crate::pin::Pinned;
use crate::xattr_map::{HostName, Refusal};

/// Longest list of names (`XATTR_LIST_MAX`).
const LIST_MAX: usize = 64 * 1024;
/// A list that most files' names fit.
const USUAL_LIST: usize = 1024;
const SGID: u32 = 0o2000;

impl PassthroughFs {
    pub(crate) fn do_setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        how: SetxattrFlags,
    ) -> Result<()> {
        let host_name = self.host_name(name, Errno::EPERM)?;
        let inode = self.inode(cx, node)?;
        let translated;
        let value = match acl::is_acl(name.as_bytes()) {
            true => {
                SuidSgid::Kept.apply()?;
                translated = self.ids.acl_to_host(value)?;
                translated.as_deref().unwrap_or(value)
            }
            false => value,
        };
        let flags = XattrFlags::from_bits_retain(flags);
        self.with_path(&inode, |path| path.set(host_name.as_c_str(), value, flags))?;
        if how.contains(SetxattrFlags::ACL_KILL_SGID) && name.as_c_str() == acl::ACCESS {
            self.clear_sgid(&inode)?;
        }
        Ok(())
    }

    pub(crate) fn do_getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let host_name = self.host_name(name, Errno::ENODATA)?;
        let inode = self.inode(cx, node)?;
        let got = self.with_path(&inode, |path| path.get(host_name.as_c_str(), buffer));
        if !acl::is_acl(name.as_bytes()) {
            return got;
        }
        let len = match got {
            // To the guest's kernel, a file without ACLs is one that anybody may use as the mode
            // says, and one that cannot have any is an error.
            Err(Error::Errno(Errno::EOPNOTSUPP)) => return Err(Errno::ENODATA.into()),
            got => got?,
        };
        if let Some(value) = buffer.get_mut(..len)
            && !value.is_empty()
        {
            self.ids.acl_to_guest(value)?;
        }
        Ok(len)
    }

    pub(crate) fn do_listxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.check_xattrs()?;
        let inode = self.inode(cx, node)?;
        if !buffer.is_empty() {
            match self.list(&inode, buffer) {
                // What the guest is to see of it may fit yet.
                Err(Error::Errno(Errno::ERANGE)) if buffer.len() < LIST_MAX => {}
                result => return result,
            }
        }
        let mut usual = [0; USUAL_LIST];
        let mut long = Vec::new();
        let (list, len) = match self.list(&inode, &mut usual) {
            Err(Error::Errno(Errno::ERANGE)) => {
                long.resize(LIST_MAX, 0);
                let len = self.list(&inode, &mut long)?;
                (&*long, len)
            }
            len => (&usual[..], len?),
        };
        if !buffer.is_empty() {
            let names = list.get(..len).unwrap_or_default();
            let room = buffer.get_mut(..len).ok_or(Errno::ERANGE)?;
            room.copy_from_slice(names);
        }
        Ok(len)
    }

    pub(crate) fn do_removexattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
    ) -> Result<()> {
        let host_name = self.host_name(name, Errno::EPERM)?;
        let inode = self.inode(cx, node)?;
        self.with_path(&inode, |path| path.remove(host_name.as_c_str()))
    }

    /// What the attribute `name` of the guest is called on the host. One that a rule forbids is
    /// `denied`.
    pub(crate) fn host_name<'n>(&self, name: XattrName<'n>, denied: Errno) -> Result<HostName<'n>> {
        self.check_xattrs()?;
        if self.hides(name.as_bytes()) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let Some(map) = &self.xattr_map else {
            return Ok(HostName::Same(name.as_c_str()));
        };
        map.to_host(name.as_c_str()).map_err(|refusal| {
            let errno = match refusal {
                Refusal::Denied => denied,
                Refusal::Unsupported => Errno::EOPNOTSUPP,
                // What setxattr(2) says of names that are too long; there is none such to read.
                Refusal::TooLong if denied == Errno::EPERM => Errno::ERANGE,
                Refusal::TooLong => Errno::ENODATA,
            };
            errno.into()
        })
    }

    fn check_xattrs(&self) -> Result<()> {
        match self.xattr {
            Xattr::On => Ok(()),
            Xattr::Off => Err(Errno::ENOSYS.into()),
        }
    }

    /// Whether the attribute `name` of the guest is one that its kernel would show, but not heed.
    fn hides(&self, name: &[u8]) -> bool {
        acl::is_acl(name) && !self.heeds_acls()
    }

    /// Lists what the guest is to see of the names on the host, all of which `buffer` has room for.
    fn list(&self, inode: &Pinned, buffer: &mut [u8]) -> Result<usize> {
        let len = self.with_path(inode, |path| path.list(buffer))?;
        if self.xattr_map.is_none() && self.heeds_acls() {
            return Ok(len);
        }
        let map = self.xattr_map.as_ref();
        Ok(retain_names(buffer, len, |name| {
            let name = map.map_or(Some(name), |map| map.to_guest(name))?;
            (!self.hides(name)).then_some(name.len())
        }))
    }

    /// Clears SGID, as the host does for a user who is not in the group of the file when the access
    /// ACL is set. The new mode is that which the ACL has just led to.
    fn clear_sgid(&self, inode: &Pinned) -> Result<()> {
        let mode = u32::from(stat_fd(inode)?.stx_mode);
        if mode & SGID == 0 {
            return Ok(());
        }
        self.chmod(inode, permissions(mode & !SGID))
    }
}

/// Keeps as much of the end of each name as `keep` says, or nothing of it, in the list in the first
/// `len` bytes of `list`, where each name ends with a NUL. Returns how long the list is then.
fn retain_names(list: &mut [u8], len: usize, keep: impl Fn(&[u8]) -> Option<usize>) -> usize {
    let (mut read, mut written) = (0, 0);
    while read < len {
        let rest = list.get(read..len).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0);
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let end = read.saturating_add(name.len());
        let kept = keep(name).map(|kept| end.saturating_sub(kept));
        read = end.saturating_add(1);
        if let Some(start) = kept {
            // With its NUL.
            let range = start..read.min(len);
            let kept = range.len();
            list.copy_within(range, written);
            written = written.saturating_add(kept);
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_out_and_cut_wherever_they_are() {
        let keep = |name: &[u8]| match name {
            b"hidden" => None,
            name => Some(name.strip_prefix(b"x.").unwrap_or(name).len()),
        };
        for (list, expected) in [
            (&b"hidden\0user.a\0hidden\0"[..], &b"user.a\0"[..]),
            (b"user.a\0hidden\0b\0", b"user.a\0b\0"),
            (b"x.a\0x.b\0c\0x.d\0", b"a\0b\0c\0d\0"),
            (b"hidden\0x.a\0", b"a\0"),
            (b"hidden\0", b""),
            (b"", b""),
        ] {
            let mut buffer = list.to_vec();
            buffer.extend([0xff; 3]);
            let len = retain_names(&mut buffer, list.len(), keep);
            assert_eq!(&buffer[..len], expected);
        }
    }
}
