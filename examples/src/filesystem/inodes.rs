use clap::{Args, ValueEnum};
use passthrough_fs::{Config, InodeFileHandles};

/// How the files that a guest knows are kept track of.
#[derive(Debug, Args)]
pub(super) struct InodeOptions {
    /// How a file that the guest knows is found again on this host, once it gave its descriptor back
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    inode_file_handles: FileHandleMode,

    /// Keep descriptors of at most N of the files that the guest knows; others are opened again
    /// when they are used [default: three quarters of the limit on open files, less 64]
    #[arg(long, value_name = "N")]
    max_open_inodes: Option<usize>,

    /// Show what is mounted below the shared directory as a filesystem of its own. This is the
    /// default
    #[arg(long, overrides_with = "no_announce_submounts")]
    announce_submounts: bool,

    /// Show what is mounted below the shared directory as part of one filesystem, with inode
    /// numbers made unique
    #[arg(long, overrides_with = "announce_submounts")]
    no_announce_submounts: bool,
}

/// Whether a file is found again by its file handle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum FileHandleMode {
    /// Never: by its name, if that still stands for the same file
    Never,
    /// Where this process has CAP_DAC_READ_SEARCH and the filesystem has file handles; else by name
    #[default]
    Prefer,
    /// Always: it is an error if the shared directory has none
    Mandatory,
}

impl InodeOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        let mut config = config
            .inode_file_handles(self.inode_file_handles.into())
            .announce_submounts(!self.no_announce_submounts);
        config.max_open_inodes = self.max_open_inodes;
        config
    }
}

impl From<FileHandleMode> for InodeFileHandles {
    fn from(mode: FileHandleMode) -> Self {
        match mode {
            FileHandleMode::Never => Self::Never,
            FileHandleMode::Prefer => Self::Prefer,
            FileHandleMode::Mandatory => Self::Mandatory,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        inodes: InodeOptions,
    }

    fn config(arguments: &[&str]) -> Config {
        let arguments = std::iter::once("test").chain(arguments.iter().copied());
        let options = Options::try_parse_from(arguments).unwrap();
        options.inodes.apply(Config::new("/"))
    }

    #[test]
    fn submounts_are_announced_unless_the_last_word_is_no() {
        assert!(config(&[]).announce_submounts);
        assert!(config(&["--announce-submounts"]).announce_submounts);
        assert!(!config(&["--no-announce-submounts"]).announce_submounts);
        let both = ["--no-announce-submounts", "--announce-submounts"];
        assert!(config(&both).announce_submounts);
        assert!(!config(&[both[1], both[0]]).announce_submounts);
    }

    #[test]
    fn file_handles_are_preferred_unless_said_otherwise() {
        assert_eq!(config(&[]).inode_file_handles, InodeFileHandles::Prefer);
        let never = config(&["--inode-file-handles=never"]);
        assert_eq!(never.inode_file_handles, InodeFileHandles::Never);
        let mandatory = config(&["--inode-file-handles", "mandatory"]);
        assert_eq!(mandatory.inode_file_handles, InodeFileHandles::Mandatory);
    }

    #[test]
    fn open_inodes_are_limited_on_request() {
        assert_eq!(config(&[]).max_open_inodes, None);
        assert_eq!(config(&["--max-open-inodes=7"]).max_open_inodes, Some(7));
    }
}
