//! Capabilities of files whose `security.capability` has another name on the host.
//!
//! The host's kernel takes a file's capabilities away when the file is written, truncated or given
//! to another owner. It does not know them by that other name, under which the guest's kernel would
//! go on to honour them (CVE-2021-20263), so they are taken away here.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use fuse_fs::Result;
use rustix::io::Errno as SysErrno;

use crate::inode_table::Kind;
use crate::pin::Pinned;
use crate::{PassthroughFs, XattrMap};

const CAPABILITY: &CStr = c"security.capability";

/// What `security.capability` is called on the host, if not that.
pub(crate) fn renamed(map: Option<&XattrMap>) -> Option<CString> {
    let name = map?.to_host(CAPABILITY).ok()?;
    let name = name.as_c_str();
    (name != CAPABILITY).then(|| name.to_owned())
}

impl PassthroughFs {
    /// Takes away the capabilities of `file`, which is open for I/O and about to be changed.
    pub(crate) fn drop_capabilities(&self, file: impl AsFd) -> Result<()> {
        let Some(name) = self.renamed_capability.as_deref() else {
            return Ok(());
        };
        let looked = rustix::fs::fgetxattr_query(&file, name);
        Ok(drop_them(looked, || rustix::fs::fremovexattr(&file, name))?)
    }

    /// Takes away the capabilities of `inode`, which is about to get another owner.
    pub(crate) fn drop_capabilities_of(&self, inode: &Pinned) -> Result<()> {
        let Some(name) = self.renamed_capability.as_deref() else {
            return Ok(());
        };
        if inode.kind != Kind::Regular {
            return Ok(());
        }
        self.with_path(inode, |path| {
            drop_them(path.get(name, &mut []), || path.remove(name))
        })
    }
}

/// To look first is cheaper: to remove what is not there starts a transaction.
fn drop_them(
    looked: rustix::io::Result<usize>,
    remove: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    const NONE: [SysErrno; 2] = [SysErrno::NODATA, SysErrno::OPNOTSUPP];
    match looked {
        Err(errno) if NONE.contains(&errno) => Ok(()),
        // Who may not look may yet be allowed to remove.
        _ => match remove() {
            Err(errno) if !NONE.contains(&errno) => Err(errno),
            _ => Ok(()),
        },
    }
}
