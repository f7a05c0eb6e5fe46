//! Writing down what the guest holds.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use fuse_fs::{Blocking, NodeId, StateWriter};
use rustix::fs::OFlags;

use super::path::Paths;
use super::record::{
    Device, FORM, MAX_DEVICES, Record, Root, SavedDirectory, SavedFile, SavedInode, SavedPath,
    Signs, Table, Worn,
};
use crate::attr::stat_fd;
use crate::file_handle::FileHandle;
use crate::handle_table::OpenFile;
use crate::inode_table::{Identity, Inode};
use crate::slab::SlotImage;
use crate::{MigrationMode, PassthroughFs, to_io_error};

/// Flags that an open file has, and gets where it is opened again.
const KEPT: OFlags = OFlags::RWMODE
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::DIRECT)
    .union(OFlags::NOATIME);

impl PassthroughFs {
    pub(super) fn save_state(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut saving = Saving {
            fs: self,
            to: StateWriter::new(to, FORM)?,
            paths: Paths::new(self).map_err(to_io_error)?,
            last_path: Vec::new(),
            worn: None,
            wanted: HashMap::new(),
        };
        saving.root()?;
        saving.inodes()?;
        saving.search()?;
        saving.files()?;
        saving.directories()?;
        saving.locks()?;
        saving.to.put(&Record::End)
    }
}

struct Saving<'f, 'w> {
    fs: &'f PassthroughFs,
    to: StateWriter<'w>,
    paths: Paths<'f>,
    last_path: Vec<u8>,
    /// Vacant slots that are not written yet, as there may be more of them.
    worn: Option<Worn>,
    /// Files that have a name somewhere, which is yet to be found.
    wanted: HashMap<Identity, NodeId>,
}

impl Saving<'_, '_> {
    fn root(&mut self) -> io::Result<()> {
        let mut devices = self.fs.numbers.others();
        devices.truncate(MAX_DEVICES as usize);
        let handle = FileHandle::of(&self.paths.root).ok();
        self.to.put(&Root {
            signs: Signs::of(&self.paths.root, handle.as_ref()),
            devices: u32::try_from(devices.len()).map_err(io::Error::other)?,
        })?;
        devices
            .into_iter()
            .try_for_each(|(major, minor)| self.to.put(&Device(major, minor)))
    }

    fn inodes(&mut self) -> io::Result<()> {
        for slot in self.fs.inodes.slots() {
            let node = slot.id();
            match &slot.value {
                _ if node == NodeId::ROOT.0 => {}
                Some(inode) => self.inode(node, &slot, inode)?,
                None => self.vacant(Table::Inodes, &slot)?,
            }
        }
        self.end_of_table()
    }

    fn inode(&mut self, node: u64, slot: &SlotImage<Inode>, inode: &Arc<Inode>) -> io::Result<()> {
        let fs = self.fs;
        let open = inode.pin.get();
        let opened = match open {
            Some(_) => None,
            None => match fs.open_closed(Blocking::Allowed, inode) {
                Ok(fd) => Some(fd),
                // It is as lost to the guest here.
                Err(_) => return self.vacant_after(Table::Inodes, slot),
            },
        };
        let fd = match (&open, &opened) {
            (Some(descriptor), _) => descriptor.as_fd(),
            (None, Some(fd)) => fd.as_fd(),
            (None, None) => return Ok(()),
        };
        let fresh;
        let handle = match inode.handle.get() {
            Some(known) => Some(known),
            None => {
                fresh = FileHandle::of(fd).ok();
                fresh.as_ref()
            }
        };
        // A handle is opened on the mount of the root.
        let by_handle = fs.migration.mode == MigrationMode::FileHandles
            && handle.is_some()
            && self.paths.root.volume.has(&inode.identity);
        let path = match by_handle {
            true => None,
            false => self.paths.of(inode, fd),
        };
        if path.is_none() && !by_handle && has_name(fd) {
            self.wanted.insert(inode.identity, NodeId(node));
            return Ok(());
        }
        self.put_inode(node, inode, handle, path)
    }

    /// Looks through all of the share for what no path is known of.
    fn search(&mut self) -> io::Result<()> {
        let mut wanted = std::mem::take(&mut self.wanted);
        let fs = self.fs;
        super::search::search(
            fs,
            self.paths.root.descriptor.clone(),
            &mut wanted,
            |node, path| self.searched(node, Some(path)),
        )?;
        wanted
            .into_values()
            .try_for_each(|node| self.searched(node, None))
    }

    fn searched(&mut self, node: NodeId, path: Option<CString>) -> io::Result<()> {
        let Some(inode) = self.fs.inodes.get(node) else {
            return Ok(());
        };
        let fd = self.fs.pin(Blocking::Allowed, Arc::clone(&inode)).ok();
        let handle = fd.and_then(|fd| FileHandle::of(fd).ok());
        self.put_inode(node.0, &inode, handle.as_ref(), path)
    }

    fn put_inode(
        &mut self,
        node: u64,
        inode: &Inode,
        handle: Option<&FileHandle>,
        path: Option<CString>,
    ) -> io::Result<()> {
        let path = path.map(CString::into_bytes);
        let shared = path.as_ref().map(|path| shared(&self.last_path, path));
        self.put(Record::Inode(SavedInode {
            node,
            lookups: inode.lookups(),
            kind: inode.kind.into(),
            signs: Signs::of(inode, handle),
            path: path.as_ref().zip(shared).map(|(path, shared)| SavedPath {
                shared,
                rest: path.get(usize::from(shared)..).unwrap_or_default(),
            }),
        }))?;
        if let Some(path) = path {
            self.last_path = path;
        }
        Ok(())
    }

    fn files(&mut self) -> io::Result<()> {
        for slot in self.fs.handles.files() {
            match &slot.value {
                Some(file) if self.fs.inodes.get(file.node).is_some() => {
                    let record = saved_file(slot.id(), file)?;
                    self.put(record)?;
                }
                // A guest that forgot the inode of an open file cannot name it.
                Some(_) => self.vacant_after(Table::Files, &slot)?,
                None => self.vacant(Table::Files, &slot)?,
            }
        }
        self.end_of_table()
    }

    fn directories(&mut self) -> io::Result<()> {
        for slot in self.fs.handles.directories() {
            match &slot.value {
                Some(directory) if self.fs.inodes.get(directory.node).is_some() => {
                    self.put(Record::Directory(SavedDirectory {
                        handle: slot.id(),
                        node: directory.node.0,
                    }))?;
                }
                Some(_) => self.vacant_after(Table::Directories, &slot)?,
                None => self.vacant(Table::Directories, &slot)?,
            }
        }
        self.end_of_table()
    }

    fn locks(&mut self) -> io::Result<()> {
        for lock in self.fs.locks.saved() {
            self.put(Record::Lock(lock))?;
        }
        Ok(())
    }

    /// Writes a record, and before it the vacant slots that came before it.
    fn put(&mut self, record: Record<'_>) -> io::Result<()> {
        self.end_of_table()?;
        self.to.put(&record)
    }

    fn end_of_table(&mut self) -> io::Result<()> {
        match self.worn.take() {
            Some(worn) => self.to.put(&Record::Worn(worn)),
            None => Ok(()),
        }
    }

    fn vacant<T>(&mut self, table: Table, slot: &SlotImage<T>) -> io::Result<()> {
        self.wear(table, slot.index, slot.generation)
    }

    /// What is in the slot is no more.
    fn vacant_after<T>(&mut self, table: Table, slot: &SlotImage<T>) -> io::Result<()> {
        self.wear(table, slot.index, slot.generation.saturating_add(1))
    }

    fn wear(&mut self, table: Table, index: u32, generation: u32) -> io::Result<()> {
        if let Some(worn) = &mut self.worn
            && worn.generation == generation
            && worn.first.saturating_add(worn.count) == index
        {
            worn.count = worn.count.saturating_add(1);
            return Ok(());
        }
        self.end_of_table()?;
        self.worn = Some(Worn {
            table,
            first: index,
            count: 1,
            generation,
        });
        Ok(())
    }
}

fn saved_file(handle: u64, file: &OpenFile) -> io::Result<Record<'static>> {
    let flags = rustix::fs::fcntl_getfl(&file.fd)? & KEPT;
    Ok(Record::File(SavedFile {
        handle,
        node: file.node.0,
        flags: flags.bits(),
        flock: file.flock.held().map(Into::into),
    }))
}

/// Whether the file of `fd` has a name left.
fn has_name(fd: impl AsFd) -> bool {
    stat_fd(fd).is_ok_and(|stat| stat.stx_nlink != 0)
}

/// How many bytes two paths have in common at their start.
fn shared(last: &[u8], path: &[u8]) -> u16 {
    let equal = last.iter().zip(path).take_while(|(a, b)| a == b).count();
    u16::try_from(equal).unwrap_or(u16::MAX)
}
