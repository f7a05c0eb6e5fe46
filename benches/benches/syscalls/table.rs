use std::collections::BTreeMap;
use std::fmt::Write;

use fuse_wire::Errno;

/// What was counted of an operation.
#[derive(Debug)]
pub(crate) enum Count {
    /// The calls, each time that it was done.
    Calls(Vec<Vec<String>>),
    /// The daemon does not do it.
    Refused(Errno),
}

/// What was counted, by operation and daemon.
#[derive(Debug, Default)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    counts: Vec<Count>,
}

impl Table {
    pub(crate) fn add(&mut self, row: &'static str, heading: &'static str, count: Count) {
        if !self.headings.contains(&heading) {
            self.headings.push(heading);
        }
        match self.lines.iter_mut().find(|line| line.name == row) {
            Some(line) => line.counts.push(count),
            None => self.lines.push(Line {
                name: row,
                counts: vec![count],
            }),
        }
    }

    /// The table, and a line that names the operations where the first daemon makes more calls
    /// than another.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("| operation | {} |\n", self.headings.join(" | "));
        out += &"|---".repeat(self.headings.len() + 1);
        out += "|\n";
        for line in &self.lines {
            let cells: Vec<String> = line.counts.iter().map(Count::cell).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "| {} | {} |", line.name, cells.join(" | "));
        }
        let lost: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| line.is_lost())
            .map(|line| line.name)
            .collect();
        if self.headings.len() > 1 {
            let lost = if lost.is_empty() {
                "none".into()
            } else {
                lost.join(", ")
            };
            let _ = writeln!(out, "\nMore calls than another: {lost}.");
        }
        out
    }

    /// The calls of each operation, as they were made the last time.
    pub(crate) fn names(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            for (heading, count) in self.headings.iter().zip(&line.counts) {
                if let Some(calls) = count.last() {
                    let _ = writeln!(out, "{}, {heading}: {}", line.name, sequence(calls));
                }
            }
        }
        out
    }
}

/// The calls in their order; of a long one, how many of each there are.
fn sequence(calls: &[String]) -> String {
    if calls.len() <= 20 {
        return calls.join(" ");
    }
    let mut each: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *each.entry(call).or_default() += 1;
    }
    let each: Vec<String> = each
        .iter()
        .map(|(call, times)| format!("{call} x{times}"))
        .collect();
    each.join(", ")
}

impl Line {
    fn is_lost(&self) -> bool {
        let mut means = self.counts.iter().map(Count::mean);
        let ours = means.next().flatten();
        ours.is_some_and(|ours| means.flatten().any(|theirs| theirs < ours))
    }
}

impl Count {
    /// Whether it takes more than `calls` each time.
    pub(crate) fn exceeds(&self, calls: usize) -> bool {
        match self {
            Self::Calls(times) => times.iter().all(|time| time.len() > calls),
            Self::Refused(_) => true,
        }
    }

    fn mean(&self) -> Option<f64> {
        match self {
            Self::Calls(times) if !times.is_empty() => {
                let sum: usize = times.iter().map(Vec::len).sum();
                Some(sum as f64 / times.len() as f64)
            }
            _ => None,
        }
    }

    fn cell(&self) -> String {
        match (self.mean(), self) {
            (Some(mean), _) if mean.fract() == 0.0 => format!("{mean:.0}"),
            (Some(mean), _) => format!("{mean:.1}"),
            (None, Self::Refused(errno)) => format!("{errno:?}"),
            (None, Self::Calls(_)) => "-".into(),
        }
    }

    fn last(&self) -> Option<&[String]> {
        match self {
            Self::Calls(times) => times.last().map(Vec::as_slice),
            Self::Refused(_) => None,
        }
    }
}
