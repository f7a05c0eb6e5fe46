use std::fmt::Write;

use crate::args::Args;
use crate::measure::{Sample, median};
use crate::rows::Row;

/// All samples, by row.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    row: Row,
    /// A pair for each round.
    rounds: Vec<Pair>,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    /// `None` where the daemon does not do it.
    ours: Option<Sample>,
    peer: Option<Sample>,
}

impl Report {
    pub(crate) fn add(&mut self, row: &Row, ours: Option<Sample>, peer: Option<Sample>) {
        let pair = Pair { ours, peer };
        match self.lines.iter_mut().find(|line| line.row.name == row.name) {
            Some(line) => line.rounds.push(pair),
            None => self.lines.push(Line {
                row: *row,
                rounds: vec![pair],
            }),
        }
    }

    /// The table. Each value is the median over the rounds; each ratio is the median of the
    /// rounds' ratios, ours to the peer's, as the two samples of a round are neighbours in time.
    pub(crate) fn markdown(&self, args: &Args) -> String {
        let mut out = format!(
            "Medians of {} rounds; interrupt delay {} us; rings of {}. Ours / reference.\n\n",
            args.rounds, args.interrupt_delay, args.queue_size
        );
        out += "| row | ops/s | ratio (least-most) | MB/s | p50 us | p99 us | CPU us/op \
                | CPU ratio (least-most) | peak RSS MiB | anonymous MiB |\n";
        out += "|---|---|---|---|---|---|---|---|---|---|\n";
        for line in &self.lines {
            line.write_markdown(&mut out);
        }
        out
    }

    /// The samples of all rounds.
    pub(crate) fn json(&self, args: &Args) -> String {
        let lines: Vec<String> = self.lines.iter().map(Line::json).collect();
        format!(
            "{{\"rounds\":{},\"interrupt_delay_us\":{},\"queue_size\":{},\"rows\":[\n{}\n]}}\n",
            args.rounds,
            args.interrupt_delay,
            args.queue_size,
            lines.join(",\n")
        )
    }
}

impl Line {
    fn write_markdown(&self, out: &mut String) {
        let of = |side: fn(&Pair) -> Option<Sample>, value: fn(&Sample) -> f64| {
            let samples = self.rounds.iter().filter_map(side);
            median(samples.map(|sample| value(&sample)))
        };
        let both = |value: fn(&Sample) -> f64, digits: usize| {
            let (ours, peer) = (of(|p| p.ours, value), of(|p| p.peer, value));
            format!("{} / {}", number(ours, digits), number(peer, digits))
        };
        let ratios = |value: fn(&Sample) -> f64| {
            self.rounds
                .iter()
                .filter_map(move |pair| Some(value(&pair.ours?) / value(&pair.peer?)))
        };
        let ratio = |value: fn(&Sample) -> f64| {
            let least = ratios(value).fold(f64::INFINITY, f64::min);
            let most = ratios(value).fold(0.0, f64::max);
            match median(ratios(value)) {
                median if median.is_nan() => "-".into(),
                median => format!("{median:.2} ({least:.2}-{most:.2})"),
            }
        };
        let megabytes = match self.row.bytes() {
            0 => String::from("-"),
            bytes => {
                let scale = f64::from(bytes) / 1e6;
                let rate = |side| number(of(side, |s| s.ops_per_second) * scale, 0);
                format!("{} / {}", rate(|p| p.ours), rate(|p| p.peer))
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.row.name,
            both(|s| s.ops_per_second, 0),
            ratio(|s| s.ops_per_second),
            megabytes,
            both(|s| s.p50, 1),
            both(|s| s.p99, 1),
            both(|s| s.cpu, 1),
            ratio(|s| s.cpu),
            both(|s| s.memory.peak as f64 / 1024.0, 1),
            both(|s| s.memory.anonymous as f64 / 1024.0, 1),
        );
    }

    fn json(&self) -> String {
        let rounds: Vec<String> = self
            .rounds
            .iter()
            .map(|pair| {
                format!(
                    "{{\"ours\":{},\"peer\":{}}}",
                    sample_json(pair.ours),
                    sample_json(pair.peer)
                )
            })
            .collect();
        format!(
            "{{\"name\":\"{}\",\"depth\":{},\"bytes\":{},\"rounds\":[{}]}}",
            self.row.name,
            self.row.depth,
            self.row.bytes(),
            rounds.join(",")
        )
    }
}

/// What there is no sample of is not a number.
fn number(value: f64, digits: usize) -> String {
    if value.is_nan() {
        "-".into()
    } else {
        format!("{value:.digits$}")
    }
}

fn sample_json(sample: Option<Sample>) -> String {
    let Some(sample) = sample else {
        return "null".into();
    };
    format!(
        "{{\"ops_per_second\":{:.1},\"p50_us\":{:.2},\"p99_us\":{:.2},\"cpu_us_per_op\":{:.3},\
         \"peak_rss_kib\":{},\"anonymous_rss_kib\":{}}}",
        sample.ops_per_second,
        sample.p50,
        sample.p99,
        sample.cpu,
        sample.memory.peak,
        sample.memory.anonymous
    )
}
