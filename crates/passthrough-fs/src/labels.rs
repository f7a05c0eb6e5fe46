//! Security labels of what the guest makes: attributes as `security.selinux`, which come with the
//! request. What cannot be labelled is removed again, and the request fails.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Once;

use fuse_fs::{Context, Errno, Error, Name, NodeId, Result, SecurityContext};
use rustix::fs::{AtFlags, Statx, XattrFlags};

use crate::PassthroughFs;
use crate::attr::{identity, kind, stat_fd, stat_name};
use crate::inode_table::Kind;
use crate::pin::Pinned;

/// How the names of all labels begin (xattr(7)).
const NAMESPACE: &[u8] = b"security.";

impl PassthroughFs {
    pub(crate) fn has_labels(&self, cx: &Context<'_>) -> bool {
        !cx.extensions.security_contexts().is_empty()
    }

    /// Labels a new file that is open for I/O.
    pub(crate) fn label_open(&self, cx: &Context<'_>, file: impl AsFd) -> Result<()> {
        self.label(cx, |name, value| {
            let flags = XattrFlags::empty();
            Ok(rustix::fs::fsetxattr(&file, name, value, flags)?)
        })
    }

    /// Labels the new file `name` of `dir`, which is open for I/O, or removes it.
    pub(crate) fn label_created(
        &self,
        cx: &Context<'_>,
        dir: &Pinned,
        name: Name<'_>,
        file: impl AsFd,
    ) -> Result<()> {
        self.label_open(cx, &file).inspect_err(|error| {
            if let Ok(stat) = stat_fd(&file) {
                remove(dir, name, &stat, error);
            }
        })
    }

    /// Labels what was just made as `name` in `dir`, which was `found` there, or removes it and
    /// gives the lookup back.
    pub(crate) fn label_made(
        &self,
        cx: &Context<'_>,
        dir: &Pinned,
        name: Name<'_>,
        found: &Result<(NodeId, Statx)>,
    ) -> Result<()> {
        let (node, stat) = match found {
            Ok((node, stat)) => (*node, *stat),
            Err(error) => {
                if let Ok(stat) = stat_name(dir, name.as_c_str()) {
                    remove(dir, name, &stat, error);
                }
                return Err(*error);
            }
        };
        let labelled = self.inode(cx, node).and_then(|inode| {
            self.label(cx, |name, value| {
                let flags = XattrFlags::empty();
                self.with_path(&inode, |path| {
                    rustix::fs::setxattr(path, name, value, flags)
                })
            })
        });
        labelled.inspect_err(|error| {
            remove(dir, name, &stat, error);
            self.inodes.forget(node, 1);
        })
    }

    fn label(&self, cx: &Context<'_>, set: impl Fn(&CStr, &[u8]) -> Result<()>) -> Result<()> {
        for SecurityContext { name, value } in cx.extensions.security_contexts().iter() {
            // With any other name, this would be a SETXATTR that nothing checks.
            if !name.as_bytes().starts_with(NAMESPACE) {
                return Err(Errno::EINVAL.into());
            }
            set(self.host_name(name, Errno::EPERM)?.as_c_str(), value)?;
        }
        Ok(())
    }
}

/// Removes `name` from `dir`, if it still is what was made, which could not be labelled because of
/// `error`.
fn remove(dir: &Pinned, name: Name<'_>, made: &Statx, error: &Error) {
    let name = name.as_c_str();
    if !stat_name(dir, name).is_ok_and(|stat| identity(&stat) == identity(made)) {
        return;
    }
    let flags = match kind(made) {
        Kind::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    if let Err(errno) = rustix::fs::unlinkat(dir, name, flags) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                ?name, %error, %errno,
                "what cannot be labelled cannot be removed either; this is said only once"
            );
        });
    }
}
