use crate::Tag;
use crate::tag::TAG_LEN;

/// Bytes of `struct virtio_fs_config` without `notify_buf_size`, which only a device with a
/// notification queue has (virtio 1.x, section 5.11.4).
const LEN: usize = TAG_LEN + size_of::<u32>();

/// The device's configuration space.
#[derive(Debug)]
pub(crate) struct ConfigSpace([u8; LEN]);

impl ConfigSpace {
    pub(crate) fn new(tag: &Tag, request_queues: u32) -> Self {
        let mut bytes = [0; LEN];
        let fields = tag
            .as_str()
            .bytes()
            .chain(std::iter::repeat(0))
            .take(TAG_LEN)
            .chain(request_queues.to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(fields) {
            *byte = value;
        }
        Self(bytes)
    }

    /// `size` bytes from `offset` on; those beyond the end are zero.
    pub(crate) fn read(&self, offset: u32, size: usize) -> Vec<u8> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.0.get(offset..).unwrap_or_default();
        let beyond = std::iter::repeat(&0);
        there.iter().chain(beyond).take(size).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_can_be_read() {
        let space = ConfigSpace::new(&"myfs".parse().unwrap(), 3);
        let mut whole = b"myfs".to_vec();
        whole.resize(36, 0);
        whole.extend([3, 0, 0, 0]);
        assert_eq!(space.read(0, 40), whole);
        for offset in 0..=40usize {
            for size in 0..=44usize {
                let mut expected = whole[offset..].to_vec();
                expected.resize(44, 0);
                expected.truncate(size);
                assert_eq!(space.read(offset as u32, size), expected);
            }
        }
        assert_eq!(space.read(u32::MAX, 4), [0; 4]);
    }
}
