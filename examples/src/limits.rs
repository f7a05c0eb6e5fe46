use std::fs;

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More descriptors than this are not asked for.
const ENOUGH_FILES: u64 = 1_000_000;

/// The limit on open files that was asked for, but may not be set.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set the limit on open files to {limit} (--rlimit-nofile): {source}; \
     the most that this process may have is {most}"
)]
pub(crate) struct Error {
    limit: u64,
    source: Errno,
    most: u64,
}

/// What the process may use.
#[derive(Debug, Args)]
pub(crate) struct LimitOptions {
    /// Set the limit on open files, of which a guest uses one for each that it has open and, up to
    /// --max-open-inodes, for each that it knows; 0 leaves it as it is [default: a million, or the
    /// most that this process may have]
    #[arg(long, value_name = "N")]
    rlimit_nofile: Option<u64>,
}

impl LimitOptions {
    /// Sets the limits of this process.
    ///
    /// # Errors
    /// A limit that was asked for is more than this process may have.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        match self.rlimit_nofile {
            None => raise_open_files(),
            Some(0) => {}
            Some(limit) => set_open_files(limit)?,
        }
        Ok(())
    }
}

/// Raises the limit on open files to the most that this process may have, where that is less than a
/// million.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = ENOUGH_FILES.min(system_maximum());
    // No limit at all is as good.
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let hard = Rlimit {
        current: maximum,
        maximum,
    };
    let done = set_open_files(wanted).or_else(|_| setrlimit(Resource::Nofile, hard));
    let now = getrlimit(Resource::Nofile).current;
    match done {
        Ok(()) => tracing::debug!(limit = now, "raised the limit on open files"),
        Err(error) => tracing::warn!(limit = now, %error, "cannot raise the limit on open files"),
    }
}

/// Descriptors that this process may have open, less those that it needs itself.
pub(crate) fn usable_descriptors() -> usize {
    const OWN: u64 = 64;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(OWN)).unwrap_or(usize::MAX)
}

fn set_open_files(limit: u64) -> Result<(), Error> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: Some(limit),
        maximum: maximum.map(|maximum| maximum.max(limit)),
    };
    setrlimit(Resource::Nofile, wanted).map_err(|source| Error {
        limit,
        source,
        most: maximum.unwrap_or(u64::MAX).min(system_maximum()),
    })
}

/// The most descriptors that the kernel allows any process (proc_sys_fs(5)).
fn system_maximum() -> u64 {
    fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ENOUGH_FILES)
}
