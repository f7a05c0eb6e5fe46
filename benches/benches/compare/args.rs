use std::path::PathBuf;
use std::time::Duration;

use benches::comparison::Conditions;
use benches::machine;
use benches::selection::{NoRow, select};
use clap::{ArgAction, Parser};
use virtio_fs_guest::Options;

use crate::contenders::Contender;
use crate::rows::{BUFFERS, ROWS, Row};

/// Compares our virtio-fs daemon with the reference daemon, each with several settings.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The reference daemon: `cargo install virtiofsd` builds it. Without it there is nothing to
    /// compare with, and nothing is done.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Our daemon. Default: target/dist/virtiofsd of this workspace.
    #[arg(long)]
    pub(crate) ours: Option<PathBuf>,
    /// Another option of our daemon, such as --cache=never; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) with: Vec<String>,
    /// Another option of the reference daemon; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) peer_with: Vec<String>,
    /// `--thread-pool-size` of the reference daemon, where it is measured with a pool.
    #[arg(long, default_value_t = 4)]
    pub(crate) peer_pool: usize,
    /// Only those of the daemons' settings whose name contains this; may be repeated.
    #[arg(long = "contender")]
    contenders: Vec<String>,
    /// Where the shared directories are made: a tmpfs, so that no disk is measured.
    #[arg(long, default_value = "/dev/shm")]
    pub(crate) dir: PathBuf,
    /// Where they are made for the rows that need a disk. Default: beside the benchmark's program,
    /// in the target directory.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Rounds; in each, all daemons are started anew and all rows are measured, with one daemon
    /// after the other.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Milliseconds for which a row is measured, per daemon and round.
    #[arg(long, default_value_t = 200)]
    millis: u64,
    /// Only the rows whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// Descriptors per ring.
    #[arg(long, default_value_t = 512)]
    pub(crate) queue_size: u16,
    /// How the driver waits for a reply.
    #[arg(long, value_enum, default_value_t = Driver::Busy)]
    pub(crate) driver: Driver,
    /// `--cache` of all daemons, where given.
    #[arg(long)]
    cache: Option<String>,
    /// Do not count what the daemons do, in one more round.
    #[arg(long = "no-counts", action = ArgAction::SetFalse)]
    pub(crate) counts: bool,
    /// Measure nothing, but take what was written with --json; may be repeated, for a comparison
    /// that was made in parts.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// Write the tables to this file, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write all samples and counts to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the ratios of operations per second and of processor time, to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A guest's processor that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Driver {
    /// It stays awake for 200 us, as KVM's halt polling has it by default.
    Busy,
    /// It sleeps at once, and takes 10 us from an interrupt to its handler, in which the daemon
    /// goes to sleep too.
    Sleeping,
}

impl Driver {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Sleeping => "sleeping",
        }
    }

    const fn halt_poll(self) -> Duration {
        match self {
            Self::Busy => Duration::from_micros(200),
            Self::Sleeping => Duration::ZERO,
        }
    }

    const fn interrupt_delay(self) -> Duration {
        match self {
            Self::Busy => Duration::ZERO,
            Self::Sleeping => Duration::from_micros(10),
        }
    }
}

impl Args {
    pub(crate) fn rows(&self) -> Result<Vec<Row>, NoRow> {
        select(&ROWS, |row| row.name, &self.only)
    }

    pub(crate) fn conditions(&self) -> Conditions {
        Conditions {
            machine: machine::describe(),
            driver: self.driver.name().into(),
            queue_size: self.queue_size,
            millis: self.millis,
        }
    }

    pub(crate) fn disk(&self) -> PathBuf {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.to_owned());
        let disk = self.disk.clone();
        disk.or_else(beside).unwrap_or_else(std::env::temp_dir)
    }

    pub(crate) const fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// Who is measured; nobody where no reference daemon was named.
    pub(crate) fn contenders(&self) -> Result<Vec<Contender>, NoRow> {
        let Some(peer) = &self.peer else {
            return Ok(Vec::new());
        };
        select(&Contender::all(self, peer), |c| &c.name, &self.contenders)
    }

    /// The arguments of a daemon that has `more` of its own.
    pub(crate) fn arguments(&self, more: &[String]) -> Vec<String> {
        let cache = self.cache.iter().map(|cache| format!("--cache={cache}"));
        let xattr = std::iter::once("--xattr".into());
        xattr.chain(cache).chain(more.iter().cloned()).collect()
    }

    pub(crate) fn driver_options(&self, request_queues: u16) -> Options {
        Options {
            request_queues,
            queue_size: self.queue_size,
            data_memory: BUFFERS,
            interrupt_delay: self.driver.interrupt_delay(),
            halt_poll: self.driver.halt_poll(),
            ..Options::default()
        }
    }
}
