//! Who is compared.

use std::path::Path;

use benches::comparison::{self, Party};
use benches::daemon::Program;

use crate::args::Args;

/// One of those that do the work of every row.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Unlike that of all others.
    pub(crate) name: String,
    pub(crate) party: Party,
    pub(crate) means: Means,
}

/// How the work is done.
#[derive(Debug, Clone)]
pub(crate) enum Means {
    /// By a daemon, which is driven over so many request queues.
    Daemon { program: Program, queues: u16 },
    /// By the bench itself, with direct system calls.
    Native,
}

impl Contender {
    pub(crate) fn describe(&self) -> comparison::Contender {
        comparison::Contender {
            name: self.name.clone(),
            party: self.party,
        }
    }

    /// All of them, the one that the others are held against being the reference daemon as it is
    /// by default.
    pub(crate) fn all(args: &Args, peer: &Path) -> Vec<Self> {
        let ours = |name: &str, with: &[String], queues| Self {
            name: name.into(),
            party: Party::Ours,
            means: Means::Daemon {
                program: Program::ours(args.ours.clone(), args.arguments(with)),
                queues,
            },
        };
        let mut no_polling = args.with.clone();
        no_polling.retain(|option| !option.starts_with("--poll-us"));
        no_polling.push("--poll-us=0".into());
        let reference = |pool: Option<usize>| {
            let mut arguments = args.arguments(&args.peer_with);
            arguments.extend(pool.map(|size| format!("--thread-pool-size={size}")));
            Self {
                name: pool.map_or("reference".into(), |size| {
                    format!("reference, pool of {size}")
                }),
                party: Party::Reference,
                means: Means::Daemon {
                    program: Program::peer(peer.to_owned(), arguments),
                    // It has no more than one.
                    queues: 1,
                },
            }
        };
        vec![
            ours("ours", &args.with, 1),
            ours("ours, no polling", &no_polling, 1),
            ours("ours, 2 queues", &args.with, 2),
            ours("ours, 4 queues", &args.with, 4),
            reference(None),
            reference(Some(args.peer_pool)),
            Self {
                name: "native".into(),
                party: Party::Native,
                means: Means::Native,
            },
        ]
    }
}
