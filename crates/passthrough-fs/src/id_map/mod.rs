//! Which user or group of the host one of the guest is, and the other way round.

mod rule;

pub use rule::{IdRule, IdRuleError};

use fuse_fs::Errno;

/// Which users of the host those of the guest are, and the other way round; or which groups.
///
/// The two directions are independent of each other. An id that no rule is about is the same on
/// both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    to_host: Direction,
    to_guest: Direction,
}

/// Why rules do not make an [`IdMap`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdMapError {
    /// Two rules say what becomes of the same id.
    #[error(
        "\"{rule}\" and \"{other}\" both say what becomes of id {id} of the {side}; let each id \
         be part of one range only"
    )]
    Overlap {
        /// One of the two.
        rule: IdRule,
        /// The other.
        other: IdRule,
        /// The first id that both are about.
        id: u32,
        /// Whose id it is: `guest` or `host`.
        side: &'static str,
    },
}

/// Ranges that do not overlap, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Direction(Vec<Range>);

/// What becomes of the ids `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    target: Target,
    /// The rule that it comes from, for messages.
    rule: IdRule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// They become the ids from this one on.
    From(u32),
    /// They all become this one.
    One(u32),
    /// They are refused.
    Forbidden,
}

impl IdMap {
    /// The map that `rules` make.
    ///
    /// # Errors
    /// Two rules overlap.
    pub fn new(rules: impl IntoIterator<Item = IdRule>) -> Result<Self, IdMapError> {
        let mut map = Self::default();
        for rule in rules {
            let (to_host, to_guest) = rule.ranges();
            map.to_host.add(to_host, "guest")?;
            map.to_guest.add(to_guest, "host")?;
        }
        Ok(map)
    }

    /// Whether every id is the same on both sides.
    pub(crate) fn is_identity(&self) -> bool {
        self.to_host.0.is_empty() && self.to_guest.0.is_empty()
    }

    /// The host's id for `id` of the guest.
    ///
    /// # Errors
    /// EPERM for one that is forbidden.
    pub(crate) fn to_host(&self, id: u32) -> Result<u32, Errno> {
        self.to_host.translate(id).ok_or(Errno::EPERM)
    }

    /// The guest's id for `id` of the host.
    pub(crate) fn to_guest(&self, id: u32) -> u32 {
        // No rule forbids ids of the host.
        self.to_guest.translate(id).unwrap_or(id)
    }
}

impl Direction {
    fn add(&mut self, range: Option<Range>, side: &'static str) -> Result<(), IdMapError> {
        let Some(range) = range else {
            return Ok(());
        };
        let at = self.0.partition_point(|other| other.last < range.first);
        if let Some(other) = self.0.get(at)
            && other.first <= range.last
        {
            return Err(IdMapError::Overlap {
                rule: range.rule,
                other: other.rule,
                id: range.first.max(other.first),
                side,
            });
        }
        self.0.insert(at, range);
        Ok(())
    }

    fn translate(&self, id: u32) -> Option<u32> {
        let at = self.0.partition_point(|range| range.last < id);
        match self.0.get(at) {
            Some(range) if range.first <= id => match range.target {
                Target::From(base) => Some(base.wrapping_add(id.wrapping_sub(range.first))),
                Target::One(target) => Some(target),
                Target::Forbidden => None,
            },
            _ => Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(rules: &[&str]) -> Result<IdMap, IdMapError> {
        IdMap::new(rules.iter().map(|rule| rule.parse().unwrap()))
    }

    #[test]
    fn without_rules_ids_stay_as_they_are() {
        let map = map(&[]).unwrap();
        assert!(map.is_identity());
        assert_eq!((map.to_host(5), map.to_guest(5)), (Ok(5), 5));
    }

    #[test]
    fn each_type_of_rule_does_what_it_says() {
        let map = map(&[
            "guest:0:1000:10",
            "host:1000:50:5",
            "squash-guest:100:7:100",
            "squash-host:2000:8:1000",
            "forbid-guest:300:2",
            "map:400:40000:3",
        ])
        .unwrap();
        assert!(!map.is_identity());
        for (guest, host) in [
            (0, Ok(1000)),
            (9, Ok(1009)),
            (10, Ok(10)),
            (99, Ok(99)),
            (100, Ok(7)),
            (199, Ok(7)),
            (200, Ok(200)),
            (299, Ok(299)),
            (300, Err(Errno::EPERM)),
            (301, Err(Errno::EPERM)),
            (302, Ok(302)),
            (402, Ok(40002)),
            (u32::MAX, Ok(u32::MAX)),
        ] {
            assert_eq!(map.to_host(guest), host, "{guest}");
        }
        for (host, guest) in [
            (999, 999),
            (1000, 50),
            (1004, 54),
            (1005, 1005),
            (2000, 8),
            (2999, 8),
            (3000, 3000),
            (40000, 400),
            (300, 300),
        ] {
            assert_eq!(map.to_guest(host), guest, "{host}");
        }
    }

    #[test]
    fn overlaps_are_refused_in_each_direction_alone() {
        for (rules, expected) in [
            (
                ["guest:0:1000:10", "forbid-guest:9:1"],
                "\"forbid-guest:9:1\" and \"guest:0:1000:10\" both say what becomes of id 9 of \
                 the guest",
            ),
            (
                ["map:0:1000:10", "squash-host:0:5:1001"],
                "\"squash-host:0:5:1001\" and \"map:0:1000:10\" both say what becomes of id 1000 \
                 of the host",
            ),
        ] {
            let message = map(&rules).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        map(&["guest:0:1000:10", "host:0:1000:10", "guest:10:0:5"]).unwrap();
    }

    proptest! {
        #[test]
        fn both_directions_of_a_map_rule_are_inverse(
            guest in 0..u32::MAX / 2, host in 0..u32::MAX / 2, count in 1..1000_u32, nth in 0..1000_u32,
        ) {
            let map = IdMap::new([IdRule::Map { guest, host, count }]).unwrap();
            let id = guest + nth % count;
            prop_assert_eq!(map.to_guest(map.to_host(id).unwrap()), id);
        }
    }
}
