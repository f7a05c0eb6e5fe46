use std::path::Path;

use clap::{Args, ValueEnum};
use fuse_fs::{Access, SessionConfig};
use passthrough_fs::{CachePolicy, Config};

use super::extras::ExtraOptions;
use super::inodes::InodeOptions;
use super::privileges::PrivilegeOptions;

/// What of a directory is shared, and how.
#[derive(Debug, Args)]
pub(crate) struct FilesystemOptions {
    /// What the guest may cache
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    cache: CacheMode,

    /// Refuse every change
    #[arg(long)]
    readonly: bool,

    #[command(flatten)]
    privileges: PrivilegeOptions,

    #[command(flatten)]
    extras: ExtraOptions,

    #[command(flatten)]
    inodes: InodeOptions,
}

/// What the guest may cache, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CacheMode {
    /// Nothing: always what the host has, at a price
    Never,
    /// Names and attributes, for a day; no data. For a share that nobody else changes
    Metadata,
    /// Names and attributes for a second, data while a file is open
    #[default]
    Auto,
    /// All, for a day. For a share that nobody else changes
    Always,
}

impl FilesystemOptions {
    /// How the directory `root` is shared.
    pub(crate) fn passthrough(&self, root: &Path) -> Config {
        let config = Config::new(root)
            .cache(self.cache.into())
            .extras(self.extras.chosen());
        self.inodes.apply(self.privileges.apply(config))
    }

    /// Whether every change is refused.
    pub(crate) fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// What a session allows.
    pub(crate) fn session(&self) -> SessionConfig {
        let access = match self.readonly {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        SessionConfig::new().access(access)
    }
}

impl From<CacheMode> for CachePolicy {
    fn from(mode: CacheMode) -> Self {
        match mode {
            CacheMode::Never => Self::Never,
            CacheMode::Metadata => Self::Metadata,
            CacheMode::Auto => Self::Auto,
            CacheMode::Always => Self::Always,
        }
    }
}
