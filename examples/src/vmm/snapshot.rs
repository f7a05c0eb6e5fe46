//! The file that a machine is saved in: a header, all that is not memory as JSON, and from the next
//! whole page on the memory, of which zeros take no room.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom as RawSeekFrom, ftruncate, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::machine::{Design, MachineState};

const MAGIC: [u8; 8] = *b"vmm-1\0\0\0";
/// Most bytes of JSON, so that a damaged file is not read for ever.
const MOST_JSON: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// What is saved beside the memory.
#[derive(Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) memory_size: u64,
    pub(super) design: Design,
    pub(super) machine: MachineState,
}

/// Why a machine cannot be saved, or not be restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot write the snapshot {0}: {1}")]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read the snapshot {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is no snapshot of this version of vmm: {1}")]
    Format(PathBuf, String),
}

/// A snapshot that was opened, and where its memory begins.
pub(super) struct Saved {
    path: PathBuf,
    file: File,
    memory: u64,
}

/// Writes `snapshot`, and the memory, to a new file at `path`.
pub(super) fn write(path: &Path, snapshot: &Snapshot, memory: &File) -> Result<(), Error> {
    let write = || {
        let json = serde_json::to_vec(snapshot)?;
        let mut file = File::create(path)?;
        file.write_all(&MAGIC)?;
        file.write_all(&(json.len() as u64).to_le_bytes())?;
        file.write_all(&json)?;
        let start = file.stream_position()?.next_multiple_of(PAGE);
        ftruncate(&file, start + snapshot.memory_size)?;
        copy_data(memory, 0, &file, start, snapshot.memory_size)?;
        file.sync_all()
    };
    write().map_err(|error| Error::Write(path.to_owned(), error))
}

impl Saved {
    /// Reads all but the memory.
    pub(super) fn open(path: &Path) -> Result<(Snapshot, Self), Error> {
        let failed = |error| Error::Read(path.to_owned(), error);
        let not = |why: &str| Error::Format(path.to_owned(), why.to_owned());
        let mut file = File::open(path).map_err(failed)?;
        let mut header = [[0; 8]; 2];
        file.read_exact(header.as_flattened_mut()).map_err(failed)?;
        let [magic, len] = header;
        let len = u64::from_le_bytes(len);
        if magic != MAGIC || len > MOST_JSON {
            return Err(not("it begins in another way"));
        }
        let mut json = Vec::new();
        (&file).take(len).read_to_end(&mut json).map_err(failed)?;
        let snapshot: Snapshot =
            serde_json::from_slice(&json).map_err(|error| not(&error.to_string()))?;
        let memory = file
            .stream_position()
            .map_err(failed)?
            .next_multiple_of(PAGE);
        let end = file.metadata().map_err(failed)?.len();
        if memory.checked_add(snapshot.memory_size) != Some(end) {
            return Err(not("it ends too early or too late"));
        }
        let path = path.to_owned();
        Ok((snapshot, Self { path, file, memory }))
    }

    /// Fills `memory`, of as many bytes as were saved and all zero.
    pub(super) fn read_memory(&self, memory: &File, size: u64) -> Result<(), Error> {
        copy_data(&self.file, self.memory, memory, 0, size)
            .map_err(|error| Error::Read(self.path.clone(), error))
    }
}

/// Copies `len` bytes between offsets of two files, but for what is a hole.
fn copy_data(mut from: &File, start: u64, mut to: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = start + len;
    let mut at = start;
    loop {
        let data = match seek(from, RawSeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        at = seek(from, RawSeekFrom::Hole(data))?.min(end);
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(offset + (data - start)))?;
        if io::copy(&mut from.take(at - data), &mut to)? != at - data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn copies_have_the_same_bytes_and_holes() {
        const LEN: u64 = 64 << 20;
        let [from, to] = [(), ()].map(|()| tempfile::tempfile().unwrap());
        from.set_len(LEN).unwrap();
        to.set_len(LEN + PAGE).unwrap();
        let places = [0, 5 * PAGE, 40 << 20, LEN - PAGE];
        for place in places {
            from.write_all_at(&[place as u8 | 1; 4096], place).unwrap();
        }
        copy_data(&from, 0, &to, PAGE, LEN).unwrap();
        let [mut expected, mut copied] = [vec![0; LEN as usize], vec![0; LEN as usize]];
        from.read_exact_at(&mut expected, 0).unwrap();
        to.read_exact_at(&mut copied, PAGE).unwrap();
        assert!(expected == copied);
        assert!(to.metadata().unwrap().blocks() * 512 < LEN / 2);
    }

    #[test]
    fn other_files_are_no_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let error = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Saved::open(&path).err().expect("an error").to_string()
        };
        assert!(error(b"").contains("cannot read"));
        assert!(error(&[b'x'; 64]).contains("no snapshot"));
        let endless = [&MAGIC[..], &u64::MAX.to_le_bytes()].concat();
        assert!(error(&endless).contains("no snapshot"));
        let not_json = [&MAGIC[..], &4_u64.to_le_bytes(), b"{x}}"].concat();
        assert!(error(&not_json).contains("no snapshot"));
        assert!(error(b"").contains(path.to_str().unwrap()));
    }
}
