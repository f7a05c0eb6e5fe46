use std::path::PathBuf;

use benches::daemon::Program;
use benches::selection::{NoRow, select};
use clap::Parser;

use crate::machine::Contender;
use crate::steps::{STEPS, Step};

/// Compares our virtio-fs daemon with the reference daemon in a Linux guest.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The reference daemon: `cargo install virtiofsd` builds it. Without it there is nothing to
    /// compare with, and nothing is done.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Our daemon. Default: target/dist/virtiofsd of this workspace.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Where the shared directories are made: a tmpfs, so that no disk is measured.
    #[arg(long, default_value = "/dev/shm")]
    pub(crate) dir: PathBuf,
    /// `--cache` of both daemons; each takes a boot of its own.
    #[arg(long, value_delimiter = ',', default_value = "auto,never")]
    pub(crate) cache: Vec<String>,
    /// Another option of our daemon, such as --thread-pool-size=4; may be repeated.
    #[arg(long = "with", allow_hyphen_values = true)]
    with: Vec<String>,
    /// Another option of the reference daemon; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    peer_with: Vec<String>,
    /// Request queues of our device; the reference daemon has one.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Rounds; in each, every step is done with one daemon and then with the other. Who is first,
    /// and which of the guest's processors has the interrupts of which, takes four to be equal.
    #[arg(long, default_value_t = 4)]
    pub(crate) rounds: u32,
    /// Only the steps whose name contains this; may be repeated.
    #[arg(long = "row")]
    only: Vec<String>,
    /// Also list the requests of each step by opcode, which are counted before the first round.
    #[arg(long)]
    pub(crate) requests: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn steps(&self) -> Result<Vec<Step>, NoRow> {
        select(&STEPS, |step| step.name, &self.only)
    }

    /// The daemon of the guest's root.
    pub(crate) fn root(&self) -> Program {
        Program::ours(
            self.ours.clone(),
            vec!["--readonly".into(), "--cache=always".into()],
        )
    }

    /// Ours, then the reference; `None` where none was named.
    pub(crate) fn contenders(&self, cache: &str) -> Option<[Contender; 2]> {
        let peer = self.peer.clone()?;
        let common = ["--xattr".to_owned(), format!("--cache={cache}")];
        let queues = format!("--num-request-queues={}", self.queues);
        let ours = [&common[..], &[queues], &self.with].concat();
        let theirs = [&common[..], &self.peer_with].concat();
        let ours = Contender {
            tag: "ours",
            program: Program::ours(self.ours.clone(), ours),
            queues: self.queues,
        };
        let reference = Contender {
            tag: "reference",
            program: Program::peer(peer, theirs),
            queues: 1,
        };
        Some([ours, reference])
    }
}
