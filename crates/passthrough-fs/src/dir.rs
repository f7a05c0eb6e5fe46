//! Directories as streams of entries.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, MutexGuard, PoisonError};

use fuse_fs::abi::{EntryOut, ReadIn};
use fuse_fs::{
    Context, DirentPlusWriter, DirentWriter, Errno, Error, Handle, Name, NodeId, Result,
};
use rustix::fs::SeekFrom;

use crate::budget::{Budget, Permit};
use crate::handle_table::OpenDirectory;
use crate::inode_table::Identity;
use crate::lookup::Guess;
use crate::pin::Pinned;
use crate::{PassthroughFs, sys};

/// Bytes of entries read from the host at once: some 200 of them. Telling the guest of so many takes
/// a hundred times as long as the call that reads them.
const CHUNK: usize = 8 * 1024;
/// Directory handles that may keep entries for their next READDIR, all in all: 8 MiB.
pub(crate) const MAX_KEPT: usize = 1024;

impl PassthroughFs {
    pub(crate) fn do_readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        let directory = self.open_directory(args.fh, node)?;
        directory.volume.check_reachable(cx)?;
        let mut stream = lock(&directory);
        let result = stream.read(&directory.fd, args.offset, |entry| {
            let ino = self.number(directory.volume.dev(), entry.ino);
            if entries.push(ino, entry.next, entry.kind.into(), entry.name) {
                Ok(Step::Listed)
            } else {
                Ok(Step::Full)
            }
        });
        finish(result, entries.is_empty())
    }

    pub(crate) fn do_readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        let directory = self.open_directory(args.fh, node)?;
        let inode = self.directory_inode(cx, node)?;
        let mut stream = lock(&directory);
        let result = stream.read(&directory.fd, args.offset, |entry| {
            if !entries.fits(entry.name) {
                return Ok(Step::Full);
            }
            match self.look_up_listed(cx, node, &inode, entry)? {
                Listed::Gone => Ok(Step::Skipped),
                Listed::There(found) => {
                    let kind = entry.kind.into();
                    let ino = self.listed_number(&directory, entry, &found);
                    if entries.push(found, ino, entry.next, kind, entry.name) {
                        return Ok(Step::Listed);
                    }
                    self.inodes.forget(found.nodeid, 1);
                    Ok(Step::Full)
                }
            }
        });
        finish(result, entries.is_empty())
    }

    /// The open directory that `handle` names, if it is one of `node`.
    pub(crate) fn open_directory(
        &self,
        handle: Handle,
        node: NodeId,
    ) -> Result<Arc<OpenDirectory>> {
        Ok(self.handles.directory(handle, node)?)
    }

    /// The number of a listed entry. Where something is mounted on it, the host lists what is below
    /// the mount; a guest that does not know of mounts is told of one number only.
    fn listed_number(
        &self,
        directory: &OpenDirectory,
        entry: &RawEntry<'_>,
        found: &EntryOut,
    ) -> u64 {
        if found.nodeid == NodeId(0) || self.announces_submounts() {
            self.number(directory.volume.dev(), entry.ino)
        } else {
            found.attr.ino
        }
    }

    /// Looks up an entry of the directory `parent`. What cannot be looked up is listed without;
    /// the guest asks for it by itself when it needs it.
    fn look_up_listed(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        dir: &Pinned,
        entry: &RawEntry<'_>,
    ) -> Result<Listed> {
        let unlooked = Listed::There(EntryOut::default());
        let Some(name) = entry.checked_name() else {
            return Ok(unlooked);
        };
        let likely = Identity {
            ino: entry.ino,
            ..dir.identity
        };
        let guess = if self.inodes.contains(&likely) {
            Guess::Known
        } else {
            Guess::Unknown
        };
        match self.find(dir, name, guess, cx.blocking) {
            Ok((node, stat)) => {
                self.names.remember(parent, name);
                Ok(Listed::There(self.entry(dir, node, &stat).into()))
            }
            Err(Error::WouldBlock) => Err(Error::WouldBlock),
            Err(Error::Errno(Errno::ENOENT)) => Ok(Listed::Gone),
            Err(Error::Errno(_)) => Ok(unlooked),
        }
    }
}

/// What became of an entry between being listed and being looked up.
enum Listed {
    There(EntryOut),
    Gone,
}

/// The error only counts where nothing was listed: what was is for the guest, which asks for the
/// rest, and then gets the error. An empty list would be the end of the directory.
fn finish(result: Result<Step>, nothing_listed: bool) -> Result<()> {
    match result {
        Err(error) if nothing_listed => Err(error),
        Ok(Step::Full) if nothing_listed => Err(Errno::EINVAL.into()),
        _ => Ok(()),
    }
}

fn lock(directory: &OpenDirectory) -> MutexGuard<'_, Stream> {
    let stream = directory.stream.lock();
    stream.unwrap_or_else(PoisonError::into_inner)
}

/// Whether more entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Listed,
    /// There is no such entry any more.
    Skipped,
    /// This entry did not fit and is the first of the next list.
    Full,
}

/// Where the reader of a directory handle stands.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The cookie from which the descriptor goes on; `None` where that is not certain.
    position: Option<u64>,
    /// Entries that were read from the host and not listed yet.
    kept: Option<Kept>,
    budget: Budget,
}

#[derive(Debug)]
struct Kept {
    /// The cookie of the first entry.
    cookie: u64,
    chunk: Box<[u8]>,
    /// The entries, in `chunk`.
    start: usize,
    end: usize,
    _permit: Permit,
}

impl Stream {
    /// A reader of a directory that was just opened. `budget` counts the readers that keep entries.
    pub(crate) fn new(budget: &Budget) -> Self {
        Self {
            position: Some(0),
            kept: None,
            budget: budget.clone(),
        }
    }

    /// Shows the entries from `cookie` on to `list`, until that has enough, fails, or the directory
    /// ends.
    fn read(
        &mut self,
        fd: &OwnedFd,
        cookie: u64,
        mut list: impl FnMut(&RawEntry<'_>) -> Result<Step>,
    ) -> Result<Step> {
        let mut window = self.window_at(fd, cookie)?;
        let mut outcome = Step::Skipped;
        loop {
            while let Some(entry) = window.first() {
                match list(&entry) {
                    Ok(Step::Listed) => outcome = Step::Listed,
                    Ok(Step::Skipped) => {}
                    stop => {
                        self.keep(window);
                        return stop;
                    }
                }
                let (len, next) = (entry.len, entry.next);
                window.start = window.start.saturating_add(len);
                window.cookie = next;
            }
            // The guest asks until it gets nothing. A chunk far from full was likely the last one:
            // that question, which comes anyway, finds out.
            if outcome == Step::Listed && window.end < CHUNK / 2 {
                return Ok(outcome);
            }
            self.fill(fd, &mut window)?;
            if window.end == 0 {
                return Ok(outcome);
            }
        }
    }

    /// Reads the next entries; none at the end of the directory.
    fn fill(&mut self, fd: &OwnedFd, window: &mut Window) -> Result<()> {
        // Where the host fails, its position is not known. Nor is the start of a directory at the
        // end of one that has no entries at all.
        self.position = None;
        window.start = 0;
        window.end = sys::getdents64(fd.as_fd(), &mut window.chunk)?;
        self.position = match window.last_cookie() {
            None => Some(window.cookie).filter(|&cookie| cookie != 0),
            last => last,
        };
        Ok(())
    }

    /// The entries kept, if the first of them is the one wanted; else none, with the descriptor
    /// moved to where they will be read from.
    fn window_at(&mut self, fd: &OwnedFd, cookie: u64) -> Result<Window> {
        // From the start, a directory is listed as it is now, not as it was.
        let wanted = |kept: &Kept| kept.cookie == cookie && cookie != 0;
        if let Some(kept) = self.kept.take().filter(wanted) {
            return Ok(Window {
                cookie,
                chunk: kept.chunk,
                start: kept.start,
                end: kept.end,
            });
        }
        if self.position != Some(cookie) {
            self.position = None;
            rustix::fs::seek(fd, SeekFrom::Start(cookie))?;
            self.position = Some(cookie);
        }
        Ok(Window {
            cookie,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
        })
    }

    fn keep(&mut self, window: Window) {
        self.kept = self.budget.take().map(|permit| Kept {
            cookie: window.cookie,
            chunk: window.chunk,
            start: window.start,
            end: window.end,
            _permit: permit,
        });
    }
}

/// Entries read from the host, from one cookie on.
struct Window {
    cookie: u64,
    chunk: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    fn first(&self) -> Option<RawEntry<'_>> {
        RawEntry::parse(self.chunk.get(self.start..self.end)?)
    }

    fn last_cookie(&self) -> Option<u64> {
        let mut rest = self.chunk.get(..self.end)?;
        let mut last = None;
        while let Some(entry) = RawEntry::parse(rest) {
            last = Some(entry.next);
            rest = rest.get(entry.len..)?;
        }
        last
    }
}

/// An entry as getdents64(2) lays it out.
#[derive(Debug, Clone, Copy)]
struct RawEntry<'a> {
    ino: u64,
    /// The cookie of the entry after it.
    next: u64,
    /// `DT_*` of readdir(3).
    kind: u8,
    name: &'a [u8],
    /// Name with its NUL.
    terminated: &'a [u8],
    /// Bytes of the whole record.
    len: usize,
}

impl<'a> RawEntry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (ino, rest) = bytes.split_first_chunk()?;
        let (next, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let kind = *rest.first()?;
        let name = bytes.get(19..len)?;
        let name_len = name.iter().position(|&byte| byte == 0)?;
        let (terminated, _) = name.split_at_checked(name_len.checked_add(1)?)?;
        Some(Self {
            ino: u64::from_ne_bytes(*ino),
            next: u64::from_ne_bytes(*next),
            kind,
            name: name.get(..name_len)?,
            terminated,
            len,
        })
    }

    /// The name, unless it is `.` or `..`.
    fn checked_name(&self) -> Option<Name<'a>> {
        let name = std::ffi::CStr::from_bytes_with_nul(self.terminated).ok()?;
        Name::new(name).ok()
    }
}
