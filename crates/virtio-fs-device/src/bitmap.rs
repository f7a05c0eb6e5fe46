//! Pages of guest memory, noted as bits: as the vhost-user specification has it ("Migration"), the
//! first page in the lowest bit of the first byte.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::DIRTY_PAGE;

/// Pages that a word notes.
pub(crate) const WORD_PAGES: u64 = u64::BITS as u64;

/// The pages in which the bytes of `range` are.
pub(crate) const fn pages(range: &Range<u64>) -> Range<u64> {
    range.start.div_euclid(DIRTY_PAGE)..range.end.div_ceil(DIRTY_PAGE)
}

/// The words that note `pages`, counted from the page that the first bit stands for: each with its
/// number and the bits that are meant.
pub(crate) fn words(pages: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    let Range { start, end } = *pages;
    let numbers = start.div_euclid(WORD_PAGES)..end.div_ceil(WORD_PAGES);
    numbers.map(move |number| {
        let first = number.saturating_mul(WORD_PAGES);
        let below = |page: u64| match u32::try_from(page.saturating_sub(first)) {
            Ok(count @ 0..64) => 1u64.wrapping_shl(count).wrapping_sub(1),
            _ => u64::MAX,
        };
        (number, below(end) & !below(start))
    })
}

/// Sets bits.
pub(crate) fn note(word: &AtomicU64, bits: u64) {
    // Release: who takes the page sees what was written to it.
    word.fetch_or(bits.to_le(), Ordering::Release);
}

/// Clears bits and returns those that were set; a word that has none of them is not written.
pub(crate) fn take(word: &AtomicU64, bits: u64) -> u64 {
    match u64::from_le(word.load(Ordering::Relaxed)) & bits {
        0 => 0,
        _ => u64::from_le(word.fetch_and(!bits.to_le(), Ordering::AcqRel)) & bits,
    }
}

/// Calls `found` with the address of each page that is noted in `bits`, of which the first stands for
/// page `first`.
pub(crate) fn each(mut bits: u64, first: u64, found: &mut dyn FnMut(u64)) {
    while bits != 0 {
        let page = first.saturating_add(bits.trailing_zeros().into());
        found(page.saturating_mul(DIRTY_PAGE));
        bits &= bits.wrapping_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_pages_that_are_meant_and_no_others() {
        for (start, end) in [
            (0, 0),
            (0, 1),
            (5, 5),
            (5, 3),
            (5, 70),
            (63, 64),
            (64, 128),
            (64, 65),
            (1, 129),
            (199, 201),
        ] {
            let mut found = Vec::new();
            for (number, bits) in words(&(start..end)) {
                each(bits, number * WORD_PAGES, &mut |address| {
                    found.push(address / DIRTY_PAGE);
                });
            }
            assert_eq!(found, Vec::from_iter(start..end));
        }
        let last = u64::MAX / DIRTY_PAGE;
        let mut ends = words(&(last..last + 1));
        assert_eq!(ends.next(), Some((last / WORD_PAGES, 1 << 63)));
        assert_eq!(ends.next(), None);
    }

    #[test]
    fn what_is_noted_is_taken_once() {
        let word = AtomicU64::new(0);
        note(&word, 0b1011);
        assert_eq!(take(&word, 0b0110), 0b0010);
        assert_eq!(take(&word, u64::MAX), 0b1001);
        assert_eq!(take(&word, u64::MAX), 0);
    }
}
