//! A directory of this host as a filesystem, with the options that every program which
//! serves one has.

mod extras;
mod inodes;
mod options;
mod privileges;

pub use options::CacheMode;
pub(crate) use options::FilesystemOptions;
