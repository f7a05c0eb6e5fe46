//! What users met with other virtio-fs daemons, each as a test of what they had wanted.
#![allow(unreachable_pub, reason = "modules of one test")]

#[path = "../common/mod.rs"]
mod common;
mod directories;
mod files;
mod names;
mod session;
mod times;

use std::ffi::CString;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use rustix::fs::OFlags;

const ROOT: NodeId = NodeId::ROOT;

/// Calls with a name of any bytes.
fn named<T>(name: impl AsRef<[u8]>, call: impl FnOnce(Name<'_>) -> T) -> T {
    let name = CString::new(name.as_ref()).unwrap();
    call(Name::new(&name).unwrap())
}

/// The operations of a guest's kernel, by names of any bytes.
impl Share {
    fn find(&self, dir: NodeId, name: impl AsRef<[u8]>) -> Result<Entry> {
        match named(name, |name| self.fs.lookup(&me(), dir, name))? {
            // That there is none may be remembered.
            entry if entry.node == NodeId::NEGATIVE => Err(Errno::ENOENT.into()),
            entry => Ok(entry),
        }
    }

    fn make(
        &self,
        dir: NodeId,
        name: impl AsRef<[u8]>,
        flags: OFlags,
        mode: u32,
    ) -> Result<(NodeId, Handle)> {
        let args = CreateIn {
            flags: flags.bits(),
            mode: 0o100_000 | mode,
            ..Default::default()
        };
        let made = named(name, |name| self.fs.create(&me(), dir, name, &args));
        made.map(|(entry, opened)| (entry.node, opened.handle))
    }

    fn make_dir(&self, dir: NodeId, name: impl AsRef<[u8]>, mode: u32) -> Result<Entry> {
        let args = MkdirIn { mode, umask: 0 };
        named(name, |name| self.fs.mkdir(&me(), dir, name, &args))
    }

    fn make_node(
        &self,
        dir: NodeId,
        name: impl AsRef<[u8]>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let args = MknodIn {
            mode,
            rdev,
            ..Default::default()
        };
        named(name, |name| self.fs.mknod(&me(), dir, name, &args))
    }

    fn make_link(&self, node: NodeId, dir: NodeId, name: impl AsRef<[u8]>) -> Result<Entry> {
        named(name, |name| self.fs.link(&me(), node, dir, name))
    }

    fn unlink(&self, dir: NodeId, name: impl AsRef<[u8]>) -> Result<()> {
        named(name, |name| self.fs.unlink(&me(), dir, name))
    }

    fn rmdir(&self, dir: NodeId, name: impl AsRef<[u8]>) -> Result<()> {
        named(name, |name| self.fs.rmdir(&me(), dir, name))
    }

    fn rename(&self, from: (NodeId, &str), to: (NodeId, &str), flags: RenameFlags) -> Result<()> {
        named(from.1, |name| {
            named(to.1, |new_name| {
                self.fs.rename(&me(), from.0, name, to.0, new_name, flags)
            })
        })
    }

    fn resize(&self, (node, fh): (NodeId, Handle), size: u64) -> Result<Attr> {
        let args = SetattrIn {
            fh,
            size,
            ..set(SetattrValid::SIZE | SetattrValid::FH)
        };
        self.setattr(node, args)
    }

    fn allocate(
        &self,
        (node, fh): (NodeId, Handle),
        mode: u32,
        range: std::ops::Range<u64>,
    ) -> Result<()> {
        let args = FallocateIn {
            fh,
            mode,
            offset: range.start,
            length: range.end - range.start,
            ..Default::default()
        };
        self.fs.fallocate(&me(), node, &args)
    }

    fn seek(&self, (node, fh): (NodeId, Handle), offset: u64, whence: u32) -> Result<u64> {
        let args = LseekIn {
            fh,
            offset,
            whence,
            ..Default::default()
        };
        self.fs.lseek(&me(), node, &args)
    }

    fn sync(&self, (node, fh): (NodeId, Handle)) -> Result<()> {
        let args = FsyncIn {
            fh,
            ..Default::default()
        };
        self.fs.fsync(&me(), node, &args)
    }
}
