//! Stands between a VMM and a virtio-fs daemon, so that the daemon can be restarted: see `--help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::relay::main()
}
