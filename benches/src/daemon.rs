//! Daemons to drive, each a process of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    /// Our daemon; unless `path` says otherwise, the release build of this workspace.
    #[must_use]
    pub fn ours(path: Option<PathBuf>, arguments: Vec<String>) -> Self {
        let default = || {
            std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(
                    || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
                    PathBuf::from,
                )
                .join("release/virtiofsd")
        };
        Self {
            path: path.unwrap_or_else(default),
            arguments,
            remedy: "build it with `cargo build --release -p examples --bin virtiofsd`, \
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

/// Memory of a process in KiB (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// `VmHWM`: with the guest's memory, as far as it was touched.
    pub peak: u64,
    /// `RssAnon`: the daemon's own.
    pub anonymous: u64,
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
        while !socket.exists() {
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

    /// Nanoseconds that all threads spent on a processor (`/proc/PID/task/TID/schedstat`).
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu_nanos(&self) -> Result<u64, DaemonError> {
        let read = || -> io::Result<u64> {
            let mut total = 0;
            for task in fs::read_dir(self.proc.join("task"))? {
                let stat = fs::read_to_string(task?.path().join("schedstat"))?;
                let nanos = stat.split(' ').next().and_then(|n| n.parse::<u64>().ok());
                total += nanos.ok_or_else(|| io::Error::other("schedstat holds no number"))?;
            }
            Ok(total)
        };
        read().map_err(self.usage_error())
    }

    /// Has the peak of memory counted from now on (`/proc/PID/clear_refs`).
    ///
    /// # Errors
    /// The process has ended.
    pub fn reset_peak(&self) -> Result<(), DaemonError> {
        fs::write(self.proc.join("clear_refs"), "5").map_err(self.usage_error())
    }

    /// What memory it takes.
    ///
    /// # Errors
    /// The process has ended.
    pub fn memory(&self) -> Result<Memory, DaemonError> {
        let status = fs::read_to_string(self.proc.join("status")).map_err(self.usage_error())?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Ok(Memory {
            peak: field("VmHWM:").unwrap_or(0),
            anonymous: field("RssAnon:").unwrap_or(0),
        })
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
