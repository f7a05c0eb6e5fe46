//! Accesses of a guest's, of any offset and length, to what is there as bytes.

/// Fills `data` with `bytes` from `offset` on, beyond their end with zeros.
pub(crate) fn read(bytes: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    for (byte, value) in data.iter_mut().zip(bytes.iter().skip(offset)) {
        *byte = *value;
    }
}

/// Puts `data` into `bytes` from `offset` on. What would be beyond their end is ignored.
pub(crate) fn write(bytes: &mut [u8], offset: usize, data: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(offset).zip(data) {
        *byte = *value;
    }
}

/// The little-endian number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    read(bytes, offset, &mut value);
    u32::from_le_bytes(value)
}

/// The value of up to four bytes as a number.
pub(crate) fn value(data: &[u8]) -> u32 {
    u32_at(data, 0)
}

/// The lower and the upper half.
pub(crate) fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_beyond_the_end() {
        let mut bytes = [1, 2, 3];
        let mut data = [9; 4];
        read(&bytes, 1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        read(&bytes, usize::MAX, &mut data);
        assert_eq!(data, [0; 4]);
        write(&mut bytes, 2, &[7; 9]);
        write(&mut bytes, usize::MAX, &[7; 9]);
        assert_eq!(bytes, [1, 2, 7]);
        assert_eq!(u32_at(&bytes, 1), 0x0702);
        assert_eq!(value(&[]), 0);
        assert_eq!(halves(0x1_0000_0002), [2, 1]);
    }
}
