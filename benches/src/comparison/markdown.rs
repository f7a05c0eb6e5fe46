//! The tables.

use std::fmt::Write;

use super::verdict::CLEAR;
use super::{Comparison, Counts, Line, Outcome, Party, Sample, Spread, Verdict};

/// What stands where nothing was found.
const NOTHING: &str = "-";

impl Comparison {
    /// Four tables: speed, what an operation costs, all contenders, and the whole in short.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("{}.\n\n", capitalized(&self.under()));
        if let Some(verdict) = Verdict::of(self) {
            self.write_speed(&mut out, &verdict);
            self.write_costs(&mut out, &verdict);
        }
        self.write_contenders(&mut out);
        if let Some(verdict) = Verdict::of(self) {
            self.write_summary(&mut out, &verdict);
        }
        out
    }

    fn write_speed(&self, out: &mut String, verdict: &Verdict<'_>) {
        let (ours, reference) = (self.name(verdict.ours), self.name(verdict.reference));
        let _ = writeln!(
            out,
            "Each pair is {ours} / {reference}. Ratios are medians of the rounds' ratios, with the \
             least and the greatest. More operations per second are better, less processor time \
             (of the daemon) is.\n"
        );
        let heading = [
            "row",
            "ops/s",
            "ratio (least-most)",
            "p50 us",
            "p99 us",
            "CPU us/op",
            "CPU ratio (least-most)",
        ];
        write_heading(out, &heading);
        for line in &verdict.lines {
            let pair = |value, digits| sampled_pair(line, value, digits);
            let cells = [
                line.row.name.clone(),
                pair(|s| s.ops_per_second, 0),
                spread(line.speed),
                pair(|s| s.p50_us, 1),
                pair(|s| s.p99_us, 1),
                pair(|s| s.cpu_us, 2),
                spread(line.cpu),
            ];
            write_row(out, &cells);
        }
        out.push('\n');
    }

    fn write_costs(&self, out: &mut String, verdict: &Verdict<'_>) {
        let counted = |line: &Line<'_>| line.ours.counts.or(line.reference.counts).is_some();
        if !verdict.lines.iter().any(counted) {
            return;
        }
        *out += "What the daemon did for an operation, on average, counted apart from the timed \
                 rounds with the same driver. Notifications are kicks and interrupts. Private \
                 memory is the most that was the daemon's own (RssAnon), not the guest's, looked \
                 at each millisecond.\n\n";
        let heading = [
            "row",
            "system calls",
            "notifications",
            "allocations",
            "private MiB",
        ];
        write_heading(out, &heading);
        for line in &verdict.lines {
            let pair = |value: fn(&Counts) -> Option<f64>| {
                let of = |outcome: &Outcome| number(outcome.counts.as_ref().and_then(value), 2);
                format!("{} / {}", of(line.ours), of(line.reference))
            };
            let cells = [
                line.row.name.clone(),
                pair(|counts| counts.syscalls),
                pair(|counts| Some(counts.kicks + counts.calls)),
                pair(|counts| counts.allocations),
                pair(|counts| Some(counts.private_kib as f64 / 1024.0)),
            ];
            write_row(out, &cells);
        }
        out.push('\n');
    }

    fn write_contenders(&self, out: &mut String) {
        *out += "Operations per second of all; for data, MB/s besides. The best of the reference \
                 daemon's settings at a row is in bold. With several queues, each has a thread of \
                 the driver, and those rows are left out that have fewer operations in flight \
                 than there are queues.";
        if self.contenders.iter().any(|c| c.party == Party::Native) {
            *out += " Direct system calls come one after the other, whatever number of operations \
                     a row has in flight.";
        }
        *out += "\n\n";
        let names = self.contenders.iter().map(|contender| &*contender.name);
        let heading: Vec<&str> = std::iter::once("row").chain(names).collect();
        write_heading(out, &heading);
        let verdict = Verdict::of(self);
        for row in &self.rows {
            let mut lines = verdict.iter().flat_map(|verdict| &verdict.lines);
            let line = lines.find(|line| line.row.name == row.name);
            let rival = line.and_then(|line| line.rival);
            let mut cells = vec![row.name.clone()];
            for (index, outcome) in row.outcomes.iter().enumerate() {
                let rate = outcome.median(|sample| sample.ops_per_second);
                let mut cell = number(rate, 0);
                if let (Some(rate), 1..) = (rate, row.bytes) {
                    let _ = write!(cell, " ({:.0} MB/s)", rate * f64::from(row.bytes) / 1e6);
                }
                if rival == Some(index) {
                    cell = format!("**{cell}**");
                }
                cells.push(cell);
            }
            write_row(out, &cells);
        }
        out.push('\n');
    }

    fn write_summary(&self, out: &mut String, verdict: &Verdict<'_>) {
        let rows = verdict.lines.len();
        let reference = self.name(verdict.reference);
        let pools = self
            .contenders
            .iter()
            .filter(|c| c.party == Party::Reference);
        let _ = writeln!(
            out,
            "Over all {rows} rows, ours / reference; the best of its {} settings over all rows is \
             \"{reference}\":\n",
            pools.count()
        );
        let ratio = |value| number(value, 2);
        write_heading(out, &["", "ratio"]);
        let mean = "geometric mean of operations per second";
        let mut lines = vec![
            (mean.into(), ratio(verdict.speed())),
            (
                format!("{mean}, to the best setting of each row"),
                ratio(verdict.rival_speed()),
            ),
            (
                "geometric mean of CPU time per operation".into(),
                ratio(verdict.cpu()),
            ),
        ];
        if let Some((name, speed)) = verdict.lowest() {
            lines.push((format!("lowest row: {name}"), ratio(Some(speed))));
        }
        for (what, value) in lines {
            write_row(out, &[what, value]);
        }
        let unclear = verdict.unclear();
        let names: Vec<String> = unclear
            .iter()
            .map(|(name, speed)| format!("{name} ({speed:.2})"))
            .collect();
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(": {}", names.join(", "))
        };
        let _ = writeln!(
            out,
            "\nRows below {CLEAR}: {} of {rows}{names}.",
            unclear.len()
        );
    }

    fn name(&self, contender: usize) -> &str {
        let contender = self.contenders.get(contender);
        contender.map_or(NOTHING, |contender| &contender.name)
    }
}

fn sampled_pair(line: &Line<'_>, value: fn(&Sample) -> f64, digits: usize) -> String {
    let of = |outcome: &Outcome| number(outcome.median(value), digits);
    format!("{} / {}", of(line.ours), of(line.reference))
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or(
        NOTHING.into(),
        |Spread {
             median,
             least,
             most,
         }| { format!("{median:.2} ({least:.2}-{most:.2})") },
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(NOTHING.into(), |value| format!("{value:.digits$}"))
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn write_heading(out: &mut String, cells: &[&str]) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "| {} |", cells.join(" | "));
    let _ = writeln!(out, "|---{}|", "|--:".repeat(cells.len().saturating_sub(1)));
}

fn write_row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::super::testing::comparison;

    /// The cells of the rows that begin so.
    fn rows<'a>(text: &'a str, name: &str) -> Vec<Vec<&'a str>> {
        let start = format!("| {name} |");
        let rows = text.lines().filter(|line| line.starts_with(&start));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
            .collect()
    }

    #[test]
    fn each_row_is_in_each_table() {
        let found = comparison(&[("read 4k", &[3000.0, 1000.0, 1500.0])]);
        let text = found.markdown();
        let [speed, costs, contenders] = &rows(&text, "read 4k")[..] else {
            panic!("{text}");
        };
        assert_eq!(
            speed[1..],
            [
                "3000 / 1500",
                "2.00 (2.00-2.00)",
                "333.3 / 666.7",
                "666.7 / 1333.3",
                "333.33 / 666.67",
                "0.50 (0.50-0.50)"
            ]
        );
        assert_eq!(
            costs[1..],
            ["1.50 / 1.50", "1.50 / 1.50", "- / -", "1.00 / 1.00"]
        );
        assert_eq!(contenders[1..], ["3000", "1000", "**1500**"]);
    }

    #[test]
    fn all_rows_of_a_table_have_as_many_cells() {
        let text = comparison(&[("a", &[1.0, 2.0]), ("b", &[3.0, 4.0])]).markdown();
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells: Vec<usize> = table
                .lines()
                .map(|line| line.matches('|').count())
                .collect();
            assert!(cells.iter().all(|&count| count == cells[0]), "{table}");
        }
    }

    #[test]
    fn the_end_says_how_it_went() {
        let text = comparison(&[("a", &[11.0, 10.0]), ("b", &[30.0, 10.0])]).markdown();
        assert!(text.contains("| geometric mean of operations per second | 1.82 |"));
        assert!(text.contains("| lowest row: a | 1.10 |"));
        assert!(
            text.ends_with("\nRows below 1.2: 1 of 2: a (1.10).\n"),
            "{text}"
        );
    }

    #[test]
    fn of_one_daemon_there_is_a_list() {
        let mut found = comparison(&[("a", &[5.0])]);
        found.rows[0].bytes = 4_000_000;
        let text = found.markdown();
        assert_eq!(rows(&text, "a"), [["a", "5 (20 MB/s)"]]);
    }
}
