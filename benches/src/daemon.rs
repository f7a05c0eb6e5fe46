//! Daemons to drive, each a process of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

/// How long a daemon has to listen.
const STARTUP: Duration = Duration::from_secs(10);

/// How to get a reference daemon.
pub const PEER_REMEDY: &str = "install it with `cargo install virtiofsd` (which needs \
     libcap-ng-dev and libseccomp-dev), and say where it is with --peer";

/// A daemon to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments, besides the socket and the shared directory.
    pub arguments: Vec<String>,
    /// What to do where it is not there.
    pub remedy: &'static str,
}

impl Program {
    /// Our daemon; unless `path` says otherwise, the build of this workspace that is made to be used.
    #[must_use]
    pub fn ours(path: Option<PathBuf>, arguments: Vec<String>) -> Self {
        let default = || {
            std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(
                    || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
                    PathBuf::from,
                )
                .join("dist/virtiofsd")
        };
        Self {
            path: path.unwrap_or_else(default),
            arguments,
            remedy: "build it with `cargo build --profile dist -p examples --bin virtiofsd`, \
                     or say where it is with --ours",
        }
    }

    /// The reference daemon, with its sandbox off as ours has none.
    #[must_use]
    pub fn peer(path: PathBuf, mut arguments: Vec<String>) -> Self {
        arguments.push("--sandbox=none".into());
        Self {
            path,
            arguments,
            remedy: PEER_REMEDY,
        }
    }
}

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DaemonError {
    #[error("there is no daemon at {}: {remedy}", path.display())]
    Missing { path: PathBuf, remedy: &'static str },
    #[error("cannot run {}: {source}", path.display())]
    Spawn { path: PathBuf, source: io::Error },
    #[error("{} did not listen; the end of what it said:\n{said}", path.display())]
    Startup { path: PathBuf, said: String },
    #[error("cannot read what {} used: {source}", path.display())]
    Usage { path: PathBuf, source: io::Error },
}

/// A daemon that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    path: PathBuf,
    child: Child,
    /// `/proc/PID`.
    proc: PathBuf,
}

/// Where to read how much memory is a daemon's own.
#[derive(Debug)]
pub struct PrivateMemory {
    path: PathBuf,
    /// `/proc/PID/status`.
    status: PathBuf,
}

impl PrivateMemory {
    /// `RssAnon` of proc_pid_status(5) in KiB: what is not shared with the guest, nor read from a
    /// file.
    ///
    /// # Errors
    /// The process has ended.
    pub fn kib(&self) -> Result<u64, DaemonError> {
        let read = || -> io::Result<u64> {
            let status = fs::read_to_string(&self.status)?;
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| io::Error::other("its status tells no RssAnon"))
        };
        read().map_err(|source| DaemonError::Usage {
            path: self.path.clone(),
            source,
        })
    }
}

impl Daemon {
    /// Runs `program` on `shared` and waits until it listens at `socket`. What it says goes to
    /// `log`.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub fn start(
        program: &Program,
        socket: &Path,
        shared: &Path,
        log: &Path,
    ) -> Result<Self, DaemonError> {
        let path = &program.path;
        if !path.exists() {
            return Err(DaemonError::Missing {
                path: path.clone(),
                remedy: program.remedy,
            });
        }
        let spawn = || -> io::Result<Child> {
            let output = fs::File::create(log)?;
            Command::new(path)
                .arg(format!("--socket-path={}", socket.display()))
                .arg(format!("--shared-dir={}", shared.display()))
                .args(&program.arguments)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
        };
        let child = spawn().map_err(|source| DaemonError::Spawn {
            path: path.clone(),
            source,
        })?;
        let mut daemon = Self {
            proc: PathBuf::from(format!("/proc/{}", child.id())),
            path: path.clone(),
            child,
        };
        daemon.wait_until_listening(socket, log)?;
        Ok(daemon)
    }

    fn wait_until_listening(&mut self, socket: &Path, log: &Path) -> Result<(), DaemonError> {
        let deadline = Instant::now() + STARTUP;
        while !testing::listens(socket) {
            let gone = !matches!(self.child.try_wait(), Ok(None));
            if gone || Instant::now() > deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                return Err(DaemonError::Startup {
                    path: self.path.clone(),
                    said: lines[lines.len().saturating_sub(10)..].join("\n"),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds that all threads have spent on a processor, those that ended too, up to now
    /// (clock_getcpuclockid(3)).
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu_nanos(&self) -> Result<u64, DaemonError> {
        let id = i32::try_from(self.id()).expect("a process id is positive");
        let read = || {
            let time = ClockId::pid_cpu_clock_id(Pid::from_raw(id))?.now()?;
            Ok(Duration::from(time).as_nanos())
        };
        let nanos = read().map_err(|e: nix::Error| self.usage_error()(e.into()))?;
        Ok(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Where to read how much memory is its own.
    #[must_use]
    pub fn private_memory(&self) -> PrivateMemory {
        PrivateMemory {
            path: self.path.clone(),
            status: self.proc.join("status"),
        }
    }

    fn usage_error(&self) -> impl FnOnce(io::Error) -> DaemonError {
        let path = self.path.clone();
        |source| DaemonError::Usage { path, source }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself when its guest went away.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
