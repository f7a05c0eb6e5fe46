use fuse_wire::Errno;

/// Memory that the guest may use up, in bytes. Whatever grows with what the guest does is taken
/// from it, so that no guest exhausts its host.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: u64,
}

impl Budget {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) const fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Takes `bytes`, or nothing.
    ///
    /// # Errors
    /// ENOSPC where less is left.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Errno> {
        if bytes > self.left() {
            return Err(Errno::ENOSPC);
        }
        self.used = self.used.saturating_add(bytes);
        Ok(())
    }

    pub(super) const fn give_back(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }
}

/// `len` in the unit of a budget.
pub(super) fn bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
