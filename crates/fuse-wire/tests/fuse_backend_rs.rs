//! Agreement with the structures and numbers of fuse-backend-rs, which were written down
//! independently.

use fuse_backend_rs::abi::fuse_abi as theirs;
use fuse_wire::flags::*;
use fuse_wire::{NodeId, NotifyCode, Opcode, abi as ours};

macro_rules! same_size {
    ($($ours:ident = $theirs:ident,)*) => {$(
        assert_eq!(
            size_of::<ours::$ours>(),
            size_of::<theirs::$theirs>(),
            "{}",
            stringify!($ours)
        );
    )*};
}

#[test]
fn structures_have_the_same_sizes() {
    same_size! {
        AccessIn = AccessIn,
        Attr = Attr,
        AttrOut = AttrOut,
        BatchForgetIn = BatchForgetIn,
        BmapIn = BmapIn,
        BmapOut = BmapOut,
        CopyFileRangeIn = CopyFileRangeIn,
        CreateIn = CreateIn,
        Dirent = Dirent,
        DirentPlus = Direntplus,
        EntryOut = EntryOut,
        FallocateIn = FallocateIn,
        FileLock = FileLock,
        FlushIn = FlushIn,
        ForgetIn = ForgetIn,
        ForgetOne = ForgetOne,
        FsyncIn = FsyncIn,
        GetattrIn = GetattrIn,
        GetxattrIn = GetxattrIn,
        GetxattrOut = GetxattrOut,
        InHeader = InHeader,
        InitOut = InitOut,
        InterruptIn = InterruptIn,
        IoctlIn = IoctlIn,
        IoctlIovec = IoctlIovec,
        IoctlOut = IoctlOut,
        Kstatfs = Kstatfs,
        LinkIn = LinkIn,
        LkIn = LkIn,
        LkOut = LkOut,
        LseekIn = LseekIn,
        LseekOut = LseekOut,
        MkdirIn = MkdirIn,
        MknodIn = MknodIn,
        NotifyDeleteOut = NotifyDeleteOut,
        NotifyInvalEntryOut = NotifyInvalEntryOut,
        NotifyInvalInodeOut = NotifyInvalInodeOut,
        NotifyPollWakeupOut = NotifyPollWakeupOut,
        NotifyRetrieveIn = NotifyRetrieveIn,
        NotifyRetrieveOut = Notify_Retrieve_Out,
        NotifyStoreOut = NotifyStoreOut,
        OpenIn = OpenIn,
        OpenOut = OpenOut,
        OutHeader = OutHeader,
        PollIn = PollIn,
        PollOut = PollOut,
        ReadIn = ReadIn,
        ReleaseIn = ReleaseIn,
        Rename2In = Rename2In,
        RenameIn = RenameIn,
        SetattrIn = SetattrIn,
        WriteIn = WriteIn,
        WriteOut = WriteOut,
    }
    // Theirs are in two pieces, and before SETXATTR_EXT.
    assert_eq!(ours::InitIn::COMPAT_SIZE, size_of::<theirs::InitIn>());
    assert_eq!(
        size_of::<ours::InitIn>(),
        size_of::<theirs::InitIn>() + size_of::<theirs::InitIn2>()
    );
    assert_eq!(
        ours::SetxattrIn::COMPAT_SIZE,
        size_of::<theirs::SetxattrIn>()
    );
    assert_eq!(
        ours::InitOut::COMPAT_SIZE,
        theirs::FUSE_COMPAT_INIT_OUT_SIZE
    );
    assert_eq!(
        ours::InitOut::COMPAT_22_SIZE,
        theirs::FUSE_COMPAT_22_INIT_OUT_SIZE
    );
}

macro_rules! same_flags {
    ($($ours:ident::$our_flag:ident = $theirs:ident$(::$their_flag:ident)?,)*) => {$(
        #[allow(trivial_numeric_casts)]
        {
            let theirs = theirs::$theirs$(::$their_flag.bits())?;
            assert_eq!($ours::$our_flag.bits(), theirs, "{}", stringify!($our_flag));
        }
    )*};
}

#[test]
fn flags_have_the_same_values() {
    same_flags! {
        InitFlags::ASYNC_READ = FsOptions::ASYNC_READ,
        InitFlags::POSIX_LOCKS = FsOptions::POSIX_LOCKS,
        InitFlags::FILE_OPS = FsOptions::FILE_OPS,
        InitFlags::ATOMIC_O_TRUNC = FsOptions::ATOMIC_O_TRUNC,
        InitFlags::EXPORT_SUPPORT = FsOptions::EXPORT_SUPPORT,
        InitFlags::BIG_WRITES = FsOptions::BIG_WRITES,
        InitFlags::DONT_MASK = FsOptions::DONT_MASK,
        InitFlags::SPLICE_WRITE = FsOptions::SPLICE_WRITE,
        InitFlags::SPLICE_MOVE = FsOptions::SPLICE_MOVE,
        InitFlags::SPLICE_READ = FsOptions::SPLICE_READ,
        InitFlags::FLOCK_LOCKS = FsOptions::FLOCK_LOCKS,
        InitFlags::HAS_IOCTL_DIR = FsOptions::HAS_IOCTL_DIR,
        InitFlags::AUTO_INVAL_DATA = FsOptions::AUTO_INVAL_DATA,
        InitFlags::DO_READDIRPLUS = FsOptions::DO_READDIRPLUS,
        InitFlags::READDIRPLUS_AUTO = FsOptions::READDIRPLUS_AUTO,
        InitFlags::ASYNC_DIO = FsOptions::ASYNC_DIO,
        InitFlags::WRITEBACK_CACHE = FsOptions::WRITEBACK_CACHE,
        InitFlags::NO_OPEN_SUPPORT = FsOptions::ZERO_MESSAGE_OPEN,
        InitFlags::PARALLEL_DIROPS = FsOptions::PARALLEL_DIROPS,
        InitFlags::HANDLE_KILLPRIV = FsOptions::HANDLE_KILLPRIV,
        InitFlags::POSIX_ACL = FsOptions::POSIX_ACL,
        InitFlags::ABORT_ERROR = FsOptions::ABORT_ERROR,
        InitFlags::MAX_PAGES = FsOptions::MAX_PAGES,
        InitFlags::CACHE_SYMLINKS = FsOptions::CACHE_SYMLINKS,
        InitFlags::NO_OPENDIR_SUPPORT = FsOptions::ZERO_MESSAGE_OPENDIR,
        InitFlags::EXPLICIT_INVAL_DATA = FsOptions::EXPLICIT_INVAL_DATA,
        InitFlags::MAP_ALIGNMENT = FsOptions::MAP_ALIGNMENT,
        InitFlags::SUBMOUNTS = FsOptions::SUBMOUNTS,
        InitFlags::HANDLE_KILLPRIV_V2 = FsOptions::HANDLE_KILLPRIV_V2,
        InitFlags::INIT_EXT = FsOptions::INIT_EXT,
        InitFlags::HAS_INODE_DAX = FsOptions::PERFILE_DAX,
        InitFlags::HAS_RESEND = FsOptions::HAS_RESEND,
        SetattrValid::MODE = SetattrValid::MODE,
        SetattrValid::UID = SetattrValid::UID,
        SetattrValid::GID = SetattrValid::GID,
        SetattrValid::SIZE = SetattrValid::SIZE,
        SetattrValid::ATIME = SetattrValid::ATIME,
        SetattrValid::MTIME = SetattrValid::MTIME,
        SetattrValid::FH = FATTR_FH,
        SetattrValid::ATIME_NOW = SetattrValid::ATIME_NOW,
        SetattrValid::MTIME_NOW = SetattrValid::MTIME_NOW,
        SetattrValid::LOCKOWNER = FATTR_LOCKOWNER,
        SetattrValid::CTIME = SetattrValid::CTIME,
        SetattrValid::KILL_SUIDGID = SetattrValid::KILL_SUIDGID,
        OpenInFlags::KILL_SUIDGID = FOPEN_IN_KILL_SUIDGID,
        OpenOutFlags::DIRECT_IO = OpenOptions::DIRECT_IO,
        OpenOutFlags::KEEP_CACHE = OpenOptions::KEEP_CACHE,
        OpenOutFlags::NONSEEKABLE = OpenOptions::NONSEEKABLE,
        OpenOutFlags::CACHE_DIR = OpenOptions::CACHE_DIR,
        OpenOutFlags::STREAM = OpenOptions::STREAM,
        IoctlFlags::COMPAT = IoctlFlags::IOCTL_COMPAT,
        IoctlFlags::UNRESTRICTED = IoctlFlags::IOCTL_UNRESTRICTED,
        IoctlFlags::RETRY = IoctlFlags::IOCTL_RETRY,
        IoctlFlags::IOCTL_32BIT = IoctlFlags::IOCTL_32BIT,
        IoctlFlags::DIR = IoctlFlags::IOCTL_DIR,
        IoctlFlags::COMPAT_X32 = IoctlFlags::IOCTL_COMPAT_X32,
        ReleaseFlags::FLUSH = RELEASE_FLUSH,
        ReleaseFlags::FLOCK_UNLOCK = RELEASE_FLOCK_UNLOCK,
        GetattrFlags::FH = GETATTR_FH,
        LkFlags::FLOCK = LK_FLOCK,
        WriteFlags::CACHE = WRITE_CACHE,
        WriteFlags::LOCKOWNER = WRITE_LOCKOWNER,
        WriteFlags::KILL_SUIDGID = WRITE_KILL_PRIV,
        ReadFlags::LOCKOWNER = READ_LOCKOWNER,
        AttrFlags::SUBMOUNT = ATTR_SUBMOUNT,
        AttrFlags::DAX = FUSE_ATTR_DAX,
        PollFlags::SCHEDULE_NOTIFY = POLL_SCHEDULE_NOTIFY,
        FsyncFlags::FDATASYNC = FSYNC_FDATASYNC,
    }
}

#[test]
fn operations_have_the_same_numbers() {
    use theirs::{NotifyOpcode, Opcode as Theirs};
    for (ours, theirs) in [
        (Opcode::Lookup, Theirs::Lookup),
        (Opcode::Open, Theirs::Open),
        (Opcode::Init, Theirs::Init),
        (Opcode::Create, Theirs::Create),
        (Opcode::BatchForget, Theirs::BatchForget),
        (Opcode::ReadDirPlus, Theirs::Readdirplus),
        (Opcode::Rename2, Theirs::Rename2),
        (Opcode::LSeek, Theirs::Lseek),
        (Opcode::CopyFileRange, Theirs::CopyFileRange),
        (Opcode::SetupMapping, Theirs::SetupMapping),
        (Opcode::RemoveMapping, Theirs::RemoveMapping),
    ] {
        assert_eq!(ours.raw(), theirs as u32);
    }
    assert_eq!(
        NotifyCode::InvalEntry.raw(),
        NotifyOpcode::InvalEntry as i32
    );
    assert_eq!(NotifyCode::Resend.raw(), NotifyOpcode::Resend as i32);
    assert_eq!(NodeId::ROOT.0, theirs::ROOT_ID);
}
