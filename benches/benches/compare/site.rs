//! The directory that the work is done on: the same contents for everybody.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file that is read and written, over and over: larger than the caches of most processors.
pub(crate) const DATA: &str = "data";
/// Bytes of [`DATA`].
pub(crate) const DATA_LEN: u64 = 64 << 20;
/// Bytes of [`DATA`] that the rows use whose data stays in the caches.
pub(crate) const WARM_LEN: u64 = 8 << 20;
/// A small file, with an extended attribute.
pub(crate) const PLAIN: &str = "plain";
/// A file to copy to.
pub(crate) const COPY: &str = "copy";
/// A directory of [`LISTED_LEN`] files.
pub(crate) const LISTED: &str = "listed";
/// Files in [`LISTED`].
pub(crate) const LISTED_LEN: usize = 100;
/// A directory of [`LARGE_LEN`] files.
pub(crate) const LARGE: &str = "large";
/// Files in [`LARGE`].
pub(crate) const LARGE_LEN: usize = 10_000;
/// A tree of [`TREE_DIRECTORIES`] directories of [`TREE_FILES`] files each.
pub(crate) const TREE: &str = "tree";
/// Directories in [`TREE`].
pub(crate) const TREE_DIRECTORIES: usize = 12;
/// Files in each of them.
pub(crate) const TREE_FILES: usize = 25;
/// A directory in which new names are made.
pub(crate) const WORK: &str = "work";

/// Makes all of that in `shared`; the large directory and the tree only where `metadata` is set.
pub(crate) fn populate(shared: &Path, metadata: bool) -> io::Result<()> {
    fs::create_dir_all(shared.join(WORK))?;
    fill(&shared.join(LISTED), LISTED_LEN)?;
    if metadata {
        fill(&shared.join(LARGE), LARGE_LEN)?;
        for n in 0..TREE_DIRECTORIES {
            fill(
                &shared.join(TREE).join(format!("directory-{n:02}")),
                TREE_FILES,
            )?;
        }
    }
    fs::write(shared.join(PLAIN), b"plain")?;
    fs::write(shared.join(COPY), b"")?;
    // Written, not only sized: what has no pages in the tmpfs is read from a page of zeros.
    fs::write(shared.join(DATA), vec![1; DATA_LEN as usize])
}

fn fill(directory: &Path, files: usize) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for n in 0..files {
        fs::write(directory.join(format!("file-{n:05}")), b"x")?;
    }
    Ok(())
}

/// Directories that an archive holds.
pub(crate) const UNTAR_DIRECTORIES: usize = 4;
/// Files in each of them.
pub(crate) const UNTAR_FILES: usize = 8;

pub(crate) fn untar_directory(n: usize) -> String {
    format!("untar-{n}")
}

pub(crate) fn untar_file(n: usize) -> String {
    format!("file-{n}")
}

/// Makes the files that operations of so many names expect, in the directory `work`.
pub(crate) fn make_files(work: &Path, names: &[[CString; 2]]) -> io::Result<()> {
    for [name, _] in names {
        fs::write(work.join(OsStr::from_bytes(name.as_bytes())), b"")?;
    }
    Ok(())
}

/// Removes what operations left behind in the directory `work`.
pub(crate) fn clear(work: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
