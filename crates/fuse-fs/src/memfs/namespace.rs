//! Names: finding, adding, removing and renaming them.

use fuse_wire::flags::RenameFlags;
use fuse_wire::{Errno, NodeId};

use super::directory::{Directory, entry_cost};
use super::inode::{Contents, Inode};
use super::state::State;
use crate::Context;

/// SGID in a mode: what is made in such a directory gets its group.
const SGID: u32 = 0o2000;

/// Which kind of entry an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removing {
    /// unlink(2).
    File,
    /// rmdir(2).
    Directory,
}

/// A name in a directory, and the inode that it leads to.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    parent: NodeId,
    name: &'a [u8],
}

impl State {
    /// # Errors
    /// ESTALE, ENOTDIR; ENOENT.
    pub(super) fn find(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, Errno> {
        self.directory(parent)?.find(name).ok_or(Errno::ENOENT)
    }

    /// Makes an inode and its first name.
    ///
    /// # Errors
    /// ESTALE, ENOTDIR, ENOENT, EEXIST, ENOSPC.
    pub(super) fn make(
        &mut self,
        cx: &Context<'_>,
        parent: NodeId,
        name: &[u8],
        contents: Contents,
        permissions: u32,
        rdev: u32,
    ) -> Result<NodeId, Errno> {
        self.check_free(parent, name)?;
        let mut inode = self.new_inode(cx, parent, contents, permissions)?;
        inode.rdev = rdev;
        let node = self.adopt(inode)?;
        if let Err(error) = self.attach(Place { parent, name }, node) {
            self.drop_if_unused(node);
            return Err(error);
        }
        self.gained_name(node)?;
        Ok(node)
    }

    /// An inode that the caller owns, except for what `parent` decides.
    ///
    /// # Errors
    /// ESTALE.
    pub(super) fn new_inode(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        contents: Contents,
        permissions: u32,
    ) -> Result<Inode, Errno> {
        let parent = self.inode(parent)?;
        let mut inode = Inode::new(contents, permissions, cx.uid, cx.gid);
        if parent.permissions & SGID != 0 {
            inode.gid = parent.gid;
            if inode.is_directory() {
                inode.permissions |= SGID;
            }
        }
        Ok(inode)
    }

    /// Makes another name of `node`.
    ///
    /// # Errors
    /// As [`make`](Self::make); EPERM for a directory, ENOENT for a file that has lost its names.
    pub(super) fn link(&mut self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        let inode = self.inode(node)?;
        if inode.is_directory() {
            return Err(Errno::EPERM);
        }
        if inode.nlink == 0 && !inode.linkable {
            return Err(Errno::ENOENT);
        }
        if inode.nlink == u32::MAX {
            return Err(Errno::EMLINK);
        }
        self.check_free(parent, name)?;
        self.attach(Place { parent, name }, node)?;
        self.gained_name(node)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// ESTALE, ENOTDIR, ENOENT; EISDIR, ENOTDIR or ENOTEMPTY where it is not what is asked for.
    pub(super) fn remove(
        &mut self,
        parent: NodeId,
        name: &[u8],
        removing: Removing,
    ) -> Result<(), Errno> {
        let node = self.find(parent, name)?;
        match (&self.inode(node)?.contents, removing) {
            (Contents::Directory(_), Removing::File) => return Err(Errno::EISDIR),
            (Contents::Directory(directory), Removing::Directory) if !directory.is_empty() => {
                return Err(Errno::ENOTEMPTY);
            }
            (Contents::Directory(_), Removing::Directory) | (_, Removing::File) => {}
            (_, Removing::Directory) => return Err(Errno::ENOTDIR),
        }
        self.detach(Place { parent, name }, node)?;
        self.lost_name(node)
    }

    /// Renames as renameat2(2) does, without whiteouts.
    ///
    /// # Errors
    /// As there.
    pub(super) fn rename(
        &mut self,
        (parent, name): (NodeId, &[u8]),
        (new_parent, new_name): (NodeId, &[u8]),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let from = Place { parent, name };
        let to = Place {
            parent: new_parent,
            name: new_name,
        };
        let node = self.find(parent, name)?;
        self.check_alive(new_parent)?;
        let replaced = self.directory(new_parent)?.find(new_name);
        self.check_no_loop(node, new_parent)?;
        match replaced {
            Some(other) if flags.contains(RenameFlags::EXCHANGE) => {
                self.check_no_loop(other, parent)?;
                self.exchange((from, node), (to, other))
            }
            None if flags.contains(RenameFlags::EXCHANGE) => Err(Errno::ENOENT),
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EEXIST),
            // Two names of one inode: rename(2) leaves both.
            Some(other) if other == node => Ok(()),
            Some(other) => {
                self.check_replaceable(node, other)?;
                // Gives back as much as the new name takes, so that it cannot fail halfway.
                self.detach(to, other)?;
                self.lost_name(other)?;
                self.relocate(from, to, node)
            }
            None => self.relocate(from, to, node),
        }
    }

    /// Moves a name to where there is none.
    fn relocate(&mut self, from: Place<'_>, to: Place<'_>, node: NodeId) -> Result<(), Errno> {
        let growth = entry_cost(to.name).saturating_sub(entry_cost(from.name));
        if growth > self.budget.left() {
            return Err(Errno::ENOSPC);
        }
        self.detach(from, node)?;
        self.attach(to, node)?;
        self.inode_mut(node)?.changed();
        Ok(())
    }

    fn exchange(
        &mut self,
        (place, node): (Place<'_>, NodeId),
        (other_place, other): (Place<'_>, NodeId),
    ) -> Result<(), Errno> {
        for (place, old, new) in [(place, node, other), (other_place, other, node)] {
            let old_is_directory = self.inode(old)?.is_directory();
            let new_is_directory = self.inode(new)?.is_directory();
            let parent = self.inode_mut(place.parent)?;
            if let Contents::Directory(directory) = &mut parent.contents {
                directory.replace(place.name, new);
            }
            parent.nlink = parent
                .nlink
                .saturating_sub(u32::from(old_is_directory))
                .saturating_add(u32::from(new_is_directory));
            parent.modified();
            let inode = self.inode_mut(new)?;
            if let Contents::Directory(directory) = &mut inode.contents {
                directory.parent = place.parent;
            }
            inode.changed();
        }
        Ok(())
    }

    fn check_free(&self, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.check_alive(parent)?;
        match self.directory(parent)?.find(name) {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }

    /// A directory that was removed takes no new names.
    pub(super) fn check_alive(&self, directory: NodeId) -> Result<(), Errno> {
        self.directory(directory)?;
        if self.inode(directory)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(())
    }

    /// A directory cannot be moved into itself or below.
    fn check_no_loop(&self, moved: NodeId, new_parent: NodeId) -> Result<(), Errno> {
        if !self.inode(moved)?.is_directory() {
            return Ok(());
        }
        let mut ancestor = new_parent;
        loop {
            if ancestor == moved {
                return Err(Errno::EINVAL);
            }
            let parent = self.directory(ancestor)?.parent;
            if parent == ancestor {
                return Ok(());
            }
            ancestor = parent;
        }
    }

    fn check_replaceable(&self, node: NodeId, replaced: NodeId) -> Result<(), Errno> {
        let moves_directory = self.inode(node)?.is_directory();
        match &self.inode(replaced)?.contents {
            Contents::Directory(_) if !moves_directory => Err(Errno::EISDIR),
            Contents::Directory(directory) if !directory.is_empty() => Err(Errno::ENOTEMPTY),
            Contents::Directory(_) => Ok(()),
            _ if moves_directory => Err(Errno::ENOTDIR),
            _ => Ok(()),
        }
    }

    /// Adds an entry for `node` where there is none.
    fn attach(&mut self, place: Place<'_>, node: NodeId) -> Result<(), Errno> {
        self.budget.take(entry_cost(place.name))?;
        let inode = self.inode_mut(node)?;
        let is_directory = inode.is_directory();
        if let Contents::Directory(directory) = &mut inode.contents {
            directory.parent = place.parent;
        }
        let parent = self.inode_mut(place.parent)?;
        if let Contents::Directory(directory) = &mut parent.contents {
            directory.insert(place.name, node);
        }
        parent.nlink = parent.nlink.saturating_add(u32::from(is_directory));
        parent.modified();
        Ok(())
    }

    /// Removes the entry for `node`.
    fn detach(&mut self, place: Place<'_>, node: NodeId) -> Result<(), Errno> {
        let is_directory = self.inode(node)?.is_directory();
        let parent = self.inode_mut(place.parent)?;
        if let Contents::Directory(directory) = &mut parent.contents {
            directory.remove(place.name);
        }
        parent.nlink = parent.nlink.saturating_sub(u32::from(is_directory));
        parent.modified();
        self.budget.give_back(entry_cost(place.name));
        Ok(())
    }

    fn gained_name(&mut self, node: NodeId) -> Result<(), Errno> {
        let inode = self.inode_mut(node)?;
        inode.nlink = match inode.contents {
            Contents::Directory(_) => 2,
            _ => inode.nlink.saturating_add(1),
        };
        inode.changed();
        Ok(())
    }

    /// A name of `node` is gone for good, and perhaps `node` with it.
    fn lost_name(&mut self, node: NodeId) -> Result<(), Errno> {
        let inode = self.inode_mut(node)?;
        inode.nlink = match inode.contents {
            Contents::Directory(_) => 0,
            _ => inode.nlink.saturating_sub(1),
        };
        inode.changed();
        self.drop_if_unused(node);
        Ok(())
    }
}

/// What a new directory in `parent` holds.
pub(super) fn empty_directory(parent: NodeId) -> Contents {
    Contents::Directory(Directory::new(parent))
}
