use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use benches::daemon::{Daemon, Program};
use tempfile::TempDir;
use testing::{Guest, Share};

use crate::steps::Step;
use crate::{Error, contents};

/// Longer than anything takes, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is compared: the tag of a share, its daemon, and the request queues of its device.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) tag: &'static str,
    pub(crate) program: Program,
    pub(crate) queues: u16,
}

/// A guest that has a share of each contender's daemon.
pub(crate) struct Machine {
    // In the order in which they end.
    guest: Guest,
    daemons: Vec<(&'static str, Daemon)>,
    _root: Daemon,
    _directory: TempDir,
    /// Commands so far.
    commands: u32,
}

/// What a step took with one daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Milliseconds by the guest's clock.
    pub(crate) millis: f64,
    /// Milliseconds of processor time of the daemon.
    pub(crate) cpu: f64,
}

/// Requests by opcode, FORGETs not among them; empty where the guest's kernel does not count.
pub(crate) type Requests = BTreeMap<u32, u64>;

struct Answer {
    micros: f64,
    told: String,
}

impl Machine {
    /// Boots the guest: its root is served by `root`, read-only.
    pub(crate) fn boot(
        root: &Program,
        contenders: &[Contender],
        parent: &Path,
    ) -> Result<Self, Error> {
        let io = |doing| move |source| Error::Io { doing, source };
        let directory = TempDir::with_prefix_in("virtio-fs-guest-", parent)
            .map_err(io("make a directory; choose another place with --dir"))?;
        let path = |name: &str| directory.path().join(name);
        let start = |program, tag: &str, shared: &Path| {
            let log = path(&format!("{tag}.log"));
            Daemon::start(program, &path(&format!("{tag}.socket")), shared, &log)
        };
        let root = start(root, "root", Path::new("/"))?;
        let mut daemons = Vec::new();
        for contender in contenders {
            let shared = path(contender.tag);
            fs::create_dir(&shared).map_err(io("make a directory"))?;
            contents::fill(&shared).map_err(io("fill a directory"))?;
            let daemon = start(&contender.program, contender.tag, &shared)?;
            daemons.push((contender.tag, daemon));
        }
        let sockets: Vec<_> = contenders
            .iter()
            .map(|contender| path(&format!("{}.socket", contender.tag)))
            .collect();
        let shares: Vec<_> = contenders
            .iter()
            .zip(&sockets)
            .map(|(contender, socket)| Share {
                tag: contender.tag,
                socket,
                request_queues: contender.queues,
            })
            .collect();
        let root_share = Share {
            tag: "root",
            socket: &path("root.socket"),
            request_queues: 1,
        };
        let workload = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/guest/workload.sh");
        // The kernel's command line has no blanks in values.
        let tags: Vec<_> = contenders.iter().map(|contender| contender.tag).collect();
        let tags = format!("SHARES={}", tags.join(","));
        let guest = Guest::boot(&root_share, &shares, Path::new(workload), &[&tags]);
        let machine = Self {
            guest,
            daemons,
            _root: root,
            _directory: directory,
            commands: 0,
        };
        match machine.guest.says("bench: ready", PATIENCE) {
            true => Ok(machine),
            false => Err(machine.failure("booting")),
        }
    }

    /// Does `step` on the share `tag`, and counts the requests, which takes time.
    pub(crate) fn count(&mut self, step: &Step, tag: &str) -> Result<Requests, Error> {
        self.tell(tag, step.prepare)?;
        self.tell(tag, "count")?;
        self.tell(tag, step.run)?;
        let told = self.tell(tag, "counted")?.told;
        let pairs = told.split_whitespace().map(|word| word.split_once('='));
        let pairs = pairs.map(|pair| {
            let (opcode, count) = pair?;
            Some((opcode.parse().ok()?, count.parse().ok()?))
        });
        pairs
            .collect::<Option<_>>()
            .ok_or_else(|| self.failure("counting requests"))
    }

    /// Has interrupts come to one processor from the first of `tags`, to the other from the second.
    pub(crate) fn attach(&mut self, [first, second]: [&str; 2]) -> Result<(), Error> {
        self.tell(first, &format!("attach {first} {second}"))?;
        Ok(())
    }

    /// Does `step` on the share `tag`, while nothing is counted.
    pub(crate) fn measure(&mut self, step: &Step, tag: &str) -> Result<Sample, Error> {
        self.tell(tag, step.prepare)?;
        let cpu = self.cpu(tag)?;
        let answer = self.tell(tag, step.run)?;
        let cpu = self.cpu(tag)? - cpu;
        Ok(Sample {
            millis: answer.micros / 1e3,
            cpu: cpu as f64 / 1e6,
        })
    }

    /// Has the guest power itself off.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        if self.guest.type_line("end").is_err() {
            return Err(self.failure("ending"));
        }
        let _said = self.guest.wait(PATIENCE);
        Ok(())
    }

    fn cpu(&self, tag: &str) -> Result<u64, Error> {
        let daemon = self.daemons.iter().find(|(name, _)| *name == tag);
        let (_, daemon) = daemon.expect("a share has a daemon");
        Ok(daemon.cpu_nanos()?)
    }

    /// Has the guest run `command` in the share `tag`.
    fn tell(&mut self, tag: &str, command: &str) -> Result<Answer, Error> {
        self.commands += 1;
        let line = format!("{} {tag} {command}", self.commands);
        if self.guest.type_line(&line).is_err() {
            return Err(self.failure(command));
        }
        let start = format!("bench: {} ", self.commands);
        let answer = self.guest.console().wait_for(PATIENCE, |line| {
            line.contains(&start) || line.contains("guest: FAILED")
        });
        let answer = answer.as_deref().and_then(|line| line.split_once(&*start));
        let mut words = answer.map_or("", |(_, rest)| rest).splitn(3, ' ');
        let status = words.next();
        let micros = words.next().and_then(|micros| micros.parse().ok());
        match (status, micros) {
            (Some("0"), Some(micros)) => Ok(Answer {
                micros,
                told: words.next().unwrap_or("").to_owned(),
            }),
            _ => Err(self.failure(command)),
        }
    }

    fn failure(&self, doing: &str) -> Error {
        Error::Guest {
            doing: doing.to_owned(),
            console: self.guest.console().tail(),
        }
    }
}
