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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::ErrorKind;

    use fuse_backend_rs::file_buf::FileVolatileSlice;
    use fuse_fs::{BufferSink, BufferSource};

    use super::*;

    /// A file that moves as much as it is told to by each call, and remembers what it was asked.
    struct Scripted {
        answers: VecDeque<io::Result<usize>>,
        asked: Vec<(usize, u64)>,
    }

    impl Scripted {
        fn new(answers: impl IntoIterator<Item = io::Result<usize>>) -> Self {
            Self {
                answers: answers.into_iter().collect(),
                asked: Vec::new(),
            }
        }

        fn answer(&mut self, len: usize, offset: u64) -> io::Result<usize> {
            self.asked.push((len, offset));
            self.answers.pop_front().unwrap_or(Ok(0))
        }
    }

    impl FileReadWriteVolatile for Scripted {
        fn read_volatile(&mut self, _: FileVolatileSlice<'_>) -> io::Result<usize> {
            unreachable!("it has no position")
        }

        fn write_volatile(&mut self, _: FileVolatileSlice<'_>) -> io::Result<usize> {
            unreachable!("it has no position")
        }

        fn read_at_volatile(
            &mut self,
            slice: FileVolatileSlice<'_>,
            offset: u64,
        ) -> io::Result<usize> {
            self.answer(slice.len(), offset)
        }

        fn write_at_volatile(
            &mut self,
            slice: FileVolatileSlice<'_>,
            offset: u64,
        ) -> io::Result<usize> {
            self.answer(slice.len(), offset)
        }
    }

    const MIB: usize = 1 << 20;

    fn kind(result: io::Result<usize>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    fn error(kind: ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    #[test]
    fn a_read_goes_on_until_the_end_of_the_file() {
        let mut room = vec![0; 3 * MIB];
        let mut sink = BufferSink::new(&mut room);
        let mut writer = Writer::new(&mut sink, 3 * MIB - 5);
        let interrupted = error(ErrorKind::Interrupted);
        let mut file = Scripted::new([Ok(MIB), interrupted, Ok(MIB), Ok(10)]);
        assert_eq!(
            writer.write_from(&mut file, usize::MAX, 100).unwrap(),
            2 * MIB + 10
        );
        let rest = MIB - 15;
        assert_eq!(writer.available_bytes(), rest);
        let (mib, offset) = (MIB as u64, 100);
        let second = (MIB, offset + mib);
        let third = (MIB - 5, offset + 2 * mib);
        assert_eq!(file.asked, [(MIB, offset), second, second, third]);
        // At the end.
        assert_eq!(writer.write_from(&mut file, 7, 0).unwrap(), 0);
        assert_eq!(file.asked.last(), Some(&(7, 0)));
    }

    #[test]
    fn an_error_counts_where_nothing_was_moved() {
        let denied = || error(ErrorKind::PermissionDenied);
        let mut room = vec![0; 2 * MIB];
        let mut sink = BufferSink::new(&mut room);
        let mut writer = Writer::new(&mut sink, 2 * MIB);
        let mut file = Scripted::new([denied(), Ok(MIB), denied()]);
        let read = writer.write_from(&mut file, 2 * MIB, 0);
        assert_eq!(kind(read), ErrorKind::PermissionDenied);
        assert_eq!(writer.write_from(&mut file, 2 * MIB, 0).unwrap(), MIB);
    }

    #[test]
    fn a_file_that_moves_more_than_there_is_room_for_is_not_believed() {
        let mut room = [0; 10];
        let mut sink = BufferSink::new(&mut room);
        let mut file = Scripted::new([Ok(11)]);
        let read = Writer::new(&mut sink, 10).write_from(&mut file, 10, 0);
        assert_eq!(kind(read), ErrorKind::InvalidData);
        assert_eq!(sink.remaining(), 10);

        let mut source = BufferSource::new(b"data");
        let mut file = Scripted::new([Ok(5)]);
        let written = Reader::new(&mut source).read_to(&mut file, 4, 0);
        assert_eq!(kind(written), ErrorKind::InvalidData);
    }

    #[test]
    fn a_short_write_loses_nothing() {
        let data = b"0123456789";
        let mut source = BufferSource::new(data);
        let mut reader = Reader::new(&mut source);
        let full = error(ErrorKind::StorageFull);
        let mut file = Scripted::new([Ok(3), full, error(ErrorKind::StorageFull), Ok(2), Ok(0)]);
        assert_eq!(reader.read_to(&mut file, 10, 50).unwrap(), 3);
        assert_eq!(file.asked, [(10, 50), (7, 53)]);
        // Nothing of what the file did not take is gone.
        assert_eq!(
            kind(reader.read_to(&mut file, 10, 53)),
            ErrorKind::StorageFull
        );
        assert_eq!(reader.read_to(&mut file, 2, 53).unwrap(), 2);
        assert_eq!(kind(reader.read_to(&mut file, 4, 55)), ErrorKind::WriteZero);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, data[5..]);
        assert_eq!(reader.read_to(&mut file, 4, 55).unwrap(), 0);
    }

    #[test]
    fn a_write_of_the_largest_size_is_one_call() {
        let data = vec![1; MIB];
        let mut source = BufferSource::new(&data);
        let mut file = Scripted::new([Ok(MIB)]);
        let mut reader = Reader::new(&mut source);
        assert_eq!(reader.read_to(&mut file, MIB, 0).unwrap(), MIB);
        assert_eq!(file.asked, [(MIB, 0)]);
    }
}
