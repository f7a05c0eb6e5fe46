//! Comparisons for tests.

use super::{Comparison, Conditions, Contender, Counts, Party, Sample};

/// One round of rows that have a rate for each contender: our daemon with its defaults, then
/// settings of the reference daemon.
pub(super) fn comparison(rows: &[(&str, &[f64])]) -> Comparison {
    let conditions = Conditions {
        machine: "2 x Z80 & co, Linux 6.18".into(),
        driver: "busy".into(),
        queue_size: 512,
        millis: 200,
    };
    let contender = |index| match index {
        0 => Contender {
            name: "ours".into(),
            party: Party::Ours,
        },
        n => Contender {
            name: format!("reference {n}"),
            party: Party::Reference,
        },
    };
    let count = rows.first().map_or(0, |(_, rates)| rates.len());
    let mut comparison = Comparison::new(conditions, (0..count).map(contender).collect());
    for (name, rates) in rows {
        for (n, &rate) in rates.iter().enumerate() {
            let outcome = comparison.outcome(name, 0, n);
            outcome.samples.push(Some(sample(rate)));
            outcome.counts = Some(Counts {
                syscalls: Some(1.5),
                allocations: None,
                kicks: 1.0,
                calls: 0.5,
                private_kib: 1024,
            });
        }
    }
    comparison
}

/// One in which the daemon takes all of a processor.
pub(super) fn sample(ops_per_second: f64) -> Sample {
    let micros = 1e6 / ops_per_second;
    Sample {
        ops_per_second,
        p50_us: micros,
        p99_us: 2.0 * micros,
        cpu_us: micros,
    }
}
