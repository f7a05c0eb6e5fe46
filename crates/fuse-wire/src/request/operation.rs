use crate::abi::{
    AccessIn, BmapIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, FsyncIn,
    GetattrIn, GetxattrIn, InitIn, InterruptIn, IoctlIn, LinkIn, LkIn, LseekIn, MkdirIn, MknodIn,
    NotifyRetrieveIn, OpenIn, PollIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn,
    SetupmappingIn, SetxattrIn, StatxIn, SyncfsIn, WriteIn,
};
use crate::{ForgetList, LookupName, MappingList, Name, Opcode, SymlinkTarget, XattrName};

/// What a request asks for. The inode to act on is in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Find an entry of a directory and count one lookup of its inode.
    Lookup {
        /// The entry.
        name: LookupName<'a>,
    },
    /// Take back lookups of the inode. No reply.
    Forget(ForgetIn),
    /// Tell the attributes.
    GetAttr(GetattrIn),
    /// Change attributes.
    SetAttr(SetattrIn),
    /// Tell where a symbolic link points.
    ReadLink,
    /// Make a symbolic link.
    Symlink {
        /// The new entry.
        name: Name<'a>,
        /// Where it points.
        target: SymlinkTarget<'a>,
    },
    /// Make a file that is not opened, or a special file.
    MkNod {
        /// Its attributes.
        args: MknodIn,
        /// The new entry.
        name: Name<'a>,
    },
    /// Make a directory.
    MkDir {
        /// Its attributes.
        args: MkdirIn,
        /// The new entry.
        name: Name<'a>,
    },
    /// Remove an entry that is no directory.
    Unlink {
        /// The entry.
        name: Name<'a>,
    },
    /// Remove an empty directory.
    RmDir {
        /// The entry.
        name: Name<'a>,
    },
    /// Rename an entry.
    Rename {
        /// The new directory.
        args: RenameIn,
        /// The entry.
        name: Name<'a>,
        /// Its name in the new directory.
        new_name: Name<'a>,
    },
    /// Make another name for an inode.
    Link {
        /// The inode.
        args: LinkIn,
        /// The new entry.
        name: Name<'a>,
    },
    /// Open a file.
    Open(OpenIn),
    /// Read from a file.
    Read(ReadIn),
    /// Write to a file; the data is the payload.
    Write(WriteIn),
    /// Tell the space of the filesystem.
    StatFs,
    /// Close a file for good.
    Release(ReleaseIn),
    /// Bring a file to stable storage.
    FSync(FsyncIn),
    /// Set an extended attribute.
    SetXattr {
        /// How; `size` is the length of `value`.
        args: SetxattrIn,
        /// The attribute.
        name: XattrName<'a>,
        /// Its new value.
        value: &'a [u8],
    },
    /// Get an extended attribute.
    GetXattr {
        /// Room for the value.
        args: GetxattrIn,
        /// The attribute.
        name: XattrName<'a>,
    },
    /// List the extended attributes.
    ListXattr(GetxattrIn),
    /// Remove an extended attribute.
    RemoveXattr {
        /// The attribute.
        name: XattrName<'a>,
    },
    /// One of a file's descriptors was closed.
    Flush(FlushIn),
    /// Begin a session.
    Init(InitIn),
    /// Open a directory.
    OpenDir(OpenIn),
    /// List a directory.
    ReadDir(ReadIn),
    /// Close a directory for good.
    ReleaseDir(ReleaseIn),
    /// Bring a directory to stable storage.
    FSyncDir(FsyncIn),
    /// Find a lock that stands in the way.
    GetLk(LkIn),
    /// Set or drop a lock, without waiting.
    SetLk(LkIn),
    /// Set or drop a lock, waiting for it.
    SetLkW(LkIn),
    /// Check permissions.
    Access(AccessIn),
    /// Create and open a file.
    Create {
        /// How.
        args: CreateIn,
        /// The new entry.
        name: Name<'a>,
    },
    /// Give up a request. No reply.
    Interrupt(InterruptIn),
    /// Tell where a block of a file lies on the device.
    BMap(BmapIn),
    /// End the session.
    Destroy,
    /// Do something that only this kind of file knows.
    Ioctl {
        /// The command; `in_size` is the length of `data`.
        args: IoctlIn,
        /// Its input.
        data: &'a [u8],
    },
    /// Tell whether a file is ready.
    Poll(PollIn),
    /// Data that a RETRIEVE notification asked for; the data is the payload. No reply.
    NotifyReply(NotifyRetrieveIn),
    /// Take back lookups of several inodes. No reply.
    BatchForget(ForgetList<'a>),
    /// Allocate, punch or zero a range of a file.
    FAllocate(FallocateIn),
    /// List a directory and look each entry up.
    ReadDirPlus(ReadIn),
    /// Rename an entry, with flags.
    Rename2 {
        /// The new directory, and how.
        args: Rename2In,
        /// The entry.
        name: Name<'a>,
        /// Its name in the new directory.
        new_name: Name<'a>,
    },
    /// Find data or a hole.
    LSeek(LseekIn),
    /// Copy between two files.
    CopyFileRange(CopyFileRangeIn),
    /// Map part of a file into the DAX window.
    SetupMapping(SetupmappingIn),
    /// Unmap ranges of the DAX window.
    RemoveMapping(MappingList<'a>),
    /// Bring the whole filesystem to stable storage.
    SyncFs(SyncfsIn),
    /// Create and open a file without a name.
    TmpFile(CreateIn),
    /// Tell the attributes, birth time and all.
    Statx(StatxIn),
    /// Copy between two files; the reply can count beyond 4 GiB.
    CopyFileRange64(CopyFileRangeIn),
}

impl Operation<'_> {
    /// Its opcode.
    #[must_use]
    #[inline]
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::Lookup { .. } => Opcode::Lookup,
            Self::Forget(_) => Opcode::Forget,
            Self::GetAttr(_) => Opcode::GetAttr,
            Self::SetAttr(_) => Opcode::SetAttr,
            Self::ReadLink => Opcode::ReadLink,
            Self::Symlink { .. } => Opcode::Symlink,
            Self::MkNod { .. } => Opcode::MkNod,
            Self::MkDir { .. } => Opcode::MkDir,
            Self::Unlink { .. } => Opcode::Unlink,
            Self::RmDir { .. } => Opcode::RmDir,
            Self::Rename { .. } => Opcode::Rename,
            Self::Link { .. } => Opcode::Link,
            Self::Open(_) => Opcode::Open,
            Self::Read(_) => Opcode::Read,
            Self::Write(_) => Opcode::Write,
            Self::StatFs => Opcode::StatFs,
            Self::Release(_) => Opcode::Release,
            Self::FSync(_) => Opcode::FSync,
            Self::SetXattr { .. } => Opcode::SetXattr,
            Self::GetXattr { .. } => Opcode::GetXattr,
            Self::ListXattr(_) => Opcode::ListXattr,
            Self::RemoveXattr { .. } => Opcode::RemoveXattr,
            Self::Flush(_) => Opcode::Flush,
            Self::Init(_) => Opcode::Init,
            Self::OpenDir(_) => Opcode::OpenDir,
            Self::ReadDir(_) => Opcode::ReadDir,
            Self::ReleaseDir(_) => Opcode::ReleaseDir,
            Self::FSyncDir(_) => Opcode::FSyncDir,
            Self::GetLk(_) => Opcode::GetLk,
            Self::SetLk(_) => Opcode::SetLk,
            Self::SetLkW(_) => Opcode::SetLkW,
            Self::Access(_) => Opcode::Access,
            Self::Create { .. } => Opcode::Create,
            Self::Interrupt(_) => Opcode::Interrupt,
            Self::BMap(_) => Opcode::BMap,
            Self::Destroy => Opcode::Destroy,
            Self::Ioctl { .. } => Opcode::Ioctl,
            Self::Poll(_) => Opcode::Poll,
            Self::NotifyReply(_) => Opcode::NotifyReply,
            Self::BatchForget(_) => Opcode::BatchForget,
            Self::FAllocate(_) => Opcode::FAllocate,
            Self::ReadDirPlus(_) => Opcode::ReadDirPlus,
            Self::Rename2 { .. } => Opcode::Rename2,
            Self::LSeek(_) => Opcode::LSeek,
            Self::CopyFileRange(_) => Opcode::CopyFileRange,
            Self::SetupMapping(_) => Opcode::SetupMapping,
            Self::RemoveMapping(_) => Opcode::RemoveMapping,
            Self::SyncFs(_) => Opcode::SyncFs,
            Self::TmpFile(_) => Opcode::TmpFile,
            Self::Statx(_) => Opcode::Statx,
            Self::CopyFileRange64(_) => Opcode::CopyFileRange64,
        }
    }
}
