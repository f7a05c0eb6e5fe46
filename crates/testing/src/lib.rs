//! What tests and benchmarks share: Linux guests in QEMU, and the output of processes.

#![forbid(unsafe_code)]

mod console;
mod guest;
mod monitor;

pub use console::Console;
pub use guest::{Guest, PROCESSORS, Share};
pub use monitor::Monitor;
