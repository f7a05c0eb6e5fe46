use std::io;
use std::os::fd::BorrowedFd;

use fuse_fs::{IoFlags, PayloadSink, PayloadSource};
use vm_memory::GuestMemoryRegion;

use crate::segment::Cursor;
use crate::sys::Buffers;
use crate::write_log::Log;

/// The room in guest memory for the data of a reply.
pub(crate) struct GuestSink<'c, 'm, R> {
    free: Cursor<'c, 'm, R>,
    written: usize,
    log: Option<&'c Log>,
}

impl<'c, 'm, R: GuestMemoryRegion> GuestSink<'c, 'm, R> {
    pub(crate) const fn new(free: Cursor<'c, 'm, R>, log: Option<&'c Log>) -> Self {
        Self {
            free,
            written: 0,
            log,
        }
    }

    /// Bytes that were put there.
    pub(crate) const fn written(&self) -> usize {
        self.written
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
fn gather<'m, R: GuestMemoryRegion>(
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
