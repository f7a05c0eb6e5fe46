//! What a comparison of daemons found, and what follows from it.

mod markdown;
mod plot;
mod statistics;
#[cfg(test)]
mod testing;
mod verdict;

use serde::{Deserialize, Serialize};

pub use statistics::{Spread, geometric_mean, median};
pub use verdict::{Line, Verdict};

/// All that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Under what conditions.
    pub conditions: Conditions,
    /// Who was compared.
    pub contenders: Vec<Contender>,
    /// What was done.
    pub rows: Vec<Row>,
}

/// What else the figures depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Processors and kernel.
    pub machine: String,
    /// How the driver waits for a reply.
    pub driver: String,
    /// Descriptors per ring.
    pub queue_size: u16,
    /// How long a sample takes, in milliseconds.
    pub millis: u64,
}

/// Whose work is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Our daemon.
    Ours,
    /// The reference daemon.
    Reference,
    /// No daemon: the same calls on the shared directory itself.
    Native,
}

/// One of those that do the work of every row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// Unlike that of all others.
    pub name: String,
    /// Whose it is.
    pub party: Party,
}

/// What was found of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Bytes of data that an operation moves.
    pub bytes: u32,
    /// For each contender.
    pub outcomes: Vec<Outcome>,
}

/// What was found of an operation with one contender.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// In each round; `None` where the contender does not do it.
    pub samples: Vec<Option<Sample>>,
    /// What was counted, apart from the samples.
    pub counts: Option<Counts>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Operations in a second.
    pub ops_per_second: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// Latency in microseconds that 1 of 100 operations exceeds.
    pub p99_us: f64,
    /// Microseconds of processor time that the daemon takes for an operation.
    pub cpu_us: f64,
}

/// What the daemon did for an operation, on average, and what memory it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// System calls; `None` where they could not be counted.
    pub syscalls: Option<f64>,
    /// Allocations of the C library; `None` where they could not be counted.
    pub allocations: Option<f64>,
    /// Kicks of the driver.
    pub kicks: f64,
    /// Calls of the device: interrupts.
    pub calls: f64,
    /// The most memory that was its own, in KiB.
    pub private_kib: u64,
}

/// Comparisons that are not of the same.
#[derive(Debug, thiserror::Error)]
#[error("cannot join comparisons whose {0} differ")]
pub struct Mismatch(&'static str);

impl Comparison {
    /// One of which nothing has been measured yet.
    #[must_use]
    pub const fn new(conditions: Conditions, contenders: Vec<Contender>) -> Self {
        Self {
            conditions,
            contenders,
            rows: Vec::new(),
        }
    }

    /// What was found of the operation `name` with the contender of that index.
    ///
    /// # Panics
    /// There is no such contender.
    pub fn outcome(&mut self, name: &str, bytes: u32, contender: usize) -> &mut Outcome {
        let known = self.rows.iter().position(|row| row.name == name);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Row {
                name: name.into(),
                bytes,
                outcomes: vec![Outcome::default(); self.contenders.len()],
            });
            self.rows.len() - 1
        });
        &mut self.rows[index].outcomes[contender]
    }

    /// Adds what another found, of other rows or in other rounds.
    ///
    /// # Errors
    /// The two were not made under the same conditions, or with others.
    pub fn join(&mut self, other: Self) -> Result<(), Mismatch> {
        if self.conditions != other.conditions {
            return Err(Mismatch("conditions"));
        }
        if self.contenders != other.contenders {
            return Err(Mismatch("contenders"));
        }
        for row in other.rows {
            for (contender, more) in row.outcomes.into_iter().enumerate() {
                let outcome = self.outcome(&row.name, row.bytes, contender);
                outcome.samples.extend(more.samples);
                outcome.counts = outcome.counts.or(more.counts);
            }
        }
        Ok(())
    }

    /// Most rounds in which an operation was measured.
    #[must_use]
    pub fn rounds(&self) -> usize {
        let outcomes = self.rows.iter().flat_map(|row| &row.outcomes);
        outcomes.map(|o| o.samples.len()).max().unwrap_or(0)
    }

    /// The conditions, in a line.
    fn under(&self) -> String {
        let Conditions {
            machine,
            driver,
            queue_size,
            millis,
        } = &self.conditions;
        let rounds = match self.rounds() {
            1 => "1 round".into(),
            rounds => format!("medians of {rounds} rounds"),
        };
        format!(
            "{rounds} of {millis} ms for each row; {driver} driver, rings of {queue_size}; \
             {machine}"
        )
    }
}

impl Outcome {
    /// The median over the rounds; `None` where there is no sample.
    #[must_use]
    pub fn median(&self, value: fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.iter().flatten().map(value))
    }

    /// The rounds' ratios to what another found, as the samples of a round are neighbours in time.
    #[must_use]
    pub fn ratio(&self, other: &Self, value: fn(&Sample) -> f64) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&other.samples);
        Spread::of(rounds.filter_map(|(one, other)| {
            let ratio = value(one.as_ref()?) / value(other.as_ref()?);
            ratio.is_finite().then_some(ratio)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{comparison, sample};
    use super::*;

    #[test]
    fn rows_and_rounds_are_joined() {
        let mut one = comparison(&[("a", &[1.0, 2.0])]);
        let two = comparison(&[("a", &[3.0, 4.0]), ("b", &[5.0, 6.0])]);
        one.join(two).unwrap();
        assert_eq!(one.rounds(), 2);
        let rates = |row: &Row| -> Vec<Option<f64>> {
            let outcomes = row.outcomes.iter();
            outcomes.map(|o| o.median(|s| s.ops_per_second)).collect()
        };
        assert_eq!(rates(&one.rows[0]), [Some(2.0), Some(3.0)]);
        assert_eq!(rates(&one.rows[1]), [Some(5.0), Some(6.0)]);
    }

    #[test]
    fn what_was_found_elsewhere_is_not_joined() {
        let mut one = comparison(&[("a", &[1.0, 2.0])]);
        let mut other = one.clone();
        other.conditions.driver = "sleeping".into();
        assert!(one.join(other).is_err());
        let three = comparison(&[("a", &[1.0, 2.0, 3.0])]);
        assert!(one.join(three).is_err());
    }

    #[test]
    fn a_ratio_is_that_of_samples_of_one_round() {
        let outcome = |rates: [f64; 3]| Outcome {
            samples: rates.map(|rate| Some(sample(rate))).into(),
            counts: None,
        };
        let (ours, theirs) = (outcome([10.0, 100.0, 30.0]), outcome([5.0, 100.0, 10.0]));
        let ratio = ours.ratio(&theirs, |s| s.ops_per_second).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.0, 1.0, 3.0));
        let none = Outcome::default();
        assert_eq!(ours.ratio(&none, |s| s.ops_per_second), None);
    }

    #[test]
    fn it_survives_json() {
        let one = comparison(&[("a", &[1.0, 2.0])]);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), one);
    }
}
