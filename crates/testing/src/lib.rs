//! What tests and benchmarks share: Linux guests in QEMU, processes and what they print.

#![forbid(unsafe_code)]

mod console;
mod emulator;
mod guest;
mod monitor;
mod socket;

pub use console::Console;
pub use emulator::emulated;
pub use guest::{Guest, PROCESSORS, Share};
pub use monitor::Monitor;
pub use socket::listens;
