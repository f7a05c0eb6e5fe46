//! INIT with several filesystems: what all of them agree on.

use fuse_wire::flags::InitFlags;

use crate::{FileSystem, Negotiation, Result};

/// Not offered to the filesystems: handles and node ids of the whole mean what their tables say,
/// so that none works without a handle, or after it was forgotten.
const NEVER: InitFlags = InitFlags::NO_OPEN_SUPPORT
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPORT_SUPPORT);

/// Agreed on wherever it is offered: the exports are submounts, whether or not a filesystem has
/// some of its own.
const ALWAYS: InitFlags = InitFlags::SUBMOUNTS;

/// Begins a session of each of `members`, with the same flags.
///
/// Each is asked again, with less on offer, until all want the same, so that none believes in what
/// another could not do. Each time at least one flag fewer is offered.
///
/// # Errors
/// That of the first filesystem that refuses. None has a session then.
pub(super) fn agree(members: &[&dyn FileSystem], negotiation: &mut Negotiation) -> Result<()> {
    negotiation.offered = negotiation.offered.difference(NEVER);
    negotiation.enabled &= negotiation.offered;
    loop {
        let round = Round::ask(members, negotiation)?;
        // With no filesystem at all, there is nobody to ask again.
        if round.all == round.any || members.is_empty() {
            negotiation.enabled = round.any | (ALWAYS & negotiation.offered);
            negotiation.max_readahead = round.limits.max_readahead;
            negotiation.max_write = round.limits.max_write;
            negotiation.max_background = round.limits.max_background;
            negotiation.congestion_threshold = round.limits.congestion_threshold;
            negotiation.time_gran = round.limits.time_gran;
            return Ok(());
        }
        destroy(members);
        negotiation.offered &= round.all | ALWAYS;
        negotiation.enabled &= negotiation.offered;
    }
}

/// What the filesystems said to one offer.
struct Round {
    /// What all want.
    all: InitFlags,
    /// What some want.
    any: InitFlags,
    /// The least that any allows.
    limits: Negotiation,
}

impl Round {
    fn ask(members: &[&dyn FileSystem], offer: &Negotiation) -> Result<Self> {
        let mut round = Self {
            all: offer.offered.difference(ALWAYS),
            any: InitFlags::empty(),
            limits: *offer,
        };
        for (index, member) in members.iter().enumerate() {
            let mut said = *offer;
            if let Err(error) = member.init(&mut said) {
                destroy(members.get(..index).unwrap_or_default());
                return Err(error);
            }
            let wanted = said.enabled & offer.offered.difference(ALWAYS);
            round.all &= wanted;
            round.any |= wanted;
            let limits = &mut round.limits;
            limits.max_readahead = limits.max_readahead.min(said.max_readahead);
            limits.max_write = limits.max_write.min(said.max_write);
            limits.max_background = limits.max_background.min(said.max_background);
            limits.congestion_threshold =
                limits.congestion_threshold.min(said.congestion_threshold);
            // In what is finer than that, times of some files would not change.
            limits.time_gran = limits.time_gran.min(said.time_gran);
        }
        Ok(round)
    }
}

pub(super) fn destroy(members: &[&dyn FileSystem]) {
    for member in members {
        member.destroy();
    }
}
