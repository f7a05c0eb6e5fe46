//! Reads a directory through the whole stack, without a virtual machine, and compares it with the
//! original: see `--help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::share::main()
}
