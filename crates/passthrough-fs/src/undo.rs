//! What was made, and cannot be told to the guest or not be labelled as it wants, is removed again.

use std::sync::Once;

use fuse_fs::{Error, Name};
use rustix::fs::{AtFlags, Statx};

use crate::attr::{identity, kind, stat_name};
use crate::inode_table::Kind;
use crate::pin::Pinned;

/// Removes `name` from `dir`, if it still is what was `made`, of which no use can be made because
/// of `error`.
pub(crate) fn undo(dir: &Pinned, name: Name<'_>, made: &Statx, error: &Error) {
    let name = name.as_c_str();
    if !stat_name(dir, name).is_ok_and(|stat| identity(&stat) == identity(made)) {
        return;
    }
    let flags = match kind(made) {
        Kind::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    if let Err(errno) = rustix::fs::unlinkat(dir, name, flags) {
        // A guest can bring this about as often as it likes.
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                ?name, %error, %errno,
                "what was made in vain cannot be removed again; this is said only once"
            );
        });
    }
}

/// Does the same for what has no descriptor of its own. The host may have put something else in its
/// place, so a file with content stays; a directory goes only if it is empty.
pub(crate) fn undo_unseen(dir: &Pinned, name: Name<'_>, error: &Error) {
    if let Ok(stat) = stat_name(dir, name.as_c_str())
        && (stat.stx_size == 0 || kind(&stat) != Kind::Regular)
    {
        undo(dir, name, &stat, error);
    }
}
