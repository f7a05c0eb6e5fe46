//! A directory of this host as a filesystem, with the options that every program which
//! serves one has.

mod exports;
mod extras;
mod inodes;
mod migration;
mod options;
mod privileges;

pub(crate) use exports::Export;
pub(crate) use migration::MigrationOptions;
pub use options::CacheMode;
pub(crate) use options::{Error, FilesystemOptions, Ways};
