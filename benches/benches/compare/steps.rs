//! The requests of which the rows' operations are made.

use std::ffi::{CStr, CString};

use fuse_wire::abi::{
    CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, GetattrIn, GetxattrIn, LinkIn,
    LseekIn, MkdirIn, OpenIn, ReadIn, ReleaseIn, RenameIn, SetattrIn, SetxattrIn, StatxIn, WriteIn,
};
use fuse_wire::flags::SetattrValid;
use fuse_wire::{Handle, LookupName, Name, NodeId, Operation, Reply, SymlinkTarget, XattrName};
use virtio_fs_guest::{Error, Payload, Queue, Token};

use crate::rows::Data;
use crate::served::Files;

/// `O_RDWR` of open(2), as the guest's kernel passes it on.
pub(crate) const RDWR: u32 = 2;
/// An attribute that the plain file has.
pub(crate) const XATTR: &CStr = c"user.name";
/// Its value.
pub(crate) const VALUE: &[u8] = b"value";
/// Bytes allocated or copied at once.
pub(crate) const RANGE: u64 = 64 << 10;
/// Bytes of a small file.
pub(crate) const SMALL: u32 = 4096;
/// Bytes made dirty before an FSYNC.
pub(crate) const DIRTY: u32 = 64 << 10;
/// `STATX_BASIC_STATS` and `STATX_BTIME` of statx(2).
const STATX_MASK: u32 = 0xfff;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;
/// Room for the value of an extended attribute.
const VALUE_ROOM: u32 = 256;

/// What the requests of an operation need to know of each other.
#[derive(Debug)]
pub(crate) struct State {
    /// Counts operations; no two in flight have the same.
    pub(crate) number: u64,
    /// Two names that no other operation in flight uses.
    pub(crate) names: [CString; 2],
    /// What the last LOOKUP or creation found.
    pub(crate) node: NodeId,
    /// What the last OPEN or CREATE opened.
    pub(crate) handle: Handle,
}

/// Sends one request of an operation.
pub(crate) type Step = fn(&State, &Files, &mut Queue) -> Result<Token, Error>;

impl State {
    /// The names are made of `id`.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            number: 0,
            names: names(id),
            node: NodeId::NEGATIVE,
            handle: Handle::default(),
        }
    }

    /// Keeps what a reply says.
    pub(crate) fn keep(&mut self, reply: &Reply<'_>) {
        match reply {
            Reply::Entry(entry) => self.node = entry.nodeid,
            Reply::Create(entry, opened) => (self.node, self.handle) = (entry.nodeid, opened.fh),
            Reply::Open(opened) => self.handle = opened.fh,
            _ => {}
        }
    }
}

/// The names of an operation that is told from others by `id`.
pub(crate) fn names(id: &str) -> [CString; 2] {
    ["one", "other"].map(|kind| CString::new(format!("{kind}-{id}")).expect("an id has no NUL"))
}

pub(crate) fn getattr(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let operation = Operation::GetAttr(GetattrIn::default());
    queue.submit(files.plain, operation, Payload::None)
}

pub(crate) fn lookup(_: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let name = LookupName::new(c"plain").expect("\"plain\" is a name");
    queue.submit(NodeId::ROOT, Operation::Lookup { name }, Payload::None)
}

pub(crate) fn statx(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = StatxIn {
        sx_mask: STATX_MASK,
        ..StatxIn::default()
    };
    queue.submit(files.plain, Operation::Statx(args), Payload::None)
}

pub(crate) fn statfs(_: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    queue.submit(NodeId::ROOT, Operation::StatFs, Payload::None)
}

pub(crate) fn chmod(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = SetattrIn {
        valid: SetattrValid::MODE,
        mode: 0o640,
        ..SetattrIn::default()
    };
    queue.submit(files.plain, Operation::SetAttr(args), Payload::None)
}

pub(crate) fn utimens(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = SetattrIn {
        valid: SetattrValid::ATIME | SetattrValid::MTIME,
        ..SetattrIn::default()
    };
    queue.submit(files.plain, Operation::SetAttr(args), Payload::None)
}

/// Without a handle, as truncate(2).
pub(crate) fn truncate(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = SetattrIn {
        valid: SetattrValid::SIZE,
        size: 5,
        ..SetattrIn::default()
    };
    queue.submit(files.plain, Operation::SetAttr(args), Payload::None)
}

pub(crate) fn getxattr(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = GetxattrIn {
        size: VALUE_ROOM,
        ..GetxattrIn::default()
    };
    let name = xattr_name();
    queue.submit(
        files.plain,
        Operation::GetXattr { args, name },
        Payload::None,
    )
}

pub(crate) fn setxattr(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = SetxattrIn {
        size: VALUE.len() as u32,
        ..SetxattrIn::default()
    };
    let (name, value) = (xattr_name(), VALUE);
    let operation = Operation::SetXattr { args, name, value };
    queue.submit(files.plain, operation, Payload::None)
}

pub(crate) fn open(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = OpenIn {
        flags: RDWR,
        ..OpenIn::default()
    };
    queue.submit(files.plain, Operation::Open(args), Payload::None)
}

pub(crate) fn release_plain(
    state: &State,
    files: &Files,
    queue: &mut Queue,
) -> Result<Token, Error> {
    let args = release_in(state);
    queue.submit(files.plain, Operation::Release(args), Payload::None)
}

pub(crate) fn create(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let (args, name) = (create_in(), name(state, 0));
    queue.submit(files.work, Operation::Create { args, name }, Payload::None)
}

pub(crate) fn tmpfile(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    queue.submit(files.work, Operation::TmpFile(create_in()), Payload::None)
}

/// Writes to what was created.
pub(crate) fn write_small(state: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = WriteIn {
        fh: state.handle,
        size: SMALL,
        ..WriteIn::default()
    };
    let payload = Payload::Stale(SMALL as usize);
    queue.submit(state.node, Operation::Write(args), payload)
}

pub(crate) fn flush(state: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = FlushIn {
        fh: state.handle,
        lock_owner: 1,
        ..FlushIn::default()
    };
    queue.submit(state.node, Operation::Flush(args), Payload::None)
}

pub(crate) fn release(state: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = release_in(state);
    queue.submit(state.node, Operation::Release(args), Payload::None)
}

pub(crate) fn unlink(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let name = name(state, 0);
    queue.submit(files.work, Operation::Unlink { name }, Payload::None)
}

pub(crate) fn mkdir(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let (args, name) = (
        MkdirIn {
            mode: 0o755,
            umask: 0,
        },
        name(state, 0),
    );
    queue.submit(files.work, Operation::MkDir { args, name }, Payload::None)
}

pub(crate) fn rmdir(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let name = name(state, 0);
    queue.submit(files.work, Operation::RmDir { name }, Payload::None)
}

pub(crate) fn symlink(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let target = SymlinkTarget::new(c"target").expect("\"target\" is a target");
    let name = name(state, 0);
    let operation = Operation::Symlink { name, target };
    queue.submit(files.work, operation, Payload::None)
}

pub(crate) fn readlink(state: &State, _: &Files, queue: &mut Queue) -> Result<Token, Error> {
    queue.submit(state.node, Operation::ReadLink, Payload::None)
}

pub(crate) fn link(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = LinkIn {
        oldnodeid: files.plain,
    };
    let name = name(state, 0);
    queue.submit(files.work, Operation::Link { args, name }, Payload::None)
}

pub(crate) fn rename(state: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let operation = Operation::Rename {
        args: RenameIn { newdir: files.work },
        name: name(state, 0),
        new_name: name(state, 1),
    };
    queue.submit(files.work, operation, Payload::None)
}

pub(crate) fn lseek(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = LseekIn {
        fh: files.data.handle,
        whence: SEEK_DATA,
        ..LseekIn::default()
    };
    queue.submit(files.data.node, Operation::LSeek(args), Payload::None)
}

pub(crate) fn fallocate(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = FallocateIn {
        fh: files.data.handle,
        length: RANGE,
        ..FallocateIn::default()
    };
    queue.submit(files.data.node, Operation::FAllocate(args), Payload::None)
}

pub(crate) fn copy_file_range(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = CopyFileRangeIn {
        fh_in: files.data.handle,
        off_in: 0,
        nodeid_out: files.copy.node,
        fh_out: files.copy.handle,
        off_out: 0,
        len: RANGE,
        flags: 0,
    };
    let operation = Operation::CopyFileRange(args);
    queue.submit(files.data.node, operation, Payload::None)
}

/// Makes part of the file dirty that an FSYNC is to write.
pub(crate) fn write_dirty(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = WriteIn {
        fh: files.copy.handle,
        size: DIRTY,
        ..WriteIn::default()
    };
    let payload = Payload::Stale(DIRTY as usize);
    queue.submit(files.copy.node, Operation::Write(args), payload)
}

pub(crate) fn fsync(_: &State, files: &Files, queue: &mut Queue) -> Result<Token, Error> {
    let args = FsyncIn {
        fh: files.copy.handle,
        ..FsyncIn::default()
    };
    queue.submit(files.copy.node, Operation::FSync(args), Payload::None)
}

/// One READ or WRITE of `data`, each at the offset that follows the one before.
pub(crate) fn transfer(
    data: &Data,
    number: u64,
    files: &Files,
    queue: &mut Queue,
) -> Result<Token, Error> {
    let (fh, size) = (files.data.handle, data.size);
    let offset = data.offset(number);
    if data.reads(number) {
        let args = ReadIn {
            fh,
            offset,
            size,
            ..ReadIn::default()
        };
        return queue.submit(files.data.node, Operation::Read(args), Payload::None);
    }
    let args = WriteIn {
        fh,
        offset,
        size,
        ..WriteIn::default()
    };
    let payload = Payload::Stale(size as usize);
    queue.submit(files.data.node, Operation::Write(args), payload)
}

fn name(state: &State, index: usize) -> Name<'_> {
    Name::new(&state.names[index]).expect("ours are names")
}

fn xattr_name() -> XattrName<'static> {
    XattrName::new(XATTR).expect("ours is a name")
}

fn create_in() -> CreateIn {
    CreateIn {
        flags: RDWR,
        mode: 0o644,
        ..CreateIn::default()
    }
}

fn release_in(state: &State) -> ReleaseIn {
    ReleaseIn {
        fh: state.handle,
        ..ReleaseIn::default()
    }
}
