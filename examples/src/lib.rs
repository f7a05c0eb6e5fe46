//! The programs of this package, apart from their `main`: `virtiofsd`, the daemon; `mount`, which
//! mounts a filesystem on this host; `share`, which drives the whole stack without a virtual machine;
//! `relay`, which stands between a VMM and a daemon, so that the daemon can be restarted; and `vmm`, a
//! small virtual machine monitor whose guests have their files from virtio-fs.

#![deny(unsafe_code)]

mod cli;
pub mod filesystem;
mod limits;
pub mod log;
pub mod mount;
pub mod relay;
pub mod share;
mod signals;
mod size;
mod socket;
mod sys;
pub mod virtiofsd;
pub mod vmm;
