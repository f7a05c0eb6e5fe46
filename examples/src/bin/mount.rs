//! Mounts a filesystem of this workspace on this host, by way of `/dev/fuse`: see `--help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::mount::main()
}
