//! Locks that are taken again in another process.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use fuse_fs::abi::FileLock;
use fuse_fs::{Blocking, Context, Errno, Handle, NodeId, Result};
use rustix::fs::{FlockOperation, OFlags};

use super::ranges::{Held, Kind, Range};
use super::table::{LockTable, Wanted};
use super::waits::{Attempt, FileId};
use crate::handle_table::OpenFile;
use crate::state::{SavedLock, SavedLockKind};
use crate::{Extras, PassthroughFs};

/// The flock(2) lock that a handle has. The host's kernel would not tell.
#[derive(Debug, Default)]
pub(crate) struct Flock(AtomicU8);

impl Flock {
    pub(crate) fn held(&self) -> Option<Kind> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Kind::Read),
            2 => Some(Kind::Write),
            _ => None,
        }
    }

    pub(super) fn set(&self, kind: Option<Kind>) {
        let kind = match kind {
            None => 0,
            Some(Kind::Read) => 1,
            Some(Kind::Write) => 2,
        };
        self.0.store(kind, Ordering::Relaxed);
    }
}

impl From<Kind> for SavedLockKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Read => Self::Read,
            Kind::Write => Self::Write,
        }
    }
}

impl From<SavedLockKind> for Kind {
    fn from(kind: SavedLockKind) -> Self {
        match kind {
            SavedLockKind::Read => Self::Read,
            SavedLockKind::Write => Self::Write,
        }
    }
}

impl LockTable {
    /// All POSIX locks of the guest.
    pub(crate) fn saved(&self) -> Vec<SavedLock> {
        let mut all = Vec::new();
        for owner in self.owners() {
            owner.each(|(node, owner), pid, handle, mode, range, kind| {
                let FileLock { start, end, .. } = Held::new(range, kind).to_guest(pid);
                all.push(SavedLock {
                    node: node.0,
                    owner,
                    pid,
                    handle: handle.map(|handle| handle.0),
                    mode: mode.bits(),
                    first: start,
                    last: end,
                    kind: kind.into(),
                });
            });
        }
        all
    }
}

impl PassthroughFs {
    /// Takes a POSIX lock that the guest had.
    ///
    /// # Errors
    /// EAGAIN where somebody else has it; ESTALE where the file is lost.
    pub(crate) fn restore_lock(&self, cx: &Context<'_>, saved: &SavedLock) -> Result<()> {
        self.check_agreed(Extras::POSIX_LOCK)?;
        let kind = Kind::from(saved.kind);
        let Some(range) = Range::between(saved.first, saved.last) else {
            return Err(Errno::EINVAL.into());
        };
        let node = NodeId(saved.node);
        let handle = saved.handle.map(Handle);
        let inode = self.inodes.get(node).ok_or(Errno::ESTALE)?;
        let open = || -> Result<(OwnedFd, FileId, _)> {
            let id = inode.identity.into();
            let permit = self.permit().map_err(|_| Errno::ENOLCK)?;
            let mode = self.host_flags(saved.mode)? & OFlags::RWMODE;
            let inode = self.pin(Blocking::Allowed, inode)?;
            Ok((self.reopen_file(cx, &inode, mode)?, id, permit))
        };
        let owner = self.locks.owner((node, saved.owner), handle, open)?;
        let wanted = Wanted {
            range,
            kind: Some(kind),
            pid: saved.pid,
            handle,
        };
        match owner.set(&wanted)? {
            Attempt::Done => Ok(()),
            Attempt::Conflict => Err(Errno::EAGAIN.into()),
        }
    }

    /// Takes the flock(2) lock that a handle had.
    ///
    /// # Errors
    /// EAGAIN where somebody else has it.
    pub(crate) fn restore_flock(&self, file: &OpenFile, kind: Kind) -> Result<()> {
        self.check_agreed(Extras::FLOCK)?;
        let operation = match kind {
            Kind::Read => FlockOperation::NonBlockingLockShared,
            Kind::Write => FlockOperation::NonBlockingLockExclusive,
        };
        rustix::fs::flock(&file.fd, operation)?;
        file.flock.set(Some(kind));
        Ok(())
    }
}
