//! Security labels of what the guest makes: attributes as `security.selinux`, which come with the
//! request.

use std::ffi::CStr;
use std::os::fd::AsFd;

use fuse_fs::{Context, Errno, NodeId, Result, SecurityContext};
use rustix::fs::XattrFlags;

use crate::PassthroughFs;

/// How the names of all labels begin (xattr(7)).
const NAMESPACE: &[u8] = b"security.";

impl PassthroughFs {
    /// Labels a new file that is open for I/O.
    pub(crate) fn label_open(&self, cx: &Context<'_>, file: impl AsFd) -> Result<()> {
        label(self, cx, |name, value| {
            let flags = XattrFlags::empty();
            Ok(rustix::fs::fsetxattr(&file, name, value, flags)?)
        })
    }

    /// Labels `node`, which was just made.
    pub(crate) fn label_node(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        if cx.extensions.security_contexts().is_empty() {
            return Ok(());
        }
        let inode = self.inode(cx, node)?;
        label(self, cx, |name, value| {
            let flags = XattrFlags::empty();
            self.with_path(&inode, |path| path.set(name, value, flags))
        })
    }
}

fn label(
    fs: &PassthroughFs,
    cx: &Context<'_>,
    set: impl Fn(&CStr, &[u8]) -> Result<()>,
) -> Result<()> {
    for SecurityContext { name, value } in cx.extensions.security_contexts().iter() {
        // With any other name, this would be a SETXATTR that nothing checks.
        if !name.as_bytes().starts_with(NAMESPACE) {
            return Err(Errno::EINVAL.into());
        }
        set(fs.host_name(name, Errno::EPERM)?.as_c_str(), value)?;
    }
    Ok(())
}
