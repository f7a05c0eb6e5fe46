use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testing::Console;

/// A daemon of this package, and what it logs. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Console,
    socket: PathBuf,
}

impl Daemon {
    /// Starts the daemon on `socket` and returns when a front-end can connect to it.
    pub(crate) fn start<A: AsRef<OsStr>>(socket: &Path, shared_dir: &Path, args: &[A]) -> Self {
        let shared_dir = [OsStr::new("--shared-dir"), shared_dir.as_os_str()];
        let args = args.iter().map(AsRef::as_ref);
        Self::start_sharing(socket, shared_dir.into_iter().chain(args))
    }

    /// As [`start`](Self::start), with `args` to say what is shared.
    pub(crate) fn start_sharing<A: AsRef<OsStr>>(
        socket: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_virtiofsd"));
        Self::start_by(command, socket, args)
    }

    /// As [`start_sharing`](Self::start_sharing), by a command that ends in the daemon's path.
    pub(crate) fn start_by<A: AsRef<OsStr>>(
        mut command: Command,
        socket: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        command.arg("--socket-path").arg(socket).args(args);
        Self::listening(command, socket)
    }

    /// A relay, which listens on `socket`, to the daemon that listens on `daemon`.
    pub(crate) fn relay(socket: &Path, daemon: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.arg("--listen").arg(socket);
        command.arg("--daemon").arg(daemon).args(args);
        Self::listening(command, socket)
    }

    fn listening(mut command: Command, socket: &Path) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the daemon starts");
        let log = Console::read(child.stderr.take().expect("its log is piped"));
        let daemon = Self {
            child,
            log,
            socket: socket.to_owned(),
        };
        // Ours says the one, the reference daemon the other.
        let listening = daemon.log.wait_for(Duration::from_secs(30), |line| {
            line.contains("listening") || line.contains("Waiting for vhost-user")
        });
        assert!(
            listening.is_some(),
            "the daemon does not listen; its log:\n{}",
            daemon.log()
        );
        daemon
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until it has logged a line with `text`.
    pub(crate) fn logs(&self, text: &str) {
        self.logs_times(text, 1);
    }

    /// Waits until it has logged `times` lines with `text`.
    pub(crate) fn logs_times(&self, text: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let is = |line: &&String| line.contains(text);
        while self.log.lines().iter().filter(is).count() < times {
            let late = Instant::now() > deadline;
            assert!(!late, "not {times} times {text:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it by SIGKILL, and waits until it has.
    pub(crate) fn kill(&mut self) {
        // Neither fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        self.log.tail()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel says of each of its threads (`status` in proc(5)).
    pub(crate) fn threads(&self) -> impl Iterator<Item = String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        // One may have ended by now.
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
    }

    /// How often its threads were taken off a processor so far. As long as that stays as it is, with
    /// all of them asleep at first, none of them has run, so none has made a system call.
    pub(crate) fn switches(&self) -> u64 {
        let count = |status: String| -> u64 {
            let lines = status.lines();
            let counts = lines.filter_map(|line| line.split_once("ctxt_switches:"));
            let count = |(_, count): (&str, &str)| count.trim().parse::<u64>();
            counts.map(|line| count(line).expect("a number")).sum()
        };
        self.threads().map(count).sum()
    }

    /// Sends it `signal`, a name that kill(1) knows.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill failed");
    }

    /// Asks it to end with `signal`, and waits until it has.
    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        assert!(
            self.log.wait_for_end(Duration::from_secs(30)),
            "the daemon does not end on SIG{signal}; its log:\n{}",
            self.log()
        );
        self.child.wait().expect("the daemon's exit status")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
