//! What takes a guest that knows how.

use std::sync::atomic::{AtomicU64, Ordering};

use fuse_fs::flags::InitFlags;
use fuse_fs::{Errno, Negotiation, Result};

use crate::config::Feature;

impl Feature {
    /// Agrees on `flags`, all of them or none, and returns which. `what` is for the log.
    pub(crate) fn negotiate(
        self,
        negotiation: &mut Negotiation,
        flags: InitFlags,
        what: &str,
    ) -> Result<bool> {
        if self == Self::Never {
            return Ok(false);
        }
        if negotiation.offered.contains(flags) {
            return Ok(negotiation.enable(flags));
        }
        let missing = flags.difference(negotiation.offered);
        // A guest can begin sessions as often as it likes: only the 1st, 2nd, 4th, 8th and so on
        // are logged.
        static MISSED: AtomicU64 = AtomicU64::new(0);
        let count = MISSED.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let log = count.is_power_of_two();
        if self == Self::Always {
            if log {
                tracing::error!(
                    ?missing,
                    count,
                    "the guest's kernel knows no {what}, which this share always has: its mount \
                     is refused"
                );
            }
            return Err(Errno::EPROTO.into());
        }
        if log {
            tracing::warn!(
                ?missing,
                count,
                "the guest's kernel knows no {what}: it does without"
            );
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use fuse_fs::abi::InitIn;

    use super::*;

    #[test]
    fn flags_are_agreed_on_together_or_not_at_all() {
        let wanted = InitFlags::POSIX_ACL | InitFlags::DONT_MASK;
        for (offered, feature, expected) in [
            (wanted, Feature::Never, Ok(false)),
            (wanted, Feature::Auto, Ok(true)),
            (wanted, Feature::Always, Ok(true)),
            (InitFlags::POSIX_ACL, Feature::Auto, Ok(false)),
            (
                InitFlags::POSIX_ACL,
                Feature::Always,
                Err(Errno::EPROTO.into()),
            ),
        ] {
            let (flags, flags2) = offered.halves();
            let init = InitIn {
                flags,
                flags2,
                ..InitIn::default()
            };
            let mut negotiation = Negotiation::new(&init, InitFlags::empty());
            let agreed = feature.negotiate(&mut negotiation, wanted, "ACLs");
            assert_eq!(agreed, expected, "{offered:?}");
            let all = agreed == Ok(true);
            let enabled = if all { wanted } else { InitFlags::empty() };
            assert_eq!(negotiation.enabled, enabled);
        }
    }
}
