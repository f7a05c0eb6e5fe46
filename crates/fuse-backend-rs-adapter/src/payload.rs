//! READ and WRITE: what fuse-backend-rs calls zero copy, over our payloads.
//!
//! The file behind a [`FileReadWriteVolatile`] cannot be had, nor is the guest's memory ours to
//! hand out: what is between the two is copied once.

use std::io::{self, Read, Write};

use fuse_backend_rs::api::filesystem::{ZeroCopyReader, ZeroCopyWriter};
use fuse_backend_rs::file_traits::FileReadWriteVolatile;
use fuse_fs::{PayloadSink, PayloadSource};

use crate::bounce::Bounce;
use crate::sys::volatile;

/// Where a filesystem puts the data of a READ.
pub(crate) struct Writer<'a> {
    sink: &'a mut dyn PayloadSink,
    /// Bytes that may still be written.
    left: usize,
}

impl<'a> Writer<'a> {
    /// Lets up to `size` bytes through to `sink`.
    pub(crate) fn new(sink: &'a mut dyn PayloadSink, size: usize) -> Self {
        let left = size.min(sink.remaining());
        Self { sink, left }
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = data.get(..self.left).unwrap_or(data);
        let written = self.sink.write(data);
        self.left = self.left.saturating_sub(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ZeroCopyWriter for Writer<'_> {
    fn write_from(
        &mut self,
        file: &mut dyn FileReadWriteVolatile,
        count: usize,
        offset: u64,
    ) -> io::Result<usize> {
        let mut bounce = Bounce::take();
        transfer(count.min(self.left), offset, |len, offset| {
            let buffer = bounce.front(len)?;
            let len = buffer.len();
            let read = file.read_at_volatile(volatile(buffer), offset)?;
            let data = buffer.get(..read).ok_or_else(too_much)?;
            let written = self.write(data)?;
            Ok((written, written == len))
        })
    }

    fn available_bytes(&self) -> usize {
        self.left
    }
}

/// Where a filesystem gets the data of a WRITE from.
pub(crate) struct Reader<'a> {
    source: &'a mut dyn PayloadSource,
    bounce: Bounce,
    /// What was taken from the source and is still in the buffer: from where to where.
    start: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a mut dyn PayloadSource) -> Self {
        Self {
            source,
            bounce: Bounce::take(),
            start: 0,
            end: 0,
        }
    }

    /// Up to `len` bytes that come next; none where none are left.
    fn peek(&mut self, len: usize) -> io::Result<&mut [u8]> {
        if self.start >= self.end {
            let buffer = self.bounce.front(len.min(self.source.remaining()))?;
            self.start = 0;
            self.end = self.source.read(buffer);
        }
        let end = self.end.min(self.start.saturating_add(len));
        let buffer = self.bounce.front(end)?;
        Ok(buffer.get_mut(self.start..).unwrap_or_default())
    }

    /// What was peeked at is used up.
    fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len);
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.peek(buffer.len())?;
        let len = data.len();
        if let Some(buffer) = buffer.get_mut(..len) {
            buffer.copy_from_slice(data);
        }
        self.consume(len);
        Ok(len)
    }
}

impl ZeroCopyReader for Reader<'_> {
    fn read_to(
        &mut self,
        file: &mut dyn FileReadWriteVolatile,
        count: usize,
        offset: u64,
    ) -> io::Result<usize> {
        transfer(count, offset, |len, offset| {
            let data = self.peek(len)?;
            let len = data.len();
            if len == 0 {
                return Ok((0, false));
            }
            match file.write_at_volatile(volatile(data), offset)? {
                0 => Err(io::ErrorKind::WriteZero.into()),
                written if written > len => Err(too_much()),
                written => {
                    self.consume(written);
                    Ok((written, true))
                }
            }
        })
    }
}

/// Moves up to `count` bytes piece by piece: `piece` is told how many are left and where they go,
/// and tells how many it moved and whether there may be more. An error counts only where nothing
/// was moved before it, as with preadv(2) and pwritev(2).
fn transfer(
    count: usize,
    mut offset: u64,
    mut piece: impl FnMut(usize, u64) -> io::Result<(usize, bool)>,
) -> io::Result<usize> {
    let mut moved: usize = 0;
    loop {
        let left = count.saturating_sub(moved);
        if left == 0 {
            return Ok(moved);
        }
        match piece(left, offset) {
            Ok((len, more)) => {
                moved = moved.saturating_add(len);
                offset = offset.saturating_add(len as u64);
                if !more {
                    return Ok(moved);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if moved == 0 => return Err(error),
            Err(_) => return Ok(moved),
        }
    }
}

/// The file says that it moved more than it was given room for.
fn too_much() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
