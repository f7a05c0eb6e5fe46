//! Who clears SUID and SGID: the host, for any thread without CAP_FSETID (capabilities(7)).

use std::cell::Cell;

use fuse_fs::{Context, Result};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::credentials::own_capabilities;

thread_local! {
    /// What the calling thread has the host do. Not known at first: it may have been started by one
    /// that did without the capability, and inherited that.
    static NOW: Cell<Option<SuidSgid>> = const { Cell::new(None) };
}

/// What becomes of SUID and SGID of a file that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuidSgid {
    /// They stay, as the caller may keep them: it is root, or said to be as good.
    Kept,
    /// They are cleared.
    Cleared,
}

impl SuidSgid {
    /// They are cleared if that holds.
    pub(crate) fn cleared_if(clear: bool) -> Self {
        if clear { Self::Cleared } else { Self::Kept }
    }

    /// As for the caller, where the guest's kernel neither says what it is to be nor clears them by
    /// itself: then root alone is taken for one with CAP_FSETID.
    pub(crate) fn of(cx: &Context<'_>) -> Self {
        Self::cleared_if(cx.uid != 0)
    }

    /// Has the host do so with what the calling thread changes next. It is left like that, as what
    /// comes next is most often the same.
    pub(crate) fn apply(self) -> Result<()> {
        if NOW.get() == Some(self) {
            return Ok(());
        }
        let own = own_capabilities()?;
        if own.effective.contains(CapabilitySet::FSETID) {
            let mut effective = own.effective;
            effective.set(CapabilitySet::FSETID, self == Self::Kept);
            set_capabilities(None, CapabilitySets { effective, ..own })?;
        }
        NOW.set(Some(self));
        Ok(())
    }
}

/// The calling thread was given all of its capabilities again.
pub(crate) fn regained() {
    NOW.set(Some(SuidSgid::Kept));
}
