//! What the tables of nodes and handles cost where several threads use them at once: operations of
//! passthrough-fs, and the same system calls around tables as one would write them first, a
//! `RwLock<BTreeMap>` each.
//!
//! `cargo bench -p benches --bench contention`
//!
//! All threads of a subject share one filesystem, and each has a file of its own, except where a row
//! says otherwise. Over 9 turns, on a machine with only two processors (AMD EPYC, Linux 6.18),
//! operations per second of passthrough-fs to those of the simple tables, median (least-most), and
//! how many times those of one thread two threads make:
//!
//! | | 1 thread | 2 threads | of one thread's | simple |
//! |---|---|---|---|---|
//! | the table of nodes alone | 0.81 (0.80-0.82) | 5.26 (1.34-5.92) | 2.50 | 0.37 |
//! | the same, all of one node | 0.89 (0.78-1.05) | 0.75 (0.16-3.52) | 0.22 | 0.23 |
//! | GETATTR | 0.91 (0.88-1.24) | 0.94 (0.89-1.72) | 2.23 | 2.01 |
//! | LOOKUP, FORGET | 0.85 (0.72-0.87) | 0.82 (0.72-1.60) | 2.29 | 2.25 |
//! | OPEN, RELEASE | 1.54 (1.43-1.95) | 1.36 (1.16-2.28) | 1.51 | 1.80 |
//! | all of these | 1.21 (1.06-1.32) | 1.13 (0.67-1.32) | 1.95 | 2.24 |
//!
//! So threads that use different nodes do not slow each other down in the tables, where those of one
//! lock make less than one alone; those that use the same node pass the count of its references back
//! and forth. Beside system calls that hardly shows with two threads: the simple one is ahead where it
//! does less around a system call, such as to make up a reply. It takes more processors than two to
//! tell how far either scales; more threads than processors (`--threads`) show only that nothing
//! breaks down. The machine was busy with others, which is where factors above 2 come from.

mod here;
mod rows;
mod simple;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::machine;
use benches::selection::select;
use clap::Parser;
use here::Here;
use rows::{ROWS, Row, Subject, Task};
use simple::Simple;
use tempfile::TempDir;

/// Measures operations of passthrough-fs, and of simple tables, on several threads at once.
#[derive(Debug, Parser)]
struct Args {
    /// Only the operations whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// Threads at once.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    threads: Vec<usize>,
    /// Milliseconds for which all of them do an operation in a turn.
    #[arg(long, default_value_t = 20)]
    millis: u64,
    /// Turns of each.
    #[arg(long, default_value_t = 9)]
    turns: usize,
    /// Where the directory is made, in memory at best.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rows = match select(&ROWS, |row| row.name, &args.only) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("contention: {error}");
            return ExitCode::FAILURE;
        }
    };
    match measure(&args, &rows) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contention: {}: {error}", args.dir.display());
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args, rows: &[Row]) -> io::Result<()> {
    let most = args.threads.iter().copied().max().unwrap_or(1);
    let outer = TempDir::with_prefix_in("contention-", &args.dir)?;
    for n in 0..most {
        std::fs::write(outer.path().join(n.to_string()), "content")?;
    }
    let here = Here::new(outer.path())?;
    let simple = Simple::new(outer.path())?;
    let time = Duration::from_millis(args.millis);
    println!("{}.\n", machine::describe());
    println!(
        "Thousands of operations per second, of all threads; medians of {} turns.\n",
        args.turns
    );
    println!(
        "| operation | threads | here | simple | here / simple (least-most) | here, to 1 thread | simple, to 1 thread |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for row in rows {
        let mut alone = None;
        for &threads in &args.threads {
            let found = Found::new(args.turns, || {
                let ours = run(&here, row, threads, time);
                (ours, run(&simple, row, threads, time))
            });
            println!(
                "{}",
                found.line(row.name, threads, *alone.get_or_insert(found.medians()))
            );
        }
    }
    Ok(())
}

/// Operations per second of `threads` threads together.
fn run<S: Subject>(subject: &S, row: &Row, threads: usize, time: Duration) -> f64 {
    let tasks: Vec<Task> = (0..threads)
        .map(|n| Task::new(subject, if row.same_file { 0 } else { n }))
        .collect();
    let (start, over) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let operation = |task: &Task| {
        start.wait();
        let mut done = 0_u64;
        while !over.load(Ordering::Relaxed) {
            (row.operation)(subject, task);
            done += 1;
        }
        done
    };
    let total = std::thread::scope(|scope| {
        let running: Vec<_> = tasks
            .iter()
            .map(|task| scope.spawn(|| operation(task)))
            .collect();
        start.wait();
        let began = Instant::now();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        let counts = running.into_iter().map(|thread| thread.join());
        let done: u64 = counts
            .map(|count| count.expect("no operation panics"))
            .sum();
        done as f64 / began.elapsed().as_secs_f64()
    });
    for task in tasks {
        task.end(subject);
    }
    total
}

/// The turns of an operation.
struct Found {
    here: Vec<f64>,
    simple: Vec<f64>,
    ratios: Vec<f64>,
}

impl Found {
    fn new(turns: usize, turn: impl Fn() -> (f64, f64)) -> Self {
        let (here, simple): (Vec<_>, Vec<_>) = (0..turns.max(1)).map(|_| turn()).unzip();
        let ratios = here.iter().zip(&simple).map(|(a, b)| a / b);
        Self {
            ratios: sorted(ratios.collect()),
            here: sorted(here),
            simple: sorted(simple),
        }
    }

    fn medians(&self) -> (f64, f64) {
        (median(&self.here), median(&self.simple))
    }

    /// A line of the table; the first one of an operation is what the others are held against.
    fn line(&self, name: &str, threads: usize, first: (f64, f64)) -> String {
        let (here, simple) = self.medians();
        let ratios = &self.ratios;
        format!(
            "| {name} | {threads} | {:.0} | {:.0} | {:.2} ({:.2}-{:.2}) | {:.2} | {:.2} |",
            here / 1e3,
            simple / 1e3,
            median(ratios),
            ratios[0],
            ratios[ratios.len() - 1],
            here / first.0,
            simple / first.1,
        )
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
