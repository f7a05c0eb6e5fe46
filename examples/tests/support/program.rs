use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon to test with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    /// The reference daemon.
    Peer(PathBuf),
}

impl Program {
    /// Ours, and the reference daemon where `VIRTIOFSD_PEER` or the path of cargo's programs has it.
    pub(crate) fn all() -> Vec<Self> {
        [Self::Ours].into_iter().chain(Self::peer()).collect()
    }

    /// The reference daemon.
    pub(crate) fn peer() -> Option<Self> {
        let named = env::var_os("VIRTIOFSD_PEER").map(PathBuf::from);
        let peer = named.or_else(|| {
            let home = env::var_os("HOME")?;
            let installed = Path::new(&home).join(".cargo/bin/virtiofsd");
            installed.exists().then_some(installed)
        });
        if peer.is_none() {
            println!("not tested with the reference daemon: VIRTIOFSD_PEER does not name it");
        }
        peer.map(Self::Peer)
    }

    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Ours => Command::new(env!("CARGO_BIN_EXE_virtiofsd")),
            Self::Peer(path) => {
                let mut command = Command::new(path);
                command.args(["--sandbox=none", "--xattr"]);
                command
            }
        }
    }

    /// Request queues for tests to use: the reference daemon has one.
    pub(crate) const fn request_queues(&self) -> u16 {
        match self {
            Self::Ours => 2,
            Self::Peer(_) => 1,
        }
    }
}
