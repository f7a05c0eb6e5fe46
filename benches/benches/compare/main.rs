//! Compares our daemon with the reference daemon: the same directory, the same driver, the same
//! rings, row by row in turn.
//!
//! `cargo bench -p benches --bench compare -- --peer PATH`

mod args;
mod measure;
mod operations;
mod report;
mod rows;
mod session;

use std::process::ExitCode;

use args::Args;
use benches::daemon::{DaemonError, PEER_REMEDY};
use benches::selection::NoRow;
use clap::Parser;
use report::Report;
use session::Contender;

/// Why the comparison ended.
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
    #[error(transparent)]
    NoRow(#[from] NoRow),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("compare: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    // As in `cargo bench` without arguments.
    let Some(peer) = args.peer() else {
        eprintln!("compare: skipped: needs a reference daemon: {PEER_REMEDY}");
        return Ok(());
    };
    let ours = args.ours();
    let rows = args.rows()?;
    let mut report = Report::default();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        let mut contenders = [
            Contender::start(&ours, args)?,
            Contender::start(&peer, args)?,
        ];
        for row in &rows {
            // Who is second finds the processor warmer.
            let first = usize::from(round % 2 == 1);
            let one = contenders[first].measure(row, args)?;
            let other = contenders[1 - first].measure(row, args)?;
            match first {
                0 => report.add(row, one, other),
                _ => report.add(row, other, one),
            }
        }
    }
    print!("{}", report.markdown(args));
    match &args.json {
        Some(path) => std::fs::write(path, report.json(args)).map_err(|source| Error::Io {
            doing: "write the JSON file",
            source,
        }),
        None => Ok(()),
    }
}
