use virtio_fs_guest::{Error as GuestError, Mount};

use crate::operations as op;
use crate::session::Files;

/// What an operation of a row is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    GetAttr,
    Lookup,
    /// READ of so many bytes, one after the other.
    Read(u32),
    /// WRITE of so many bytes, one after the other.
    Write(u32),
    /// Requests that follow upon each other.
    Sequence(fn(&mut Mount, &Files) -> Result<(), GuestError>),
}

/// Files in the directory that is listed.
pub(crate) const ENTRIES: usize = 100;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Requests in flight.
    pub(crate) depth: usize,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// All rows.
pub(crate) const ROWS: [Row; 29] = [
    row("getattr", Kind::GetAttr, 1),
    row("getattr x32", Kind::GetAttr, 32),
    row("lookup", Kind::Lookup, 1),
    row("statx", Kind::Sequence(op::statx), 1),
    row("chmod", Kind::Sequence(op::chmod), 1),
    row("utimens", Kind::Sequence(op::utimens), 1),
    row("truncate", Kind::Sequence(op::truncate), 1),
    row("getxattr", Kind::Sequence(op::getxattr), 1),
    row("setxattr", Kind::Sequence(op::setxattr), 1),
    row("open+release", Kind::Sequence(op::open_and_release), 1),
    row("create+unlink", Kind::Sequence(op::create_and_unlink), 1),
    row("tmpfile", Kind::Sequence(op::tmpfile), 1),
    row("mkdir+rmdir", Kind::Sequence(op::mkdir_and_rmdir), 1),
    row(
        "symlink+readlink",
        Kind::Sequence(op::symlink_and_readlink),
        1,
    ),
    row("link+unlink", Kind::Sequence(op::link_and_unlink), 1),
    row("rename", Kind::Sequence(op::rename), 1),
    row("readdirplus 100", Kind::Sequence(op::readdirplus), 1),
    row("lseek", Kind::Sequence(op::lseek), 1),
    row("fallocate", Kind::Sequence(op::fallocate), 1),
    row("copy_file_range", Kind::Sequence(op::copy_file_range), 1),
    row("read 4k", Kind::Read(4 * KIB), 1),
    row("read 4k x32", Kind::Read(4 * KIB), 32),
    row("read 128k", Kind::Read(128 * KIB), 1),
    row("read 1M", Kind::Read(MIB), 1),
    row("write 4k", Kind::Write(4 * KIB), 1),
    row("write 4k x32", Kind::Write(4 * KIB), 32),
    row("write 128k", Kind::Write(128 * KIB), 1),
    row("write 128k x8", Kind::Write(128 * KIB), 8),
    row("write 1M", Kind::Write(MIB), 1),
];

const fn row(name: &'static str, kind: Kind, depth: usize) -> Row {
    Row { name, kind, depth }
}

impl Row {
    /// Bytes of data that an operation moves.
    pub(crate) const fn bytes(&self) -> u32 {
        match self.kind {
            Kind::Read(size) | Kind::Write(size) => size,
            _ => 0,
        }
    }
}
