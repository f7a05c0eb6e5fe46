/// How what a guest holds is saved and loaded ([`State`](fuse_fs::State)).
///
/// Locks of the guest ([`Extras::POSIX_LOCK`](crate::Extras::POSIX_LOCK),
/// [`Extras::FLOCK`](crate::Extras::FLOCK)) are taken again. Where somebody else has one by then,
/// they are lost as an inode is: on the same host that may be the filesystem that was saved, as long
/// as it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// How inodes are found again.
    pub mode: MigrationMode,
    /// What becomes of a state of which not all can be had again.
    pub on_error: MigrationErrors,
    /// Whether each inode must be the very one that it was, going by its file handle or its time of
    /// birth: that takes the same filesystem on both sides. Otherwise it must where the shared
    /// directory is the same, and where that is another one, an inode is what has its path.
    pub verify_handles: bool,
}

/// How an inode is found again where a state is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MigrationMode {
    /// By its path in the shared directory, which may be on another host, and a copy. What was
    /// renamed meanwhile is found by its file handle where the shared directory is the same. What
    /// has no path any more, as it was removed while it was open, is lost. For what has another name,
    /// all of the share is looked through, except that no more than 64 MiB of paths are kept at once.
    ///
    /// Whoever writes a state reaches with it what is in the shared directory.
    #[default]
    FindPaths,
    /// By its file handle (open_by_handle_at(2)), wherever it is: both sides need the same
    /// filesystem, and CAP_DAC_READ_SEARCH. Saving takes no time for paths then. What was removed
    /// while it was open is found as long as somebody has it open. What is on another mount below the
    /// shared directory is found by its path.
    ///
    /// **Whoever writes a state reaches every file of that filesystem**, in the shared directory or
    /// not: load only what comes from a front-end that may do that.
    FileHandles,
}

/// What becomes of a state of which not all can be had again: a file was removed while it was open,
/// is gone or another one by now, or may not be opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MigrationErrors {
    /// It is not loaded, with an error that says what is missing.
    #[default]
    Abort,
    /// It is loaded, and a warning logged. The guest gets ESTALE for the inodes and the open files that
    /// are missing.
    GuestError,
}

impl Migration {
    /// By paths, all or nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how inodes are found again.
    #[must_use]
    pub fn mode(mut self, mode: MigrationMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what becomes of a state of which not all can be had again.
    #[must_use]
    pub fn on_error(mut self, errors: MigrationErrors) -> Self {
        self.on_error = errors;
        self
    }

    /// Sets whether each inode must be the very one that it was.
    #[must_use]
    pub fn verify_handles(mut self, verify: bool) -> Self {
        self.verify_handles = verify;
        self
    }
}
