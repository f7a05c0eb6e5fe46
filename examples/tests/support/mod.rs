//! Daemons and virtual machines for tests. None of them outlives the test that started it.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses its own part of this"
)]

mod daemon;
mod guest;
mod host;
mod mount;
pub(crate) mod pjdfstest;
mod program;
pub(crate) mod uml;

pub(crate) use daemon::Daemon;
pub(crate) use guest::boot;
pub(crate) use host::{Host, run};
pub(crate) use mount::Mount;
pub(crate) use program::Program;
