use std::io;
use std::path::PathBuf;

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// The directory cannot be opened.
    #[error(
        "cannot open the shared directory {path}: {source}; it must be a directory that this \
         process may search"
    )]
    Root {
        /// The directory.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// The attributes of the directory cannot be read.
    #[error("cannot read the attributes of the shared directory {path}: {source}")]
    Stat {
        /// The directory.
        path: PathBuf,
        /// What statx(2) said.
        source: io::Error,
    },
    /// The kernel has no openat2(2), or a filter of system calls forbids it.
    #[error(
        "openat2 does not work below {path}: {source}; it needs Linux 5.6 or later, and a seccomp \
         filter, if there is one, must allow it"
    )]
    Openat2 {
        /// The directory.
        path: PathBuf,
        /// What openat2(2) said.
        source: io::Error,
    },
    /// The guest is to have POSIX ACLs, but under names by which the host's kernel would neither
    /// heed them nor hand them down.
    #[error(
        "the rules for the names of extended attributes give POSIX ACLs other names, by which the \
         host does not know them; put \":ok:all:system.posix_acl_:system.posix_acl_:\" before \
         them, or do without POSIX ACLs"
    )]
    RenamedAcl,
    /// Inodes shall be opened again by file handle, and cannot be.
    #[error(
        "--inode-file-handles=mandatory: file handles do not work for the shared directory {path}: \
         {source}; they need a filesystem that has them, and CAP_DAC_READ_SEARCH; or use prefer"
    )]
    FileHandles {
        /// The directory.
        path: PathBuf,
        /// What name_to_handle_at(2) or open_by_handle_at(2) said.
        source: io::Error,
    },
    /// There is no usable `/proc`.
    #[error(
        "cannot open /proc/self/fd: {source}; mount /proc, or hand over a descriptor that was \
         opened by this process before"
    )]
    Proc {
        /// What open(2) said.
        source: io::Error,
    },
    /// The descriptor of `/proc/self/fd` shows other files than this process has open.
    #[error(
        "the descriptor for /proc/self/fd does not show the descriptors of this process; open it \
         after the last fork"
    )]
    ForeignProc,
}
