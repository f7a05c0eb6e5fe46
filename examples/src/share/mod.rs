//! Drives the whole stack without a virtual machine: starts the daemon on a directory, attaches
//! the user-space driver to it over vhost-user, walks the tree, and compares what it finds with the
//! original.

mod contents;
mod finding;
mod metadata;
mod options;
mod report;
mod stack;
mod walk;
mod xattrs;

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::{cli, virtiofsd};
use options::Options;
use report::Report;
use stack::Stack;

const NAME: &str = "share";

/// Runs the program with the arguments of this process.
///
/// Ends with 0 where all is as on the host, 1 where something differs or failed, 2 where it was
/// called wrongly.
#[must_use]
pub fn main() -> ExitCode {
    if is_daemon() {
        return stack::daemon_main();
    }
    let options = match cli::parse::<Options>() {
        Ok(options) => options,
        Err(code) => return code,
    };
    compare(&options).unwrap_or_else(|error| cli::failure(NAME, &error))
}

/// Whether this process was started by [`Stack::start`], as the daemon.
fn is_daemon() -> bool {
    let name = env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name() == Some(virtiofsd::NAME.as_ref()))
}

fn compare(options: &Options) -> Result<ExitCode, stack::Error> {
    let root = stack::readable_directory(&options.directory)?;
    let mut stack = Stack::start(&root, options)?;
    let mut report = Report::new(&root);
    walk::walk(&mut stack, &root, options.xattr, &mut report)?;
    report.finish(stack.totals());
    // The exit code tells it all where nobody reads.
    let _ = write!(io::stdout(), "{report}");
    stack.end()?;
    Ok(report.exit_code())
}
