use std::io;

use rustix::io::Errno;
use virtio_fs_guest::Error;

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Both sides are the same.
    Same,
    /// Neither side lets itself be read.
    Unreadable,
    /// The original changed meanwhile: nothing can be said.
    Changed,
    /// They differ, and how.
    Differs(String),
}

impl Finding {
    /// Judges an operation that failed on one side at least.
    pub(super) fn of_failure(doing: &str, host: Option<Errno>, guest: Option<Errno>) -> Self {
        match (host, guest) {
            (Some(host), Some(guest)) if host == guest => match host {
                Errno::NOENT => Self::Changed,
                _ => Self::Unreadable,
            },
            _ => Self::Differs(format!(
                "{doing}: the host says {}, the stack {}",
                describe(host),
                describe(guest)
            )),
        }
    }
}

fn describe(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "yes".to_owned(), |errno| errno.to_string())
}

/// Keeps what the filesystem answered apart from a stack that does not work.
pub(super) fn answer<T>(result: Result<T, Error>) -> Result<Result<T, Errno>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error.errno() {
            Some(errno) => Ok(Err(Errno::from_raw_os_error(errno.raw()))),
            None => Err(error),
        },
    }
}

/// The error number of a system call.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_both_sides_are_no_difference() {
        let of = |host, guest| Finding::of_failure("open", host, guest);
        let denied = Some(Errno::ACCESS);
        assert_eq!(of(denied, denied), Finding::Unreadable);
        assert_eq!(of(Some(Errno::NOENT), Some(Errno::NOENT)), Finding::Changed);
        let Finding::Differs(text) = of(None, denied) else {
            panic!("one side only");
        };
        assert!(
            text.starts_with("open: the host says yes, the stack "),
            "{text}"
        );
        assert!(matches!(of(denied, None), Finding::Differs(_)));
    }
}
