use std::path::PathBuf;
use std::time::Duration;

use benches::daemon::Program;
use benches::selection::{NoRow, select};
use clap::Parser;
use virtio_fs_guest::Options;

use crate::rows::{ROWS, Row};

/// Compares our virtio-fs daemon with the reference daemon.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The reference daemon: `cargo install virtiofsd` builds it. Without it there is nothing to
    /// compare with, and nothing is done.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Our daemon. Default: target/release/virtiofsd of this workspace.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Where the shared directories are made: a tmpfs, so that no disk is measured.
    #[arg(long, default_value = "/dev/shm")]
    pub(crate) dir: PathBuf,
    /// Rounds; in each, both daemons are started anew and all rows are measured in turn.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: u32,
    /// Milliseconds for which a row is measured, per daemon and round.
    #[arg(long, default_value_t = 300)]
    millis: u64,
    /// Only the rows whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// Descriptors per ring.
    #[arg(long, default_value_t = 512)]
    pub(crate) queue_size: u16,
    /// Microseconds that an interrupt takes to reach the driver. With 0 the next request may come
    /// before the daemon has gone to sleep: then neither side ever sleeps, as never with a virtual
    /// machine.
    #[arg(long, default_value_t = 10)]
    pub(crate) interrupt_delay: u64,
    /// `--cache` of both daemons, where given.
    #[arg(long)]
    cache: Option<String>,
    /// `--thread-pool-size` of both daemons, where given.
    #[arg(long)]
    thread_pool_size: Option<usize>,
    /// Also write all samples to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn rows(&self) -> Result<Vec<Row>, NoRow> {
        select(&ROWS, |row| row.name, &self.only)
    }

    pub(crate) const fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    pub(crate) fn ours(&self) -> Program {
        Program::ours(self.ours.clone(), self.common_arguments())
    }

    /// The reference daemon, where one was named.
    pub(crate) fn peer(&self) -> Option<Program> {
        let path = self.peer.clone()?;
        Some(Program::peer(path, self.common_arguments()))
    }

    fn common_arguments(&self) -> Vec<String> {
        let cache = self.cache.iter().map(|cache| format!("--cache={cache}"));
        let threads = self
            .thread_pool_size
            .iter()
            .map(|size| format!("--thread-pool-size={size}"));
        let xattr = std::iter::once("--xattr".into());
        xattr.chain(cache).chain(threads).collect()
    }

    pub(crate) fn driver(&self) -> Options {
        Options {
            queue_size: self.queue_size,
            interrupt_delay: Duration::from_micros(self.interrupt_delay),
            ..Options::default()
        }
    }
}
