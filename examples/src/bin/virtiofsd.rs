//! The back-end of a virtio-fs device that shares a directory of the host: see `--help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::virtiofsd::main()
}
