//! A small virtual machine monitor whose guests have their files from virtio-fs: see `--help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::vmm::main()
}
