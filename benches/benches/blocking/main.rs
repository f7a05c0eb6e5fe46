//! What becomes of quick requests beside one that waits for a disk, on the same queue: reads of a
//! file that the host has not cached, and an fsync of much that was written.
//!
//! `cargo bench -p benches --bench blocking -- --peer PATH --dir DIRECTORY_ON_A_DISK`
//!
//! Three rounds of a second on ext4, with two processors (AMD EPYC, Linux 6.18) and virtiofsd 1.14 for
//! the reference daemon: microseconds that the quick ones take (median and 99th percentile), how many
//! were done, and how many of the slow ones beside them.
//!
//! | | ours | reference | reference, pool of 16 |
//! |---|---|---|---|
//! | alone | 94, 242: 31129 | 109, 495: 24277 | 97, 276: 29505 |
//! | beside reads of a cold file | 54, 415: 32300; 44409 | 558, 1670: 4948; 19797 | 155, 471: 17226; 36204 |
//! | beside fsync | 12, 150: 19265; 12 | 12320, 74678: 14; 14 | 109, 1288: 1481; 13 |
//!
//! The driver sleeps for each reply; beside others the processors are awake, which makes up for the
//! rest. Between one fsync and the next, 256 MiB are made dirty again and nothing else is done, hence
//! fewer.

mod args;
mod report;
mod session;

use std::process::ExitCode;

use args::Args;
use benches::daemon::{DaemonError, PEER_REMEDY};
use clap::Parser;
use report::Report;
use session::{Beside, Session};

/// Why the measurement ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("the driver: {0}")]
    Guest(#[from] virtio_fs_guest::Error),
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("blocking: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    // As in `cargo bench` without arguments.
    let Some(contenders) = args.contenders() else {
        eprintln!("blocking: skipped: needs a reference daemon: {PEER_REMEDY}");
        return Ok(());
    };
    let mut report = Report::default();
    for round in 0..args.rounds {
        for (name, program) in &contenders {
            let mut session = Session::start(program, args)?;
            for beside in Beside::ALL {
                eprintln!(
                    "round {} of {}: {name}, {}",
                    round + 1,
                    args.rounds,
                    beside.name()
                );
                report.add(name, beside, session.measure(beside, args)?);
            }
        }
    }
    print!("{}", report.markdown());
    Ok(())
}
