//! A state as a sequence of records, each as compact as its values: postcard's format, which is
//! fixed and written down (<https://postcard.jamesmunns.com>).

use std::cell::Cell;
use std::io;

use serde::{Deserialize, Serialize};

/// What a state is of, and in which form. It comes first, so that what another program wrote, or a
/// later version of this, is refused for that and not for some byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateForm {
    /// What it is of, in letters that a person can read.
    pub of: [u8; 8],
    /// Differs wherever the records do.
    pub version: u32,
}

impl StateForm {
    fn to_bytes(self) -> [[u8; 4]; 3] {
        let [first, second]: [[u8; 4]; 2] = zerocopy::transmute!(self.of);
        [first, second, self.version.to_le_bytes()]
    }

    fn from_bytes([first, second, version]: [[u8; 4]; 3]) -> Self {
        Self {
            of: zerocopy::transmute!([first, second]),
            version: u32::from_le_bytes(version),
        }
    }
}

/// Writes a state, record by record.
pub struct StateWriter<'w> {
    to: &'w mut dyn io::Write,
}

impl<'w> StateWriter<'w> {
    /// Begins a state of this form. Records are written in small pieces, for which `to` should have
    /// a buffer.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn new(to: &'w mut dyn io::Write, form: StateForm) -> io::Result<Self> {
        to.write_all(form.to_bytes().as_flattened())?;
        Ok(Self { to })
    }

    /// Writes a record. What is read as bytes is no longer than [`StateReader::MAX_BYTES`].
    ///
    /// # Errors
    /// Those of `to`.
    pub fn put<T: Serialize + ?Sized>(&mut self, record: &T) -> io::Result<()> {
        let cause = Cell::new(None);
        let to = Noting {
            stream: &mut *self.to,
            cause: &cause,
        };
        let put = postcard::to_io(record, to).map(|_| ());
        put.map_err(|error| cause.take().unwrap_or_else(|| io::Error::other(error)))
    }

    /// Where the state is written, for what has a form of its own and comes next.
    pub fn get_mut(&mut self) -> &mut dyn io::Write {
        self.to
    }
}

/// Reads a state, record by record. What it holds is not to be trusted.
pub struct StateReader<'r> {
    from: &'r mut dyn io::Read,
    /// What records borrow.
    scratch: Box<[u8]>,
    /// What `from` said last, if it failed.
    cause: Cell<Option<io::Error>>,
}

impl<'r> StateReader<'r> {
    /// Most bytes that one record can hold as strings, all in all.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Begins with a state that must be of this form. It is read in small pieces, for which `from`
    /// should have a buffer.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where it is of another form; those of `from`.
    pub fn new(from: &'r mut dyn io::Read, form: StateForm) -> io::Result<Self> {
        let mut bytes = [[0; 4]; 3];
        from.read_exact(bytes.as_flattened_mut())?;
        let found = StateForm::from_bytes(bytes);
        if found.of != form.of {
            let wanted = String::from_utf8_lossy(&form.of);
            return Err(invalid(format_args!("it is not a state of {wanted:?}")));
        }
        if found.version != form.version {
            return Err(invalid(format_args!(
                "it is of version {}, and only {} is known here; use the same version of this \
                 program on both sides",
                found.version, form.version
            )));
        }
        Ok(Self {
            from,
            scratch: vec![0; Self::MAX_BYTES].into_boxed_slice(),
            cause: Cell::new(None),
        })
    }

    /// Reads the next record. A type that owns no memory cannot be made to take any.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where there is something else;
    /// [`io::ErrorKind::UnexpectedEof`] where there is no more; those of the reader.
    pub fn take<'s, T: Deserialize<'s>>(&'s mut self) -> io::Result<T> {
        let from = Noting {
            stream: &mut *self.from,
            cause: &self.cause,
        };
        let taken = postcard::from_io((from, &mut *self.scratch)).map(|(record, _)| record);
        taken.map_err(|error| {
            let not_a_record = || invalid(format_args!("there is no record: {error}"));
            self.cause.take().unwrap_or_else(not_a_record)
        })
    }

    /// Where the state is read, for what has a form of its own and comes next.
    pub fn get_mut(&mut self) -> &mut dyn io::Read {
        self.from
    }

    /// Makes sure that nothing is left.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where something is; those of the reader.
    pub fn finish(self) -> io::Result<()> {
        match self.from.read_exact(&mut [0]) {
            Ok(()) => Err(invalid(format_args!("it goes on where it should end"))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn invalid(reason: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// Keeps the error of a stream, of which postcard only tells that there was one.
struct Noting<'c, T> {
    stream: T,
    cause: &'c Cell<Option<io::Error>>,
}

impl<T> Noting<'_, T> {
    fn note(&self, result: io::Result<()>) -> io::Result<()> {
        result.map_err(|error| {
            let kind = error.kind();
            self.cause.set(Some(error));
            kind.into()
        })
    }
}

impl<T: io::Write> io::Write for Noting<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All at once, as an interruption is no error to note.
        let written = self.stream.write_all(bytes);
        self.note(written)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: io::Read> io::Read for Noting<'_, T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read_exact(bytes);
        self.note(read)?;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: StateForm = StateForm {
        of: *b"an egg!!",
        version: 3,
    };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Record<'a> {
        Number(u64),
        Text(&'a [u8]),
    }

    fn written(records: &[Record<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = StateWriter::new(&mut bytes, FORM).unwrap();
        records
            .iter()
            .for_each(|record| writer.put(record).unwrap());
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let text = [7; StateReader::MAX_BYTES];
        let bytes = written(&[Record::Number(300), Record::Text(&text), Record::Text(b"")]);
        assert_eq!(bytes[..15], *b"an egg!!\x03\0\0\0\x00\xac\x02");
        let mut from = &*bytes;
        let mut reader = StateReader::new(&mut from, FORM).unwrap();
        assert_eq!(reader.take::<Record<'_>>().unwrap(), Record::Number(300));
        assert_eq!(reader.take::<Record<'_>>().unwrap(), Record::Text(&text));
        assert_eq!(reader.take::<Record<'_>>().unwrap(), Record::Text(b""));
        reader.finish().unwrap();
    }

    #[test]
    fn what_is_of_another_form_is_refused() {
        let refused = |of, version| {
            let mut from = &*written(&[]);
            let form = StateForm { of, version };
            StateReader::new(&mut from, form).map(drop).unwrap_err()
        };
        let error = refused(*b"a nest!!", 3);
        assert_eq!(error.to_string(), "it is not a state of \"a nest!!\"");
        assert!(
            refused(FORM.of, 4)
                .to_string()
                .contains("of version 3, and only 4")
        );
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let bytes = written(&[Record::Text(b"ninety"), Record::Number(u64::MAX)]);
        for len in 0..bytes.len() {
            let mut from = &bytes[..len];
            let mut read = || {
                let mut reader = StateReader::new(&mut from, FORM)?;
                reader.take::<Record<'_>>()?;
                reader.take::<Record<'_>>().map(drop)
            };
            assert_eq!(read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        let longer = [bytes, vec![0]].concat();
        let mut from = &*longer;
        let mut reader = StateReader::new(&mut from, FORM).unwrap();
        reader.take::<Record<'_>>().unwrap();
        reader.take::<Record<'_>>().unwrap();
        let error = reader.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_length_takes_no_memory() {
        for hostile in [
            &b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x01\x81\x40",
            b"\x02",
        ] {
            let bytes = [&written(&[]), hostile].concat();
            let mut from = &*bytes;
            let mut reader = StateReader::new(&mut from, FORM).unwrap();
            let error = reader.take::<Record<'_>>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }

    #[test]
    fn the_error_of_the_stream_is_told() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match bytes.len() {
                    4.. => Ok(bytes.len()),
                    _ => Err(io::Error::from_raw_os_error(28)),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut broken = Broken;
        let mut writer = StateWriter::new(&mut broken, FORM).unwrap();
        let error = writer.put(&Record::Number(1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
    }
}
