//! Taking up what a guest holds.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use fuse_fs::{Blocking, Context, Errno, Extensions, Handle, NodeId, Result, StateReader};
use rustix::fs::{Mode, OFlags, Statx};

use super::above::Above;
use super::path::Paths;
use super::record::{
    Device, FORM, MAX_DEVICES, Record, Root, SavedDirectory, SavedFile, SavedInode, SavedPath,
    Signs, Table, Worn,
};
use crate::attr::{birth, identity, kind, stat_fd};
use crate::dir::Stream;
use crate::file_handle::FileHandle;
use crate::handle_table::{HandleRefill, OpenDirectory, OpenFile};
use crate::inode_table::{Inode, InodeRefill, Kind};
use crate::lookup::RESOLVE;
use crate::open_flags::durability;
use crate::pin::Pinned;
use crate::volume::Reopening;
use crate::{MigrationErrors, MigrationMode, PassthroughFs, to_io_error};

/// Losses that are told one by one.
const TOLD: u64 = 16;

impl PassthroughFs {
    pub(super) fn load_state(&self, from: &mut dyn io::Read) -> io::Result<()> {
        self.forget_all();
        let loaded = self.load_records(from);
        if loaded.is_err() {
            self.forget_all();
        }
        loaded
    }

    fn load_records(&self, from: &mut dyn io::Read) -> io::Result<()> {
        let mut reader = StateReader::new(from, FORM)?;
        let mut loading = Loading {
            fs: self,
            inodes: self.inodes.refill(),
            handles: self.handles.refill(),
            paths: Paths::new(self).map_err(to_io_error)?,
            path: Vec::new(),
            same: false,
            device: (0, 0),
            above: Above::default(),
            lost: 0,
        };
        let devices = loading.root(&reader.take()?)?;
        self.numbers.begin_anew();
        for _ in 0..devices {
            let Device(major, minor) = reader.take()?;
            self.numbers.add((major, minor));
        }
        while loading.record(reader.take()?)? {}
        if loading.lost > 0 {
            tracing::warn!(
                lost = loading.lost,
                "the guest gets ESTALE for what it held and could not be taken up"
            );
        }
        drop(loading);
        reader.finish()
    }
}

struct Loading<'f> {
    fs: &'f PassthroughFs,
    inodes: InodeRefill<'f>,
    handles: HandleRefill<'f>,
    paths: Paths<'f>,
    /// The last one that was read.
    path: Vec<u8>,
    /// The shared directory is the one that it was, so that inodes are what they were.
    same: bool,
    /// The device of the root, with the numbers of where the state was saved.
    device: (u32, u32),
    /// Directories above inodes that are opened again by name.
    above: Above,
    /// What the guest held and cannot have any more.
    lost: u64,
}

/// Why something cannot be taken up. The state itself is in order.
type Loss = fuse_fs::Error;

impl Loading<'_> {
    /// Compares the shared directory, and tells how many devices there are.
    fn root(&mut self, root: &Root<'_>) -> io::Result<u32> {
        let stat = stat_fd(&self.paths.root).map_err(to_io_error)?;
        let here = Here::of(&self.paths.root, &stat);
        self.device = root.signs.dev;
        let same_device = identity(&stat).dev == root.signs.dev;
        self.same = here.is(&root.signs).unwrap_or(same_device);
        if !self.same && self.fs.migration.verify_handles {
            return Err(invalid(
                "--migration-verify-handles: the shared directory is not the one that it was",
            ));
        }
        if self.fs.migration.mode == MigrationMode::FileHandles && self.mount().is_none() {
            return Err(invalid(
                "--migration-mode=file-handles: file handles do not work here; they need a \
                 filesystem that has them, CAP_DAC_READ_SEARCH, and no \
                 --inode-file-handles=never; or use find-paths",
            ));
        }
        if root.devices > MAX_DEVICES {
            return Err(invalid(format!("{} devices are too many", root.devices)));
        }
        Ok(root.devices)
    }

    /// Takes up what one record tells; false at the end.
    fn record(&mut self, record: Record<'_>) -> io::Result<bool> {
        match record {
            Record::Worn(worn) => self.worn(worn)?,
            Record::Inode(inode) => self.inode(&inode)?,
            Record::File(file) => self.file(&file)?,
            Record::Directory(directory) => self.directory(&directory)?,
            Record::Lock(lock) => {
                if let Err(loss) = self.fs.restore_lock(&patient(), &lock) {
                    self.lose(&Lost::Lock(lock.node), loss)?;
                }
            }
            Record::End => return Ok(false),
        }
        Ok(true)
    }

    fn worn(&self, worn: Worn) -> io::Result<()> {
        let Worn {
            table,
            first,
            count,
            generation,
        } = worn;
        let done = match table {
            Table::Inodes => self.inodes.wear(first, count, generation),
            Table::Files => self.handles.files.wear(first, count, generation),
            Table::Directories => self.handles.directories.wear(first, count, generation),
        };
        done.map_err(|refused| invalid(format!("ids of {table:?} from {first} on: {refused}")))
    }

    fn inode(&mut self, saved: &SavedInode<'_>) -> io::Result<()> {
        if let Some(path) = saved.path {
            self.read_path(path)?;
        }
        if saved.lookups == 0 {
            return Err(invalid(format!("node {} without a lookup", saved.node)));
        }
        let taken_up = self
            .find(saved)
            .and_then(|(fd, stat)| self.adopt(saved, fd, &stat));
        let Err(loss) = taken_up else {
            return Ok(());
        };
        let put = self.inodes.lose(NodeId(saved.node));
        put.map_err(|refused| invalid(format!("node {}: {refused}", saved.node)))?;
        let path = saved.path.map(|_| self.path.clone());
        self.lose(&Lost::Inode(saved.node, path), loss)
    }

    /// Puts the path together. It has to be one that can be saved: names only, and not too many.
    fn read_path(&mut self, saved: SavedPath<'_>) -> io::Result<()> {
        let shared = usize::from(saved.shared);
        if shared > self.path.len() {
            return Err(invalid("a path goes on where none was"));
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(saved.rest);
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
        if self.path.len() > super::path::MAX_PATH
            || self.path.contains(&0)
            || !self.path.split(|&byte| byte == b'/').all(is_name)
        {
            let path = String::from_utf8_lossy(&self.path).into_owned();
            return Err(invalid(format!("{path:?} is no path in the share")));
        }
        Ok(())
    }

    /// The file that `saved` was, opened with O_PATH.
    fn find(&self, saved: &SavedInode<'_>) -> std::result::Result<(OwnedFd, Statx), Loss> {
        let handle = saved.signs.handle;
        let handle = handle.and_then(|(kind, bytes)| FileHandle::from_parts(kind, bytes));
        // It is opened on the mount of the root: elsewhere, it may be that of another file.
        let handle = handle.filter(|_| saved.signs.dev == self.device);
        let trusted = self.fs.migration.mode == MigrationMode::FileHandles;
        let by_path = match saved.path {
            Some(_) => self.by_path(saved),
            None => Err(Errno::ESTALE.into()),
        };
        // It may be elsewhere by now.
        match (by_path, &handle) {
            (Err(_), Some(handle)) if trusted => self.by_handle(saved, handle),
            (Err(loss), Some(handle)) if self.same => {
                let found = self.by_handle(saved, handle).map_err(|_| loss)?;
                let path = self.paths.shown(&identity(&found.1), &found.0);
                path.map(|_| found).ok_or(loss)
            }
            (by_path, _) => by_path,
        }
    }

    fn by_path(&self, saved: &SavedInode<'_>) -> std::result::Result<(OwnedFd, Statx), Loss> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = &self.paths.root;
        let open = || rustix::fs::openat2(root, &*self.path, flags, Mode::empty(), RESOLVE);
        let fd = self.fs.with_descriptor(open)?;
        let stat = stat_fd(&fd)?;
        self.check(saved, fd, stat)
    }

    /// What file handles are opened on, where they work.
    fn mount(&self) -> Option<&OwnedFd> {
        match &self.paths.root.volume.reopening {
            Reopening::ByHandle(mount) => Some(mount),
            Reopening::ByName | Reopening::Never => None,
        }
    }

    /// On the mount of the root. Who says which handle to open reaches any file of that filesystem.
    fn by_handle(
        &self,
        saved: &SavedInode<'_>,
        handle: &FileHandle,
    ) -> std::result::Result<(OwnedFd, Statx), Loss> {
        let mount = self.mount().ok_or(Errno::EPERM)?;
        let open = || handle.open(mount, OFlags::PATH);
        let fd = self.fs.with_descriptor(open)?;
        let stat = stat_fd(&fd)?;
        self.check(saved, fd, stat)
    }

    /// Makes sure that it is what it was, as far as can be told.
    fn check(
        &self,
        saved: &SavedInode<'_>,
        fd: OwnedFd,
        stat: Statx,
    ) -> std::result::Result<(OwnedFd, Statx), Loss> {
        let same_kind = saved.kind == kind(&stat).into();
        let same_file = || match self.fs.migration.verify_handles {
            true => Here::of(&fd, &stat).is(&saved.signs) == Some(true),
            false => !self.same || Here::of(&fd, &stat).is(&saved.signs) != Some(false),
        };
        match same_kind && same_file() {
            true => Ok((fd, stat)),
            false => Err(Errno::ESTALE.into()),
        }
    }

    /// Has the guest know it again.
    fn adopt(
        &mut self,
        saved: &SavedInode<'_>,
        fd: OwnedFd,
        stat: &Statx,
    ) -> std::result::Result<(), Loss> {
        let fs = self.fs;
        let volume = fs.volumes.find(&fd, stat, &fs.proc);
        let place = match volume.reopening.needs_places() {
            true => self.above.of(fs, &self.paths.root, &self.path)?,
            false => None,
        };
        let inode = match self.above.take(&identity(stat)) {
            Some(directory) => directory,
            None => {
                let arrival = fs.inodes.arrival().ok_or(Errno::ENFILE)?;
                let pin = crate::pin::Pin::cold();
                Arc::new(Inode::new(Some(arrival), stat, volume, pin))
            }
        };
        if let Some((parent, name)) = place {
            fs.moves.seen(&inode, &parent, &name);
        }
        inode.set_lookups(saved.lookups);
        fs.hold_open(Arc::clone(&inode), fd)?;
        let put = self.inodes.put(NodeId(saved.node), &inode);
        put.map_err(|_refused| Errno::ESTALE)?;
        fs.open_inodes.enqueue(&inode);
        Ok(())
    }

    fn file(&mut self, saved: &SavedFile) -> io::Result<()> {
        let Err(loss) = self.open_file(saved) else {
            return Ok(());
        };
        let lost = self.handles.files.lose(saved.handle);
        lost.map_err(|refused| invalid(format!("file handle {}: {refused}", saved.handle)))?;
        self.fs.handles.lost_files.add(Handle(saved.handle));
        self.lose(&Lost::File(saved.node), loss)
    }

    fn open_file(&self, saved: &SavedFile) -> std::result::Result<(), Loss> {
        let fs = self.fs;
        let node = NodeId(saved.node);
        let inode = self.pinned(node)?;
        let flags = OFlags::from_bits_retain(saved.flags).difference(OFlags::TRUNC);
        let host_flags = fs.host_flags(flags.bits())?;
        let (permit, kept_open) = fs.handle_room(&inode)?;
        let file = OpenFile {
            node,
            fd: fs.reopen_file(&patient(), &inode, host_flags)?,
            volume: Arc::clone(&inode.volume),
            durability: durability(host_flags),
            flock: Default::default(),
            _permit: permit,
            _kept_open: kept_open,
        };
        if let Some(kind) = saved.flock {
            fs.restore_flock(&file, kind.into())?;
        }
        let put = self.handles.files.put(saved.handle, Arc::new(file));
        put.map_err(|_refused| Errno::EBADF.into())
    }

    fn directory(&mut self, saved: &SavedDirectory) -> io::Result<()> {
        let Err(loss) = self.open_directory(saved) else {
            return Ok(());
        };
        let lost = self.handles.directories.lose(saved.handle);
        lost.map_err(|refused| invalid(format!("directory handle {}: {refused}", saved.handle)))?;
        self.fs.handles.lost_directories.add(Handle(saved.handle));
        self.lose(&Lost::File(saved.node), loss)
    }

    fn open_directory(&self, saved: &SavedDirectory) -> std::result::Result<(), Loss> {
        let fs = self.fs;
        let node = NodeId(saved.node);
        let inode = self.pinned(node)?;
        if inode.kind != Kind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let (permit, kept_open) = fs.handle_room(&inode)?;
        let directory = OpenDirectory {
            node,
            fd: fs.open_directory_again(&inode, OFlags::RDONLY)?,
            volume: Arc::clone(&inode.volume),
            stream: Mutex::new(Stream::new(&fs.kept_entries)),
            _permit: permit,
            _kept_open: kept_open,
        };
        let put = self
            .handles
            .directories
            .put(saved.handle, Arc::new(directory));
        put.map_err(|_refused| Errno::EBADF.into())
    }

    fn pinned(&self, node: NodeId) -> Result<Pinned> {
        let inode = self.fs.inodes.get(node).ok_or(Errno::ESTALE)?;
        self.fs.pin(Blocking::Allowed, inode)
    }

    /// What the guest held cannot be taken up.
    fn lose(&mut self, what: &dyn fmt::Display, why: Loss) -> io::Result<()> {
        match self.fs.migration.on_error {
            MigrationErrors::Abort => Err(invalid(format!(
                "cannot take up {what}: {why}; to go on without such, use \
                 --migration-on-error=guest-error"
            ))),
            MigrationErrors::GuestError => {
                self.lost = self.lost.saturating_add(1);
                if self.lost <= TOLD {
                    tracing::warn!(error = %why, "cannot take up {what}");
                }
                Ok(())
            }
        }
    }
}

/// What the guest held.
enum Lost {
    Inode(u64, Option<Vec<u8>>),
    File(u64),
    Lock(u64),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(_, Some(path)) => write!(f, "{:?}", String::from_utf8_lossy(path)),
            Self::Inode(node, None) => write!(
                f,
                "node {node}, of which no path is known, as it was removed while it was open, or \
                 saved with --migration-mode=file-handles"
            ),
            Self::File(node) => write!(f, "an open file or directory, node {node}"),
            Self::Lock(node) => write!(f, "a lock on node {node}"),
        }
    }
}

/// A file as it is here.
struct Here<'a> {
    stat: &'a Statx,
    handle: Option<FileHandle>,
}

impl<'a> Here<'a> {
    fn of(fd: impl AsFd, stat: &'a Statx) -> Self {
        let handle = FileHandle::of(fd).ok();
        Self { stat, handle }
    }

    /// Whether it is what has these signs, on the same filesystem; `None` where its number is all
    /// that can be compared.
    fn is(&self, signs: &Signs<'_>) -> Option<bool> {
        if self.stat.stx_ino != signs.ino {
            return Some(false);
        }
        if let (Some(here), Some(there)) = (&self.handle, signs.handle) {
            // An overlay gives a file another time of birth when it is first changed.
            return Some(here.parts() == there);
        }
        match (birth(self.stat), signs.birth) {
            (Some(here), Some(there)) => Some(here == there),
            _ => None,
        }
    }
}

/// A restore may wait, and is nobody's request.
fn patient() -> Context<'static> {
    Context {
        unique: 0,
        uid: 0,
        gid: 0,
        pid: 0,
        extensions: Extensions::default(),
        blocking: Blocking::Allowed,
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
