//! A directory of this host as a filesystem, with the options that every program which
//! serves one has.

mod exports;
mod extras;
mod inodes;
mod options;
mod privileges;

pub(crate) use exports::Export;
pub use options::CacheMode;
pub(crate) use options::{Error, FilesystemOptions};
