//! The file that a machine is saved in: its memory, of which zeros take no room; all else as JSON; and
//! at the end how much memory there is.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{SeekFrom as RawSeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::machine::{Design, MachineState};

const MAGIC: [u8; 8] = *b"vmm-2\0\0\0";
/// Most bytes of JSON, so that a damaged file is not read for ever.
const MOST_JSON: u64 = 1 << 30;

/// What is saved beside the memory.
#[derive(Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) design: Design,
    pub(super) machine: MachineState,
}

/// Writes `snapshot`, and the memory, to a new file at `path`.
pub(super) fn write(path: &Path, snapshot: &Snapshot, memory: &File) -> Result<()> {
    let write = || {
        let len = snapshot.design.memory_size;
        let mut file = File::create(path)?;
        file.set_len(len)?;
        copy_data(memory, &file, len)?;
        file.seek(SeekFrom::Start(len))?;
        file.write_all(&serde_json::to_vec(snapshot)?)?;
        file.write_all([len.to_le_bytes(), MAGIC].as_flattened())?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write the snapshot {}", path.display()))
}

/// Opens what was written, of which all but the memory is read.
pub(super) fn open(path: &Path) -> Result<(Snapshot, File)> {
    let open = || {
        let mut file = File::open(path)?;
        let mut end = [[0; 8]; 2];
        let json_end = file.seek(SeekFrom::End(-(size_of_val(&end) as i64)))?;
        file.read_exact(end.as_flattened_mut())?;
        let [len, magic] = end;
        let len = u64::from_le_bytes(len);
        let json_len = json_end.checked_sub(len).filter(|len| *len <= MOST_JSON);
        let json_len = json_len.filter(|_| magic == MAGIC);
        let json_len = json_len.context("it is none of this version of vmm")?;
        file.seek(SeekFrom::Start(len))?;
        let mut json = Vec::new();
        (&file).take(json_len).read_to_end(&mut json)?;
        let snapshot: Snapshot = serde_json::from_slice(&json)?;
        ensure!(snapshot.design.memory_size == len, "it is damaged");
        Ok((snapshot, file))
    };
    open().with_context(|| format!("cannot read the snapshot {}", path.display()))
}

/// Copies the first `len` bytes of a file, but for what is a hole.
pub(super) fn copy_data(mut from: &File, mut to: &File, len: u64) -> io::Result<()> {
    let mut at = 0;
    loop {
        let data = match seek(from, RawSeekFrom::Data(at)) {
            Ok(data) if data < len => data,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        at = seek(from, RawSeekFrom::Hole(data))?.min(len);
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
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
        const PAGE: u64 = 4096;
        let [from, to] = [(), ()].map(|()| tempfile::tempfile().unwrap());
        from.set_len(LEN).unwrap();
        to.set_len(LEN).unwrap();
        let places = [0, 5 * PAGE, 40 << 20, LEN - PAGE];
        for place in places {
            from.write_all_at(&[place as u8 | 1; 4096], place).unwrap();
        }
        copy_data(&from, &to, LEN).unwrap();
        let [mut expected, mut copied] = [vec![0; LEN as usize], vec![0; LEN as usize]];
        from.read_exact_at(&mut expected, 0).unwrap();
        to.read_exact_at(&mut copied, 0).unwrap();
        assert!(expected == copied);
        assert!(to.metadata().unwrap().blocks() * 512 < LEN / 2);
    }

    #[test]
    fn other_files_are_no_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let error = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            format!("{:#}", open(&path).err().expect("an error"))
        };
        let none = "none of this version";
        assert!(error(b"").contains("cannot read the snapshot"));
        assert!(error(b"").contains(path.to_str().unwrap()));
        assert!(error(&[b'x'; 64]).contains(none));
        assert!(error(&[&u64::MAX.to_le_bytes()[..], &MAGIC].concat()).contains(none));
        assert!(error(&[b"{x}}", &0_u64.to_le_bytes()[..], &MAGIC].concat()).contains("column"));
    }
}
