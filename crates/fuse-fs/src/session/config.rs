use super::PAGE;
use crate::Negotiation;

/// Whether a guest may change anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// It may.
    #[default]
    ReadWrite,
    /// It may not: every operation that could change something is EROFS, whatever the guest's
    /// kernel believes, and never reaches the filesystem.
    ReadOnly,
}

/// What a [`Session`](super::Session) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    pub(super) access: Access,
    pub(super) max_write: u32,
}

impl SessionConfig {
    /// Changes are allowed, and WRITEs of up to [`Negotiation::MAX_WRITE`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            access: Access::ReadWrite,
            max_write: Negotiation::MAX_WRITE,
        }
    }

    /// Whether a guest may change anything.
    #[must_use]
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Most bytes of data in a WRITE: whole pages of 4 KiB, at least one, at most
    /// [`Negotiation::MAX_WRITE`]. Other values become the nearest below, or one page.
    ///
    /// A transport whose requests can hold less than [`Negotiation::MAX_WRITE`] sets this.
    #[must_use]
    pub fn max_write(mut self, bytes: u32) -> Self {
        let pages = bytes.clamp(PAGE, Negotiation::MAX_WRITE) / PAGE;
        self.max_write = pages.saturating_mul(PAGE);
        self
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self::new()
    }
}
