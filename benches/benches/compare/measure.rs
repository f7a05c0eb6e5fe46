use std::time::{Duration, Instant};

use benches::comparison::Sample;

use crate::rows::Row;

/// Part of a row's time that goes before the measurement.
const WARM_UP: u32 = 5;
/// Most latencies that are kept of a sample; those beyond are only counted.
const MAX_LATENCIES: usize = 1 << 21;

/// What a driver saw of a row.
#[derive(Debug)]
pub(crate) struct Recorder {
    deadline: Instant,
    /// Operations to be done whatever the time is.
    least: u64,
    started: Instant,
    /// When the last operation was done.
    ended: Instant,
    ops: u64,
    /// Nanoseconds from an operation's first request to its last reply.
    latencies: Vec<u32>,
}

impl Recorder {
    /// Records for `time`, from now on.
    pub(crate) fn new(time: Duration) -> Self {
        let latencies = Vec::with_capacity(MAX_LATENCIES);
        let started = Instant::now();
        Self {
            deadline: started + time,
            least: 0,
            started,
            ended: started,
            ops: 0,
            latencies,
        }
    }

    /// Operations that were done.
    pub(crate) const fn operations(&self) -> u64 {
        self.ops
    }

    /// Records what comes before a measurement of `time`.
    pub(crate) fn warm_up(row: &Row, time: Duration) -> Self {
        Self {
            least: row.warm_up(),
            ..Self::new(time / WARM_UP)
        }
    }

    /// Counts an operation that began at `began`, and returns whether time is up.
    pub(crate) fn record(&mut self, began: Instant) -> bool {
        let now = Instant::now();
        self.ended = now;
        self.ops += 1;
        if self.latencies.len() < MAX_LATENCIES {
            let nanos = now.duration_since(began).as_nanos();
            self.latencies
                .push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
        now >= self.deadline && self.ops >= self.least
    }

    /// Does what belongs to no operation, in which time does not count. Nothing is in flight.
    pub(crate) fn pause<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let lost = began.elapsed();
        self.started += lost;
        self.ended += lost;
        self.deadline += lost;
        result
    }

    /// Adds what another driver of the same row saw at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.started = self.started.min(other.started);
        self.ended = self.ended.max(other.ended);
        self.ops += other.ops;
        self.latencies.extend(other.latencies);
    }

    /// The sample, for a daemon that took `cpu_nanos` meanwhile.
    pub(crate) fn finish(mut self, cpu_nanos: u64) -> Sample {
        let seconds = self.ended.duration_since(self.started).as_secs_f64();
        let ops = self.ops.max(1) as f64;
        self.latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = self.latencies.len() * percent / 100;
            let nanos = self.latencies.get(index).copied().unwrap_or(0);
            f64::from(nanos) / 1e3
        };
        Sample {
            ops_per_second: ops / seconds,
            p50_us: percentile(50),
            p99_us: percentile(99),
            cpu_us: cpu_nanos as f64 / 1e3 / ops,
        }
    }
}
