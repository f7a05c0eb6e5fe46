use std::path::PathBuf;

use clap::Parser;

use crate::filesystem::CacheMode;
use crate::log::LogLevel;

const EXAMPLES: &str = "\
Examples:
  share crates
  share --xattr --cache=never /srv/data

Ends with 0 where everything that was read through the stack is as it is on the
host, with 1 where something differs or fails, with 2 where it was called
wrongly. Nothing is changed, but times of access may be.";

/// Reads DIR through the whole stack, daemon and driver, without a virtual machine, and compares
/// contents and metadata with the original.
#[derive(Debug, Parser)]
#[command(name = "share", version, after_help = EXAMPLES)]
pub(super) struct Options {
    /// Directory to share. Filesystems that are mounted below it are left out
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,

    /// What the daemon lets its guest cache
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub(super) cache: CacheMode,

    /// Share extended attributes, and compare them
    #[arg(long)]
    pub(super) xattr: bool,

    /// What the daemon logs, to standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    pub(super) log_level: LogLevel,
}
