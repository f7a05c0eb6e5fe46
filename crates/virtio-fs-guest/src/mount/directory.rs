use fuse_wire::abi::{EntryOut, OpenIn, OpenOut, ReadIn};
use fuse_wire::flags::{FsyncFlags, OpenInFlags, ReadFlags};
use fuse_wire::{DirEntry, Dirents, DirentsPlus, Handle, NodeId, Operation, Reply};

use super::file::{fsync_in, release_in};
use super::{FORM, Mount, reply};
use crate::{Error, Payload, ProtocolError};

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Inode number.
    pub ino: u64,
    /// Cookie: where to go on after this entry.
    pub off: u64,
    /// `DT_*` of readdir(3).
    pub dirent_type: u32,
    /// The name.
    pub name: Vec<u8>,
    /// From READDIRPLUS, where the server looked the entry up: counts as a lookup.
    pub entry: Option<EntryOut>,
}

impl DirectoryEntry {
    fn new(found: DirEntry<'_>, entry: Option<EntryOut>) -> Self {
        Self {
            ino: found.ino,
            off: found.off,
            dirent_type: found.dirent_type,
            name: found.name.to_vec(),
            entry: entry.filter(|entry| entry.nodeid != NodeId::NEGATIVE),
        }
    }
}

/// Open directories.
#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl Mount {
    /// OPENDIR.
    pub fn opendir(&mut self, node: NodeId) -> Result<OpenOut, Error> {
        let args = OpenIn {
            flags: 0,
            open_flags: OpenInFlags::empty(),
        };
        self.reply(
            node,
            Operation::OpenDir(args),
            reply!(Reply::Open(out) => out),
        )
    }

    /// READDIR: the entries behind the cookie `offset`, 0 for the first, that fit into a reply of
    /// `size` bytes. None at the end.
    pub fn readdir(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Result<Vec<DirectoryEntry>, Error> {
        let args = self.read_in(handle, offset, size);
        self.entries(node, Operation::ReadDir(args), |data| {
            Dirents::new(data)
                .map(|found| {
                    Ok(DirectoryEntry::new(
                        found.map_err(ProtocolError::from)?,
                        None,
                    ))
                })
                .collect()
        })
    }

    /// READDIRPLUS: as [`readdir`](Self::readdir), each entry looked up as well.
    pub fn readdirplus(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Result<Vec<DirectoryEntry>, Error> {
        let args = self.read_in(handle, offset, size);
        self.entries(node, Operation::ReadDirPlus(args), |data| {
            DirentsPlus::new(data)
                .map(|found| {
                    let found = found.map_err(ProtocolError::from)?;
                    Ok(DirectoryEntry::new(found.entry, Some(found.entry_out)))
                })
                .collect()
        })
    }

    /// RELEASEDIR: closes `handle` for good.
    pub fn releasedir(&mut self, node: NodeId, handle: Handle) -> Result<(), Error> {
        self.empty(node, Operation::ReleaseDir(release_in(handle)))
    }

    /// FSYNCDIR.
    pub fn fsyncdir(
        &mut self,
        node: NodeId,
        handle: Handle,
        flags: FsyncFlags,
    ) -> Result<(), Error> {
        self.empty(node, Operation::FSyncDir(fsync_in(handle, flags)))
    }

    fn entries(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        parse: impl FnOnce(&[u8]) -> Result<Vec<DirectoryEntry>, Error>,
    ) -> Result<Vec<DirectoryEntry>, Error> {
        let mut completion = self.call(node, operation, Payload::None)?;
        let Reply::Data(data) = completion.reply()? else {
            unreachable!("{FORM}")
        };
        parse(data)
    }

    fn read_in(&self, fh: Handle, offset: u64, size: u32) -> ReadIn {
        ReadIn {
            fh,
            offset,
            size: size.min(self.limits.max_read as u32),
            read_flags: ReadFlags::empty(),
            lock_owner: 0,
            flags: 0,
            padding: 0,
        }
    }
}
