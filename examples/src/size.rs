//! Sizes, as they are given on a command line.

/// A number of bytes, or of KiB, MiB or GiB.
pub(crate) fn bytes(size: &str) -> Option<u64> {
    let (number, unit) = match size.char_indices().last()? {
        (end, 'K' | 'k') => (&size[..end], 1 << 10),
        (end, 'M' | 'm') => (&size[..end], 1 << 20),
        (end, 'G' | 'g') => (&size[..end], 1 << 30),
        _ => (size, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
