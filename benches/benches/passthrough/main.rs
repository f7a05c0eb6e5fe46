//! What a filesystem operation takes beside the system calls that it cannot do without: without a
//! transport, against the shortest way to have the host do the same.
//!
//! `cargo bench -p benches --bench passthrough`
//!
//! Both run on one thread, in turns, on a directory for temporary files; the best of the turns
//! counts. Run it as root on an idle machine.

mod rows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use benches::selection::select;
use clap::Parser;
use rows::{ROWS, Row, Site};

/// Measures what passthrough-fs takes for an operation, and the same made directly.
#[derive(Debug, Parser)]
struct Args {
    /// Only the operations whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// How often each is done in a turn.
    #[arg(long, default_value_t = 2000)]
    times: u32,
    /// Turns of each.
    #[arg(long, default_value_t = 7)]
    turns: u32,
    /// Where the directory is made. Default: the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leaves the direct calls out, for a profiler.
    #[arg(long)]
    ours_only: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rows = match select(&ROWS, |row| row.name, &args.only) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("passthrough: {error}");
            return ExitCode::FAILURE;
        }
    };
    let place = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    println!("| operation | here, us | directly, us | ratio |\n|---|---|---|---|");
    for row in rows {
        let site = match Site::new(&place) {
            Ok(site) => site,
            Err(error) => {
                eprintln!("passthrough: cannot make a directory to share: {error}");
                return ExitCode::FAILURE;
            }
        };
        measure(&args, &site, &row);
    }
    ExitCode::SUCCESS
}

fn measure(args: &Args, site: &Site, row: &Row) {
    let (mut ours, mut direct) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..args.turns {
        ours = ours.min(turn(args.times, || (row.ours)(site)));
        if !args.ours_only {
            direct = direct.min(turn(args.times, || (row.direct)(site)));
        }
    }
    let ratio = ours / direct;
    println!("| {} | {ours:.2} | {direct:.2} | {ratio:.2} |", row.name);
}

/// Microseconds for each time.
fn turn(times: u32, mut operation: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..times {
        operation();
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(times)
}
