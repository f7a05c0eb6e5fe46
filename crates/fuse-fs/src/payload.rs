use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::io::ReadWriteFlags;

bitflags::bitflags! {
    /// How a transfer between a payload and a file is done (preadv2(2), pwritev2(2)).
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct IoFlags: u32 {
        /// Fail with EAGAIN instead of waiting for storage (`RWF_NOWAIT`). A transfer may end
        /// early where it would have to wait. EOPNOTSUPP where the filesystem cannot tell.
        const NOWAIT = 1 << 0;
        /// Write at the end of the file, whatever the offset (`RWF_APPEND`).
        const APPEND = 1 << 1;
        /// Return when the data is on stable storage (`RWF_DSYNC`).
        const DSYNC = 1 << 2;
        /// Return when the data and all that is known of the file is (`RWF_SYNC`).
        const SYNC = 1 << 3;
    }
}

/// Where the data of a READ goes: the free part of the guest's buffer, in order.
///
/// The transport implements this; a filesystem only calls it.
pub trait PayloadSink {
    /// Bytes that still fit.
    fn remaining(&self) -> usize;

    /// Appends `data`, as much of it as fits, and returns how many bytes that was.
    fn write(&mut self, data: &[u8]) -> usize;

    /// Appends up to `len` bytes read from `file` at `offset`, without a copy, and returns how many
    /// bytes that was: 0 at the end of the file. That is one system call, or several at once, each
    /// for a part. What is behind the bytes that count may be written to, too.
    ///
    /// # Errors
    /// As preadv2(2).
    fn write_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize>;
}

/// Where the data of a WRITE comes from, in order.
///
/// The transport implements this; a filesystem only calls it.
pub trait PayloadSource {
    /// Bytes that are left.
    fn remaining(&self) -> usize;

    /// Takes as many bytes as fill `buffer` or are left, and returns how many that was.
    fn read(&mut self, buffer: &mut [u8]) -> usize;

    /// Takes up to `len` bytes and writes them to `file` at `offset`, without a copy, in one
    /// system call, and returns how many bytes that was.
    ///
    /// # Errors
    /// As pwritev2(2). Nothing is taken then.
    fn read_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize>;
}

/// A sink over ordinary memory.
#[derive(Debug)]
pub struct BufferSink<'a> {
    free: &'a mut [u8],
}

impl<'a> BufferSink<'a> {
    /// Fills `buffer` from its front.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { free: buffer }
    }

    /// The next `len` free bytes, or as many as there are.
    fn front(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.free.len());
        self.free.get_mut(..len).unwrap_or_default()
    }

    fn advance(&mut self, len: usize) {
        let free = std::mem::take(&mut self.free);
        self.free = free.get_mut(len..).unwrap_or_default();
    }
}

impl PayloadSink for BufferSink<'_> {
    fn remaining(&self) -> usize {
        self.free.len()
    }

    fn write(&mut self, data: &[u8]) -> usize {
        let free = self.front(data.len());
        let len = free.len();
        free.copy_from_slice(data.get(..len).unwrap_or_default());
        self.advance(len);
        len
    }

    fn write_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize> {
        let mut buffers = [IoSliceMut::new(self.front(len))];
        let read = rustix::io::preadv2(file, &mut buffers, offset, flags.into())?;
        self.advance(read);
        Ok(read)
    }
}

/// A source over ordinary memory.
#[derive(Debug)]
pub struct BufferSource<'a> {
    left: &'a [u8],
}

impl<'a> BufferSource<'a> {
    /// Takes from the front of `data`.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { left: data }
    }
}

impl PayloadSource for BufferSource<'_> {
    fn remaining(&self) -> usize {
        self.left.len()
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let len = buffer.len().min(self.left.len());
        let (now, later) = self.left.split_at(len);
        let (front, _) = buffer.split_at_mut(len);
        front.copy_from_slice(now);
        self.left = later;
        len
    }

    fn read_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize> {
        let (now, _) = self.left.split_at(len.min(self.left.len()));
        let written = rustix::io::pwritev2(file, &[IoSlice::new(now)], offset, flags.into())?;
        self.left = self.left.get(written..).unwrap_or_default();
        Ok(written)
    }
}

impl From<IoFlags> for ReadWriteFlags {
    fn from(flags: IoFlags) -> Self {
        let mut out = Self::empty();
        out.set(Self::NOWAIT, flags.contains(IoFlags::NOWAIT));
        out.set(Self::APPEND, flags.contains(IoFlags::APPEND));
        out.set(Self::DSYNC, flags.contains(IoFlags::DSYNC));
        out.set(Self::SYNC, flags.contains(IoFlags::SYNC));
        out
    }
}
