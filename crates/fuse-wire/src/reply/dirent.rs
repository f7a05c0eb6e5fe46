use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{Dirent, DirentPlus, EntryOut};

/// Entries start at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// Lays out the reply to READDIR, entry by entry, in a buffer as large as the peer asked for.
#[derive(Debug)]
pub struct DirentWriter<'a> {
    out: Appender<'a>,
}

impl<'a> DirentWriter<'a> {
    /// Starts at the front of `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            out: Appender { buffer, len: 0 },
        }
    }

    /// Appends an entry: its inode number, the cookie from which to go on after it, its type
    /// (`DT_*`) and its name. Returns false, and appends nothing, where it does not fit.
    #[must_use]
    pub fn push(&mut self, ino: u64, off: u64, dirent_type: u32, name: &[u8]) -> bool {
        let Ok(namelen) = u32::try_from(name.len()) else {
            return false;
        };
        let dirent = Dirent {
            ino,
            off,
            namelen,
            dirent_type,
        };
        self.out.append(dirent.as_bytes(), name)
    }

    /// Bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.out.len
    }

    /// Whether nothing was written: to the peer that is the end of the directory.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.out.len == 0
    }
}

/// Lays out the reply to READDIRPLUS, entry by entry, in a buffer as large as the peer asked for.
///
/// Every entry that is written with a node id counts as a lookup of that node, except `.` and
/// `..`, which must be written with a node id of 0.
#[derive(Debug)]
pub struct DirentPlusWriter<'a> {
    out: Appender<'a>,
}

impl<'a> DirentPlusWriter<'a> {
    /// Starts at the front of `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            out: Appender { buffer, len: 0 },
        }
    }

    /// Whether an entry with this name would fit: to be asked before the entry is looked up.
    #[must_use]
    pub fn fits(&self, name: &[u8]) -> bool {
        self.out.fits(size_of::<DirentPlus>(), name)
    }

    /// Appends an entry: what LOOKUP would answer, its inode number, the cookie from which to go
    /// on after it, its type (`DT_*`) and its name. Returns false, and appends nothing, where it
    /// does not fit.
    #[must_use]
    pub fn push(
        &mut self,
        entry_out: EntryOut,
        ino: u64,
        off: u64,
        dirent_type: u32,
        name: &[u8],
    ) -> bool {
        let Ok(namelen) = u32::try_from(name.len()) else {
            return false;
        };
        let dirent = Dirent {
            ino,
            off,
            namelen,
            dirent_type,
        };
        self.out
            .append(DirentPlus { entry_out, dirent }.as_bytes(), name)
    }

    /// Calls `change` with what LOOKUP would answer of each entry that is written so far: a server
    /// that is made of several translates their node ids.
    pub fn for_each(&mut self, mut change: impl FnMut(&mut EntryOut)) {
        let mut rest = self.out.written();
        while let Ok((mut head, _)) = DirentPlus::read_from_prefix(rest) {
            change(&mut head.entry_out);
            let len = size_of::<DirentPlus>()
                .saturating_add(usize::try_from(head.dirent.namelen).unwrap_or(usize::MAX))
                .checked_next_multiple_of(ALIGNMENT);
            let Some((record, behind)) = len.and_then(|len| rest.split_at_mut_checked(len)) else {
                return;
            };
            if head.write_to_prefix(record).is_err() {
                return;
            }
            rest = behind;
        }
    }

    /// Bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.out.len
    }

    /// Whether nothing was written: to the peer that is the end of the directory.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.out.len == 0
    }
}

#[derive(Debug)]
struct Appender<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Appender<'_> {
    fn written(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.len).unwrap_or_default()
    }

    fn fits(&self, head_len: usize, name: &[u8]) -> bool {
        self.end_after(head_len, name)
            .is_some_and(|end| end <= self.buffer.len())
    }

    fn end_after(&self, head_len: usize, name: &[u8]) -> Option<usize> {
        let len = head_len
            .checked_add(name.len())?
            .checked_next_multiple_of(ALIGNMENT)?;
        self.len.checked_add(len)
    }

    fn append(&mut self, head: &[u8], name: &[u8]) -> bool {
        let Some(end) = self.end_after(head.len(), name) else {
            return false;
        };
        let Some(record) = self.buffer.get_mut(self.len..end) else {
            return false;
        };
        let Some((head_out, rest)) = record.split_at_mut_checked(head.len()) else {
            return false;
        };
        let Some((name_out, padding)) = rest.split_at_mut_checked(name.len()) else {
            return false;
        };
        head_out.copy_from_slice(head);
        name_out.copy_from_slice(name);
        padding.fill(0);
        self.len = end;
        true
    }
}
