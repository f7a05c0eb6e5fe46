//! Opening an inode again whose descriptor was closed, and making sure that it is the same.
//!
//! The number of an inode is given to another once it is gone, which some filesystems do at once.
//! A descriptor that is open keeps that from happening; where none is, a file handle tells one
//! inode from the next with its number, and where the filesystem has no handles, the time of its
//! birth does. That is as exact as the host's clock for timestamps, some milliseconds.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};

use fuse_fs::{Blocking, Errno, Error, Result};
use rustix::fs::{AtFlags, OFlags, Statx, StatxFlags};
use rustix::io::Errno as SysErrno;

use crate::PassthroughFs;
use crate::attr::{birth, identity, stat_fd};
use crate::file_handle::FileHandle;
use crate::inode_table::Inode;
use crate::pin::{Descriptor, Pinned};
use crate::place::MAX_DEPTH;
use crate::volume::{Reopening, Storage};

/// How often an inode is looked for anew because the guest renamed something meanwhile.
const MAX_ATTEMPTS: usize = 16;

impl PassthroughFs {
    /// The inode with a descriptor of it, which is opened if there is none. ESTALE if the host has
    /// the inode no more, or not where the guest found it last.
    pub(crate) fn pin(&self, blocking: Blocking, inode: Arc<Inode>) -> Result<Pinned> {
        match inode.pin.get() {
            Some(descriptor) => Ok(Pinned { inode, descriptor }),
            None => self.reopen(blocking, inode),
        }
    }

    /// Takes `fd`, a descriptor of `inode`, as the one of that, for as long as there is room.
    pub(crate) fn keep(&self, inode: Arc<Inode>, fd: OwnedFd) -> Pinned {
        let descriptor = inode.pin.get().unwrap_or_else(|| {
            let fresh = Descriptor::new(fd, self.open_inodes.room());
            let descriptor = inode.pin.install(fresh);
            self.open_inodes.enqueue(&inode);
            descriptor
        });
        Pinned { inode, descriptor }
    }

    #[cold]
    fn reopen(&self, blocking: Blocking, inode: Arc<Inode>) -> Result<Pinned> {
        let fd = self.open_closed(blocking, &inode)?;
        Ok(self.keep(inode, fd))
    }

    /// Opens an inode that has no descriptor.
    pub(crate) fn open_closed(&self, blocking: Blocking, inode: &Inode) -> Result<OwnedFd> {
        if inode.pin.is_lost() {
            return Err(Errno::ESTALE.into());
        }
        match &inode.volume.reopening {
            Reopening::ByHandle(mount) => self.open_by_handle(blocking, mount, inode),
            Reopening::ByName => self.open_by_name(blocking, inode),
            Reopening::Never => Err(Errno::ESTALE.into()),
        }
    }

    fn open_by_handle(
        &self,
        blocking: Blocking,
        mount: &OwnedFd,
        inode: &Inode,
    ) -> Result<OwnedFd> {
        if blocking == Blocking::Forbidden && !inode.volume.is_in_memory() {
            return Err(Error::WouldBlock);
        }
        let handle = inode.handle.get().ok_or(Errno::ESTALE)?;
        self.with_descriptor(|| handle.open(mount, OFlags::PATH))
            .map_err(|errno| match errno {
                SysErrno::PERM => {
                    static SAID: Once = Once::new();
                    SAID.call_once(|| {
                        tracing::error!(
                            "open_by_handle_at is not permitted any more: keep \
                             CAP_DAC_READ_SEARCH, or set --inode-file-handles=never"
                        );
                    });
                    Errno::ESTALE.into()
                }
                errno => errno.into(),
            })
    }

    fn open_by_name(&self, blocking: Blocking, inode: &Inode) -> Result<OwnedFd> {
        for _ in 0..MAX_ATTEMPTS {
            let mark = self.moves.mark();
            match self.open_at_places(blocking, inode) {
                Err(Error::Errno(Errno::ESTALE)) if self.moves.any_since(mark, blocking)? => {}
                result => return result,
            }
        }
        Err(Errno::ESTALE.into())
    }

    fn open_at_places(&self, blocking: Blocking, inode: &Inode) -> Result<OwnedFd> {
        for place in inode.places.all() {
            let opened = self
                .pin_directory(blocking, place.parent)
                .and_then(|dir| self.open_same(blocking, &dir, &place.name, inode));
            match opened {
                Err(Error::Errno(Errno::ESTALE)) => {}
                result => return result,
            }
        }
        Err(Errno::ESTALE.into())
    }

    /// Opens a directory, and before it those above it that are not open either, from the top down.
    pub(crate) fn pin_directory(
        &self,
        blocking: Blocking,
        directory: Arc<Inode>,
    ) -> Result<Pinned> {
        let mut closed = Vec::new();
        let mut here = directory;
        let mut pinned = loop {
            if let Some(descriptor) = here.pin.get() {
                let inode = here;
                break Pinned { inode, descriptor };
            }
            if !here.volume.reopening.needs_places() {
                break self.reopen(blocking, here)?;
            }
            let place = here.places.latest().ok_or(Errno::ESTALE)?;
            if closed.len() >= MAX_DEPTH {
                return Err(Errno::ESTALE.into());
            }
            closed.push((here, place.name));
            here = place.parent;
        };
        while let Some((inode, name)) = closed.pop() {
            let fd = self.open_same(blocking, &pinned, &name, &inode)?;
            pinned = self.keep(inode, fd);
        }
        Ok(pinned)
    }

    /// Opens what `name` stands for in `dir`, if that is `inode`; else ESTALE.
    fn open_same(
        &self,
        blocking: Blocking,
        dir: &Pinned,
        name: &CStr,
        inode: &Inode,
    ) -> Result<OwnedFd> {
        let fd = match self.open_path(dir, name, blocking) {
            Err(Error::Errno(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV)) => {
                return Err(Errno::ESTALE.into());
            }
            result => result?,
        };
        match inode.is_same(&fd, &stat_fd(&fd)?)? {
            true => Ok(fd),
            false => Err(Errno::ESTALE.into()),
        }
    }
}

impl Inode {
    /// Whether it is what `fd` was opened on, whose attributes are `stat`.
    pub(crate) fn is_same(&self, fd: impl AsFd, stat: &Statx) -> Result<bool> {
        if self.identity != identity(stat) || self.pin.is_lost() {
            return Ok(false);
        }
        // Two descriptors with one number are of one inode.
        if self.pin.is_open() {
            return Ok(true);
        }
        match self.handle.get() {
            Some(handle) => Ok(FileHandle::of(fd)? == *handle),
            None => Ok(self.birth.is_some() && self.birth == birth(stat)),
        }
    }

    /// Whether it is what `name` stands for in `dir`, for which statx(2) has just told its number.
    /// False where it takes a descriptor to tell.
    pub(crate) fn still_is(&self, dir: impl AsFd, name: &CStr) -> bool {
        if self.pin.get().is_some() {
            return true;
        }
        // What has the handle was there all the time, and had the number.
        let handle = self.handle.get();
        handle.is_some_and(|handle| FileHandle::of_name(dir, name).is_ok_and(|it| it == *handle))
    }

    /// Whether its descriptor `fd` can be closed now: it can be opened again, and has a name left,
    /// without which it would be gone from the host.
    pub(crate) fn prepare_to_close(&self, fd: impl AsFd) -> bool {
        // A network is not asked for this.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(&fd, c"", flags, StatxFlags::NLINK);
        stat.is_ok_and(|stat| stat.stx_nlink != 0) && self.can_be_reopened(fd)
    }

    /// Whether it can be opened again. `fd` is a descriptor of it.
    pub(crate) fn can_be_reopened(&self, fd: impl AsFd) -> bool {
        match &self.volume.reopening {
            Reopening::ByHandle(_) => self.learn_handle(fd),
            Reopening::ByName => {
                !self.places.is_empty() && (self.learn_handle(fd) || self.birth.is_some())
            }
            Reopening::Never => false,
        }
    }

    /// Its file handle, and where to open it, if it was asked for this before: to learn the handle
    /// takes a system call, which pays off with what is opened often. `fd` is a descriptor of it.
    pub(crate) fn handle_to_open(&self, fd: impl AsFd) -> Option<(&FileHandle, &OwnedFd)> {
        let Reopening::ByHandle(mount) = &self.volume.reopening else {
            return None;
        };
        // Another machine would be asked what the handle stands for.
        if self.volume.storage == Storage::Remote {
            return None;
        }
        if self.handle.get().is_none() {
            if !self.was_opened.load(Ordering::Relaxed) {
                self.was_opened.store(true, Ordering::Relaxed);
                return None;
            }
            self.learn_handle(fd);
        }
        Some((self.handle.get()?, mount))
    }

    fn learn_handle(&self, fd: impl AsFd) -> bool {
        if self.handle.get().is_none()
            && let Ok(handle) = FileHandle::of(fd)
        {
            // Whoever was faster has set the same.
            let _ = self.handle.set(handle);
        }
        self.handle.get().is_some()
    }
}
