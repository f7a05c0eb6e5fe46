//! What is mounted, as it is named on the command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use fuse_fs::MemFs;

use crate::filesystem::Export;
use crate::size;

/// What names a filesystem in memory, before its size.
const MEMORY: &str = "memory:";

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A directory of the host.
    Directory(PathBuf),
    /// One of several directories, under a name.
    Export(Export),
    /// A filesystem in memory.
    Memory {
        /// Bytes that it holds at most.
        limit: u64,
    },
}

impl Source {
    /// What `text` names.
    ///
    /// # Errors
    /// Says what is wrong with the size.
    pub(super) fn parse(text: OsString) -> Result<Self, String> {
        let Some(size) = text.to_str().and_then(|text| text.strip_prefix(MEMORY)) else {
            return Ok(match Export::parse_named(&text) {
                Some(export) => Self::Export(export),
                None => Self::Directory(text.into()),
            });
        };
        let limit = match size {
            "" => MemFs::DEFAULT_LIMIT,
            text => size::bytes(text).ok_or_else(|| {
                format!("{text:?} is not a size: wants a number of bytes, or one with K, M or G")
            })?,
        };
        Ok(Self::Memory { limit })
    }

    /// The directory of the host that it is.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Export(export) => Some(export.directory()),
            Self::Memory { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Export(export) => export.directory().display().fmt(f),
            Self::Memory { .. } => f.write_str(MEMORY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, limit) in [
            ("memory:", MemFs::DEFAULT_LIMIT),
            ("memory:0", 0),
            ("memory:1000", 1000),
            ("memory:4K", 4096),
            ("memory:64M", 64 << 20),
            ("memory:2g", 2 << 30),
        ] {
            assert_eq!(
                Source::parse(text.into()),
                Ok(Source::Memory { limit }),
                "{text}"
            );
        }
        for text in [
            "memory:M",
            "memory:-1",
            "memory:1T",
            "memory:99999999999G",
            "memory:é",
        ] {
            assert!(Source::parse(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn everything_else_is_a_directory() {
        for text in ["/srv", "memory", "./memory:", "Memory:", "./a=b", "/a=b"] {
            assert_eq!(
                Source::parse(text.into()),
                Ok(Source::Directory(text.into()))
            );
        }
    }
}
