use std::fmt::Write;

use crate::args::Args;
use crate::contenders::{Contender, Party};
use crate::measure::{Sample, median};
use crate::rows::Row;

/// All samples, by row and contender.
#[derive(Debug)]
pub(crate) struct Report {
    contenders: Vec<Contender>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    row: Row,
    /// For each contender a sample of each round, `None` where it does not do it.
    samples: Vec<Vec<Option<Sample>>>,
}

impl Report {
    pub(crate) fn new(contenders: &[Contender]) -> Self {
        Self {
            contenders: contenders.to_vec(),
            lines: Vec::new(),
        }
    }

    /// Adds the sample of a round; `contender` is an index, and `None` means that it does not do
    /// it.
    pub(crate) fn add(&mut self, row: &Row, contender: usize, sample: Option<Sample>) {
        let known = self.lines.iter().position(|line| line.row.name == row.name);
        let index = known.unwrap_or_else(|| {
            self.lines.push(Line {
                row: *row,
                samples: vec![Vec::new(); self.contenders.len()],
            });
            self.lines.len() - 1
        });
        self.lines[index].samples[contender].push(sample);
    }

    /// The table. Each value is the median over the rounds; each ratio is the median of the
    /// rounds' ratios to the first of the reference daemon's settings, as the samples of a round
    /// are neighbours in time.
    pub(crate) fn markdown(&self, args: &Args) -> String {
        let mut out = format!(
            "Medians of {} rounds; {} driver; rings of {}. Ratios to the reference.\n\n",
            args.rounds,
            args.driver.name(),
            args.queue_size
        );
        out += "| row | contender | ops/s | ratio (least-most) | MB/s | p50 us | p99 us \
                | CPU us/op | CPU ratio (least-most) | peak RSS MiB | anonymous MiB |\n";
        out += "|---|---|---|---|---|---|---|---|---|---|---|\n";
        let mut parties = self.contenders.iter().map(|c| c.party);
        let baseline = parties.position(|party| party == Party::Reference);
        for line in &self.lines {
            for (n, contender) in self.contenders.iter().enumerate() {
                line.write_markdown(&mut out, &contender.name, n, baseline);
            }
        }
        out
    }

    /// The samples of all rounds.
    pub(crate) fn json(&self, args: &Args) -> String {
        let names: Vec<String> = self
            .contenders
            .iter()
            .map(|contender| format!("\"{}\"", contender.name))
            .collect();
        let lines: Vec<String> = self.lines.iter().map(Line::json).collect();
        format!(
            "{{\"rounds\":{},\"driver\":\"{}\",\"queue_size\":{},\"contenders\":[{}],\
             \"rows\":[\n{}\n]}}\n",
            args.rounds,
            args.driver.name(),
            args.queue_size,
            names.join(","),
            lines.join(",\n")
        )
    }
}

impl Line {
    fn write_markdown(&self, out: &mut String, name: &str, index: usize, baseline: Option<usize>) {
        let samples = &self.samples[index];
        let of = |value: fn(&Sample) -> f64, digits: usize| {
            let values = samples.iter().flatten().map(value);
            number(median(values), digits)
        };
        let ratio = |value: fn(&Sample) -> f64| {
            let Some(baseline) = baseline.filter(|&baseline| baseline != index) else {
                return String::from("-");
            };
            let pairs = samples.iter().zip(&self.samples[baseline]);
            let ratios: Vec<f64> = pairs
                .filter_map(|(one, other)| Some(value(one.as_ref()?) / value(other.as_ref()?)))
                .collect();
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            match median(ratios.into_iter()) {
                median if median.is_nan() => "-".into(),
                median => format!("{median:.2} ({least:.2}-{most:.2})"),
            }
        };
        let megabytes = match self.row.bytes() {
            0 => String::from("-"),
            bytes => {
                let rates = samples.iter().flatten().map(|s| s.ops_per_second);
                number(median(rates) * f64::from(bytes) / 1e6, 0)
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {} | {name} | {} | {} | {megabytes} | {} | {} | {} | {} | {} | {} |",
            self.row.name,
            of(|s| s.ops_per_second, 0),
            ratio(|s| s.ops_per_second),
            of(|s| s.p50, 1),
            of(|s| s.p99, 1),
            of(|s| s.cpu, 1),
            ratio(|s| s.cpu),
            of(|s| s.memory.peak as f64 / 1024.0, 1),
            of(|s| s.memory.anonymous as f64 / 1024.0, 1),
        );
    }

    fn json(&self) -> String {
        let list = |samples: &Vec<Option<Sample>>| {
            let samples: Vec<String> = samples.iter().copied().map(sample_json).collect();
            format!("[{}]", samples.join(","))
        };
        let contenders: Vec<String> = self.samples.iter().map(list).collect();
        format!(
            "{{\"name\":\"{}\",\"depth\":{},\"bytes\":{},\"contenders\":[{}]}}",
            self.row.name,
            self.row.depth,
            self.row.bytes(),
            contenders.join(",")
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
