use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fuse_fs::abi::{CreateIn, OpenIn, ReleaseIn};
use fuse_fs::flags::OpenInFlags;
use fuse_fs::{Context, Entry, Errno, Error, Handle, Name, NodeId, Opened, Result};
use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::Errno as SysErrno;

use crate::PassthroughFs;
use crate::attr::stat_fd;
use crate::budget::Permit;
use crate::dir::Stream;
use crate::fsetid::SuidSgid;
use crate::handle_table::{OpenDirectory, OpenFile};
use crate::inode_table::Kind;
use crate::last_open::keep_pages;
use crate::locks::Flock;
use crate::lookup::{Guess, RESOLVE};
use crate::namespace::permissions;
use crate::open_flags::{Readable, durability};
use crate::open_inodes::KeptOpen;
use crate::pin::Pinned;
use crate::undo::undo;

/// How often a file is made, or opened where it is there, that somebody else removes in between.
const MAX_ATTEMPTS: usize = 64;
/// After so many of them there is a pause before the next. Whoever makes and removes the file in turn
/// waits for the same lock of the directory, and can come in step with this.
const MAX_ATTEMPTS_IN_STEP: usize = 8;
const OUT_OF_STEP: Duration = Duration::from_micros(50);

impl PassthroughFs {
    pub(crate) fn do_open(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        let inode = self.inode(cx, node)?;
        let (mut opened, stat) = self.open_file(cx, node, &inode, args.flags, args.open_flags)?;
        keep_pages(&inode, stat.as_ref(), &mut opened);
        Ok(opened)
    }

    pub(crate) fn do_opendir(&self, cx: &Context<'_>, node: NodeId) -> Result<Opened> {
        let inode = self.directory_inode(cx, node)?;
        let (permit, kept_open) = self.handle_room(&inode)?;
        let directory = OpenDirectory {
            node,
            fd: self.open_directory_again(&inode, OFlags::RDONLY)?,
            volume: Arc::clone(&inode.volume),
            stream: Mutex::new(Stream::new(&self.kept_entries)),
            _permit: permit,
            _kept_open: kept_open,
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
        let host_flags = self.creation_flags(args.flags)?;
        // With O_EXCL always: without, an existing FIFO or device node would be opened.
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || -> Result<_> {
            // Nothing is made of which the guest could not be told.
            let _room = (self.permit()?, self.permit()?);
            let _as_caller = self.assume(cx, args.umask)?;
            let mode = permissions(args.mode);
            let flags = host_flags | create;
            Ok(self.with_descriptor(|| {
                rustix::fs::openat2(&dir, name.as_c_str(), flags, mode, RESOLVE)
            }))
        };
        for attempt in 0..MAX_ATTEMPTS {
            if attempt >= MAX_ATTEMPTS_IN_STEP {
                thread::sleep(OUT_OF_STEP);
            }
            let made = make()?;
            self.names.remember(parent, name);
            match made {
                Ok(fd) => {
                    let stat = stat_fd(&fd)?;
                    let told = self.label_open(cx, &fd).and_then(|()| {
                        self.adopt_created(&dir, Some(name.as_c_str()), fd, &stat, host_flags)
                    });
                    return told.inspect_err(|error| undo(&dir, name, &stat, error));
                }
                Err(SysErrno::EXIST) if !is_exclusive(args) => {
                    match self.open_existing(cx, &dir, name, args) {
                        // Somebody else has removed it meanwhile.
                        Err(Error::Errno(Errno::ENOENT)) => {}
                        opened => return opened,
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::ENOENT.into())
    }

    pub(crate) fn do_tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        args: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        let dir = self.directory_inode(cx, parent)?;
        let host_flags = self.creation_flags(args.flags)?;
        let mut flags = host_flags | OFlags::TMPFILE | OFlags::CLOEXEC;
        flags.set(OFlags::EXCL, is_exclusive(args));
        let fd = {
            let _room = (self.permit()?, self.permit()?);
            let _as_caller = self.assume(cx, args.umask)?;
            let mode = permissions(args.mode);
            self.with_descriptor(|| rustix::fs::openat2(&dir, c".", flags, mode, RESOLVE))?
        };
        // Closed, it is gone.
        self.label_open(cx, &fd)?;
        let stat = stat_fd(&fd)?;
        self.adopt_created(&dir, None, fd, &stat, host_flags)
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
            Some(closed_here) => {
                self.unlock_at_release(&closed_here, args);
                Ok(())
            }
            None => Err(Errno::EBADF.into()),
        }
    }

    pub(crate) fn do_releasedir(&self, node: NodeId, args: &ReleaseIn) -> Result<()> {
        match self.handles.remove_directory(args.fh, node) {
            Some(_closed_here) => Ok(()),
            None => Err(self.handles.lost_directories.why(args.fh).into()),
        }
    }

    /// The open file that `handle` names, if it is one of `node`.
    pub(crate) fn file(&self, handle: Handle, node: NodeId) -> Result<Arc<OpenFile>> {
        Ok(self.handles.file(handle, node)?)
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
            return self.open_known(inode, flags);
        }
        // Does not wait until a lease on the file is given up (fcntl(2)).
        match self.open_known(inode, flags | OFlags::NONBLOCK) {
            Err(Error::Errno(Errno::EAGAIN)) => Err(Error::WouldBlock),
            result => result,
        }
    }

    /// Opens an inode anew. One that was opened before is likely to be opened once more, and is by
    /// its file handle from then on, which takes less than `/proc/self/fd`. As the inode has a
    /// descriptor, no other has that handle.
    fn open_known(&self, inode: &Pinned, flags: OFlags) -> Result<OwnedFd> {
        if let Some((handle, mount)) = inode.handle_to_open(inode)
            && let Ok(fd) = self.with_descriptor(|| handle.open(mount, flags))
        {
            return Ok(fd);
        }
        // What cannot be opened by its handle, or not at all: this tells why.
        self.open_again(inode, flags)
    }

    /// Opens a directory anew.
    pub(crate) fn open_directory_again(&self, inode: &Pinned, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(inode, c".", flags, Mode::empty());
        match self.with_descriptor(open) {
            // For want of permission to search it, which the other way does not take.
            Err(SysErrno::ACCESS) => self.open_again(inode, flags),
            opened => Ok(opened?),
        }
    }

    /// Opens the inode of `fd` anew.
    pub(crate) fn open_again(&self, fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        Ok(self.with_descriptor(|| self.proc.reopen(&fd, flags))?)
    }

    /// The right to have a handle of `inode`, which has its descriptor for as long as that is open.
    pub(crate) fn handle_room(&self, inode: &Pinned) -> Result<(Permit, KeptOpen)> {
        let permit = self.permit()?;
        let kept_open = self.open_inodes.keep(inode).ok_or(Errno::ENFILE)?;
        Ok((permit, kept_open))
    }

    fn open_file(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        inode: &Pinned,
        flags: u32,
        open_flags: OpenInFlags,
    ) -> Result<(Opened, Option<Statx>)> {
        let host_flags = self.host_flags(flags)?;
        // Before it is truncated.
        let room = self.handle_room(inode)?;
        let (fd, readable) = {
            let truncates = host_flags.contains(OFlags::TRUNC);
            // Where it was not agreed that the guest says so, it neither says so nor clears them
            // by itself, as it does with truncate(2).
            let kill = open_flags.contains(OpenInFlags::KILL_SUIDGID)
                || !self.kills_privileges() && SuidSgid::of(cx) == SuidSgid::Cleared;
            if truncates {
                SuidSgid::cleared_if(kill).apply()?;
            }
            let opened = self.reopen_readable(cx, inode, host_flags)?;
            if truncates {
                // Only now it is sure that the file changes. Nothing that is in it can use them.
                self.drop_capabilities(&opened.0)?;
            }
            opened
        };
        let stat = self.stat_opened(inode, &fd, host_flags);
        let opened = self.add_handle((node, inode), room, fd, host_flags, readable)?;
        Ok((opened, stat))
    }

    /// Opens a file for writing so that it can be read, too, where it has to be and may be.
    fn reopen_readable(
        &self,
        cx: &Context<'_>,
        inode: &Pinned,
        host_flags: OFlags,
    ) -> Result<(OwnedFd, Readable)> {
        if !self.must_also_read(host_flags) {
            let fd = self.reopen_file(cx, inode, host_flags)?;
            return Ok((fd, Readable::AsNeeded));
        }
        match self.reopen_file(cx, inode, readable(host_flags)) {
            Ok(fd) => Ok((fd, Readable::AsNeeded)),
            Err(Error::Errno(Errno::EACCES)) => {
                let fd = self.reopen_file(cx, inode, host_flags)?;
                Ok((fd, Readable::No))
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`host_flags`](Self::host_flags), for a file that is new and so can be read.
    fn creation_flags(&self, flags: u32) -> Result<OFlags> {
        let host_flags = self.host_flags(flags)?;
        Ok(match self.must_also_read(host_flags) {
            true => readable(host_flags),
            false => host_flags,
        })
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
            // Not held against the next open: Linux may still fail this one, and keep its pages.
            Ok((opened, _)) => Ok((self.entry(dir, node, &stat), opened)),
            Err(error) => {
                self.inodes.forget(node, 1);
                Err(error)
            }
        }
    }

    /// Tells the guest of a file that was just created, of which `fd` is the only descriptor.
    fn adopt_created(
        &self,
        dir: &Pinned,
        name: Option<&CStr>,
        fd: OwnedFd,
        stat: &Statx,
        host_flags: OFlags,
    ) -> Result<(Entry, Opened)> {
        let pin = self.open_again(&fd, OFlags::PATH)?;
        // From here on the file is there, so that nothing may be put off.
        let (node, inode) = self.adopt(dir, name, pin, stat)?;
        let added = self.handle_room(&inode).and_then(|room| {
            let readable = Readable::AsNeeded;
            self.add_handle((node, &inode), room, fd, host_flags, readable)
        });
        match added {
            Ok(opened) => Ok((self.entry(dir, node, stat), opened)),
            Err(error) => {
                self.inodes.forget(node, 1);
                Err(error)
            }
        }
    }

    fn add_handle(
        &self,
        (node, inode): (NodeId, &Pinned),
        (permit, kept_open): (Permit, KeptOpen),
        fd: OwnedFd,
        host_flags: OFlags,
        readable: Readable,
    ) -> Result<Opened> {
        let handle = self.handles.insert_file(OpenFile {
            node,
            fd,
            volume: Arc::clone(&inode.volume),
            durability: durability(host_flags),
            flock: Flock::default(),
            _permit: permit,
            _kept_open: kept_open,
        });
        Ok(Opened {
            handle: handle.map_err(|_full| Errno::ENFILE)?,
            flags: self.file_flags(&inode.volume, host_flags, readable),
        })
    }
}

fn is_exclusive(args: &CreateIn) -> bool {
    OFlags::from_bits_retain(args.flags).contains(OFlags::EXCL)
}

fn readable(host_flags: OFlags) -> OFlags {
    host_flags.difference(OFlags::RWMODE) | OFlags::RDWR
}
