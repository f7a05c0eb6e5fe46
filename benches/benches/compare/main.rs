//! Compares our daemon with the reference daemon: the same directory, the same driver, the same
//! rings, row by row, one after the other in an order that rotates.
//!
//! `cargo bench -p benches --bench compare -- --peer PATH`

#![deny(unsafe_code)]

mod args;
mod contenders;
mod drive;
mod measure;
mod native;
mod output;
mod rows;
mod served;
mod session;
mod site;
mod steps;
#[allow(unsafe_code)]
mod sys;
mod walks;

use std::path::PathBuf;
use std::process::ExitCode;

use args::Args;
use benches::comparison::{Comparison, Mismatch, Party};
use benches::counters::CounterError;
use benches::daemon::{DaemonError, PEER_REMEDY};
use benches::selection::NoRow;
use clap::Parser;
use contenders::Contender;
use rows::{Place, Row};
use session::Session;

/// Why the comparison ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("cannot count what a daemon does: {0}")]
    Count(#[from] CounterError),
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: {source}", path.display())]
    Join { path: PathBuf, source: Mismatch },
    #[error("the driver, on {row}: {source}")]
    Guest {
        row: &'static str,
        source: virtio_fs_guest::Error,
    },
    #[error("direct system calls, on {row}: {source}")]
    Native {
        row: &'static str,
        source: std::io::Error,
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
    let found = match args.from.split_first() {
        Some((first, more)) => output::read(first, more)?,
        None => {
            let contenders = args.contenders()?;
            if contenders.is_empty() {
                // As in `cargo bench` without arguments.
                eprintln!("compare: skipped: needs a reference daemon: {PEER_REMEDY}");
                return Ok(());
            }
            compare(&contenders, args)?
        }
    };
    output::write(&found, args)
}

fn compare(contenders: &[Contender], args: &Args) -> Result<Comparison, Error> {
    let described = contenders.iter().map(Contender::describe).collect();
    let mut found = Comparison::new(args.conditions(), described);
    for round in 0..args.rounds as usize {
        for (place, rows) in by_place(args)? {
            let name = format!("round {}/{}", round + 1, args.rounds);
            let start = |contender| Session::start(contender, place, args);
            let mut sessions = contenders
                .iter()
                .map(start)
                .collect::<Result<Vec<_>, _>>()?;
            each_row(&rows, &name, |n, row| {
                // Who comes later finds the processor warmer.
                for turn in 0..sessions.len() {
                    let contender = (round + n + turn) % sessions.len();
                    let sample = sessions[contender].measure(row, args)?;
                    let outcome = found.outcome(row.name, row.bytes(), contender);
                    outcome.samples.push(sample);
                }
                Ok(())
            })?;
        }
    }
    if args.counts {
        for (n, contender) in contenders.iter().enumerate() {
            count(n, contender, args, &mut found)?;
        }
    }
    Ok(found)
}

/// Does all once more, to count what a daemon does for it: that takes it longer.
fn count(
    index: usize,
    contender: &Contender,
    args: &Args,
    found: &mut Comparison,
) -> Result<(), Error> {
    if contender.party == Party::Native {
        return Ok(());
    }
    for (place, rows) in by_place(args)? {
        let mut session = Session::start(contender, place, args)?;
        for missing in session.begin_to_count()? {
            eprintln!("compare: {}: {missing}", contender.name);
        }
        each_row(&rows, &format!("counting {}", contender.name), |_, row| {
            let counts = session.count(row, args)?;
            found.outcome(row.name, row.bytes(), index).counts = counts;
            Ok(())
        })?;
    }
    Ok(())
}

/// The rows, by where the shared directory is.
fn by_place(args: &Args) -> Result<Vec<(Place, Vec<Row>)>, NoRow> {
    let rows = args.rows()?;
    let at = |place| {
        let there = rows.iter().filter(|row| row.place == place);
        (place, there.copied().collect::<Vec<_>>())
    };
    let mut places = vec![at(Place::Memory), at(Place::Disk)];
    places.retain(|(_, rows)| !rows.is_empty());
    Ok(places)
}

fn each_row(
    rows: &[Row],
    pass: &str,
    mut work: impl FnMut(usize, &Row) -> Result<(), Error>,
) -> Result<(), Error> {
    for (n, row) in rows.iter().enumerate() {
        eprintln!("{pass}, row {}/{}: {}", n + 1, rows.len(), row.name);
        work(n, row)?;
    }
    Ok(())
}
