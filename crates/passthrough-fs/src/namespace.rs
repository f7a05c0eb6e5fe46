use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use fuse_fs::abi::{MkdirIn, MknodIn};
use fuse_fs::flags::RenameFlags;
use fuse_fs::{Blocking, Context, Entry, Errno, Error, Name, NodeId, Result, SymlinkTarget};
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags as SysRenameFlags};

use crate::PassthroughFs;
use crate::attr::{decode_device, identity, kind, stat_fd, stat_name};
use crate::inode_table::Kind;
use crate::lookup::Guess;
use crate::open_inodes::KeptOpen;
use crate::pin::Pinned;
use crate::undo::undo_unseen;

/// Permission bits, SUID, SGID and the sticky bit of a mode.
const PERMISSIONS: u32 = 0o7777;

impl PassthroughFs {
    pub(crate) fn do_readlink(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let inode = self.inode(cx, node)?;
        if inode.kind != Kind::Symlink || buffer.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        Ok(rustix::fs::readlinkat_raw(&inode, c"", buffer)?)
    }

    pub(crate) fn do_symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        // Its mode is that of every symbolic link.
        self.make(cx, parent, name, 0, |dir| {
            rustix::fs::symlinkat(target.as_c_str(), dir, name.as_c_str())
        })
    }

    /// Device nodes are made as any other: what keeps a guest from using them on the host is that
    /// they are never opened there. Share a directory that is mounted `nodev` where users of the
    /// host can get at it.
    pub(crate) fn do_mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MknodIn,
    ) -> Result<Entry> {
        let kind = match FileType::from_raw_mode(args.mode) {
            FileType::Unknown if args.mode & !PERMISSIONS == 0 => FileType::RegularFile,
            FileType::Unknown | FileType::Directory | FileType::Symlink => {
                return Err(Errno::EINVAL.into());
            }
            kind => kind,
        };
        let (major, minor) = decode_device(args.rdev);
        let device = rustix::fs::makedev(major, minor);
        let mode = permissions(args.mode);
        self.make(cx, parent, name, args.umask, |dir| {
            rustix::fs::mknodat(dir, name.as_c_str(), kind, mode, device)
        })
    }

    pub(crate) fn do_mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        args: &MkdirIn,
    ) -> Result<Entry> {
        let mode = permissions(args.mode);
        self.make(cx, parent, name, args.umask, |dir| {
            rustix::fs::mkdirat(dir, name.as_c_str(), mode)
        })
    }

    pub(crate) fn do_unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, AtFlags::empty())
    }

    pub(crate) fn do_rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, AtFlags::REMOVEDIR)
    }

    pub(crate) fn do_rename(
        &self,
        cx: &Context<'_>,
        (parent, name): (NodeId, Name<'_>),
        (new_parent, new_name): (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Result<()> {
        let from = self.directory_inode(cx, parent)?;
        let to = self.directory_inode(cx, new_parent)?;
        // The bits are those of renameat2(2).
        let flags = SysRenameFlags::from_bits_retain(flags.bits());
        let (name, new_name) = (name.as_c_str(), new_name.as_c_str());
        // What is there gives way.
        let held = self.hold(cx, &to, new_name)?;
        if !from.volume.reopening.needs_places() {
            return Ok(rustix::fs::renameat_with(
                &from, name, &to, new_name, flags,
            )?);
        }
        let _renaming = self.moves.begin_rename();
        rustix::fs::renameat_with(&from, name, &to, new_name, flags)?;
        self.note_gone(held.as_ref(), (&to, new_name));
        self.note_move((&from, name), (&to, new_name));
        if flags.contains(SysRenameFlags::EXCHANGE) {
            self.note_move((&to, new_name), (&from, name));
        }
        Ok(())
    }

    pub(crate) fn do_link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let inode = self.inode(cx, node)?;
        let dir = self.directory_inode(cx, parent)?;
        self.link_as(&inode, &dir, name.as_c_str())?;
        let stat = stat_fd(&inode)?;
        if !self.inodes.claim(node, &inode) {
            return Err(Errno::ESTALE.into());
        }
        self.moves.seen(&inode.inode, &dir.inode, name.as_c_str());
        // One that had no name, as a file made without one, could not be closed until now.
        self.open_inodes.enqueue(&inode.inode);
        Ok(self.entry(&dir, node, &stat))
    }

    /// What was renamed is in another place now. The host may have put another file there since,
    /// or the guest may not know it; then there is nothing to remember.
    fn note_move(&self, from: (&Pinned, &CStr), to: (&Pinned, &CStr)) {
        let Ok(stat) = stat_name(to.0, to.1) else {
            return;
        };
        if let Some(known) = self.inodes.find(&identity(&stat)) {
            self.moves.gone(&known.inode, &from.0.inode, from.1);
            self.moves.seen(&known.inode, &to.0.inode, to.1);
        }
    }

    /// Makes something that has no descriptor of its own, and looks it up. Should the host put
    /// another file in its place at that moment, the guest is told of that file.
    fn make(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        umask: u32,
        make: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<Entry> {
        let dir = self.directory_inode(cx, parent)?;
        {
            // Nothing is made of which the guest could not be told.
            self.check_room(&dir)?;
            let _as_caller = self.assume(cx, umask)?;
            make(dir.as_fd())?;
        }
        let found = self.find(&dir, name, Guess::Unknown, Blocking::Allowed);
        let (node, stat) = found.inspect_err(|error| undo_unseen(&dir, name, error))?;
        self.label_node(cx, node).inspect_err(|error| {
            undo_unseen(&dir, name, error);
            self.inodes.forget(node, 1);
        })?;
        self.names.remember(parent, name);
        Ok(self.entry(&dir, node, &stat))
    }

    fn remove(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        flags: AtFlags,
    ) -> Result<()> {
        let dir = self.directory_inode(cx, parent)?;
        let name = name.as_c_str();
        let held = self.hold(cx, &dir, name)?;
        rustix::fs::unlinkat(&dir, name, flags)?;
        self.note_gone(held.as_ref(), (&dir, name));
        Ok(())
    }

    /// What was held is not in that place any more.
    fn note_gone(&self, held: Option<&KeptOpen>, from: (&Pinned, &CStr)) {
        if let Some(held) = held {
            self.moves.gone(held.inode(), &from.0.inode, from.1);
        }
    }

    /// Opens `name` in `dir` again, if its descriptor was closed and that is a directory, or a file
    /// with other names where names are needed to find it. A directory may be in use when it has no
    /// name any more, as the working directory of a process in the guest; and the guest may not know
    /// the file's other names.
    fn hold(&self, cx: &Context<'_>, dir: &Pinned, name: &CStr) -> Result<Option<KeptOpen>> {
        if !self.open_inodes.ran_short() {
            return Ok(None);
        }
        // What is not there, or not known, is not in use.
        let Ok(stat) = stat_name(dir, name) else {
            return Ok(None);
        };
        let has_others = stat.stx_nlink > 1 && dir.volume.reopening.needs_places();
        if kind(&stat) != Kind::Directory && !has_others {
            return Ok(None);
        }
        let Some(known) = self.inodes.find(&identity(&stat)) else {
            return Ok(None);
        };
        match self.pin(cx.blocking, known.inode) {
            Ok(inode) => Ok(self.open_inodes.keep(&inode)),
            Err(Error::WouldBlock) => Err(Error::WouldBlock),
            Err(Error::Errno(_)) => Ok(None),
        }
    }
}

pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & PERMISSIONS)
}
