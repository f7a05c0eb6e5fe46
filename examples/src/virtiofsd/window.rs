//! The DAX window, and its part of the descriptors that this process may have open.

use vhost_user_fs::{DaxWindow, DaxWindowError};

use crate::limits;

/// Bytes that Linux maps at a time.
const PIECE: u64 = 2 << 20;

/// A window of `size` bytes, which leaves most descriptors to what else has files open.
pub(super) fn window(size: u64) -> Result<DaxWindow, DaxWindowError> {
    sharing(size, limits::usable_descriptors())
}

fn sharing(size: u64, descriptors: usize) -> Result<DaxWindow, DaxWindowError> {
    let wanted = files(size);
    let most = descriptors / 4;
    let window = DaxWindow::new(size)?.limit_files(wanted.min(most));
    if wanted > most && window.file_limit() == most {
        tracing::warn!(
            files = most,
            "a guest may get ENOMEM when it has so many files mapped, before the DAX window is full: \
             raise the limit on open files (--rlimit-nofile)"
        );
    }
    Ok(window)
}

/// As many as a Linux guest can have mapped, and one that takes the place of another.
fn files(size: u64) -> usize {
    let files = size.div_ceil(PIECE).saturating_add(1);
    usize::try_from(files).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_leaves_most_descriptors_to_others() {
        let files = |size, descriptors| sharing(size, descriptors).unwrap().file_limit();
        assert_eq!(files(1 << 30, 1_000_000), 513);
        assert_eq!(files(1 << 30, 960), 240);
        assert_eq!(files(1 << 12, 960), 2);
        assert_eq!(files(1 << 40, 1_000_000), 8192);
        assert_eq!(files(1 << 40, 0), 0);
        assert!(sharing(0, 960).is_err());
    }
}
