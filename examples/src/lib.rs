//! The programs of this package, apart from their `main`: `virtiofsd`, the daemon, and `share`,
//! which drives the whole stack without a virtual machine.

#![deny(unsafe_code)]

mod cli;
pub mod filesystem;
pub mod log;
pub mod share;
mod sys;
pub mod virtiofsd;
