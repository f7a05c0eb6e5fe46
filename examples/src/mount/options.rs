use std::path::PathBuf;

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::source::Source;
use crate::filesystem::FilesystemOptions;
use crate::limits::LimitOptions;
use crate::log::LogOptions;

const EXAMPLES: &str = "\
Examples:
  See /srv/data at /mnt as a guest would:
    mount /srv/data /mnt

  The same, read-only, with nothing cached:
    mount --readonly --cache=never /srv/data /mnt

  Two directories as one, the second only to be read:
    mount data=/srv/data images=/srv/images:ro /mnt

  A filesystem in memory, of at most 64 MiB, gone when it is unmounted:
    mount memory:64M /mnt

The program stays in the foreground and serves until the filesystem is unmounted
(umount /mnt) or until SIGINT or SIGTERM, which unmount it. Where files are in
use then, it is taken out of the tree at once and served until they are closed;
a second signal ends it anyway.

As root, every user may use the mount, as permissions say. Anyone else needs the
program fusermount3 (Debian: apt install fuse3), a mount point of one's own, and
is alone in using it.

Ends with 0 when unmounted, 1 where it cannot mount or serve, 2 where it was
called wrongly.";

/// Mounts a directory, or a filesystem in memory, on this host: what virtiofsd shares with a virtual
/// machine, without one.
#[derive(Debug, Parser)]
#[command(name = "mount", version, after_help = EXAMPLES)]
pub(super) struct Options {
    /// What to mount: a directory; or NAME=DIR, or NAME=DIR:ro, each of which becomes a directory NAME;
    /// or memory: or memory:SIZE, a filesystem in memory that holds up to SIZE bytes (suffixes K, M, G;
    /// 1G unless told). A directory whose name looks so is ./a=b
    #[arg(
        value_name = "SOURCE",
        required = true,
        num_args = 1..,
        value_parser = OsStringValueParser::new().try_map(Source::parse),
    )]
    pub(super) sources: Vec<Source>,

    /// Directory to mount it on
    #[arg(value_name = "MOUNTPOINT", required = true)]
    pub(super) mountpoint: PathBuf,

    /// Most threads that serve. They are started as they are needed; one is kept from waiting for
    /// disks and locks
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(2..=1024),
    )]
    pub(super) threads: u16,

    #[command(flatten)]
    pub(super) limits: LimitOptions,

    #[command(flatten)]
    pub(super) log: LogOptions,

    #[command(flatten, next_help_heading = "What of a directory is shared, and how")]
    pub(super) filesystem: FilesystemOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Options::command().debug_assert();
    }
}
