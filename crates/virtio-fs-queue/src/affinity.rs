use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// On which processors the threads of request queues run: a list of processors and ranges of them,
/// such as `0,1,2-3`.
///
/// The first of them is for the first request queue, and so on; when the list is at its end it
/// begins anew. hiprio runs anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueAffinity(Vec<Processors>);

/// Processors that a thread may run on, by their numbers; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processors(RangeInclusive<usize>);

/// Why text is no [`QueueAffinity`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AffinityError {
    /// Not numbers and ranges.
    #[error("{0:?} is neither a processor nor a range of them; a list looks like 0,1,2-3")]
    Syntax(String),
    /// The end of a range comes before its start.
    #[error("the range {0} has its end before its start")]
    Reversed(String),
    /// A processor does not exist, or this process is kept from it (sched_getaffinity(2)).
    #[error("processor {processor} is none that this process may run on, which are {allowed}")]
    NotAllowed {
        /// The number of the processor.
        processor: usize,
        /// A list of those that there are.
        allowed: String,
    },
    /// The system does not say which processors there are.
    #[error("cannot find out which processors this process may run on: {0}")]
    Unknown(String),
}

impl QueueAffinity {
    /// Where the thread of a request queue is to run; the first one has number 0.
    #[must_use]
    pub fn of(&self, request_queue: usize) -> Option<&Processors> {
        self.0.get(request_queue.checked_rem(self.0.len())?)
    }

    fn parse(text: &str, allowed: &CpuSet) -> Result<Self, AffinityError> {
        text.split(',')
            .map(|item| Processors::parse(item, allowed))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for QueueAffinity {
    type Err = AffinityError;

    fn from_str(text: &str) -> Result<Self, AffinityError> {
        let allowed =
            sched_getaffinity(None).map_err(|error| AffinityError::Unknown(error.to_string()))?;
        Self::parse(text, &allowed)
    }
}

impl Processors {
    fn parse(item: &str, allowed: &CpuSet) -> Result<Self, AffinityError> {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(AffinityError::Syntax(item.to_owned()));
        };
        if first > last {
            return Err(AffinityError::Reversed(item.to_owned()));
        }
        let is_allowed = |n: &usize| *n < CpuSet::MAX_CPU && allowed.is_set(*n);
        match (first..=last).find(|n| !is_allowed(n)) {
            None => Ok(Self(first..=last)),
            Some(processor) => Err(AffinityError::NotAllowed {
                processor,
                allowed: list(allowed),
            }),
        }
    }

    /// Makes the thread that calls this run there.
    pub(crate) fn pin_this_thread(&self) -> Result<(), Errno> {
        let mut set = CpuSet::new();
        for processor in self.0.clone() {
            set.set(processor);
        }
        sched_setaffinity(None, &set)
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Digits, and nothing that numbers may have beside them elsewhere.
fn number(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The processors of a set as a list.
fn list(set: &CpuSet) -> String {
    let mut ranges: Vec<Processors> = Vec::new();
    for processor in (0..CpuSet::MAX_CPU).filter(|n| set.is_set(*n)) {
        match ranges.last_mut() {
            Some(Processors(range)) if range.end().checked_add(1) == Some(processor) => {
                *range = *range.start()..=processor;
            }
            _ => ranges.push(Processors(processor..=processor)),
        }
    }
    let texts: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<QueueAffinity, AffinityError> {
        let mut allowed = CpuSet::new();
        for processor in [0, 1, 2, 3, 6, 1023] {
            allowed.set(processor);
        }
        QueueAffinity::parse(text, &allowed)
    }

    #[test]
    fn queues_take_turns() {
        let affinity = parse("0,1,2-3").unwrap();
        let of = |queue| affinity.of(queue).unwrap().to_string();
        assert_eq!(
            [0, 1, 2, 3, 4, 62].map(of),
            ["0", "1", "2-3", "0", "1", "2-3"]
        );
        assert_eq!(parse("1023").unwrap().of(7).unwrap().to_string(), "1023");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "",
            ",",
            "0,",
            "-1",
            "1-",
            "a",
            "+1",
            " 1",
            "0-1-2",
            "99999999999999999999",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, AffinityError::Syntax(_)),
                "{text:?}: {error}"
            );
        }
        assert_eq!(
            parse("0,3-2"),
            Err(AffinityError::Reversed("3-2".to_owned()))
        );
        for (text, processor) in [
            ("4", 4),
            ("1-6", 4),
            ("1024", 1024),
            ("0-18446744073709551615", 4),
        ] {
            let allowed = "0-3,6,1023".to_owned();
            assert_eq!(
                parse(text),
                Err(AffinityError::NotAllowed { processor, allowed })
            );
        }
    }
}
