//! The directory that the exports are in.

use std::time::Duration;

use fuse_wire::abi::{AccessIn, Attr, Kstatfs, OpenIn, ReadIn};
use fuse_wire::{DirentWriter, Errno, Handle, Name};

use crate::{Attributes, Context, Entry, FileSystem, NodeId, Opened, PayloadSink, Result};

/// Nothing here ever changes.
pub(super) const VALID: Duration = Duration::from_secs(86_400);

/// A directory that everybody may read.
const MODE: u32 = 0o040_555;
/// `DT_DIR` of readdir(3).
pub(super) const DT_DIR: u32 = 4;
/// What is in every directory.
pub(super) const DOTS: [&[u8]; 2] = [b".", b".."];
const BLOCK: u32 = 4096;
const NAME_MAX: u32 = 255;

/// A directory as a filesystem of its own. It tells the names; what they lead to, it does not know.
#[derive(Debug, Default)]
pub(super) struct Root {
    names: Vec<Box<[u8]>>,
}

impl Root {
    pub(super) fn push(&mut self, name: &[u8]) {
        self.names.push(name.into());
    }

    /// The place of `name` among the names.
    pub(super) fn position(&self, name: &[u8]) -> Option<usize> {
        self.names.iter().position(|known| **known == *name)
    }

    /// All names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|name| &**name)
    }

    /// Cookies and names, from the cookie `start` on.
    pub(super) fn listing(&self, start: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let all = DOTS.into_iter().chain(self.names());
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        (1..).zip(all).skip(start)
    }

    fn attr(&self) -> Attr {
        let subdirectories = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        Attr {
            ino: NodeId::ROOT.0,
            mode: MODE,
            nlink: subdirectories.saturating_add(2),
            blksize: BLOCK,
            ..Default::default()
        }
    }
}

impl FileSystem for Root {
    fn lookup(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<Entry> {
        Err(Errno::ENOENT.into())
    }

    fn getattr(&self, _: &Context<'_>, _: NodeId, _: Option<Handle>) -> Result<Attributes> {
        let attr = self.attr();
        let valid = VALID;
        Ok(Attributes { attr, valid })
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Err(Errno::EISDIR.into())
    }

    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        _: &mut dyn PayloadSink,
    ) -> Result<usize> {
        Err(Errno::EISDIR.into())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        for (cookie, name) in self.listing(args.offset) {
            // What has no inode number of its own here is given any.
            if !entries.push(NodeId::ROOT.0, cookie, DT_DIR, name) {
                return match entries.is_empty() {
                    true => Err(Errno::EINVAL.into()),
                    false => Ok(()),
                };
            }
        }
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs {
            bsize: BLOCK,
            frsize: BLOCK,
            namelen: NAME_MAX,
            ..Default::default()
        })
    }

    fn access(&self, _: &Context<'_>, _: NodeId, _: &AccessIn) -> Result<()> {
        Ok(())
    }

    fn listxattr(&self, _: &Context<'_>, _: NodeId, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }
}
