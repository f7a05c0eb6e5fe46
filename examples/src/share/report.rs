use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::stack::Totals;

/// What a directory contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    SymbolicLink,
    /// FIFOs, sockets and device nodes: only their metadata is compared.
    Special,
}

/// What a comparison came to, counted. Differences are printed to standard error as they are found,
/// and progress is shown where that is a terminal.
#[derive(Debug)]
pub(super) struct Report {
    root: PathBuf,
    progress: ProgressBar,
    begin: Instant,
    took: Duration,
    totals: Totals,
    directories: u64,
    files: u64,
    symbolic_links: u64,
    special: u64,
    left_out: u64,
    unreadable: u64,
    changed: u64,
    differences: u64,
}

impl Report {
    /// Begins a comparison of `root`.
    pub(super) fn new(root: &Path) -> Self {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        let progress = ProgressBar::new_spinner();
        if let Ok(style) = style {
            progress.set_style(style);
        }
        progress.enable_steady_tick(Duration::from_millis(100));
        Self {
            root: root.to_owned(),
            progress,
            begin: Instant::now(),
            took: Duration::ZERO,
            totals: Totals::default(),
            directories: 0,
            files: 0,
            symbolic_links: 0,
            special: 0,
            left_out: 0,
            unreadable: 0,
            changed: 0,
            differences: 0,
        }
    }

    /// Shows how far the comparison is.
    pub(super) fn progress(&self, path: &Path, totals: Totals) {
        if self.progress.is_hidden() {
            return;
        }
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        self.progress.set_message(format!(
            "{} files, {}: {}",
            HumanCount(self.files),
            HumanBytes(totals.bytes),
            path.display()
        ));
    }

    /// One more of `kind` is there.
    pub(super) const fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Directory => self.directories += 1,
            Kind::File => self.files += 1,
            Kind::SymbolicLink => self.symbolic_links += 1,
            Kind::Special => self.special += 1,
        }
    }

    /// Another filesystem is mounted here.
    pub(super) const fn left_out(&mut self) {
        self.left_out += 1;
    }

    /// Neither side may read it.
    pub(super) fn unreadable(&mut self, path: &Path) {
        self.unreadable += 1;
        self.say(path, "may not be read, on neither side");
    }

    /// It changed while it was compared.
    pub(super) fn changed(&mut self, path: &Path) {
        self.changed += 1;
        self.say(path, "changed while it was compared");
    }

    /// The two sides differ.
    pub(super) fn difference(&mut self, path: &Path, how: &str) {
        self.differences += 1;
        self.say(path, &format!("DIFFERS: {how}"));
    }

    /// Ends the comparison.
    pub(super) fn finish(&mut self, totals: Totals) {
        self.progress.finish_and_clear();
        self.took = self.begin.elapsed();
        self.totals = totals;
    }

    /// What the program ends with.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self.differences {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    fn say(&self, path: &Path, what: &str) {
        self.progress
            .suspend(|| eprintln!("{}: {what}", path.display()));
    }

    /// Bytes per second of all reads.
    fn throughput(&self) -> u64 {
        let seconds = self.totals.reading.as_secs_f64();
        if seconds == 0.0 {
            return 0;
        }
        (self.totals.bytes as f64 / seconds) as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} through the whole stack", self.root.display())?;
        let counts = [
            ("directories", self.directories),
            ("files", self.files),
            ("symbolic links", self.symbolic_links),
            ("special files", self.special),
            ("mount points left out", self.left_out),
            ("unreadable", self.unreadable),
            ("changed meanwhile", self.changed),
            ("bytes", self.totals.bytes),
            ("requests", self.totals.requests),
        ];
        for (name, count) in counts {
            writeln!(f, "  {name:<22} {:>15}", HumanCount(count).to_string())?;
        }
        writeln!(
            f,
            "  {:<22} {:>15}   in {:.2} s of {:.2} s",
            "read",
            format!("{} MB/s", self.throughput() / 1_000_000),
            self.totals.reading.as_secs_f64(),
            self.took.as_secs_f64()
        )?;
        writeln!(
            f,
            "  {:<22} {:>15}",
            "differences",
            HumanCount(self.differences).to_string()
        )
    }
}
