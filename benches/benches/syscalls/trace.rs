//! strace(1) on a process that runs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// How long strace has to take hold of all threads.
const START: Duration = Duration::from_secs(10);
/// A process that made no system call for so long is done.
const QUIET: Duration = Duration::from_millis(12);

/// Calls that have to do with threads, memory and sleeping, not with files.
const APART: [&str; 26] = [
    "brk",
    "clock_nanosleep",
    "clone",
    "clone3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "exit",
    "futex",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "prctl",
    "restart_syscall",
    "rseq",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
];
/// What a ring is driven by: a call whose first argument is one of these is not one for a file.
const RING: [&str; 3] = ["anon_inode:[event", "socket:[", "UNIX"];

/// Whether there is a strace.
pub(crate) fn available() -> bool {
    let version = Command::new("strace")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A strace that follows a process; it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Tracer {
    child: Child,
    path: PathBuf,
    log: File,
}

impl Tracer {
    /// Follows all threads of the process `id`, and writes to files in `dir`.
    pub(crate) fn attach(id: u32, dir: &Path) -> Result<Self, Error> {
        let (path, said) = (dir.join("strace"), dir.join("strace-said"));
        let begin = || -> io::Result<(Child, File)> {
            let log = File::create(&path)?;
            let child = Command::new("strace")
                .args(["-f", "-y", "-s", "0", "-o"])
                .arg(&path)
                .args(["-p", &id.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&said)?)
                .spawn()?;
            drop(log);
            Ok((child, File::open(&path)?))
        };
        let (child, log) = begin().map_err(|source| Error::Io {
            doing: "run strace",
            source,
        })?;
        let tracer = Self { child, path, log };
        let deadline = Instant::now() + START;
        while !is_traced(id).unwrap_or(false) {
            if Instant::now() > deadline {
                return Err(Error::Strace(fs::read_to_string(said).unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(tracer)
    }

    /// The names of the calls for files that were made since the last time, once the process makes
    /// no more.
    pub(crate) fn take(&mut self) -> Result<Vec<String>, Error> {
        let mut read = || -> io::Result<String> {
            let mut len = fs::metadata(&self.path)?.len();
            loop {
                std::thread::sleep(QUIET);
                let now = fs::metadata(&self.path)?.len();
                if now == len {
                    break;
                }
                len = now;
            }
            let mut text = String::new();
            self.log.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| Error::Io {
            doing: "read what strace wrote",
            source,
        })?;
        Ok(text
            .lines()
            .filter_map(call_for_files)
            .map(str::to_owned)
            .collect())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the daemon, by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_traced(id: u32) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The name of the call that a line of strace begins, if it is one for files:
/// `123 preadv2(9</srv/file>, [...`.
fn call_for_files(line: &str) -> Option<&str> {
    let (_pid, call) = line.split_once(' ')?;
    let (name, arguments) = call.trim_start().split_once('(')?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = arguments.split(',').next().unwrap_or_default();
    let for_ring = RING.iter().any(|ring| first.contains(&format!("<{ring}")));
    (is_name && !for_ring && !APART.contains(&name)).then_some(name)
}
