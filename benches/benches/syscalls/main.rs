//! Counts the system calls that a daemon makes for each operation, with strace(1): ours, and the
//! reference daemon beside it.
//!
//! `cargo bench -p benches --bench syscalls -- --peer PATH`
//!
//! A driver does one operation at a time, with the tracer on. What belongs to the rings, to threads
//! and to memory is left out: it depends on timing, and comes with every operation alike. Each
//! operation is done once before it is counted. It fails where our daemon makes more calls than it
//! did when this was written.

mod rows;
mod site;
mod table;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use benches::daemon::{DaemonError, Program};
use benches::selection::{NoRow, select};
use clap::Parser;
use rows::ROWS;
use site::Site;
use table::Table;

/// The column of our daemon.
const OURS: &str = "ours";

/// Counts the system calls of our virtio-fs daemon, and of the reference daemon, by operation.
#[derive(Debug, Parser)]
struct Args {
    /// The reference daemon: `cargo install virtiofsd` builds it. It is run twice, with file
    /// handles and with descriptors.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Our daemon. Default: target/dist/virtiofsd of this workspace.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Another option of our daemon, such as --cache=never; may be repeated.
    #[arg(long = "with", allow_hyphen_values = true)]
    with: Vec<String>,
    /// Another option of the reference daemon; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    peer_with: Vec<String>,
    /// Where the shared directories are made. Default: the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only the operations whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// Also list the calls of each operation.
    #[arg(long)]
    names: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Why the count ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("the driver, on {row}: {source}")]
    Guest {
        row: &'static str,
        source: virtio_fs_guest::Error,
    },
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    #[error("strace(1) did not take hold of the daemon; it said:\n{0}")]
    Strace(String),
    #[error("our daemon makes more system calls than it should for: {0}")]
    TooMany(String),
    #[error(transparent)]
    NoRow(#[from] NoRow),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("syscalls: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let ours = Program::ours(args.ours.clone(), arguments(&args.with));
    if args.bench && !ours.path.exists() {
        eprintln!("syscalls: skipped: needs our daemon: {}", ours.remedy);
        return Ok(());
    }
    if !trace::available() {
        eprintln!("syscalls: skipped: needs strace(1)");
        return Ok(());
    }
    let rows = select(&ROWS, |row| row.name, &args.only)?;
    let mut table = Table::default();
    let mut too_many = Vec::new();
    for (heading, program) in contenders(args, ours) {
        eprintln!("{heading}");
        let mut site = Site::start(&program, args.dir.as_deref())?;
        for row in &rows {
            let count = site.count(row)?;
            let limit = row
                .at_most
                .filter(|_| heading == OURS && args.with.is_empty());
            if limit.is_some_and(|limit| count.exceeds(limit)) {
                too_many.push(row.name);
            }
            table.add(row.name, heading, count);
        }
    }
    print!("{}", table.markdown());
    if args.names {
        print!("\n{}", table.names());
    }
    match too_many.as_slice() {
        [] => Ok(()),
        rows => Err(Error::TooMany(rows.join(", "))),
    }
}

fn arguments(more: &[String]) -> Vec<String> {
    let mut arguments = vec![String::from("--xattr")];
    arguments.extend(more.iter().cloned());
    arguments
}

fn contenders(args: &Args, ours: Program) -> Vec<(&'static str, Program)> {
    let mut all = vec![(OURS, ours)];
    if let Some(peer) = &args.peer {
        for (heading, handles) in [
            ("reference, file handles", "prefer"),
            ("reference, descriptors", "never"),
        ] {
            let mut arguments = arguments(&args.peer_with);
            arguments.push(format!("--inode-file-handles={handles}"));
            all.push((heading, Program::peer(peer.clone(), arguments)));
        }
    }
    all
}
