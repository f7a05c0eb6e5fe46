use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use fuse_fs::abi::{CreateIn, OpenIn, ReleaseIn};
use fuse_fs::flags::{OpenInFlags, OpenOutFlags};
use fuse_fs::{Context, Entry, Errno, Error, Handle, Name, NodeId, Opened, Result};
use rustix::fs::{OFlags, Statx};
use rustix::io::Errno as SysErrno;

use crate::PassthroughFs;
use crate::attr::stat_fd;
use crate::credentials::{KillPrivileges, lacks_fsetid};
use crate::dir::Stream;
use crate::handle_table::{Durability, OpenDirectory, OpenFile};
use crate::inode_table::{Kind, Pinned};
use crate::lookup::{Guess, RESOLVE};
use crate::namespace::permissions;
use crate::volume::{Storage, Volume};

/// The flags of the guest that the host's open(2) is given.
///
/// O_APPEND is left to each write, as the guest can change it (fcntl(2)). O_DIRECT is the guest's
/// own business: its buffers are not aligned for the host's device. O_NOATIME is for owners, and
/// this process may not be one. O_NONBLOCK, O_ASYNC and the like mean nothing to a regular file.
const HONOURED: OFlags = OFlags::RWMODE
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);

impl PassthroughFs {
    pub(crate) fn do_open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let inode = self.inode(cx, node)?;
        self.open_file(cx, node, &inode, args.flags, args.open_flags)
    }

    pub(crate) fn do_opendir(&self, cx: &Context<'_>, node: NodeId) -> Result<Opened> {
        let inode = self.directory_inode(cx, node)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = OpenDirectory {
            node,
            fd: self.proc.reopen(&inode, flags)?,
            volume: Arc::clone(&inode.volume),
            stream: Mutex::new(Stream::new(&self.kept_entries)),
            _permit: self.permit()?,
        };
        let handle = self.handles.insert_directory(directory);
        Ok(Opened {
            handle: handle.map_err(|_full| Errno::ENFILE)?,
            flags: self.cache.directory_flags(),
        })
    }

    /// A new file is known by the descriptor that made it. It is never looked up by its name,
    /// which may stand for another file by then.
    pub(crate) fn do_create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let dir = self.directory_inode(cx, parent)?;
        let flags = OFlags::from_bits_retain(args.flags);
        // With O_EXCL always: without, an existing FIFO or device node would be opened.
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = {
            // Nothing is made of which the guest could not be told.
            let _room = (self.permit()?, self.permit()?);
            let _as_caller = self.assume(cx, args.umask)?;
            let mode = permissions(args.mode);
            let flags = honoured(args.flags)? | create;
            rustix::fs::openat2(&dir, name.as_c_str(), flags, mode, RESOLVE)
        };
        self.names.remember(parent, name);
        match made {
            Ok(fd) => {
                self.label_created(cx, &dir, name, &fd)?;
                self.adopt_created(cx, &dir, fd, args.flags)
            }
            Err(SysErrno::EXIST) if !flags.contains(OFlags::EXCL) => {
                self.open_existing(cx, &dir, name, args)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn do_tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let dir = self.directory_inode(cx, parent)?;
        let exclusive = OFlags::from_bits_retain(args.flags) & OFlags::EXCL;
        let flags = honoured(args.flags)? | exclusive | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = {
            let _room = (self.permit()?, self.permit()?);
            let _as_caller = self.assume(cx, args.umask)?;
            rustix::fs::openat2(&dir, c".", flags, permissions(args.mode), RESOLVE)?
        };
        // Closed, it is gone.
        self.label_open(cx, &fd)?;
        self.adopt_created(cx, &dir, fd, args.flags)
    }

    pub(crate) fn do_release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReleaseIn,
    ) -> Result<()> {
        // Closing a file of a network filesystem writes back what is left.
        self.file(args.fh, node)?.volume.check_reachable(cx)?;
        match self.handles.remove_file(args.fh, node) {
            Some(_closed_here) => Ok(()),
            None => Err(Errno::EBADF.into()),
        }
    }

    pub(crate) fn do_releasedir(&self, node: NodeId, args: &ReleaseIn) -> Result<()> {
        match self.handles.remove_directory(args.fh, node) {
            Some(_closed_here) => Ok(()),
            None => Err(Errno::EBADF.into()),
        }
    }

    /// The open file that `handle` names, if it is one of `node`.
    pub(crate) fn file(&self, handle: Handle, node: NodeId) -> Result<Arc<OpenFile>> {
        self.handles.file(handle, node).ok_or(Errno::EBADF.into())
    }

    /// Opens a regular file for I/O. Nothing else is ever opened: device nodes and FIFOs would act
    /// on the host, or wait there.
    pub(crate) fn reopen_file(
        &self,
        cx: &Context<'_>,
        inode: &Pinned,
        flags: OFlags,
    ) -> Result<OwnedFd> {
        match inode.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR.into()),
            Kind::Symlink => return Err(Errno::ELOOP.into()),
            Kind::Special => return Err(Errno::ENXIO.into()),
        }
        if cx.may_block() {
            return self.proc.reopen(inode, flags);
        }
        // Does not wait until a lease on the file is given up (fcntl(2)).
        match self.proc.reopen(inode, flags | OFlags::NONBLOCK) {
            Err(Error::Errno(Errno::EAGAIN)) => Err(Error::WouldBlock),
            result => result,
        }
    }

    fn open_file(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        inode: &Pinned,
        flags: u32,
        open_flags: OpenInFlags,
    ) -> Result<Opened> {
        let host_flags = honoured(flags)?;
        let fd = {
            let truncates = host_flags.contains(OFlags::TRUNC);
            // Where it was not agreed that the guest says so, it neither says so nor clears them
            // by itself, as it does with truncate(2).
            let kill = open_flags.contains(OpenInFlags::KILL_SUIDGID)
                || truncates && !self.kills_privileges() && lacks_fsetid(cx);
            if truncates && inode.kind == Kind::Regular {
                self.drop_capabilities_of(inode)?;
            }
            let _killing = KillPrivileges::begin(kill)?;
            self.reopen_file(cx, inode, host_flags)?
        };
        self.keep_open(node, fd, &inode.volume, host_flags)
    }

    fn open_existing(
        &self,
        cx: &Context<'_>,
        dir: &Pinned,
        name: Name<'_>,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let (node, stat) = self.find(dir, name, Guess::Unknown, cx.blocking)?;
        let opened = self
            .inode(cx, node)
            .and_then(|inode| self.open_file(cx, node, &inode, args.flags, args.open_flags));
        match opened {
            Ok(opened) => Ok((self.entry(dir, node, &stat), opened)),
            Err(error) => {
                self.inodes.forget(node, 1);
                Err(error)
            }
        }
    }

    /// Tells the guest of a file that was just created, of which `fd` is the only descriptor.
    fn adopt_created(
        &self,
        cx: &Context<'_>,
        dir: &Pinned,
        fd: OwnedFd,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        let stat: Statx = stat_fd(&fd)?;
        let pin = self.proc.reopen(&fd, OFlags::PATH)?;
        let node = self.adopt(dir, pin, &stat)?;
        let kept = self
            .inode(cx, node)
            .and_then(|inode| self.keep_open(node, fd, &inode.volume, honoured(flags)?));
        match kept {
            Ok(opened) => Ok((self.entry(dir, node, &stat), opened)),
            Err(error) => {
                self.inodes.forget(node, 1);
                Err(error)
            }
        }
    }

    fn keep_open(
        &self,
        node: NodeId,
        fd: OwnedFd,
        volume: &Arc<Volume>,
        host_flags: OFlags,
    ) -> Result<Opened> {
        let durability = if host_flags.intersects(OFlags::DSYNC | OFlags::SYNC) {
            Durability::Synchronous
        } else {
            Durability::Cached
        };
        let handle = self.handles.insert_file(OpenFile {
            node,
            fd,
            volume: Arc::clone(volume),
            durability,
            _permit: self.permit()?,
        });
        Ok(Opened {
            handle: handle.map_err(|_full| Errno::ENFILE)?,
            flags: self.cache.file_flags() | self.flush_flags(volume, host_flags),
        })
    }

    /// Spares the guest a FLUSH at each close(2) where that could do nothing: the host's filesystem
    /// has nothing to report, and the guest has no changed pages to write back, as the file is open
    /// for reading only or cannot be mapped shared.
    fn flush_flags(&self, volume: &Volume, host_flags: OFlags) -> OpenOutFlags {
        let read_only = host_flags & OFlags::RWMODE == OFlags::RDONLY;
        let uncached = self.cache.file_flags().contains(OpenOutFlags::DIRECT_IO);
        if volume.storage != Storage::Remote && (read_only || uncached) {
            OpenOutFlags::NOFLUSH
        } else {
            OpenOutFlags::empty()
        }
    }
}

/// What is passed on of the guest's `flags`.
fn honoured(flags: u32) -> Result<OFlags> {
    let flags = OFlags::from_bits_retain(flags) & HONOURED;
    // The fourth value of the access mode is for ioctls on drivers (open(2)).
    if flags & OFlags::RWMODE == OFlags::RWMODE {
        return Err(Errno::EINVAL.into());
    }
    Ok(flags)
}
