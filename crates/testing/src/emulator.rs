//! What is the emulator's fault is not the share's.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitStatus;

/// How often a test is run before a fault of the emulator fails it.
const ATTEMPTS: usize = 3;

/// The signal of abort(3).
const SIGABRT: i32 = 6;

/// The assertion of QEMU that fails where an emulated processor uses a memory map that is not there any
/// more. Others met it with several processors (QEMU's issue 1921); here it was seen once, with 10.0,
/// in many hundred boots.
const RACE: &str = "iotlb_to_section: Assertion";

thread_local! {
    static BROKE_DOWN: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test that boots a [`Guest`](crate::Guest) on this thread, and runs it again where it fails
/// after QEMU broke down by a known fault of its own. Every other failure is the test's, and QEMU's end
/// by anything else too.
///
/// # Panics
/// As `test` does.
pub fn emulated(test: impl Fn()) {
    for attempt in 1.. {
        BROKE_DOWN.set(false);
        let Err(failure) = catch_unwind(AssertUnwindSafe(&test)) else {
            return;
        };
        if !BROKE_DOWN.get() || attempt == ATTEMPTS {
            resume_unwind(failure);
        }
        eprintln!("QEMU broke down by a fault of its own: the test is run again");
    }
}

/// Takes note of how QEMU ended, and of what it said of that.
pub(crate) fn ended(status: ExitStatus, errors: &[String]) {
    if status.signal() == Some(SIGABRT) && errors.iter().any(|line| line.contains(RACE)) {
        BROKE_DOWN.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSERTION: &str = "qemu-system-x86_64: system/physmem.c:2678: iotlb_to_section: \
                             Assertion `section_index < d->map.sections_nb' failed.";

    /// How often a test runs of which the first `failures` runs fail with QEMU ended like this.
    fn runs(failures: usize, status: i32, errors: &str) -> Result<usize, usize> {
        let count = Cell::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            emulated(|| {
                count.set(count.get() + 1);
                if count.get() <= failures {
                    ended(ExitStatus::from_raw(status), &[errors.to_owned()]);
                    panic!("the guest is gone");
                }
            });
        }));
        result.map_or(Err(count.get()), |()| Ok(count.get()))
    }

    #[test]
    fn runs_again_where_the_emulator_broke_down() {
        assert_eq!(runs(0, SIGABRT, ASSERTION), Ok(1));
        assert_eq!(runs(1, SIGABRT, ASSERTION), Ok(2));
        assert_eq!(runs(2, SIGABRT, ASSERTION), Ok(3));
        assert_eq!(runs(3, SIGABRT, ASSERTION), Err(3));
    }

    #[test]
    fn fails_at_once_where_anything_else_did() {
        assert_eq!(runs(1, SIGABRT, "another assertion"), Err(1));
        assert_eq!(runs(1, 9, ASSERTION), Err(1));
        assert_eq!(runs(1, 0, ""), Err(1));
    }
}
