//! What io_uring would save on deep queues: reads of 4 KiB, as a driver has many of them in flight,
//! made one by one with preadv2(2), by threads of a pool, and in batches by io_uring.
//!
//! `cargo bench -p benches --bench io_uring -- --dir DIR`, with a directory on the filesystem in
//! question. There is no daemon and no ring of a driver here: these are the system calls alone,
//! which is the most that a daemon could save.

mod sys;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use sys::Batch;

/// Bytes of a read.
const BLOCK: usize = 4096;
/// Bytes of the file, and of the memory that is read into.
const LEN: usize = 64 << 20;
/// Threads that read, where threads do: as many as the daemon's pool has.
const THREADS: usize = 16;

/// What io_uring is told of once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    Nothing,
    File,
    FileAndMemory,
}

/// Measures reads of 4 KiB with and without io_uring.
#[derive(Debug, Parser)]
struct Args {
    /// Where the file is made
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Milliseconds for which each is measured
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Reads in flight; may be repeated
    #[arg(long = "depth", default_values_t = [8, 32, 64])]
    depths: Vec<u32>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!(
        "Reads of 4 KiB at random from 64 MiB in {}",
        args.dir.display()
    );
    println!("\n| | how | us/read | CPU us/read |\n|---|---|---|---|");
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("io_uring: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(&args.dir)?;
    fs::write(file.path(), vec![1; LEN])?;
    file.as_file().sync_all()?;
    for (name, flags) in [("cached", OFlags::empty()), ("O_DIRECT", OFlags::DIRECT)] {
        match open(file.path(), flags) {
            Ok(open) => measure_file(args, name, &open)?,
            Err(error) => eprintln!("io_uring: skipped: {name}: {error}"),
        }
    }
    Ok(())
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

fn measure_file(args: &Args, name: &str, file: &File) -> io::Result<()> {
    let time = Duration::from_millis(args.millis);
    let memory = sys::pages(LEN)?;
    row(name, "one by one", || one_by_one(file, memory, 0, time))?;
    row(name, "16 threads", || threads(file, memory, time))?;
    for &depth in &args.depths {
        for registered in Registered::ALL {
            let how = format!("io_uring x{depth}{registered}");
            match Batch::new(file, memory, depth, registered) {
                Ok(batch) => row(name, &how, || batches(batch, time))?,
                Err(error) => eprintln!("io_uring: skipped: {how}: {error}"),
            }
        }
    }
    Ok(())
}

/// Prints what each of the reads took that `reads` makes and counts.
fn row(name: &str, how: &str, reads: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let (began, cpu_before) = (Instant::now(), cpu());
    let count = reads()?.max(1) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
    let (time, cpu) = (micros(began.elapsed()), micros(cpu() - cpu_before));
    println!("| {name} | {how} | {time:.2} | {cpu:.2} |");
    Ok(())
}

/// Reads for `time`, from read number `first` on, and returns how often.
fn one_by_one(file: &File, memory: &mut [u8], first: u64, time: Duration) -> io::Result<u64> {
    let began = Instant::now();
    let mut number = first;
    while began.elapsed() < time {
        let block = number as usize % (memory.len() / BLOCK) * BLOCK;
        file.read_exact_at(&mut memory[block..block + BLOCK], offset(number))?;
        number += 1;
    }
    Ok(number - first)
}

fn threads(file: &File, memory: &mut [u8], time: Duration) -> io::Result<u64> {
    thread::scope(|scope| {
        let parts = memory.chunks_exact_mut(LEN / THREADS);
        let readers: Vec<_> = (0..)
            .zip(parts)
            .map(|(index, part)| scope.spawn(move || one_by_one(file, part, index << 32, time)))
            .collect();
        let counts = readers.into_iter().map(|reader| reader.join());
        counts.map(|count| count.expect("no reader panics")).sum()
    })
}

fn batches(mut batch: Batch<'_>, time: Duration) -> io::Result<u64> {
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < time {
        number += batch.read(number)?;
    }
    Ok(number)
}

/// Where in the file a read begins.
fn offset(number: u64) -> u64 {
    let block = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    block % (LEN / BLOCK) as u64 * BLOCK as u64
}

impl Registered {
    const ALL: [Self; 3] = [Self::Nothing, Self::File, Self::FileAndMemory];
}

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "",
            Self::File => ", registered file",
            Self::FileAndMemory => ", registered file and memory",
        })
    }
}
