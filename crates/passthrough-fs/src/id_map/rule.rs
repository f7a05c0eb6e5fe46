//! One rule of an [`IdMap`](super::IdMap), as it is written.

use std::fmt;
use std::str::FromStr;

use super::{Range, Target};

/// What becomes of a range of ids. Written as the name of the type, the first id on the side that
/// the type names, the first or only id on the other side, and the number of ids, with colons
/// between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdRule {
    /// `guest:GUEST:HOST:COUNT`: each id of the guest becomes one of the host.
    Guest {
        /// First id of the guest.
        guest: u32,
        /// First id of the host.
        host: u32,
        /// Number of ids.
        count: u32,
    },
    /// `host:HOST:GUEST:COUNT`: each id of the host becomes one of the guest.
    Host {
        /// First id of the host.
        host: u32,
        /// First id of the guest.
        guest: u32,
        /// Number of ids.
        count: u32,
    },
    /// `squash-guest:GUEST:HOST:COUNT`: all those of the guest become a single one of the host.
    SquashGuest {
        /// First id of the guest.
        guest: u32,
        /// The id of the host.
        host: u32,
        /// Number of ids of the guest.
        count: u32,
    },
    /// `squash-host:HOST:GUEST:COUNT`: all those of the host become a single one of the guest.
    SquashHost {
        /// First id of the host.
        host: u32,
        /// The id of the guest.
        guest: u32,
        /// Number of ids of the host.
        count: u32,
    },
    /// `forbid-guest:GUEST:COUNT`: the guest can make nothing that belongs to these ids, and give
    /// nothing to them (EPERM).
    ForbidGuest {
        /// First id of the guest.
        guest: u32,
        /// Number of ids.
        count: u32,
    },
    /// `map:GUEST:HOST:COUNT`: both `guest` and `host`.
    Map {
        /// First id of the guest.
        guest: u32,
        /// First id of the host.
        host: u32,
        /// Number of ids.
        count: u32,
    },
}

/// Why a text is no [`IdRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdRuleError {
    /// The type is not known.
    #[error(
        "the type \"{found}\" is not known; it must be guest, host, squash-guest, squash-host, \
         forbid-guest or map"
    )]
    Type {
        /// What is there instead.
        found: String,
    },
    /// There are too few numbers, or too many.
    #[error("it has {found} numbers; it must be {expected}")]
    Count {
        /// How many there are.
        found: usize,
        /// How the rule is written.
        expected: &'static str,
    },
    /// An id or a count is none.
    #[error("\"{found}\" is not a number from 0 to 4294967295")]
    Number {
        /// What is there instead.
        found: String,
    },
    /// The range has no ids.
    #[error("the range is empty; its last number, the count, must be at least 1")]
    Empty,
    /// The range exceeds all ids.
    #[error("the range goes beyond the last id, 4294967294; make the count smaller")]
    Range,
}

impl FromStr for IdRule {
    type Err = IdRuleError;

    /// Reads a rule. What separates its fields may be any character but letters, digits, `-` and
    /// `_`; the type may be in upper or lower case.
    fn from_str(text: &str) -> Result<Self, IdRuleError> {
        let separates = |char: char| !char.is_alphanumeric() && char != '-' && char != '_';
        let separator = text
            .find(separates)
            .and_then(|at| text.get(at..)?.chars().next());
        let mut fields = text.split(separator.unwrap_or(':'));
        let kind = fields.next().unwrap_or_default().to_lowercase();
        let numbers: Vec<&str> = fields.collect();
        let rule = match &*kind {
            "guest" => {
                let [guest, host, count] = parse(&numbers, "guest:GUEST:HOST:COUNT")?;
                Self::Guest { guest, host, count }
            }
            "host" => {
                let [host, guest, count] = parse(&numbers, "host:HOST:GUEST:COUNT")?;
                Self::Host { host, guest, count }
            }
            "squash-guest" => {
                let [guest, host, count] = parse(&numbers, "squash-guest:GUEST:HOST:COUNT")?;
                Self::SquashGuest { guest, host, count }
            }
            "squash-host" => {
                let [host, guest, count] = parse(&numbers, "squash-host:HOST:GUEST:COUNT")?;
                Self::SquashHost { host, guest, count }
            }
            "forbid-guest" => {
                let [guest, count] = parse(&numbers, "forbid-guest:GUEST:COUNT")?;
                Self::ForbidGuest { guest, count }
            }
            "map" => {
                let [guest, host, count] = parse(&numbers, "map:GUEST:HOST:COUNT")?;
                Self::Map { guest, host, count }
            }
            _ => return Err(IdRuleError::Type { found: kind }),
        };
        rule.check()
    }
}

impl IdRule {
    /// What the rule says of ids of the guest, and of ids of the host. None where it says nothing,
    /// or has no ids.
    pub(super) fn ranges(self) -> (Option<Range>, Option<Range>) {
        let range = |first: u32, count: u32, target| {
            let last = first.saturating_add(count.checked_sub(1)?);
            Some(Range {
                first,
                last,
                target,
                rule: self,
            })
        };
        match self {
            Self::Guest { guest, host, count } => (range(guest, count, Target::From(host)), None),
            Self::Host { host, guest, count } => (None, range(host, count, Target::From(guest))),
            Self::SquashGuest { guest, host, count } => {
                (range(guest, count, Target::One(host)), None)
            }
            Self::SquashHost { host, guest, count } => {
                (None, range(host, count, Target::One(guest)))
            }
            Self::ForbidGuest { guest, count } => (range(guest, count, Target::Forbidden), None),
            Self::Map { guest, host, count } => (
                range(guest, count, Target::From(host)),
                range(host, count, Target::From(guest)),
            ),
        }
    }

    fn check(self) -> Result<Self, IdRuleError> {
        let (ids, count) = match self {
            Self::Guest { guest, host, count }
            | Self::Host { host, guest, count }
            | Self::Map { guest, host, count } => ([(guest, count), (host, count)], count),
            Self::SquashGuest { guest, host, count } => ([(guest, count), (host, 1)], count),
            Self::SquashHost { host, guest, count } => ([(host, count), (guest, 1)], count),
            Self::ForbidGuest { guest, count } => ([(guest, count), (guest, count)], count),
        };
        if count == 0 {
            return Err(IdRuleError::Empty);
        }
        // The largest number is no id: to chown(2), it means "leave as it is".
        match ids.map(|(first, count)| first.checked_add(count)) {
            [Some(_), Some(_)] => Ok(self),
            _ => Err(IdRuleError::Range),
        }
    }
}

impl fmt::Display for IdRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest { guest, host, count } => write!(f, "guest:{guest}:{host}:{count}"),
            Self::Host { host, guest, count } => write!(f, "host:{host}:{guest}:{count}"),
            Self::SquashGuest { guest, host, count } => {
                write!(f, "squash-guest:{guest}:{host}:{count}")
            }
            Self::SquashHost { host, guest, count } => {
                write!(f, "squash-host:{host}:{guest}:{count}")
            }
            Self::ForbidGuest { guest, count } => write!(f, "forbid-guest:{guest}:{count}"),
            Self::Map { guest, host, count } => write!(f, "map:{guest}:{host}:{count}"),
        }
    }
}

fn parse<const N: usize>(
    numbers: &[&str],
    expected: &'static str,
) -> Result<[u32; N], IdRuleError> {
    let numbers: [&str; N] = numbers.try_into().map_err(|_| IdRuleError::Count {
        found: numbers.len(),
        expected,
    })?;
    let mut parsed = [0; N];
    for (text, number) in numbers.iter().zip(&mut parsed) {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|_| digits);
        *number = value.ok_or_else(|| IdRuleError::Number {
            found: (*text).to_owned(),
        })?;
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "guest:1:2:3",
            "host:1:2:3",
            "squash-guest:0:1001:4294967295",
            "squash-host:1:2:3",
            "forbid-guest:1:2",
            "map:0:100000:65536",
        ] {
            assert_eq!(text.parse::<IdRule>().unwrap().to_string(), text);
        }
        let spelled = "Squash-Guest/0/1/2".parse::<IdRule>().unwrap();
        assert_eq!(spelled.to_string(), "squash-guest:0:1:2");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, expected) in [
            ("", "the type \"\" is not known"),
            ("guests:1:2:3", "the type \"guests\" is not known"),
            (
                "map:1:2",
                "it has 2 numbers; it must be map:GUEST:HOST:COUNT",
            ),
            ("forbid-guest:1:2:3", "must be forbid-guest:GUEST:COUNT"),
            ("map:1:2:x", "\"x\" is not a number"),
            ("map:1:+2:3", "\"+2\" is not a number"),
            ("map::2:3", "\"\" is not a number"),
            ("map:4294967296:1:1", "\"4294967296\" is not a number"),
            ("map:4294967295:1:1", "beyond the last id"),
            ("squash-guest:0:4294967295:1", "beyond the last id"),
            ("map:1:2:0", "the range is empty"),
            ("map:1:4294967294:2", "beyond the last id"),
            ("squash-guest:1:0:4294967295", "beyond the last id"),
        ] {
            let message = text.parse::<IdRule>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_an_error(text in ".{0,40}") {
            if let Ok(rule) = text.parse::<IdRule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }
}
