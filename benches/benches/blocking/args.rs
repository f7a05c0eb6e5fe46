use std::path::PathBuf;
use std::time::Duration;

use benches::daemon::Program;
use clap::Parser;

/// Measures quick requests of a virtio-fs daemon beside some that wait for a disk.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The reference daemon: `cargo install virtiofsd` builds it. Without it there is nothing to
    /// compare with, and nothing is done.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Our daemon. Default: target/dist/virtiofsd of this workspace.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Where the shared directories are made; on a disk. Default: the directory for temporary files.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Threads of the reference daemon where it has a pool.
    #[arg(long, default_value_t = 16)]
    peer_pool: usize,
    /// Rounds; in each, all daemons are started anew.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Milliseconds for which each is measured.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// MiB of the file that is read cold, and of what is written before an fsync.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) const fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// All daemons and what they are called; `None` where no reference daemon was named.
    pub(crate) fn contenders(&self) -> Option<[(String, Program); 3]> {
        let peer = self.peer.clone()?;
        let pool = format!("--thread-pool-size={}", self.peer_pool);
        Some([
            ("ours".into(), Program::ours(self.ours.clone(), Vec::new())),
            ("reference".into(), Program::peer(peer.clone(), Vec::new())),
            (
                format!("reference, pool of {}", self.peer_pool),
                Program::peer(peer, vec![pool]),
            ),
        ])
    }
}
