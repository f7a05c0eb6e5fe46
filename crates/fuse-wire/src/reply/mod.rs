//! Replies, from the filesystem to the peer's kernel.

mod decode;
mod dirent;
mod encode;
mod form;
mod read_dir;

pub use decode::{Answer, ReplyError};
pub use dirent::{DirentPlusWriter, DirentWriter};
pub use form::ReplyForm;
pub use read_dir::{DirEntry, DirEntryPlus, DirentError, Dirents, DirentsPlus};

use crate::abi::{
    AttrOut, BmapOut, CopyFileRangeOut, EntryOut, GetxattrOut, InitOut, IoctlOut, Kstatfs, LkOut,
    LseekOut, OpenOut, PollOut, StatxOut, WriteOut,
};

/// The body of a reply that reports success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done; there is nothing to tell.
    Empty,
    /// LOOKUP, MKNOD, MKDIR, SYMLINK, LINK.
    Entry(EntryOut),
    /// GETATTR, SETATTR.
    Attr(AttrOut),
    /// READ, READLINK, READDIR, READDIRPLUS; GETXATTR and LISTXATTR with a size other than 0.
    Data(&'a [u8]),
    /// GETXATTR and LISTXATTR of size 0.
    XattrSize(GetxattrOut),
    /// OPEN, OPENDIR.
    Open(OpenOut),
    /// CREATE, TMPFILE.
    Create(EntryOut, OpenOut),
    /// WRITE, COPY_FILE_RANGE.
    Write(WriteOut),
    /// STATFS.
    StatFs(Kstatfs),
    /// INIT.
    Init(InitOut),
    /// GETLK.
    Lk(LkOut),
    /// BMAP.
    BMap(BmapOut),
    /// IOCTL, with its output.
    Ioctl(IoctlOut, &'a [u8]),
    /// POLL.
    Poll(PollOut),
    /// LSEEK.
    LSeek(LseekOut),
    /// STATX.
    Statx(StatxOut),
    /// COPY_FILE_RANGE_64.
    CopyFileRange64(CopyFileRangeOut),
}
