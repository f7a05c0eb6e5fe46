use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use fuse_fs::flags::OpenOutFlags;

/// For how long the guest may believe what it was told where nothing but the guest changes files.
const LONG: Duration = Duration::from_secs(86_400);

/// What is shared, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the host that is the root of the share.
    pub root: PathBuf,
    /// How much the guest caches.
    pub cache: CachePolicy,
    /// Whether extended attributes are part of the share.
    pub xattr: Xattr,
    /// For how long the guest may remember that a name does not exist. Zero unless set: a file
    /// that the host creates is seen at once.
    pub negative_timeout: Duration,
    /// `/proc/self/fd` of this process, opened with O_PATH. Needed where the process has no
    /// `/proc` at the time of construction.
    pub proc_self_fd: Option<OwnedFd>,
    /// Most descriptors that stay open for the guest: one for each inode that it knows, one for
    /// each file or directory that it has open. What exceeds it is ENFILE. Unless set, the limit of
    /// the process (RLIMIT_NOFILE) at the time of construction, less 64. Set it where several
    /// guests share a process.
    pub max_descriptors: Option<usize>,
}

impl Config {
    /// Shares `root` with the defaults: [`CachePolicy::Auto`] and [`Xattr::Off`].
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            cache: CachePolicy::Auto,
            xattr: Xattr::Off,
            negative_timeout: Duration::ZERO,
            proc_self_fd: None,
            max_descriptors: None,
        }
    }

    /// Sets how much the guest caches.
    #[must_use]
    pub fn cache(mut self, policy: CachePolicy) -> Self {
        self.cache = policy;
        self
    }

    /// Sets whether extended attributes are part of the share.
    #[must_use]
    pub fn xattr(mut self, xattr: Xattr) -> Self {
        self.xattr = xattr;
        self
    }

    /// Sets for how long the guest may remember that a name does not exist.
    #[must_use]
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.negative_timeout = timeout;
        self
    }

    /// Sets how many descriptors may stay open for the guest.
    #[must_use]
    pub fn max_descriptors(mut self, limit: usize) -> Self {
        self.max_descriptors = Some(limit);
        self
    }

    /// Sets the descriptor of `/proc/self/fd` to use.
    #[must_use]
    pub fn proc_self_fd(mut self, fd: OwnedFd) -> Self {
        self.proc_self_fd = Some(fd);
        self
    }
}

/// Extended attributes (xattr(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Xattr {
    /// Not part of the share: ENOSYS, after which the guest does not ask again.
    #[default]
    Off,
    /// Those of the host's files, except POSIX ACLs, which are EOPNOTSUPP: the guest's kernel would
    /// show them without heeding them.
    On,
}

/// How much the guest caches: the choice between seeing the changes of others and speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// Nothing: each access asks the host. Files cannot be mapped shared.
    Never,
    /// Names, attributes and directories for a day, but no data. Files cannot be mapped shared.
    Metadata,
    /// Names and attributes for a second; data until a file is opened again and has changed.
    #[default]
    Auto,
    /// Everything for a day: right only where nobody else changes what is shared.
    Always,
}

impl CachePolicy {
    /// For how long names and attributes may be cached.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Auto => Duration::from_secs(1),
            Self::Metadata | Self::Always => LONG,
        }
    }

    /// How the guest caches the data of an open file.
    #[must_use]
    pub const fn file_flags(self) -> OpenOutFlags {
        match self {
            Self::Never | Self::Metadata => OpenOutFlags::DIRECT_IO,
            Self::Auto => OpenOutFlags::empty(),
            Self::Always => OpenOutFlags::KEEP_CACHE,
        }
    }

    /// How the guest caches the entries of an open directory.
    #[must_use]
    pub const fn directory_flags(self) -> OpenOutFlags {
        match self {
            Self::Never | Self::Auto => OpenOutFlags::empty(),
            Self::Metadata | Self::Always => {
                OpenOutFlags::CACHE_DIR.union(OpenOutFlags::KEEP_CACHE)
            }
        }
    }
}
