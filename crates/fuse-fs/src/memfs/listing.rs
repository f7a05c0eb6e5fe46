//! Reading directories.

use fuse_wire::abi::EntryOut;
use fuse_wire::{DirentPlusWriter, DirentWriter, Errno, Handle, NodeId};
use rustix::fs::FileType;

use super::directory::{COOKIE_DOT, COOKIE_DOT_DOT};
use super::state::{FileAccess, State};
use crate::Opened;

/// `DT_DIR` of readdir(3).
const DT_DIR: u32 = FileType::Directory.as_raw_mode() >> 12;

/// An entry that a listing comes to.
struct Listed {
    node: NodeId,
    /// From which the listing goes on after it.
    cookie: u64,
    dirent_type: u32,
}

impl State {
    /// # Errors
    /// ESTALE, ENOTDIR, ENFILE.
    pub(super) fn open_directory(&mut self, node: NodeId) -> Result<Opened, Errno> {
        self.directory(node)?;
        Ok(Opened {
            handle: self.open(node, FileAccess::Read)?,
            ..Opened::default()
        })
    }

    /// # Errors
    /// EBADF, ESTALE, ENOTDIR; EINVAL where not even one entry fits.
    pub(super) fn list(
        &mut self,
        node: NodeId,
        handle: Handle,
        cookie: u64,
        out: &mut DirentWriter<'_>,
    ) -> Result<(), Errno> {
        self.access_of(node, handle)?;
        let mut cookie = cookie;
        while let Some((listed, name)) = self.next_listed(node, cookie)? {
            if !out.push(listed.node.0, listed.cookie, listed.dirent_type, name) {
                return full(out.is_empty());
            }
            cookie = listed.cookie;
        }
        self.inode_mut(node)?.accessed();
        Ok(())
    }

    /// As [`list`](Self::list), and looks each entry up.
    ///
    /// # Errors
    /// As there.
    pub(super) fn list_plus(
        &mut self,
        node: NodeId,
        handle: Handle,
        cookie: u64,
        out: &mut DirentPlusWriter<'_>,
    ) -> Result<(), Errno> {
        self.access_of(node, handle)?;
        let mut cookie = cookie;
        while let Some((listed, name)) = self.next_listed(node, cookie)? {
            let looked_up = listed.cookie > COOKIE_DOT_DOT;
            let entry = if looked_up {
                self.peek(listed.node)?.into()
            } else {
                EntryOut::default()
            };
            if !out.push(
                entry,
                listed.node.0,
                listed.cookie,
                listed.dirent_type,
                name,
            ) {
                return full(out.is_empty());
            }
            cookie = listed.cookie;
            if looked_up {
                self.count_lookup(listed.node)?;
            }
        }
        self.inode_mut(node)?.accessed();
        Ok(())
    }

    /// The entry after `cookie`: `.`, `..`, then the children.
    fn next_listed(&self, node: NodeId, cookie: u64) -> Result<Option<(Listed, &[u8])>, Errno> {
        let directory = self.directory(node)?;
        let special = match cookie {
            0 => Some((node, COOKIE_DOT, b".".as_slice())),
            COOKIE_DOT => Some((directory.parent, COOKIE_DOT_DOT, b"..".as_slice())),
            _ => None,
        };
        if let Some((node, cookie, name)) = special {
            let dirent_type = DT_DIR;
            return Ok(Some((
                Listed {
                    node,
                    cookie,
                    dirent_type,
                },
                name,
            )));
        }
        let Some((cookie, child)) = directory.after(cookie) else {
            return Ok(None);
        };
        let dirent_type = self.inode(child.node)?.dirent_type();
        let listed = Listed {
            node: child.node,
            cookie,
            dirent_type,
        };
        Ok(Some((listed, &child.name)))
    }
}

/// An empty reply would be the end of the directory.
fn full(nothing_written: bool) -> Result<(), Errno> {
    if nothing_written {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}
