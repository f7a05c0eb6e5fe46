//! Compares our daemon with the reference daemon in a Linux guest, which has a share of each: what
//! everyday programs and fio(1) take there, by the guest's clock, in requests, and in processor time
//! of the daemon.
//!
//! `cargo bench -p benches --bench guest -- --peer PATH`
//!
//! The guest is emulated, so that all but the daemons is slow: what it waits is mostly its own time.
//! Processor time is the daemon's alone. Requests are counted by the guest's kernel, each step once
//! with each daemon before the first round, which is also when all that they share gets warm. Needs
//! QEMU, Debian's cloud kernel, fio, git, gcc and make.

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
use machine::{Contender, Machine};
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
        let report = compare(args, cache, &contenders)?;
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

fn compare(args: &Args, cache: &str, contenders: &[Contender; 2]) -> Result<Report, Error> {
    let steps = args.steps()?;
    let tags = contenders.each_ref().map(|contender| contender.tag);
    eprintln!("cache={cache}: booting");
    let mut machine = Machine::boot(&args.root(), contenders, &args.dir)?;
    let mut report = Report::default();
    // What the steps need of the guest's root is in its memory after that, the emulator has
    // translated it, and each daemon has done each step once.
    for step in &steps {
        eprintln!("cache={cache}, counting: {}", step.name);
        let [ours, reference] = tags.map(|tag| machine.count(step, tag));
        report.begin(step, [ours?, reference?]);
    }
    for round in 0..args.rounds {
        // Over four rounds each has been first with each processor.
        let is_swapped = round % 2 == 1;
        machine.attach(swapped(tags, round.div_ceil(2) % 2 == 1))?;
        for (row, step) in steps.iter().enumerate() {
            // Who is second finds the guest warmer.
            let samples = swapped(tags, is_swapped).map(|tag| machine.measure(step, tag));
            let [first, second] = samples;
            let pair @ [ours, reference] = swapped([first?, second?], is_swapped);
            eprintln!(
                "cache={cache}, round {} of {}: {}: {:.1} / {:.1} ms",
                round + 1,
                args.rounds,
                step.name,
                ours.millis,
                reference.millis,
            );
            report.add(row, pair);
        }
    }
    machine.end()?;
    Ok(report)
}

fn swapped<T>([first, second]: [T; 2], is_swapped: bool) -> [T; 2] {
    match is_swapped {
        true => [second, first],
        false => [first, second],
    }
}
