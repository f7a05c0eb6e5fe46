//! A filesystem that records what it is asked and answers as it is told.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use fuse_fs::abi::*;
use fuse_fs::flags::{InitFlags, RenameFlags, SetxattrFlags};
use fuse_fs::*;

/// What the filesystem does when it is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Behaviour {
    #[default]
    Succeed,
    Fail(Errno),
    WouldBlock,
    /// Says that it did more than it could have.
    Exaggerate,
}

/// Records the names of the methods that were called.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) behaviour: Behaviour,
    /// Asked for in INIT.
    pub(crate) wanted: InitFlags,
    pub(crate) wanted_max_write: Option<u32>,
    /// What its state is, if it has one.
    pub(crate) kept: Option<Mutex<Vec<u8>>>,
}

impl Probe {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            ..Default::default()
        }
    }

    /// What was called since this was last asked.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn called<T>(&self, call: impl Into<String>, result: T) -> Result<T> {
        self.note(call);
        match self.behaviour {
            Behaviour::Succeed | Behaviour::Exaggerate => Ok(result),
            Behaviour::Fail(errno) => Err(errno.into()),
            Behaviour::WouldBlock => Err(Error::WouldBlock),
        }
    }

    fn count(&self, honest: usize) -> usize {
        match self.behaviour {
            Behaviour::Exaggerate => honest + 1,
            _ => honest,
        }
    }
}

const ENTRY: Entry = Entry {
    node: NodeId(7),
    generation: 0,
    attr: ATTR,
    attr_valid: Duration::ZERO,
    entry_valid: Duration::ZERO,
};

const ATTR: Attr = Attr {
    ino: 7,
    size: 0,
    blocks: 0,
    atime: 0,
    mtime: 0,
    ctime: 0,
    atimensec: 0,
    mtimensec: 0,
    ctimensec: 0,
    mode: 0o100_644,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 4096,
    flags: fuse_fs::flags::AttrFlags::empty(),
};

const ATTRIBUTES: Attributes = Attributes {
    attr: ATTR,
    valid: Duration::ZERO,
};

type Cx<'a, 'b> = &'a Context<'b>;

impl State for Probe {
    fn save(&self, to: &mut dyn io::Write) -> io::Result<()> {
        self.note("save");
        to.write_all(&self.kept.as_ref().unwrap().lock().unwrap())
    }

    fn load(&self, from: &mut dyn io::Read) -> io::Result<()> {
        self.note("load");
        let mut kept = Vec::new();
        from.read_to_end(&mut kept)?;
        if kept.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *self.kept.as_ref().unwrap().lock().unwrap() = kept;
        Ok(())
    }
}

impl FileSystem for Probe {
    fn state(&self) -> Option<&dyn State> {
        self.kept.as_ref().map(|_| self as &dyn State)
    }

    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        negotiation.enabled |= self.wanted;
        if let Some(max_write) = self.wanted_max_write {
            negotiation.max_write = max_write;
            negotiation.max_readahead = u32::MAX;
            negotiation.time_gran = 0;
            negotiation.congestion_threshold = u16::MAX;
        }
        match self.behaviour {
            Behaviour::Fail(Errno::EACCES) => self.called("init", ()),
            _ => {
                self.note("init");
                Ok(())
            }
        }
    }
    fn destroy(&self) {
        self.note("destroy");
    }
    fn lookup(&self, _: Cx<'_, '_>, _: NodeId, _: Name<'_>) -> Result<Entry> {
        self.called("lookup", ENTRY)
    }
    fn lookup_self(&self, _: Cx<'_, '_>, _: NodeId) -> Result<Entry> {
        self.called("lookup_self", ENTRY)
    }
    fn lookup_parent(&self, _: Cx<'_, '_>, _: NodeId) -> Result<Entry> {
        self.called("lookup_parent", ENTRY)
    }
    fn forget(&self, node: NodeId, nlookup: u64) {
        self.note(format!("forget {} {nlookup}", node.0));
    }
    fn getattr(&self, _: Cx<'_, '_>, _: NodeId, handle: Option<Handle>) -> Result<Attributes> {
        self.called(format!("getattr {handle:?}"), ATTRIBUTES)
    }
    fn statx(&self, _: Cx<'_, '_>, _: NodeId, _: &StatxIn) -> Result<StatxAttributes> {
        let out = StatxAttributes {
            stat: Statx::default(),
            flags: Default::default(),
            valid: Duration::ZERO,
        };
        self.called("statx", out)
    }
    fn setattr(&self, _: Cx<'_, '_>, _: NodeId, _: &SetattrIn) -> Result<Attributes> {
        self.called("setattr", ATTRIBUTES)
    }
    fn readlink(&self, _: Cx<'_, '_>, _: NodeId, buffer: &mut [u8]) -> Result<usize> {
        buffer.fill(b'x');
        self.called(
            format!("readlink {}", buffer.len()),
            self.count(buffer.len()),
        )
    }
    fn symlink(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        _: Name<'_>,
        _: SymlinkTarget<'_>,
    ) -> Result<Entry> {
        self.called("symlink", ENTRY)
    }
    fn mknod(&self, _: Cx<'_, '_>, _: NodeId, _: Name<'_>, _: &MknodIn) -> Result<Entry> {
        self.called("mknod", ENTRY)
    }
    fn mkdir(&self, _: Cx<'_, '_>, _: NodeId, _: Name<'_>, _: &MkdirIn) -> Result<Entry> {
        self.called("mkdir", ENTRY)
    }
    fn unlink(&self, _: Cx<'_, '_>, _: NodeId, _: Name<'_>) -> Result<()> {
        self.called("unlink", ())
    }
    fn rmdir(&self, _: Cx<'_, '_>, _: NodeId, _: Name<'_>) -> Result<()> {
        self.called("rmdir", ())
    }
    fn rename(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        _: Name<'_>,
        _: NodeId,
        _: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        self.called(format!("rename {}", flags.bits()), ())
    }
    fn link(&self, _: Cx<'_, '_>, _: NodeId, _: NodeId, _: Name<'_>) -> Result<Entry> {
        self.called("link", ENTRY)
    }
    fn open(&self, _: Cx<'_, '_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        self.called("open", Opened::default())
    }
    fn create(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        _: Name<'_>,
        _: &CreateIn,
    ) -> Result<(Entry, Opened)> {
        self.called("create", (ENTRY, Opened::default()))
    }
    fn tmpfile(&self, _: Cx<'_, '_>, _: NodeId, _: &CreateIn) -> Result<(Entry, Opened)> {
        self.called("tmpfile", (ENTRY, Opened::default()))
    }
    fn read(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        let mut data = vec![b'r'; args.size as usize];
        if self.behaviour == Behaviour::Exaggerate {
            data.truncate(data.len() / 2);
        }
        let honest = sink.write(&data);
        self.called(format!("read {}", args.size), self.count(honest))
    }
    fn write(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        let mut data = vec![0; args.size as usize];
        let honest = source.read(&mut data);
        self.called(format!("write {}", args.size), self.count(honest))
    }
    fn flush(&self, _: Cx<'_, '_>, _: NodeId, _: &FlushIn) -> Result<()> {
        self.called("flush", ())
    }
    fn release(&self, _: Cx<'_, '_>, _: NodeId, _: &ReleaseIn) -> Result<()> {
        self.called("release", ())
    }
    fn fsync(&self, _: Cx<'_, '_>, _: NodeId, _: &FsyncIn) -> Result<()> {
        self.called("fsync", ())
    }
    fn opendir(&self, _: Cx<'_, '_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        self.called("opendir", Opened::default())
    }
    fn readdir(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        let _ = entries.push(1, 1, 0, b".");
        self.called(format!("readdir {}", args.size), ())
    }
    fn readdirplus(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        let _ = entries.push(EntryOut::default(), 1, 1, 0, b".");
        self.called(format!("readdirplus {}", args.size), ())
    }
    fn releasedir(&self, _: Cx<'_, '_>, _: NodeId, _: &ReleaseIn) -> Result<()> {
        self.called("releasedir", ())
    }
    fn fsyncdir(&self, _: Cx<'_, '_>, _: NodeId, _: &FsyncIn) -> Result<()> {
        self.called("fsyncdir", ())
    }
    fn statfs(&self, _: Cx<'_, '_>, _: NodeId) -> Result<Kstatfs> {
        self.called("statfs", Kstatfs::default())
    }
    fn syncfs(&self, _: Cx<'_, '_>, _: NodeId) -> Result<()> {
        self.called("syncfs", ())
    }
    fn access(&self, _: Cx<'_, '_>, _: NodeId, _: &AccessIn) -> Result<()> {
        self.called("access", ())
    }
    fn setxattr(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        _: XattrName<'_>,
        _: &[u8],
        _: u32,
        how: SetxattrFlags,
    ) -> Result<()> {
        self.called(format!("setxattr {}", how.bits()), ())
    }
    fn getxattr(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        _: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        buffer.fill(b'v');
        self.called(
            format!("getxattr {}", buffer.len()),
            self.count(buffer.len()),
        )
    }
    fn listxattr(&self, _: Cx<'_, '_>, _: NodeId, buffer: &mut [u8]) -> Result<usize> {
        self.called(
            format!("listxattr {}", buffer.len()),
            self.count(buffer.len()),
        )
    }
    fn removexattr(&self, _: Cx<'_, '_>, _: NodeId, _: XattrName<'_>) -> Result<()> {
        self.called("removexattr", ())
    }
    fn lseek(&self, _: Cx<'_, '_>, _: NodeId, _: &LseekIn) -> Result<u64> {
        self.called("lseek", 0)
    }
    fn fallocate(&self, _: Cx<'_, '_>, _: NodeId, _: &FallocateIn) -> Result<()> {
        self.called("fallocate", ())
    }
    fn copy_file_range(&self, _: Cx<'_, '_>, _: NodeId, args: &CopyFileRangeIn) -> Result<u64> {
        let copied = self.count(args.len as usize) as u64;
        self.called(format!("copy_file_range {}", args.len), copied)
    }
    fn getlk(&self, _: Cx<'_, '_>, _: NodeId, _: &LkIn) -> Result<FileLock> {
        self.called("getlk", FileLock::default())
    }
    fn setlk(&self, _: Cx<'_, '_>, _: NodeId, _: &LkIn, wait: bool) -> Result<()> {
        self.called(format!("setlk {wait}"), ())
    }
    fn ioctl(
        &self,
        _: Cx<'_, '_>,
        _: NodeId,
        args: &IoctlIn,
        _: &[u8],
        buffer: &mut [u8],
    ) -> Result<(IoctlOut, usize)> {
        assert_eq!(args.out_size as usize, buffer.len());
        buffer.fill(b'i');
        let out = IoctlOut {
            result: 5,
            ..Default::default()
        };
        let len = self.count(buffer.len());
        self.called(format!("ioctl {}", buffer.len()), (out, len))
    }
    fn poll(&self, _: Cx<'_, '_>, _: NodeId, _: &PollIn) -> Result<u32> {
        self.called("poll", 1)
    }
    fn bmap(&self, _: Cx<'_, '_>, _: NodeId, _: u64, _: u32) -> Result<u64> {
        self.called("bmap", 3)
    }
    fn interrupt(&self, unique: u64) {
        self.note(format!("interrupt {unique}"));
    }
    fn cancel_waits(&self) {
        self.note("cancel waits".to_owned());
    }
}
