use std::fmt::Write;

use crate::session::{Beside, Sample};

/// All samples.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

struct Line {
    beside: Beside,
    contender: String,
    quick: Vec<u64>,
    slow: Vec<u64>,
}

impl Report {
    pub(crate) fn add(&mut self, contender: &str, beside: Beside, sample: Sample) {
        let same = |line: &&mut Line| line.beside == beside && line.contender == contender;
        match self.lines.iter_mut().find(same) {
            Some(line) => {
                line.quick.extend(sample.latencies);
                line.slow.extend(sample.slow);
            }
            None => self.lines.push(Line {
                beside,
                contender: contender.to_owned(),
                quick: sample.latencies,
                slow: sample.slow,
            }),
        }
    }

    /// Latencies over all rounds.
    pub(crate) fn markdown(mut self) -> String {
        let mut out = String::from(
            "GETATTR and reads of 4 KiB that are cached, in turn, one at a time; latencies.\n\n\
             | beside | daemon | done | p50 us | p99 us | most us | slow ones done | their p50 us |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        self.lines
            .sort_by_key(|line| Beside::ALL.iter().position(|b| *b == line.beside));
        for line in &mut self.lines {
            line.quick.sort_unstable();
            line.slow.sort_unstable();
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                line.beside.name(),
                line.contender,
                line.quick.len(),
                micros(&line.quick, 50),
                micros(&line.quick, 99),
                micros(&line.quick, 100),
                line.slow.len(),
                micros(&line.slow, 50),
            );
        }
        out
    }
}

/// A percentile of sorted nanoseconds, in microseconds.
fn micros(sorted: &[u64], percent: usize) -> String {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or("-".into(), |nanos| format!("{:.1}", *nanos as f64 / 1e3))
}
