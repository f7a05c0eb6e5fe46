//! Compares our daemon with the reference daemon: the same directory, the same driver, the same
//! rings, row by row, one after the other in an order that rotates.
//!
//! `cargo bench -p benches --bench compare -- --peer PATH`

mod args;
mod contenders;
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
use session::Session;

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
    let contenders = args.contenders()?;
    if contenders.is_empty() {
        // As in `cargo bench` without arguments.
        eprintln!("compare: skipped: needs a reference daemon: {PEER_REMEDY}");
        return Ok(());
    }
    let rows = args.rows()?;
    let mut report = Report::new(&contenders);
    for round in 0..args.rounds as usize {
        let mut sessions = Vec::new();
        for contender in &contenders {
            sessions.push(Session::start(contender, args)?);
        }
        for (n, row) in rows.iter().enumerate() {
            let (current, rounds, last) = (round + 1, args.rounds, rows.len());
            eprintln!(
                "round {current}/{rounds}, row {}/{last}: {}",
                n + 1,
                row.name
            );
            // Who comes later finds the processor warmer.
            for place in 0..sessions.len() {
                let contender = (round + n + place) % sessions.len();
                let sample = sessions[contender].measure(row, args)?;
                report.add(row, contender, sample);
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
