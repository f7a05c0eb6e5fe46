use std::sync::atomic::{AtomicU64, Ordering};

use fuse_wire::flags::InitFlags;

use crate::negotiate::SUPPORTED;

/// Unit of the limits that INIT settles, in bytes.
pub(crate) const PAGE: u32 = 4096;
/// Where the number of pages starts in the word; the flags are below.
const PAGES_SHIFT: u32 = 48;
const FLAGS: u64 = (1 << PAGES_SHIFT) - 1;

const _: () = assert!(
    SUPPORTED.bits() & !FLAGS == 0,
    "a flag that can be agreed on does not fit the word"
);

/// What INIT settled and later requests are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// What both sides do.
    pub(crate) flags: InitFlags,
    /// Most data in a WRITE, in pages of 4 KiB; at least 1.
    pub(crate) max_pages: u16,
}

impl Agreement {
    /// What INIT itself is decoded by.
    pub(crate) const BEFORE_INIT: Self = Self {
        flags: InitFlags::empty(),
        max_pages: 1,
    };

    /// Most bytes of data in a WRITE.
    pub(crate) fn max_write(self) -> u32 {
        u32::from(self.max_pages).saturating_mul(PAGE)
    }
}

/// The agreement of the session that is on, if one is, as one word: a reader sees all of one
/// session's or all of another's, without a lock. The number of pages is 0 where none is on.
#[derive(Debug, Default)]
pub(crate) struct AgreementCell(AtomicU64);

impl AgreementCell {
    pub(crate) fn load(&self) -> Option<Agreement> {
        unpack(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn begin(&self, agreement: Agreement) {
        let word = (agreement.flags.bits() & FLAGS) | u64::from(agreement.max_pages) << PAGES_SHIFT;
        self.0.store(word, Ordering::Release);
    }

    /// Ends the session and returns what it had agreed on, if there was one.
    pub(crate) fn end(&self) -> Option<Agreement> {
        unpack(self.0.swap(0, Ordering::AcqRel))
    }
}

fn unpack(word: u64) -> Option<Agreement> {
    let max_pages = u16::try_from(word >> PAGES_SHIFT).ok()?;
    (max_pages > 0).then_some(Agreement {
        flags: InitFlags::from_bits_retain(word & FLAGS),
        max_pages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agreement_survives_its_word() {
        let cell = AgreementCell::default();
        assert_eq!(cell.load(), None);
        for max_pages in [1, 32, 256, u16::MAX] {
            for flags in [InitFlags::empty(), SUPPORTED] {
                let agreement = Agreement { flags, max_pages };
                cell.begin(agreement);
                assert_eq!(cell.load(), Some(agreement));
            }
        }
        assert!(cell.end().is_some());
        assert_eq!(cell.load(), None);
        assert_eq!(cell.end(), None);
    }
}
