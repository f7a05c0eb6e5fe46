use std::collections::BTreeMap;
use std::fmt::Write;

use fuse_wire::Opcode;

use crate::machine::Sample;
use crate::steps::Step;

/// All samples of a cache mode, by step.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<(Step, Vec<[Sample; 2]>)>,
}

impl Report {
    /// Adds what a step took with ours and with the reference.
    pub(crate) fn add(&mut self, step: &Step, pair: [Sample; 2]) {
        match self.lines.iter_mut().find(|(s, _)| s.name == step.name) {
            Some((_, pairs)) => pairs.push(pair),
            None => self.lines.push((*step, vec![pair])),
        }
    }

    /// The table. Each value is the median over the rounds, each ratio that of the rounds' ratios
    /// of the reference's to ours.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from(
            "| step | guest ms | times as fast (least-most) | requests | daemon CPU ms \
             | times less CPU (least-most) | CPU us/request |\n|---|---|---|---|---|---|---|\n",
        );
        for (step, pairs) in &self.lines {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                step.name,
                both(pairs, |s| s.millis, 1),
                ratio(pairs, |s| s.millis),
                both(pairs, |s| s.total() as f64, 0),
                both(pairs, |s| s.cpu, 1),
                ratio(pairs, |s| s.cpu),
                both(pairs, |s| s.cpu * 1e3 / s.total() as f64, 1),
            );
        }
        out
    }

    /// What the requests of the last round were.
    pub(crate) fn requests(&self) -> String {
        let mut out = String::from("| step | daemon | requests |\n|---|---|---|\n");
        for (step, pairs) in &self.lines {
            for (side, sample) in ["ours", "reference"]
                .iter()
                .zip(pairs.last().into_iter().flatten())
            {
                let _ = writeln!(
                    out,
                    "| {} | {side} | {} |",
                    step.name,
                    listed(&sample.requests)
                );
            }
        }
        out
    }
}

fn listed(requests: &BTreeMap<u32, u64>) -> String {
    let mut requests: Vec<_> = requests.iter().collect();
    requests.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let one = |(opcode, count): (&u32, &u64)| match Opcode::from_raw(*opcode) {
        Some(opcode) => format!("{opcode:?} {count}"),
        None => format!("{opcode} {count}"),
    };
    requests.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Sample {
    fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

fn both(pairs: &[[Sample; 2]], value: impl Fn(&Sample) -> f64, digits: usize) -> String {
    let side = |side: usize| {
        let median = median(pairs.iter().map(|pair| value(&pair[side])));
        match median.is_finite() {
            true => format!("{median:.digits$}"),
            false => "-".into(),
        }
    };
    format!("{} / {}", side(0), side(1))
}

fn ratio(pairs: &[[Sample; 2]], value: impl Fn(&Sample) -> f64) -> String {
    let ratios = || pairs.iter().map(|[ours, peer]| value(peer) / value(ours));
    let least = ratios().fold(f64::INFINITY, f64::min);
    let most = ratios().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(ratios()))
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
