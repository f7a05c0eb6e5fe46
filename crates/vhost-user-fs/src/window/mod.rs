//! The DAX window, which is the front-end's: what is mapped there is known here and asked for there
//! (the vhost-user specification, `VHOST_USER_PROTOCOL_F_SHMEM`).

mod channel;
mod files;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::Mapping;
use rustix::io::Errno;

use channel::Channel;
use files::Files;

/// Most mappings at a time: Linux maps files in pieces of 2 MiB, of which so many make a window of
/// 16 GiB. It is half of what the front-end `virtio-fs-device` takes.
const MAX_MAPPINGS: usize = 8192;

/// A DAX window that front-ends which offer `SHMEM` have for the guest.
///
/// Given to a [`Session`](fuse_fs::Session) and to the [`Backend`](crate::Backend) that serves it, it
/// passes on what the guest asks of the one to the front-end of the other. It has a size while there
/// is a front-end that knows of it.
///
/// A guest may map over what is mapped, and remove a part of it; a front-end need not know how to do
/// either. So what is in the way is unmapped, and what is to stay of it is mapped again. In between,
/// nothing is there: a guest that has its memory in use at that moment finds that out from its VMM.
#[derive(Debug)]
pub struct DaxWindow {
    /// Bytes.
    size: u64,
    file_limit: usize,
    table: Mutex<Table>,
    /// That of the channel: it is shut down for whoever holds the table and waits to wait no more.
    socket: Mutex<Option<Arc<UnixStream>>>,
}

/// What is mapped, and who is asked for more.
#[derive(Debug, Default)]
struct Table {
    channel: Option<Channel>,
    /// By offset in the window; none overlaps another.
    mapped: BTreeMap<u64, Mapped>,
    files: Files,
    /// How many parts of mappings could not be mapped again.
    losses: u64,
}

/// A mapping, which a part of can be mapped anew.
#[derive(Debug, Clone)]
struct Mapped {
    len: u64,
    file: Arc<OwnedFd>,
    file_offset: u64,
    writable: bool,
}

/// There cannot be a window of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a DAX window has a number of whole pages of this host, not {0} bytes")]
pub struct DaxWindowError(u64);

impl DaxWindow {
    /// A window of `size` bytes, or the first part of it where a front-end has less.
    ///
    /// # Errors
    /// That is no number of whole pages, or none.
    pub fn new(size: u64) -> Result<Self, DaxWindowError> {
        if size == 0 || !size.is_multiple_of(rustix::param::page_size() as u64) {
            return Err(DaxWindowError(size));
        }
        Ok(Self {
            size,
            file_limit: MAX_MAPPINGS,
            table: Mutex::default(),
            socket: Mutex::new(None),
        })
    }

    /// This one with at most `files` open for what is mapped, each of which takes a descriptor of this
    /// process: to map a part of yet another is ENOMEM. One more is needed while one takes the place
    /// of another. Unless set, and at most, 8192, as many as there can be mappings.
    ///
    /// A guest can use them up in a window of any size: so leave enough to what else has files
    /// open. A Linux guest needs no more than the window has pieces of 2 MiB.
    #[must_use]
    pub fn limit_files(mut self, files: usize) -> Self {
        self.file_limit = files.min(MAX_MAPPINGS);
        self
    }

    /// Most files that are open for what is mapped.
    #[must_use]
    pub const fn file_limit(&self) -> usize {
        self.file_limit
    }

    /// How many mappings there are now: one of the guest's can have become several.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.table().mapped.len()
    }

    /// Bytes, whether there is a front-end or not.
    pub(crate) const fn offered(&self) -> u64 {
        self.size
    }

    /// From now on, the front-end at the other end of `socket` is asked.
    pub(crate) fn attach(&self, socket: UnixStream) {
        self.detach();
        let socket = Arc::new(socket);
        *self.socket() = Some(Arc::clone(&socket));
        self.table().channel = Some(Channel::new(socket));
    }

    /// The front-end is gone, and with it what was mapped.
    pub(crate) fn detach(&self) {
        if let Some(socket) = self.socket().take()
            && let Err(error) = socket.shutdown(std::net::Shutdown::Both)
        {
            tracing::debug!(%error, "the back-end channel is closed already");
        }
        *self.table() = Table::default();
    }

    /// It is held while a front-end is waited for: what is mapped is changed by one at a time.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fuse_fs::DaxWindow for DaxWindow {
    fn size(&self) -> u64 {
        match self.socket().is_some() {
            true => self.size,
            false => 0,
        }
    }

    fn map(&self, file: BorrowedFd<'_>, mapping: Mapping) -> io::Result<()> {
        self.table().map(file, mapping, self.file_limit)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.table().vacate(offset, offset.saturating_add(len))
    }

    fn clear(&self) {
        self.table().clear();
    }
}

impl Table {
    fn map(&mut self, file: BorrowedFd<'_>, mapping: Mapping, file_limit: usize) -> io::Result<()> {
        let Mapping {
            offset,
            len,
            file_offset,
            writable,
        } = mapping;
        // One more can come of a mapping in two.
        if self.mapped.len() >= MAX_MAPPINGS - 1 {
            return Err(Errno::NOMEM.into());
        }
        let file = self.files.share(file, writable, file_limit)?;
        self.vacate(offset, offset.saturating_add(len))?;
        let mapped = Mapped {
            len,
            file,
            file_offset,
            writable,
        };
        self.add(offset, mapped)
    }

    /// Has nothing mapped from `start` to `end`.
    fn vacate(&mut self, start: u64, end: u64) -> io::Result<()> {
        while let Some((&offset, mapped)) = self.mapped.range(..end).next_back()
            && offset.saturating_add(mapped.len) > start
        {
            let mapped = mapped.clone();
            let parts = mapped.around(offset, start, end);
            // The guest makes two of one as often as it likes.
            if parts.iter().all(Option::is_some) && self.mapped.len() >= MAX_MAPPINGS {
                return Err(Errno::NOMEM.into());
            }
            self.channel()?.unmap(offset, mapped.len)?;
            self.mapped.remove(&offset);
            self.files.tidy(self.mapped.len());
            for (offset, part) in parts.into_iter().flatten() {
                self.add(offset, part)
                    .inspect_err(|error| self.lost(offset, error))?;
            }
        }
        Ok(())
    }

    /// Logs ever more rarely that a part of a mapping could not be mapped again: where a front-end has
    /// room for few, a guest can have that as often as it likes.
    fn lost(&mut self, offset: u64, error: &io::Error) {
        self.losses = self.losses.saturating_add(1);
        if self.losses.is_power_of_two() {
            let count = self.losses;
            tracing::warn!(count, offset, %error, "a part of a mapping is lost");
        }
    }

    fn add(&mut self, offset: u64, mapped: Mapped) -> io::Result<()> {
        self.channel()?.map(offset, &mapped)?;
        self.mapped.insert(offset, mapped);
        Ok(())
    }

    /// Says that nothing is to be mapped, and waits for nobody: whoever forgot the mappings by
    /// itself, as at a reset, has nothing to do.
    fn clear(&mut self) {
        let mapped = std::mem::take(&mut self.mapped);
        self.files = Files::default();
        let Some(channel) = &mut self.channel else {
            return;
        };
        let ranges = mapped.iter().map(|(&offset, mapped)| (offset, mapped.len));
        if let Err(error) = channel.forget(ranges) {
            tracing::warn!(%error, "the front-end is not told what is no longer mapped");
        }
    }

    fn channel(&mut self) -> io::Result<&mut Channel> {
        self.channel.as_mut().ok_or(Errno::NOTCONN.into())
    }
}

impl Mapped {
    /// What is left of it, at `offset`, without what is from `start` to `end`: before and behind.
    fn around(&self, offset: u64, start: u64, end: u64) -> [Option<(u64, Self)>; 2] {
        let whole_end = offset.saturating_add(self.len);
        let part = |from: u64, to: u64| {
            let mapped = Self {
                len: to.saturating_sub(from),
                file_offset: self.file_offset.saturating_add(from.saturating_sub(offset)),
                ..self.clone()
            };
            (from < to).then_some((from, mapped))
        };
        [
            part(offset, start.min(whole_end)),
            part(end.max(offset), whole_end),
        ]
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
