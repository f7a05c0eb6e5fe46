use std::io;
use std::os::fd::BorrowedFd;

use fuse_fs::{IoFlags, PayloadSink, PayloadSource};
use vm_memory::GuestMemoryRegion;

use crate::segment::Cursor;
use crate::split::{Readers, Split};
use crate::sys::Buffers;
use crate::write_log::Log;

/// The room in guest memory for the data of a reply.
pub(crate) struct GuestSink<'c, 'm, R> {
    free: Cursor<'c, 'm, R>,
    written: usize,
    log: Option<&'c Log>,
    /// Where others may read along.
    readers: Option<Readers<'c>>,
}

impl<'c, 'm, R: GuestMemoryRegion> GuestSink<'c, 'm, R> {
    pub(crate) const fn new(
        free: Cursor<'c, 'm, R>,
        log: Option<&'c Log>,
        readers: Option<Readers<'c>>,
    ) -> Self {
        Self {
            free,
            written: 0,
            log,
            readers,
        }
    }

    /// Bytes that were put there.
    pub(crate) const fn written(&self) -> usize {
        self.written
    }

    /// Takes over what several threads have read.
    fn finish(&mut self, split: &Split) -> io::Result<usize> {
        for part in split.written() {
            let mut free = self.free;
            free.advance(part.start);
            free.advance_written(part.len(), self.log);
        }
        let read = split.result()?;
        self.free.advance(read);
        self.written = self.written.saturating_add(read);
        Ok(read)
    }
}

impl<R: GuestMemoryRegion> PayloadSink for GuestSink<'_, '_, R> {
    fn remaining(&self) -> usize {
        self.free.remaining()
    }

    fn write(&mut self, data: &[u8]) -> usize {
        let len = self.free.write(data, self.log);
        self.written = self.written.saturating_add(len);
        len
    }

    fn write_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize> {
        if let Some(readers) = self.readers
            && let Some(split) = readers.read(&self.free, file, (offset, len), flags)
        {
            return self.finish(&split?);
        }
        let mut buffers = Buffers::new();
        gather(&mut buffers, &self.free, len)?;
        let read = buffers.fill_from(file, offset, flags)?;
        self.free.advance_written(read, self.log);
        self.written = self.written.saturating_add(read);
        Ok(read)
    }
}

/// The data of a request, in guest memory.
#[derive(Debug)]
pub(crate) struct GuestSource<'c, 'm, R> {
    left: Cursor<'c, 'm, R>,
}

impl<'c, 'm, R: GuestMemoryRegion> GuestSource<'c, 'm, R> {
    pub(crate) const fn new(left: Cursor<'c, 'm, R>) -> Self {
        Self { left }
    }
}

impl<R: GuestMemoryRegion> PayloadSource for GuestSource<'_, '_, R> {
    fn remaining(&self) -> usize {
        self.left.remaining()
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.left.read(buffer)
    }

    fn read_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: IoFlags,
    ) -> io::Result<usize> {
        let mut buffers = Buffers::new();
        gather(&mut buffers, &self.left, len)?;
        let written = buffers.write_to(file, offset, flags)?;
        self.left.advance(written);
        Ok(written)
    }
}

/// Appends the next `len` bytes to `buffers`, as the system calls take them.
pub(crate) fn gather<'m, R: GuestMemoryRegion>(
    buffers: &mut Buffers<'m>,
    cursor: &Cursor<'_, 'm, R>,
    len: usize,
) -> io::Result<()> {
    for piece in cursor.pieces(len) {
        let slice = piece
            .slice()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        if buffers.push(&slice).is_none() {
            break;
        }
    }
    Ok(())
}
