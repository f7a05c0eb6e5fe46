use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More descriptors than this are not asked for.
const ENOUGH_FILES: u64 = 1_000_000;

/// Raises the limit on open files: each file that a guest has open is one here, and so may be each
/// that it knows of. Takes the most that this process may have, where that is less than a million.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = ENOUGH_FILES.min(system_maximum());
    // No limit at all is as good.
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: maximum.map(|maximum| maximum.max(wanted)),
    };
    let hard = Rlimit {
        current: maximum,
        maximum,
    };
    let done = setrlimit(Resource::Nofile, raised).or_else(|_| setrlimit(Resource::Nofile, hard));
    let now = getrlimit(Resource::Nofile).current;
    match done {
        Ok(()) => tracing::debug!(limit = now, "raised the limit on open files"),
        Err(error) => tracing::warn!(limit = now, %error, "cannot raise the limit on open files"),
    }
}

/// The most descriptors that the kernel allows any process (proc_sys_fs(5)).
fn system_maximum() -> u64 {
    fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ENOUGH_FILES)
}
