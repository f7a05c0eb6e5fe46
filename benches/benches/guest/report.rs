use std::fmt::Write;

use fuse_wire::Opcode;

use crate::machine::{Requests, Sample};
use crate::steps::Step;

/// What was found out in a cache mode.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// What was found out about a step; each pair is ours and the reference.
#[derive(Debug)]
struct Row {
    step: Step,
    requests: [Requests; 2],
    samples: Vec<[Sample; 2]>,
}

impl Report {
    /// Begins the row of a step, with the requests that it took.
    pub(crate) fn begin(&mut self, step: &Step, requests: [Requests; 2]) {
        self.rows.push(Row {
            step: *step,
            requests,
            samples: Vec::new(),
        });
    }

    /// Adds what the step of the row at `index` took in a round.
    pub(crate) fn add(&mut self, index: usize, pair: [Sample; 2]) {
        self.rows[index].samples.push(pair);
    }

    /// The table. Each value is the median over the rounds, each ratio that of the rounds' ratios
    /// of the reference's to ours.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from(
            "| step | guest ms | times as fast (least-most) | requests | daemon CPU ms \
             | times less CPU (least-most) | CPU us/request |\n|---|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in &self.rows {
            let requests = [0, 1].map(|side| row.requests[side].values().sum::<u64>() as f64);
            let millis = row.both(|sample| sample.millis);
            let cpu = row.both(|sample| sample.cpu);
            let each = [0, 1].map(|side| cpu[side] * 1e3 / requests[side]);
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.step.name,
                shown(millis, 1),
                row.ratio(|sample| sample.millis),
                shown(requests, 0),
                shown(cpu, 1),
                row.ratio(|sample| sample.cpu),
                shown(each, 1),
            );
        }
        out
    }

    /// What the requests were.
    pub(crate) fn requests(&self) -> String {
        let mut out = String::from("| step | daemon | requests |\n|---|---|---|\n");
        for row in &self.rows {
            for (side, requests) in ["ours", "reference"].iter().zip(&row.requests) {
                let _ = writeln!(out, "| {} | {side} | {} |", row.step.name, listed(requests));
            }
        }
        out
    }
}

impl Row {
    /// The median of each side.
    fn both(&self, value: impl Fn(&Sample) -> f64) -> [f64; 2] {
        [0, 1].map(|side| median(self.samples.iter().map(|pair| value(&pair[side]))))
    }

    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> String {
        if self.samples.is_empty() {
            return "-".into();
        }
        let ratios = || {
            let pairs = self.samples.iter();
            pairs.map(|[ours, peer]| value(peer) / value(ours))
        };
        let least = ratios().fold(f64::INFINITY, f64::min);
        let most = ratios().fold(0.0, f64::max);
        format!("{:.2} ({least:.2}-{most:.2})", median(ratios()))
    }
}

fn listed(requests: &Requests) -> String {
    let mut requests: Vec<_> = requests.iter().collect();
    requests.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let one = |(opcode, count): (&u32, &u64)| match Opcode::from_raw(*opcode) {
        Some(opcode) => format!("{opcode:?} {count}"),
        None => format!("{opcode} {count}"),
    };
    requests.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

fn shown(pair: [f64; 2], digits: usize) -> String {
    let [ours, reference] = pair.map(|value| match value.is_finite() {
        true => format!("{value:.digits$}"),
        false => "-".into(),
    });
    format!("{ours} / {reference}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
