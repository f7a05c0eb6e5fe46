use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use fuse_fs::flags::OpenOutFlags;

use crate::{Extras, IdMap, Migration, NewError, XattrMap, acl};

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
    /// What extended attributes are called on the host. Unless set, what the guest calls them.
    pub xattr_map: Option<XattrMap>,
    /// Whether POSIX ACLs (acl(5)) are part of the share: the guest's kernel checks them, the
    /// host's keeps them, and hands those of a directory down to what is made in it. Unless
    /// [`Feature::Never`], extended attributes are part of the share.
    pub posix_acl: Feature,
    /// Whether what the guest makes gets the security labels (as `security.selinux`) that the guest
    /// says; what cannot be labelled is not made. Unless [`Feature::Never`], extended attributes
    /// are part of the share.
    pub security_labels: Feature,
    /// Who clears SUID, SGID and file capabilities of what is written.
    pub killpriv: Killpriv,
    /// Which users of the host those of the guest are, in attributes, ACLs and as owners of what is
    /// made.
    pub users: IdMap,
    /// Which groups of the host those of the guest are.
    pub groups: IdMap,
    /// For how long the guest may remember that a name does not exist. Unless set, as long as it
    /// may remember one that does ([`CachePolicy::timeout`]). With zero a file that the host
    /// creates is seen at once.
    pub negative_timeout: Option<Duration>,
    /// What is done besides.
    pub extras: Extras,
    /// `/proc/self/fd` of this process, opened with O_PATH. Needed where the process has no
    /// `/proc` at the time of construction.
    pub proc_self_fd: Option<OwnedFd>,
    /// Most descriptors that stay open for the guest: one for each inode of those that it knows and
    /// used of late, two for each file or directory that it has open. Inodes give theirs back when
    /// others are needed; what then still exceeds it is ENFILE. Unless set, the limit of the
    /// process (RLIMIT_NOFILE) at the time of construction, less 64. Set it where several guests
    /// share a process.
    pub max_descriptors: Option<usize>,
    /// Most inodes that have a descriptor open; the others are opened again when they are used.
    /// Unless set, three quarters of `max_descriptors`, so that there is room for what the guest
    /// has open.
    pub max_open_inodes: Option<usize>,
    /// How an inode is opened again.
    pub inode_file_handles: InodeFileHandles,
    /// Whether a guest that can (FUSE_SUBMOUNTS) is told where a mount of the host begins, so that
    /// it shows another device number there. Otherwise all of the share is one filesystem to it,
    /// and inode numbers are made unique across those of the host.
    pub announce_submounts: bool,
    /// How what the guest holds is saved, and loaded in another process.
    pub migration: Migration,
}

impl Config {
    /// Shares `root` with the defaults: [`CachePolicy::Auto`] and [`Xattr::Off`].
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            cache: CachePolicy::Auto,
            xattr: Xattr::Off,
            xattr_map: None,
            posix_acl: Feature::Never,
            security_labels: Feature::Never,
            killpriv: Killpriv::WithXattr,
            users: IdMap::default(),
            groups: IdMap::default(),
            negative_timeout: None,
            extras: Extras::empty(),
            proc_self_fd: None,
            max_descriptors: None,
            max_open_inodes: None,
            inode_file_handles: InodeFileHandles::default(),
            announce_submounts: true,
            migration: Migration::default(),
        }
    }

    /// Whether extended attributes are part of the share, be it for what needs them.
    pub(crate) fn effective_xattr(&self) -> Xattr {
        let features = [self.posix_acl, self.security_labels];
        if self.xattr_map.is_some() || features != [Feature::Never; 2] {
            Xattr::On
        } else {
            self.xattr
        }
    }

    /// Checks what can be told without looking at the host, as [`PassthroughFs::new`] does, too.
    ///
    /// # Errors
    /// [`NewError::RenamedAcl`].
    ///
    /// [`PassthroughFs::new`]: crate::PassthroughFs::new
    pub fn check(&self) -> Result<(), NewError> {
        let Some(map) = &self.xattr_map else {
            return Ok(());
        };
        let renames = |name: &CStr| {
            let host_name = map.to_host(name);
            host_name.is_ok_and(|host_name| host_name.as_c_str() != name)
        };
        if self.posix_acl != Feature::Never && acl::NAMES.into_iter().any(renames) {
            return Err(NewError::RenamedAcl);
        }
        Ok(())
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

    /// Sets what extended attributes are called on the host.
    #[must_use]
    pub fn xattr_map(mut self, map: XattrMap) -> Self {
        self.xattr_map = Some(map);
        self
    }

    /// Sets whether POSIX ACLs are part of the share.
    #[must_use]
    pub fn posix_acl(mut self, feature: Feature) -> Self {
        self.posix_acl = feature;
        self
    }

    /// Sets whether new files get security labels.
    #[must_use]
    pub fn security_labels(mut self, feature: Feature) -> Self {
        self.security_labels = feature;
        self
    }

    /// Sets who clears SUID, SGID and file capabilities.
    #[must_use]
    pub fn killpriv(mut self, killpriv: Killpriv) -> Self {
        self.killpriv = killpriv;
        self
    }

    /// Sets which users and groups of the host those of the guest are.
    #[must_use]
    pub fn ids(mut self, users: IdMap, groups: IdMap) -> Self {
        self.users = users;
        self.groups = groups;
        self
    }

    /// Sets for how long the guest may remember that a name does not exist.
    #[must_use]
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.negative_timeout = Some(timeout);
        self
    }

    /// Sets what is done besides.
    #[must_use]
    pub fn extras(mut self, extras: Extras) -> Self {
        self.extras = extras;
        self
    }

    /// Sets how many descriptors may stay open for the guest.
    #[must_use]
    pub fn max_descriptors(mut self, limit: usize) -> Self {
        self.max_descriptors = Some(limit);
        self
    }

    /// Sets how many inodes may have a descriptor open.
    #[must_use]
    pub fn max_open_inodes(mut self, limit: usize) -> Self {
        self.max_open_inodes = Some(limit);
        self
    }

    /// Sets how an inode is opened again.
    #[must_use]
    pub fn inode_file_handles(mut self, mode: InodeFileHandles) -> Self {
        self.inode_file_handles = mode;
        self
    }

    /// Sets whether the guest is told where a mount of the host begins.
    #[must_use]
    pub fn announce_submounts(mut self, announce: bool) -> Self {
        self.announce_submounts = announce;
        self
    }

    /// Sets how what the guest holds is saved and loaded.
    #[must_use]
    pub fn migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
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
    /// Those of the host's files, except POSIX ACLs, which are EOPNOTSUPP unless agreed on
    /// ([`Config::posix_acl`]): the guest's kernel would show them without heeding them.
    ///
    /// The host decides who may do what with them (xattr(7)): names that begin with `trusted.` need
    /// CAP_SYS_ADMIN, in the initial user namespace, without which they are EPERM and not listed.
    On,
}

/// Whether the share has what takes a guest that knows how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Feature {
    /// It has not.
    #[default]
    Never,
    /// It has if the guest knows how. If not, a warning is logged.
    Auto,
    /// It has. The mount of a guest that does not know how fails (EPROTO), and an error is logged.
    Always,
}

/// Who clears SUID, SGID and file capabilities of what is written or truncated, as
/// HANDLE_KILLPRIV_V2 decides.
///
/// The guest's kernel would clear them by itself, for which it looks at the mode, which is cheap as
/// it knows it, and at `security.capability`, with a GETXATTR before each write. The host's clears
/// them where the thread lacks CAP_FSETID, which the guest asks for when a process that lacks it
/// writes: with one more system call for a WRITE, whenever a thread serves one whose caller has it
/// after one whose caller has not, or the other way round.
///
/// It is always the guest's where files are mapped into a DAX window: the host's does not see what is
/// written there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Killpriv {
    /// The host where extended attributes are part of the share, else the guest: the cheaper way.
    #[default]
    WithXattr,
    /// The host.
    Always,
}

/// How an inode that has no descriptor open is opened again: whether by its file handle
/// (open_by_handle_at(2)), which needs CAP_DAC_READ_SEARCH, and a filesystem that has them. A file
/// handle finds the inode whatever became of its names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum InodeFileHandles {
    /// By the name under which the guest found it, or gave it, last. If that stands for another
    /// file by then, the guest is told ESTALE, and looks the file up again.
    Never,
    /// By file handle on those filesystems of the share where that works when they are first seen,
    /// else by name. The capability must be there for as long as the filesystem is used then.
    #[default]
    Prefer,
    /// By file handle only. The root of the share must have them; what is mounted below it and has
    /// none is not opened again, but stays open, and counts as long as the guest knows it.
    Mandatory,
}

/// How much the guest caches: the choice between seeing the changes of others and speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// Nothing: each access asks the host. Files cannot be mapped shared
    /// ([`Extras::ALLOW_MMAP`]).
    Never,
    /// Names, attributes and directories for a day, but no data. Files cannot be mapped shared
    /// ([`Extras::ALLOW_MMAP`]).
    Metadata,
    /// Names and attributes for a second; data until a file is opened again and has changed, by its
    /// times and its size. It counts as changed if it was within two seconds of the last open, or if
    /// it is not on a disk of this machine. What a process of the host writes through a shared mapping
    /// leaves its times as they are for as long as the host has not written it back.
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
