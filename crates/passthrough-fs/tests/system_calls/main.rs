//! What an operation costs: the system calls that are made for it.

#[path = "../common/mod.rs"]
mod common;
mod rows;
mod sys;

use common::*;
use passthrough_fs::Xattr;
use rows::{ROWS, Site};
use sys::{Call, Watch};

/// `AT_EMPTY_PATH`, the fourth argument of utimensat(2).
const EMPTY_PATH: u64 = 0x1000;

/// Runs a test on a thread that is watched.
fn watched(refuse: fn(&Call) -> Option<i32>, test: fn(&Watch)) {
    let thread = std::thread::spawn(move || match sys::watch(refuse) {
        Ok(watch) => test(&watch),
        Err(error) => eprintln!("skipped: needs seccomp(2) with a listener: {error}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn all(_: &Call) -> Option<i32> {
    None
}

/// As Linux 5.6 does, but for RESOLVE_CACHED.
fn of_old(call: &Call) -> Option<i32> {
    match call.number {
        number if number >= libc::SYS_fchmodat2 => Some(libc::ENOSYS),
        libc::SYS_utimensat if call.args[3] & EMPTY_PATH != 0 => Some(libc::EINVAL),
        _ => None,
    }
}

/// As of old, and without the capability that file handles take.
fn unprivileged(call: &Call) -> Option<i32> {
    match call.number {
        libc::SYS_open_by_handle_at => Some(libc::EPERM),
        libc::SYS_linkat if call.args[4] & EMPTY_PATH != 0 => Some(libc::ENOENT),
        _ => of_old(call),
    }
}

fn share() -> Share {
    Share::with(|config| config.xattr(Xattr::On))
}

/// Makes each operation twice: what a thread does once, when it first does something, is no part
/// of it.
fn count_all(watch: &Watch, limit: fn(&rows::Row) -> usize) {
    let mut site = Site::new(share(), watch);
    let mut too_many = String::new();
    for row in &ROWS {
        (row.operation)(&mut site);
        (row.operation)(&mut site);
        let calls = site.take();
        if calls.len() > limit(row) {
            too_many += &format!("{}: {} {calls:?}\n", row.name, calls.len());
        }
    }
    assert!(
        too_many.is_empty(),
        "more than there should be:\n{too_many}"
    );
}

#[test]
fn operations_take_no_more_calls_than_the_documentation_says() {
    watched(all, |watch| {
        let knows_xattrat = sys::knows_xattrat();
        if !knows_xattrat {
            eprintln!("extended attributes by way of a directory: skipped: needs Linux 6.13");
        }
        match knows_xattrat {
            true => count_all(watch, |row| row.calls + without_handles(row)),
            false => count_all(watch, |row| row.calls_of_old + without_handles(row)),
        }
    });
}

#[test]
fn on_an_older_kernel_they_do_the_same() {
    watched(of_old, |watch| {
        count_all(watch, |row| row.calls_of_old + without_handles(row));
    });
}

#[test]
fn without_capabilities_they_do_the_same() {
    watched(unprivileged, |watch| {
        count_all(watch, |row| row.calls_of_old + by_name(row));
    });
}

/// What more it takes where inodes are opened again by name: where a file is now is remembered.
fn by_name(row: &rows::Row) -> usize {
    usize::from(row.name == "RENAME")
}

/// The same for this process.
fn without_handles(row: &rows::Row) -> usize {
    match rustix::process::geteuid().is_root() {
        true => 0,
        false => by_name(row),
    }
}
