use clap::{Args, ValueEnum};
use passthrough_fs::{Migration, MigrationErrors, MigrationMode};

/// What becomes of the files that a guest has open when its machine is moved, or taken from a
/// snapshot.
#[derive(Debug, Args)]
pub(crate) struct MigrationOptions {
    /// How the files that the guest knows are found where it goes on
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    migration_mode: Mode,

    /// What to do where not all of them can be had again
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    migration_on_error: OnError,

    /// Take a file only if it is the very same one, by its file handle or its time of birth: needs
    /// the same filesystem on both sides. Where the shared directory is the same one, this is done
    /// in any case
    #[arg(long)]
    migration_verify_handles: bool,

    /// Make sure of each path when it is saved. This is done in any case
    #[arg(long)]
    migration_confirm_paths: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By path: the shared directory can be on another host, and a copy
    #[default]
    FindPaths,
    /// By file handle: on the same filesystem, with CAP_DAC_READ_SEARCH on both sides, also what was
    /// renamed or removed. Whoever sends the state can name any file of the filesystem
    FileHandles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// Refuse the whole, so that the machine goes on where it was
    #[default]
    Abort,
    /// Go on, with errors in the guest for what it had open and is missing
    GuestError,
}

impl MigrationOptions {
    /// What they say.
    pub(crate) fn chosen(&self) -> Migration {
        Migration::new()
            .mode(match self.migration_mode {
                Mode::FindPaths => MigrationMode::FindPaths,
                Mode::FileHandles => MigrationMode::FileHandles,
            })
            .on_error(match self.migration_on_error {
                OnError::Abort => MigrationErrors::Abort,
                OnError::GuestError => MigrationErrors::GuestError,
            })
            .verify_handles(self.migration_verify_handles)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        migration: MigrationOptions,
    }

    fn chosen(arguments: &[&str]) -> Migration {
        let arguments = std::iter::once("test").chain(arguments.iter().copied());
        Options::try_parse_from(arguments)
            .unwrap()
            .migration
            .chosen()
    }

    #[test]
    fn options_have_the_spelling_of_the_reference_daemon() {
        assert_eq!(chosen(&["--migration-confirm-paths"]), Migration::new());
        let by_default = ["--migration-mode=find-paths", "--migration-on-error=abort"];
        assert_eq!(chosen(&by_default), Migration::new());
        let others = chosen(&[
            "--migration-mode=file-handles",
            "--migration-on-error=guest-error",
            "--migration-verify-handles",
        ]);
        assert_eq!(others.mode, MigrationMode::FileHandles);
        assert_eq!(others.on_error, MigrationErrors::GuestError);
        assert!(others.verify_handles);
    }
}
