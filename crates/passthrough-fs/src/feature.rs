//! What takes a guest that knows how.

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
        if self == Self::Always {
            tracing::error!(
                ?missing,
                "the guest knows no {what}, which this share is set to have always: its mount is \
                 refused"
            );
            return Err(Errno::EPROTO.into());
        }
        tracing::warn!(?missing, "the guest knows no {what}: it does without");
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
