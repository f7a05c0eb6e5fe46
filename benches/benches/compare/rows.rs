/// What an operation of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    GetAttr,
    Lookup,
    /// OPEN, RELEASE.
    OpenRelease,
    /// CREATE, FLUSH, RELEASE, UNLINK, FORGET.
    CreateUnlink,
    /// READDIRPLUS until the end of a directory of [`ENTRIES`].
    ReadDirPlus,
    /// READ of so many bytes, one after the other.
    Read(u32),
    /// WRITE of so many bytes, one after the other.
    Write(u32),
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
pub(crate) const ROWS: [Row; 15] = [
    row("getattr", Kind::GetAttr, 1),
    row("getattr x32", Kind::GetAttr, 32),
    row("lookup", Kind::Lookup, 1),
    row("open+release", Kind::OpenRelease, 1),
    row("create+unlink", Kind::CreateUnlink, 1),
    row("readdirplus 100", Kind::ReadDirPlus, 1),
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
