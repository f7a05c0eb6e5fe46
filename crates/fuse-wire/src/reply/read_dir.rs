use core::iter::FusedIterator;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::dirent::ALIGNMENT;
use crate::abi::{Dirent, DirentPlus, EntryOut};
use crate::cursor::Cursor;
use crate::name::NAME_MAX;

/// The rule that an entry in the reply to READDIR or READDIRPLUS broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirentError {
    /// The entry ends early, padding included.
    #[error("an entry of a directory is truncated")]
    Truncated,
    /// The name is empty, longer than 255 bytes, or has a slash or a NUL in it.
    #[error("an entry of a directory has no valid name")]
    Name,
}

/// An entry of a directory, as READDIR tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Cookie: where to go on after this entry.
    pub off: u64,
    /// `DT_*` of readdir(3).
    pub dirent_type: u32,
    /// The name, `.` and `..` included: 1 to 255 bytes, no slash, no NUL.
    pub name: &'a [u8],
}

/// An entry of a directory with what LOOKUP would tell of it, as READDIRPLUS tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntryPlus<'a> {
    /// As LOOKUP would have answered. A node id other than 0 counts as one lookup of that node,
    /// except for `.` and `..`.
    pub entry_out: EntryOut,
    /// The entry.
    pub entry: DirEntry<'a>,
}

/// The entries in the data of a reply to READDIR. Ends after the first that is malformed.
#[derive(Debug, Clone)]
pub struct Dirents<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Dirents<'a> {
    /// Reads `data`, the body of the reply.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(data),
        }
    }
}

impl<'a> Iterator for Dirents<'a> {
    type Item = Result<DirEntry<'a>, DirentError>;

    fn next(&mut self) -> Option<Self::Item> {
        next_record(&mut self.cursor, |dirent: &Dirent| *dirent)
            .map(|record| record.map(|(_, entry)| entry))
    }
}

impl FusedIterator for Dirents<'_> {}

/// The entries in the data of a reply to READDIRPLUS. Ends after the first that is malformed.
#[derive(Debug, Clone)]
pub struct DirentsPlus<'a> {
    cursor: Cursor<'a>,
}

impl<'a> DirentsPlus<'a> {
    /// Reads `data`, the body of the reply.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(data),
        }
    }
}

impl<'a> Iterator for DirentsPlus<'a> {
    type Item = Result<DirEntryPlus<'a>, DirentError>;

    fn next(&mut self) -> Option<Self::Item> {
        next_record(&mut self.cursor, |head: &DirentPlus| head.dirent).map(|record| {
            record.map(|(head, entry)| DirEntryPlus {
                entry_out: head.entry_out,
                entry,
            })
        })
    }
}

impl FusedIterator for DirentsPlus<'_> {}

/// The next record and the entry in it; an error leaves nothing to be read.
fn next_record<'a, H: FromBytes + KnownLayout + Immutable>(
    cursor: &mut Cursor<'a>,
    dirent: impl FnOnce(&H) -> Dirent,
) -> Option<Result<(H, DirEntry<'a>), DirentError>> {
    if cursor.remaining() == 0 {
        return None;
    }
    let record = read_record(cursor, dirent);
    if record.is_err() {
        cursor.take_rest();
    }
    Some(record)
}

fn read_record<'a, H: FromBytes + KnownLayout + Immutable>(
    cursor: &mut Cursor<'a>,
    dirent: impl FnOnce(&H) -> Dirent,
) -> Result<(H, DirEntry<'a>), DirentError> {
    let head: H = cursor.read().ok_or(DirentError::Truncated)?;
    let dirent = dirent(&head);
    let name = read_name(cursor, size_of::<H>(), dirent.namelen)?;
    let entry = DirEntry {
        ino: dirent.ino,
        off: dirent.off,
        dirent_type: dirent.dirent_type,
        name,
    };
    Ok((head, entry))
}

/// The name, and the padding behind it, of an entry whose head has `head_len` bytes.
fn read_name<'a>(
    cursor: &mut Cursor<'a>,
    head_len: usize,
    namelen: u32,
) -> Result<&'a [u8], DirentError> {
    let len = usize::try_from(namelen)
        .ok()
        .filter(|len| (1..=NAME_MAX).contains(len))
        .ok_or(DirentError::Name)?;
    let name = cursor.take(len).ok_or(DirentError::Truncated)?;
    let unpadded = head_len.saturating_add(len);
    let padding = unpadded
        .checked_next_multiple_of(ALIGNMENT)
        .and_then(|padded| padded.checked_sub(unpadded))
        .ok_or(DirentError::Truncated)?;
    cursor.take(padding).ok_or(DirentError::Truncated)?;
    if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(DirentError::Name);
    }
    Ok(name)
}
