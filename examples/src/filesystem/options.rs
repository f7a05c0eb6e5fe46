use std::path::Path;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use fuse_fs::{Access, Exports, FileSystem, ReadOnly, Serve, Session, SessionConfig};
use passthrough_fs::{CachePolicy, Config, Migration, PassthroughFs};
use vhost_user_fs::DaxWindow;

use super::exports::Export;
use super::extras::ExtraOptions;
use super::inodes::InodeOptions;
use super::privileges::PrivilegeOptions;
use crate::limits;

/// Why something cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Directory(#[from] passthrough_fs::NewError),
    #[error(transparent)]
    Export(#[from] fuse_fs::ExportError),
}

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

/// What there is beside requests.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// How a guest can be moved away, or to here.
    pub(crate) migration: Migration,
    /// Where files can be mapped.
    pub(crate) window: Option<Arc<DaxWindow>>,
}

impl Ways {
    /// Descriptors that may be open for requests: what is mapped keeps some, too.
    fn descriptors(&self) -> usize {
        let mapped = self.window.as_ref().map_or(0, |window| window.file_limit());
        limits::usable_descriptors().saturating_sub(mapped)
    }

    fn serve<F: FileSystem + 'static>(self, session: Session<F>) -> Arc<dyn Serve> {
        match self.window {
            Some(window) => Arc::new(session.with_window(window)),
            None => Arc::new(session),
        }
    }
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

    /// Serves the directory `root` to what has `ways`.
    pub(crate) fn serve(&self, root: &Path, ways: Ways) -> Result<Arc<dyn Serve>, Error> {
        let config = self
            .passthrough(root)
            .migration(ways.migration)
            .max_descriptors(ways.descriptors());
        let filesystem = PassthroughFs::new(config)?;
        Ok(ways.serve(Session::with_config(filesystem, self.session())))
    }

    /// Serves several directories as one.
    pub(crate) fn serve_exports(
        &self,
        exports: &[Export],
        ways: Ways,
    ) -> Result<Arc<dyn Serve>, Error> {
        // They share what this process may have open.
        let share = |all: usize| all.checked_div(exports.len()).unwrap_or(all);
        let descriptors = share(ways.descriptors());
        let mut whole = Exports::new();
        for export in exports {
            let mut config = self
                .passthrough(&export.directory)
                .migration(ways.migration)
                .max_descriptors(descriptors);
            config.max_open_inodes = config.max_open_inodes.map(share);
            let filesystem = PassthroughFs::new(config)?;
            let name = export.name.clone();
            whole = match export.access {
                Access::ReadWrite => whole.add(name, filesystem)?,
                Access::ReadOnly => whole.add(name, ReadOnly::new(filesystem))?,
            };
        }
        Ok(ways.serve(Session::with_config(whole, self.session())))
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
