//! Locks that the guest takes on the host, where they exclude its processes and those of other
//! guests.
//!
//! **POSIX locks** (fcntl(2)). The guest's kernel names an owner with each: a process (all that
//! share their descriptors), or, for locks of an open file description, that description. On the
//! host each owner has, for each file that it has locked, an open file description of its own, and
//! locks that (F_OFD_SETLK). It is opened as the guest opened the file: for writing only where the
//! guest may write, as that keeps the host from executing the file, and makes an overlay copy it.
//! One that was opened for reading is replaced when its owner wants a lock for writing.
//!
//! The guest sends a FLUSH when a process closes any descriptor of a file, which drops the process's
//! locks on it, as POSIX wants. For an owner that is an open file description it sends nothing but
//! the RELEASE of that, which drops the locks that came by that handle alone.
//!
//! **flock(2) locks** are those of the handle's description: there is one for each of the guest's.
//!
//! What is bounded: the ranges that a guest has locked, and those who wait, each with its own limit;
//! descriptions count as descriptors. Beyond that it is ENOLCK. That processes wait for each other
//! in a circle is not noticed, as it is not for locks of open file descriptions.

mod ranges;
mod saved;
#[allow(unsafe_code)]
mod sys;
mod table;
mod waits;

use std::os::fd::OwnedFd;

use fuse_fs::abi::{FileLock, FlushIn, LkIn, ReleaseIn};
use fuse_fs::flags::{LkFlags, ReleaseFlags};
use fuse_fs::{Context, Errno, Error, NodeId, Result};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno as SysErrno;

use self::ranges::{Kind, Range};
pub(crate) use self::saved::Flock;
pub(crate) use self::table::LockTable;
use self::table::Wanted;
use self::waits::{Attempt, FileId};
use crate::attr::{identity, stat_fd};
use crate::handle_table::OpenFile;
use crate::{Extras, PassthroughFs};

impl PassthroughFs {
    pub(crate) fn do_getlk(&self, cx: &Context<'_>, node: NodeId, args: &LkIn) -> Result<FileLock> {
        self.check_agreed(Extras::POSIX_LOCK)?;
        let file = self.file(args.fh, node)?;
        file.volume.check_reachable(cx)?;
        let (range, Some(kind)) = Range::of(&args.lk)? else {
            return Err(Errno::EINVAL.into());
        };
        let key = (node, args.owner);
        if let Some(conflict) = self.locks.conflict(key, range, kind) {
            return Ok(conflict);
        }
        let conflict = match self.locks.known(key) {
            // Its own locks do not stand in its way.
            Some(owner) => owner.conflict_on_host(range, kind)?,
            None => table::conflict_on_host(&file.fd, range, kind)?,
        };
        Ok(conflict.unwrap_or(ranges::no_conflict(&args.lk)))
    }

    pub(crate) fn do_setlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &LkIn,
        wait: bool,
    ) -> Result<()> {
        let is_flock = args.lk_flags.contains(LkFlags::FLOCK);
        self.check_agreed(match is_flock {
            true => Extras::FLOCK,
            false => Extras::POSIX_LOCK,
        })?;
        let file = self.file(args.fh, node)?;
        file.volume.check_reachable(cx)?;
        let (range, kind) = Range::of(&args.lk)?;
        if is_flock {
            return self.flock(cx, &file, kind, wait);
        }
        let wanted = Wanted {
            range,
            kind,
            pid: args.lk.pid,
            handle: Some(args.fh),
        };
        self.set_posix_lock(cx, &file, args.owner, &wanted, wait)
    }

    /// A process closed one of its descriptors of the file.
    pub(crate) fn unlock_at_flush(&self, node: NodeId, args: &FlushIn) {
        if let Some(owner) = self.locks.known((node, args.lock_owner)) {
            owner.unlock_all();
        }
    }

    /// The last descriptor of an open file description was closed.
    pub(crate) fn unlock_at_release(&self, file: &OpenFile, args: &ReleaseIn) {
        self.locks.close(file.node, args.fh);
        if args.release_flags.contains(ReleaseFlags::FLOCK_UNLOCK) {
            // It may be in use this moment, so that closing it takes a while.
            let unlocked = rustix::fs::flock(&file.fd, FlockOperation::NonBlockingUnlock);
            match unlocked.map_err(Error::from).and_then(|()| file_id(file)) {
                Ok(id) => waits::released(id),
                Err(error) => tracing::debug!(%error, "a lock goes with its descriptor"),
            }
        }
    }

    fn set_posix_lock(
        &self,
        cx: &Context<'_>,
        file: &OpenFile,
        owner: u64,
        wanted: &Wanted,
        wait: bool,
    ) -> Result<()> {
        let key = (file.node, owner);
        if wanted.kind.is_none() {
            return match self.locks.known(key) {
                Some(owner) => owner.set(wanted).map(|_| ()),
                None => Ok(()),
            };
        }
        let owner = self.locks.owner(key, wanted.handle, || {
            let permit = self.permit().map_err(|_| Errno::ENOLCK)?;
            Ok((self.open_to_lock(cx, file)?, file_id(file)?, permit))
        })?;
        self.attempt(cx, owner.file(), wait, || match owner.set(wanted) {
            // The description is of the other mode.
            Err(Error::Errno(Errno::EBADF)) => {
                owner.replace_description(self.open_to_lock(cx, file)?)?;
                owner.set(wanted)
            }
            result => result,
        })
    }

    /// A description of the file for nothing but locks, which can have those that `file` can have.
    ///
    /// # Errors
    /// ENOLCK where the host allows none.
    fn open_to_lock(&self, cx: &Context<'_>, file: &OpenFile) -> Result<OwnedFd> {
        // Without waiting until a lease on the file is given up (fcntl(2)).
        let patience = match cx.may_block() {
            true => OFlags::empty(),
            false => OFlags::NONBLOCK,
        };
        let open = |mode| match self.open_again(&file.fd, mode | patience) {
            Err(Error::Errno(Errno::EAGAIN)) if !cx.may_block() => Err(Error::WouldBlock),
            Err(Error::Errno(_)) => Err(Errno::ENOLCK.into()),
            result => result,
        };
        let mode = rustix::fs::fcntl_getfl(&file.fd)? & OFlags::RWMODE;
        if mode != OFlags::WRONLY {
            return open(mode);
        }
        // The guest may have the file open for reading, too.
        match open(OFlags::RDWR) {
            Err(Error::Errno(_)) => open(mode),
            result => result,
        }
    }

    fn flock(
        &self,
        cx: &Context<'_>,
        file: &OpenFile,
        kind: Option<Kind>,
        wait: bool,
    ) -> Result<()> {
        let operation = match kind {
            Some(Kind::Read) => FlockOperation::NonBlockingLockShared,
            Some(Kind::Write) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::NonBlockingUnlock,
        };
        let id = file_id(file)?;
        self.attempt(cx, id, wait, || {
            match rustix::fs::flock(&file.fd, operation) {
                Ok(()) => Ok(Attempt::Done),
                Err(SysErrno::WOULDBLOCK) => {
                    // The one that it had was given up first (flock(2)). Nobody need be told: who is
                    // in the way here is in the way of all whom that one kept waiting.
                    file.flock.set(None);
                    Ok(Attempt::Conflict)
                }
                Err(errno) => Err(errno.into()),
            }
        })?;
        file.flock.set(kind);
        if kind != Some(Kind::Write) {
            waits::released(id);
        }
        Ok(())
    }

    /// Attempts it once or, to `wait`, until it is done.
    fn attempt(
        &self,
        cx: &Context<'_>,
        file: FileId,
        wait: bool,
        mut attempt: impl FnMut() -> Result<Attempt>,
    ) -> Result<()> {
        if wait && cx.may_block() {
            return self.locks.waits.wait_for(cx.unique, file, attempt);
        }
        match attempt()? {
            Attempt::Done => Ok(()),
            Attempt::Conflict if wait => Err(Error::WouldBlock),
            Attempt::Conflict => Err(Errno::EAGAIN.into()),
        }
    }

    fn check_agreed(&self, locks: Extras) -> Result<()> {
        match self.agreed.contains(locks) {
            true => Ok(()),
            false => Err(Errno::ENOSYS.into()),
        }
    }
}

fn file_id(file: &OpenFile) -> Result<FileId> {
    Ok(identity(&stat_fd(&file.fd)?).into())
}
