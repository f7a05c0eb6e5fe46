//! Compares our daemon with the reference daemon in a Linux guest, which has a share of each: what
//! everyday programs and fio(1) take there, by the guest's clock, in requests, and in processor time
//! of the daemon.
//!
//! `cargo bench -p benches --bench guest -- --peer PATH`
//!
//! The guest is emulated, so that all but the daemons is slow: what it waits is mostly its own time.
//! Processor time is the daemon's alone, and requests are counted by the guest's kernel. Needs QEMU,
//! Debian's cloud kernel, fio, git, gcc and make.

mod args;
mod contents;
mod machine;
mod report;
mod steps;

use std::process::ExitCode;

use args::Args;
use benches::daemon::{DaemonError, PEER_REMEDY};
use benches::selection::NoRow;
use clap::Parser;
use machine::Machine;
use report::Report;

/// Why the comparison ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("the guest, at {doing}; its console:\n{console}")]
    Guest { doing: String, console: String },
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
            eprintln!("guest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    for cache in &args.cache {
        // As in `cargo bench` without arguments.
        let Some(contenders) = args.contenders(cache) else {
            eprintln!("guest: skipped: needs a reference daemon: {PEER_REMEDY}");
            return Ok(());
        };
        let steps = args.steps()?;
        eprintln!("cache={cache}: booting");
        let mut machine = Machine::boot(&args.root(), &contenders, &args.dir)?;
        let mut report = Report::default();
        for round in 0..args.rounds {
            for step in &steps {
                eprintln!(
                    "cache={cache}, round {} of {}: {}",
                    round + 1,
                    args.rounds,
                    step.name
                );
                // Who is second finds the guest warmer.
                let [ours, reference] = &contenders;
                let pair = if round % 2 == 0 {
                    let ours = machine.measure(step, ours.tag)?;
                    [ours, machine.measure(step, reference.tag)?]
                } else {
                    let reference = machine.measure(step, reference.tag)?;
                    [machine.measure(step, ours.tag)?, reference]
                };
                report.add(step, pair);
            }
        }
        machine.end()?;
        println!(
            "cache={cache}; medians of {} rounds. Ours / reference.\n",
            args.rounds
        );
        println!("{}", report.markdown());
        if args.requests {
            println!("{}", report.requests());
        }
    }
    Ok(())
}
