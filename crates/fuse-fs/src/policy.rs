//! What a read-only session refuses.

use fuse_wire::Operation;
use fuse_wire::flags::MappingFlags;
use rustix::fs::OFlags;

/// `W_OK` of access(2).
const W_OK: u32 = 2;

/// Flags of open(2) without which an open changes nothing.
const CHANGING_OPEN: OFlags = OFlags::WRONLY
    .union(OFlags::RDWR)
    .union(OFlags::CREATE)
    .union(OFlags::TRUNC);

/// Commands of ioctl(2) that are known to change nothing. The direction that is encoded in a
/// command says nothing about that, so all others count as changing.
const READING_IOCTLS: [u32; 8] = [
    0x8008_6601, // FS_IOC_GETFLAGS
    0x8004_6601, // FS_IOC32_GETFLAGS
    0x8008_7601, // FS_IOC_GETVERSION
    0x8004_7601, // FS_IOC32_GETVERSION
    0x801c_581f, // FS_IOC_FSGETXATTR
    0x8100_9431, // FS_IOC_GETFSLABEL
    0x0000_541b, // FIONREAD
    0x0000_0002, // FIGETBSZ
];

/// Whether `operation` may change a file, a directory or the filesystem, or asks whether it could.
/// There is no catch-all: a new operation has to be judged here.
pub(crate) fn changes_something(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::SetAttr(_)
        | Operation::Symlink { .. }
        | Operation::MkNod { .. }
        | Operation::MkDir { .. }
        | Operation::Unlink { .. }
        | Operation::RmDir { .. }
        | Operation::Rename { .. }
        | Operation::Rename2 { .. }
        | Operation::Link { .. }
        | Operation::Create { .. }
        | Operation::TmpFile(_)
        | Operation::Write(_)
        | Operation::SetXattr { .. }
        | Operation::RemoveXattr { .. }
        | Operation::FAllocate(_)
        | Operation::CopyFileRange(_)
        | Operation::CopyFileRange64(_) => true,

        Operation::Open(args) | Operation::OpenDir(args) => {
            OFlags::from_bits_retain(args.flags).intersects(CHANGING_OPEN)
        }
        Operation::Access(args) => args.mask & W_OK != 0,
        Operation::Ioctl { args, .. } => !READING_IOCTLS.contains(&args.cmd),
        Operation::SetupMapping(args) => args.flags.contains(MappingFlags::WRITE),

        // What follows reads, gives back, waits or flushes. A lock changes no file.
        Operation::Lookup { .. }
        | Operation::Forget(_)
        | Operation::GetAttr(_)
        | Operation::ReadLink
        | Operation::Read(_)
        | Operation::StatFs
        | Operation::Release(_)
        | Operation::FSync(_)
        | Operation::GetXattr { .. }
        | Operation::ListXattr(_)
        | Operation::Flush(_)
        | Operation::Init(_)
        | Operation::ReadDir(_)
        | Operation::ReleaseDir(_)
        | Operation::FSyncDir(_)
        | Operation::GetLk(_)
        | Operation::SetLk(_)
        | Operation::SetLkW(_)
        | Operation::Interrupt(_)
        | Operation::BMap(_)
        | Operation::Destroy
        | Operation::Poll(_)
        | Operation::NotifyReply(_)
        | Operation::BatchForget(_)
        | Operation::ReadDirPlus(_)
        | Operation::LSeek(_)
        | Operation::RemoveMapping(_)
        | Operation::SyncFs(_)
        | Operation::Statx(_) => false,
    }
}
