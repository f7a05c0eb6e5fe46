//! A directory of the host as a [`FileSystem`](fuse_fs::FileSystem) for a guest.
//!
//! ```no_run
//! use fuse_fs::Session;
//! use passthrough_fs::{CachePolicy, Config, PassthroughFs};
//!
//! let config = Config::new("/srv/share").cache(CachePolicy::Auto);
//! let session = Session::new(PassthroughFs::new(config)?);
//! # Ok::<(), passthrough_fs::NewError>(())
//! ```
//!
//! # What keeps a guest inside
//!
//! * An operation starts from a descriptor of the inode, opened with O_PATH, never from a path, so
//!   that what the host renames, or replaces by a symbolic link, leads nowhere. Where that had been
//!   closed ([Descriptors](#descriptors)), it is opened again, and used only if it is of the same
//!   inode.
//! * A name is one component and neither `.` nor `..` ([`fuse_fs::Name`]), and openat2(2) resolves
//!   it beneath its directory, without following symbolic links of any kind.
//! * Only regular files and directories are opened for I/O, by way of the descriptor that holds
//!   them or, while that is open, by file handle. Device nodes, FIFOs and sockets are never opened, symbolic links never followed.
//! * What is mounted below the shared directory is part of the share.
//! * Descriptors that stay open for the guest are counted ([`Config::max_descriptors`]), as are the
//!   bytes of directories kept in memory, and inodes: the guest may know 8 million, each of which
//!   takes some 400 bytes. Node ids and handles are never given out twice.
//!
//! A directory that the host moves out of the share while the guest holds it can be used by the
//! guest until it forgets it, as by any process that has it open. The guest's kernel decides who in
//! the guest may do what; to the host, all of the guest is one party. A guest that may create
//! files, where the process is root, may also create device nodes and programs with SUID of any
//! user: share a directory that users of the host cannot reach, or that is mounted `nodev,nosuid`.
//!
//! # Descriptors
//!
//! An inode that the guest knows keeps its descriptor while there is room
//! ([`Config::max_open_inodes`]); then those that were not used for the longest time, roughly, give
//! theirs to others. So a guest can walk through a tree of any size, and ENFILE is for too many open
//! files only: each takes two descriptors, its own and that of its inode, so that a file that is
//! removed while it is open stays what it is.
//!
//! An inode is opened again by file handle (open_by_handle_at(2)), which finds it wherever it is,
//! where the process has CAP_DAC_READ_SEARCH in the initial user namespace and the filesystem has
//! handles ([`Config::inode_file_handles`]). Elsewhere it is opened by its name in its directory, as
//! far as the guest saw, or changed, them last: up to four names of a file. What is opened by name
//! is used only if device, number and mount are as before, and so is the file handle, or, on a
//! filesystem that has none, the time of birth. If not, the guest is told ESTALE; its kernel then
//! looks the path up again, and finds what is there now. So what the *host* renames is stale by name
//! until the guest comes across it again, as is what is more than 4096 directories below the next
//! one that is open, and what the process may no longer search for.
//!
//! Without a descriptor nothing keeps the host from giving an inode's number to another file. So a
//! lookup that finds the number of such an inode compares file handles or times of birth, too,
//! before it takes the file for the one that is known. File handles tell for sure. The time of birth
//! is as exact as the host's clock for timestamps, some milliseconds: a file that is replaced by one
//! with the same number within that time is taken for it. On a filesystem with neither, inodes keep
//! their descriptors, as do those that have no name left.
//!
//! # Inode numbers
//!
//! A guest that knows submounts (FUSE_SUBMOUNTS) shows a device number of its own for each mount of
//! the host, and the host's inode numbers. To any other, or with [`Config::announce_submounts`] off,
//! the share is one filesystem: numbers on the device of the root stay, those on others get upper
//! bits that differ, in the order in which devices are seen. That is the same in directories, in
//! attributes and with statx(2).
//!
//! # Threads and credentials
//!
//! The process is left as it is: its umask, its limits, its working directory. The **threads** that
//! call into the filesystem are changed when they first create something or, before Linux 6.13, use
//! an extended attribute, so use threads that do nothing else: such a thread gets a umask, so that
//! modes are exact, and a working directory of its own (`unshare(CLONE_FS)`), which threads that it
//! starts share with it.
//!
//! Where the process is root, new files belong to the caller in the guest: the thread drops its
//! supplementary groups for good, and for the system call that creates takes on the caller's ids
//! (setresuid(2), setresgid(2)), keeping CAP_DAC_OVERRIDE and CAP_MKNOD, as the guest's kernel has
//! checked permissions already, with groups and capabilities that the host does not know. If it
//! cannot become itself again, the process aborts. A thread's capabilities must not change once it
//! was used. Where the process is not root, new files belong to the process, whoever the caller is.
//!
//! Users and groups of the guest can be others on the host ([`Config::users`], [`Config::groups`]):
//! in attributes, in what new files belong to, in supplementary groups and within POSIX ACLs. What
//! only root may do with SUID and SGID is for the guest's root, whoever that is on the host.
//!
//! # SUID, SGID and file capabilities
//!
//! The host's kernel clears SUID and SGID of a file that a thread without CAP_FSETID changes, and
//! the capabilities of any file that is changed. So the thread does without CAP_FSETID where the
//! guest says so ([`Killpriv`]), and where neither the guest says so nor clears them by itself: for
//! FALLOCATE, COPY_FILE_RANGE and, unless HANDLE_KILLPRIV_V2 was agreed on, for an open that
//! truncates, of a user other than root. A thread is left without it until it needs it. Where the
//! process is not root, it never has CAP_FSETID, and a change by the guest's root clears them, too.
//! SGID of a file that its group cannot execute, which grants nothing, goes even if the caller is in
//! that group, as the host cannot tell.
//!
//! Where the guest's `security.capability` has another name on the host ([`XattrMap`]), the host's
//! kernel does not know the capabilities as such. They are removed here when the file is written,
//! truncated, allocated, copied to or given to another owner, at the price of a system call that
//! looks for them (CVE-2021-20263).
//!
//! # Extended attributes, ACLs and labels
//!
//! They are part of the share with [`Xattr::On`], and with what implies it. What the host allows is
//! what the process may do (xattr(7)): a process without CAP_SYS_ADMIN in the initial user namespace
//! has no `trusted.` attributes (setting one is EPERM), nor can it set labels, unless an [`XattrMap`]
//! stores them under names that begin with `user.`, which the host takes for files and directories
//! only.
//!
//! With POSIX ACLs ([`Config::posix_acl`]) the guest's kernel checks them, and the host's keeps them
//! in step with the mode. The umask is then applied by the host, where the directory has no default
//! ACL. Files that cannot have ACLs have none. With labels ([`Config::security_labels`]), what cannot
//! be labelled is removed again; until it is labelled, other users of the host may see it.
//!
//! # Waiting
//!
//! Where a call must not wait ([`Context::may_block`](fuse_fs::Context::may_block)), reads are made with RWF_NOWAIT and lookups
//! with RESOLVE_CACHED, and what surely waits (fsync(2) and its kin, fallocate(2),
//! copy_file_range(2), synchronous and direct I/O, everything on a network filesystem) is put off with
//! [`WouldBlock`](fuse_fs::Error::WouldBlock). Writes to the page cache, metadata operations and
//! reading a directory on local storage are done at once, though they may wait for the device. In
//! memory (tmpfs, ramfs) nothing is put off. An inode is opened again with RESOLVE_CACHED, too, or
//! put off if that is done by file handle. A lock that somebody else holds is waited for last, as
//! there may be no end to that ([`FileSystem::cancel_waits`](fuse_fs::FileSystem::cancel_waits)).
//!
//! Nothing in this process is locked while a system call waits, except a directory handle, whose
//! readers take turns, and one owner's locks on a file, which are set one after the other.
//!
//! # System calls for each operation
//!
//! Counted with strace(1) by `cargo bench -p benches --bench syscalls`, as root, on ext4, with
//! extended attributes; a test in this crate sees to it that there are no more. For the reference daemon (virtiofsd 1.14) with its file handles and, after
//! the slash, with descriptors.
//!
//! | operation | here | reference |
//! |---|---|---|
//! | LOOKUP of what is new | 2 | 6 / 2 |
//! | LOOKUP of what is known | 1 | 6 / 3 |
//! | LOOKUP of what is absent | 1 | 3 / 1 |
//! | the same, where the host has to read its disk | 2 | 3 / 1 |
//! | GETATTR, STATFS, ACCESS, READLINK | 1 | 3 / 1 |
//! | STATX | 1 | not supported |
//! | OPEN, OPENDIR, RELEASE | 1 | 1 |
//! | OPEN of a file for the second time, by file handle from then on | 2 | 1 |
//! | OPEN for reading, on a disk, with [`CachePolicy::Auto`] | one more | 1 |
//! | FLUSH | 0, on a network filesystem 2 | 2 |
//! | SETLK, the first of an owner on a file; more | 4; 1 | not supported |
//! | FLUSH of who has locks | 2 | not supported |
//! | READ | 1, across the end of the file 2 | the same |
//! | WRITE, FSYNC, LSEEK | 1 | 1 |
//! | WRITE that clears SUID and SGID | 1 | 3 |
//! | FALLOCATE, COPY_FILE_RANGE by root | 1 | 1 |
//! | the same by another user, clearing SUID and SGID | 1 | 1, clears nothing |
//! | CREATE by root | 3 | 11 / 5 |
//! | MKDIR, MKNOD, SYMLINK by root | 3 | 14 / 6 |
//! | CREATE; MKDIR by another user | 8 | 15 / 9; 18 / 10 |
//! | TMPFILE | 3 | not supported |
//! | UNLINK, RMDIR | 1 | 9 / 4 |
//! | RENAME; RENAME over a file | 1 | 8 / 2; 11 / 4 |
//! | LINK | 2 | 14 / 5 |
//! | SETATTR of the mode, the owner, times | 2 | 6 / 2 |
//! | SETATTR of the size; without a handle; to nothing | 2; 4; 3 | 6 / 2; 6 / 4; 6 / 4 |
//! | GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR | 1, before Linux 6.13 2 | 3 / 3 |
//! | GETXATTR of a special file | 1, before Linux 6.13 2 | 5 / 3 |
//! | READDIR of 100, to the end, in replies of 4 KiB | 2 | 4 / 4 |
//! | READDIRPLUS of N = 100, all new, likewise | 2 + 2N | 36 + 6N / 24 + 2N |
//! | READDIRPLUS of N = 100, all known, likewise | 2 + N | 36 + 6N / 24 + 3N |
//!
//! An inode that gave its descriptor back takes two more when it is used, by file handle
//! (open_by_handle_at(2), close(2)), and four by its name, more where directories above it have none
//! either. Where there is no room for a descriptor, what is found takes a file handle
//! (name_to_handle_at(2)) and a close(2). Where another inode gives its descriptor up for it, that
//! takes three the first time and two from then on. To look up what is known and has no descriptor
//! takes one more. A share whose inodes are opened by name again takes one
//! more for a RENAME.
//!
//! A write, a truncating open or a truncation that clears SUID and SGID takes one more where the
//! thread's last one did not, and one that leaves them takes one more where it did. With POSIX
//! ACLs, creating takes one more where the umask is another than that of the thread's last caller.
//! A label takes one more, and before Linux 6.13 two for what is no file.
//!
//! # What the guest caches
//!
//! [`CachePolicy`] says for how long names, their absence, attributes and data are believed.
//! Targets of symbolic links are cached except with [`CachePolicy::Never`], and writes to files whose
//! data is not cached are made concurrently. A FLUSH at each close(2) is spared where it could do
//! nothing, and with [`CachePolicy::Auto`] a file that did not change is not read again when it is opened
//! again. What changes more than that is one of the [`Extras`].
//!
//! With [`CachePolicy::Auto`] the entries of a directory are not cached: who lists it again would find
//! their names without their attributes, and ask for each. In the other modes they are still known
//! then.
//!
//! OPEN and OPENDIR are never spared: without a handle, each READ and WRITE would have to open its
//! file, and a directory that is listed in several replies would have to be found where it was left.
//!
//! # Filters of system calls
//!
//! A filter (seccomp(2)) that was made for another daemon, or another kernel, has to
//!
//! * allow openat2(2), without which there is no share ([`NewError::Openat2`]); statx(2), preadv2(2),
//!   pwritev2(2), renameat2(2) and copy_file_range(2); and where files are created umask(2),
//!   unshare(2) with CLONE_FS and fchdir(2) and, where the process is root, setresuid(2),
//!   setresgid(2), setgroups(2), capget(2) and capset(2), each for single threads;
//! * answer with an error, or allow, but not kill for, what is tried and done without: fchmodat2(2),
//!   and setxattrat(2), getxattrat(2), listxattrat(2) and removexattrat(2), which are asked for by
//!   number when the share is opened, whatever the kernel and the C library know; and
//!   name_to_handle_at(2) and open_by_handle_at(2), without which inodes are told apart and opened
//!   again by less ([Descriptors](#descriptors)). Any error does; ENOSYS is what a kernel says.
//!
//! So the default of a filter should be an error, not the end of the process.
//!
//! # Locks
//!
//! Unless told otherwise ([`Extras::POSIX_LOCK`], [`Extras::FLOCK`]), locks are left to the guest's
//! kernel and exclude nobody else. On the host, each owner of POSIX locks on a file has an open file
//! description of its own, so that the host's kernel knows them apart; it goes when the owner closes
//! the file, or the guest is gone. A lock that another process holds is taken up to 32 ms after it
//! could be; there is no queue, so that who came first may wait longest.
//! That processes wait for each other in a circle (EDEADLK) is not noticed. Linux's virtio-fs driver
//! interrupts no request: a process that waits for a lock cannot be killed in a guest until it has it,
//! or the wait is cancelled ([`FileSystem::cancel_waits`](fuse_fs::FileSystem::cancel_waits)).
//!
//! # Mapped files
//!
//! With a DAX window, a part of a regular file is mapped as it would be opened, or as the handle was
//! that the guest names. What the guest does there the host does not see, but for the times of the file:
//! not to whom it belongs, whether SUID and SGID are to be cleared, or whether it is a lease or a lock
//! that is in the way; a guest's kernel sees to the first two before it writes, and HANDLE_KILLPRIV_V2,
//! with which Linux would not, is not agreed on. A file that is cut short on the host, or by another
//! guest, takes its memory from the guest: who touches it there gets a SIGBUS, or what its VMM makes of
//! the fault. Of a file on overlayfs that was mapped before it was first opened for writing, the guest
//! goes on to see what it was then.
//!
//! # What is missing
//!
//! There is no export by NFS. Directories, symbolic links and special files have no
//! descriptor when they are made: they are looked up by name right after, and if the host replaces
//! one at that moment the guest is told of its replacement.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod access;
mod acl;
mod attr;
mod budget;
mod by_descriptor;
mod config;
mod credentials;
mod dir;
mod direct;
mod error;
mod extras;
mod feature;
mod file_capabilities;
mod file_handle;
mod filesystem;
mod fsetid;
mod handle_table;
mod id_map;
mod ids;
mod inode_number;
mod inode_table;
mod io;
mod ioctl;
mod labels;
mod last_open;
mod locks;
mod lookup;
mod lost_handles;
mod mapping;
mod migration;
mod name_hints;
mod namespace;
mod open;
mod open_flags;
mod open_inodes;
mod pin;
mod place;
mod proc;
mod reopen;
mod slab;
mod state;
mod sync;
#[allow(unsafe_code)]
mod sys;
mod undo;
mod volume;
mod xattr;
mod xattr_map;
mod xattr_path;

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::budget::Budget;
use crate::by_descriptor::ByDescriptor;
use crate::credentials::Credentials;
use crate::extras::Agreed;
use crate::handle_table::HandleTable;
use crate::ids::Ids;
use crate::inode_number::InodeNumbers;
use crate::inode_table::{Inode, InodeTable};
use crate::locks::LockTable;
use crate::name_hints::NameHints;
use crate::open_inodes::OpenInodes;
use crate::pin::{Descriptor, Pin};
use crate::place::Moves;
use crate::proc::ProcSelfFd;
use crate::volume::Volumes;

pub use config::{CachePolicy, Config, Feature, InodeFileHandles, Killpriv, Xattr};
pub use error::NewError;
pub use extras::Extras;
pub use id_map::{IdMap, IdMapError, IdRule, IdRuleError};
pub use migration::{Migration, MigrationErrors, MigrationMode};
pub use xattr_map::{XattrMap, XattrMapError, XattrRuleError};

/// Descriptors left for the process itself: sockets, event descriptors, and those that are open
/// for the time of a request.
const OWN_DESCRIPTORS: usize = 64;

/// A directory of the host, as a guest sees it.
#[derive(Debug)]
pub struct PassthroughFs {
    inodes: InodeTable,
    handles: HandleTable,
    locks: LockTable,
    names: NameHints,
    volumes: Volumes,
    proc: ProcSelfFd,
    by_descriptor: ByDescriptor,
    credentials: Credentials,
    ids: Ids,
    cache: CachePolicy,
    timeout: Duration,
    negative_timeout: Duration,
    extras: Extras,
    /// What of them the guest can do its part of.
    agreed: Agreed,
    xattr: Xattr,
    xattr_map: Option<XattrMap>,
    /// What `security.capability` is called on the host, if not that.
    renamed_capability: Option<CString>,
    posix_acl: Feature,
    security_labels: Feature,
    killpriv: Killpriv,
    /// RESOLVE_CACHED is known to the kernel (Linux 5.12).
    resolves_cached: bool,
    /// SUBMOUNTS was agreed on.
    submounts: AtomicBool,
    /// HANDLE_KILLPRIV_V2 was agreed on.
    kills_privileges: AtomicBool,
    /// POSIX_ACL and DONT_MASK were agreed on.
    heeds_acls: AtomicBool,
    /// Directory handles that keep entries for their next READDIR.
    kept_entries: Budget,
    /// Descriptors that stay open for the guest.
    open_inodes: OpenInodes,
    numbers: InodeNumbers,
    moves: Moves,
    announce_submounts: bool,
    migration: Migration,
}

impl PassthroughFs {
    /// Opens the directory to share, and checks that the host has what sharing it needs.
    ///
    /// Changes nothing about the process. Call it after the last fork, and before `/proc` is out
    /// of reach (or see [`Config::proc_self_fd`]).
    ///
    /// # Errors
    /// Says what is missing, and what to do about it.
    pub fn new(config: Config) -> std::result::Result<Self, NewError> {
        config.check()?;
        let xattr = config.effective_xattr();
        let path = &config.root;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| NewError::Root {
                path: path.clone(),
                source: errno.into(),
            })?;
        let stat = attr::stat_fd(&root).map_err(|error| NewError::Stat {
            path: path.clone(),
            source: to_io_error(error),
        })?;
        let resolves_cached = probe_openat2(&root).map_err(|errno| NewError::Openat2 {
            path: path.clone(),
            source: errno.into(),
        })?;
        let proc = ProcSelfFd::new(config.proc_self_fd)?;
        proc.check(&root)?;
        let volumes = Volumes::new(config.inode_file_handles);
        let volume = volumes.find(&root, &stat, &proc);
        if config.inode_file_handles == InodeFileHandles::Mandatory {
            volume
                .check_handles(&root)
                .map_err(|source| NewError::FileHandles {
                    path: path.clone(),
                    source: source.into(),
                })?;
        }
        let numbers = InodeNumbers::new(volume.dev());
        let pin = Pin::open(Arc::new(Descriptor::new(root, None)));
        let root = Inode::new(None, &stat, volume, pin);
        let limit = config.max_descriptors.unwrap_or_else(default_descriptors);
        // A quarter is for what the guest has open.
        let open_inodes = config
            .max_open_inodes
            .unwrap_or(limit.saturating_sub(limit / 4));
        Ok(Self {
            inodes: InodeTable::new(root),
            handles: HandleTable::new(),
            locks: LockTable::new(),
            names: NameHints::new(),
            volumes,
            proc,
            by_descriptor: ByDescriptor::probe(),
            credentials: Credentials::of_this_process(),
            ids: Ids {
                users: config.users,
                groups: config.groups,
            },
            cache: config.cache,
            timeout: config.cache.timeout(),
            xattr,
            renamed_capability: file_capabilities::renamed(config.xattr_map.as_ref()),
            xattr_map: config.xattr_map,
            posix_acl: config.posix_acl,
            security_labels: config.security_labels,
            killpriv: config.killpriv,
            negative_timeout: config.negative_timeout.unwrap_or(config.cache.timeout()),
            extras: config.extras,
            agreed: Agreed::default(),
            resolves_cached,
            submounts: AtomicBool::new(false),
            kills_privileges: AtomicBool::new(false),
            heeds_acls: AtomicBool::new(false),
            kept_entries: Budget::new(dir::MAX_KEPT),
            open_inodes: OpenInodes::new(open_inodes, limit),
            numbers,
            moves: Moves::default(),
            announce_submounts: config.announce_submounts,
            migration: config.migration,
        })
    }

    fn announces_submounts(&self) -> bool {
        self.submounts.load(Ordering::Relaxed)
    }

    /// Whether the guest says when SUID and SGID are to be cleared.
    fn kills_privileges(&self) -> bool {
        self.kills_privileges.load(Ordering::Relaxed)
    }

    /// Whether the guest's kernel heeds POSIX ACLs, and leaves the umask to the host.
    fn heeds_acls(&self) -> bool {
        self.heeds_acls.load(Ordering::Relaxed)
    }
}

/// Whether openat2(2) works below `root`, and whether it knows RESOLVE_CACHED.
fn probe_openat2(root: &std::os::fd::OwnedFd) -> rustix::io::Result<bool> {
    let open = |resolve| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(root, c".", flags, Mode::empty(), resolve)
    };
    open(lookup::RESOLVE)?;
    // Unknown flags are EINVAL; whether "." is cached does not matter.
    let cached = open(lookup::RESOLVE | ResolveFlags::CACHED);
    Ok(!matches!(cached, Err(rustix::io::Errno::INVAL)))
}

/// What the process may have open, less some for itself (getrlimit(2)).
fn default_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(usize::MAX).saturating_sub(OWN_DESCRIPTORS)
}

fn to_io_error(error: fuse_fs::Error) -> std::io::Error {
    match error {
        fuse_fs::Error::Errno(errno) => std::io::Error::from_raw_os_error(errno.raw()),
        fuse_fs::Error::WouldBlock => std::io::ErrorKind::WouldBlock.into(),
    }
}
