use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The lines that a process has written so far. Collected by a thread, so that the process never
/// waits for its reader.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Console {
    /// Reads `output` from now on, to its end.
    pub fn read(output: impl Read + Send + 'static) -> Self {
        let console = Self {
            shared: Arc::default(),
        };
        let writer = console.clone();
        thread::spawn(move || writer.collect(BufReader::new(output)));
        console
    }

    /// Waits for a line that `found` says yes to, and returns it. `None` where the output ended or
    /// `patience` ran out before that.
    pub fn wait_for(&self, patience: Duration, found: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + patience;
        let (lines, changed) = &*self.shared;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.lines.iter().find(|line| found(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return None;
            }
            lines = changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the output has ended, and returns whether it did before `patience` ran out.
    #[must_use]
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        self.wait_for(patience, |_| false);
        self.lock(|lines| lines.ended)
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock(|lines| lines.lines.clone())
    }

    /// The last lines, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        const LINES: usize = 80;
        let lines = self.lines();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn collect(&self, mut output: impl BufRead) {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.change(|lines| lines.lines.push(text));
            line.clear();
        }
        self.change(|lines| lines.ended = true);
    }

    fn lock<T>(&self, look: impl FnOnce(&mut Lines) -> T) -> T {
        look(&mut self.shared.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        self.lock(change);
        self.shared.1.notify_all();
    }
}
