//! Several directories as one share, as the command line names them.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use fuse_fs::Access;

/// A directory under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Export {
    pub(super) name: CString,
    pub(super) directory: PathBuf,
    pub(super) access: Access,
}

impl Export {
    /// What `NAME=DIR`, `NAME=DIR:ro` or `NAME=DIR:rw` means; `None` where it has no name.
    pub(crate) fn parse_named(text: &OsString) -> Option<Self> {
        let bytes = text.as_bytes();
        let end = bytes.iter().position(|byte| b"=/".contains(byte))?;
        let (name, rest) = bytes.split_at(end);
        let path = rest.strip_prefix(b"=")?;
        let (path, access) = match path.strip_suffix(b":ro") {
            Some(path) => (path, Access::ReadOnly),
            None => (path.strip_suffix(b":rw").unwrap_or(path), Access::ReadWrite),
        };
        Some(Self {
            // A command line has no NUL in it.
            name: CString::new(name).ok()?,
            directory: OsString::from_vec(path.to_owned()).into(),
            access,
        })
    }

    /// As [`parse_named`](Self::parse_named).
    ///
    /// # Errors
    /// Says what is wanted.
    pub(crate) fn parse(text: OsString) -> Result<Self, &'static str> {
        Self::parse_named(&text).ok_or("wants NAME=DIR, or NAME=DIR:ro for one that is read-only")
    }

    /// The directory of the host.
    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_access_are_told_apart() {
        for (text, name, directory, access) in [
            ("a=/b", c"a", "/b", Access::ReadWrite),
            ("a=/b:ro", c"a", "/b", Access::ReadOnly),
            ("a=/b:ro:rw", c"a", "/b:ro", Access::ReadWrite),
            ("a=b=c", c"a", "b=c", Access::ReadWrite),
            ("=/b", c"", "/b", Access::ReadWrite),
        ] {
            let export = Export {
                name: name.to_owned(),
                directory: directory.into(),
                access,
            };
            assert_eq!(Export::parse(text.into()), Ok(export), "{text}");
        }
        for text in ["", "/srv", "./a=b", "/a=b"] {
            assert!(Export::parse(text.into()).is_err(), "{text}");
        }
    }
}
