use std::time::{Duration, Instant};

use benches::daemon::Memory;

/// Most latencies that are kept of a sample; those beyond are only counted.
const MAX_LATENCIES: usize = 1 << 21;

/// What a driver saw of a row.
#[derive(Debug)]
pub(crate) struct Recorder {
    deadline: Instant,
    started: Instant,
    ops: u64,
    /// Nanoseconds from an operation's first request to its last reply.
    latencies: Vec<u32>,
}

/// One measurement of a row with one daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) ops_per_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Microseconds of processor time that the daemon took for an operation.
    pub(crate) cpu: f64,
    pub(crate) memory: Memory,
}

impl Recorder {
    /// Records for `time`, from now on.
    pub(crate) fn new(time: Duration) -> Self {
        let latencies = Vec::with_capacity(MAX_LATENCIES);
        let started = Instant::now();
        Self {
            deadline: started + time,
            started,
            ops: 0,
            latencies,
        }
    }

    /// Counts an operation that began at `began`, and returns whether time is up.
    pub(crate) fn record(&mut self, began: Instant) -> bool {
        let now = Instant::now();
        self.ops += 1;
        if self.latencies.len() < MAX_LATENCIES {
            let nanos = now.duration_since(began).as_nanos();
            self.latencies
                .push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
        now >= self.deadline
    }

    /// The sample, for a daemon that took `cpu_nanos` meanwhile.
    pub(crate) fn finish(mut self, cpu_nanos: u64, memory: Memory) -> Sample {
        let seconds = self.started.elapsed().as_secs_f64();
        let ops = self.ops.max(1) as f64;
        self.latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = self.latencies.len() * percent / 100;
            let nanos = self.latencies.get(index).copied().unwrap_or(0);
            f64::from(nanos) / 1e3
        };
        Sample {
            ops_per_second: ops / seconds,
            p50: percentile(50),
            p99: percentile(99),
            cpu: cpu_nanos as f64 / 1e3 / ops,
            memory,
        }
    }
}

/// The median of `values`, not a number where there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
