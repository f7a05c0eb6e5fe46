//! Who is compared.

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
    pub(crate) fn all(args: &Args, peer: &std::path::Path) -> Vec<Self> {
        let ours = |queues| Self {
            name: match queues {
                1 => "ours".into(),
                _ => format!("ours, {queues} queues"),
            },
            party: Party::Ours,
            means: Means::Daemon {
                program: Program::ours(args.ours.clone(), args.arguments(&args.with)),
                queues,
            },
        };
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
            ours(1),
            ours(2),
            ours(4),
            reference(None),
            reference(Some(args.peer_pool)),
        ]
    }
}
