use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How often it is looked whether something has changed.
const INTERVAL: Duration = Duration::from_millis(100);

/// The monitor of a QEMU (QMP) that was started with `-qmp unix:SOCKET,server=on,wait=off`.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects as soon as it listens at `socket`.
    ///
    /// # Panics
    /// Where it does not within `patience`, or is no monitor.
    #[must_use]
    pub fn connect(socket: &Path, patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "no monitor: {error}"),
            }
            thread::sleep(INTERVAL);
        };
        let stream = BufReader::new(stream);
        let mut monitor = Self { stream };
        monitor.read();
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    /// Executes a command of the QEMU QMP reference, and returns what it does.
    ///
    /// # Panics
    /// Where it fails.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let message = json!({"execute": command, "arguments": arguments});
        let stream = self.stream.get_mut();
        writeln!(stream, "{message}").expect("QEMU listens");
        loop {
            let mut answer = self.read();
            match answer.get_mut("return") {
                Some(result) => return result.take(),
                None => assert!(answer.get("event").is_some(), "{command}: {answer}"),
            }
        }
    }

    /// Begins to move the machine to the QEMU that listens for it at `socket`, as fast as it can, or
    /// with `bandwidth` bytes a second.
    ///
    /// # Panics
    /// Where that cannot be begun.
    pub fn migrate(&mut self, socket: &Path, bandwidth: Option<u64>) {
        let bandwidth = bandwidth.unwrap_or(1 << 40);
        let limits = json!({"max-bandwidth": bandwidth, "downtime-limit": 5000});
        self.execute("migrate-set-parameters", limits);
        let uri = format!("unix:{}", socket.display());
        self.execute("migrate", json!({"uri": uri}));
    }

    /// Waits until the state of the migration is `status`.
    ///
    /// # Panics
    /// Where it ends otherwise, or is not within `patience`.
    pub fn wait_for_migration(&mut self, status: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.execute("query-migrate", json!({}));
            let now = answer.get("status").and_then(Value::as_str).unwrap_or("");
            if now == status {
                return;
            }
            let ended = ["completed", "failed", "cancelled"].contains(&now);
            assert!(!ended && Instant::now() < deadline, "{answer}");
            thread::sleep(INTERVAL);
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("QEMU answers");
        serde_json::from_str(&line).expect("what it says is JSON")
    }
}
