use core::error::Error;
use core::fmt;

use crate::{TAG_LEN, Tag, TagError};

/// Bytes of `struct virtio_fs_config` without `notify_buf_size`, which only a device with a
/// notification queue has (virtio 1.x, section 5.11.4).
pub const CONFIG_LEN: usize = TAG_LEN + size_of::<u32>();

/// The device's configuration space: read-only for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    tag: Tag,
    request_queues: u32,
}

/// Why bytes are not the configuration space of a device that Linux would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSpaceError {
    /// The tag is not text.
    NotText,
    /// The tag is none.
    Tag(TagError),
    /// There is no request queue.
    NoQueues,
}

impl ConfigSpace {
    /// That of a device with this tag and so many request queues.
    #[must_use]
    pub const fn new(tag: Tag, request_queues: u32) -> Self {
        Self {
            tag,
            request_queues,
        }
    }

    /// That which a back-end says it has.
    ///
    /// # Errors
    /// No Linux driver would take such a device.
    pub fn parse(bytes: &[u8; CONFIG_LEN]) -> Result<Self, ConfigSpaceError> {
        let (tag, queues) = bytes.split_at(TAG_LEN);
        let end = tag.iter().position(|&byte| byte == 0).unwrap_or(TAG_LEN);
        let text = tag.get(..end).unwrap_or_default();
        let text = core::str::from_utf8(text).map_err(|_| ConfigSpaceError::NotText)?;
        let tag = text.parse().map_err(ConfigSpaceError::Tag)?;
        let request_queues = queues.try_into().map_or(0, u32::from_le_bytes);
        if request_queues == 0 {
            return Err(ConfigSpaceError::NoQueues);
        }
        Ok(Self::new(tag, request_queues))
    }

    /// What the guest mounts.
    #[must_use]
    pub const fn tag(&self) -> &Tag {
        &self.tag
    }

    /// `num_request_queues`: how many there are beside hiprio.
    #[must_use]
    pub const fn request_queues(&self) -> u32 {
        self.request_queues
    }

    /// Fills `bytes` with what is there from `offset` on; beyond the end that is zeros.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self
            .tag
            .as_str()
            .bytes()
            .chain(core::iter::repeat(0))
            .take(TAG_LEN)
            .chain(self.request_queues.to_le_bytes())
            .skip(offset);
        for (byte, value) in bytes.iter_mut().zip(there.chain(core::iter::repeat(0))) {
            *byte = value;
        }
    }
}

impl fmt::Display for ConfigSpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str("the tag is not UTF-8"),
            Self::Tag(error) => error.fmt(f),
            Self::NoQueues => f.write_str("there is no request queue"),
        }
    }
}

impl Error for ConfigSpaceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn any_part_can_be_read() {
        let space = ConfigSpace::new("myfs".parse().unwrap(), 3);
        let mut whole = b"myfs".to_vec();
        whole.resize(36, 0);
        whole.extend([3, 0, 0, 0]);
        whole.resize(100, 0);
        for offset in 0..=45usize {
            for size in 0..=44usize {
                let mut read = vec![7; size];
                space.read(offset as u64, &mut read);
                assert_eq!(read, whole[offset..offset + size]);
            }
        }
        let mut beyond = [7; 4];
        space.read(u64::MAX, &mut beyond);
        assert_eq!(beyond, [0; 4]);
    }

    #[test]
    fn what_was_read_is_the_same_when_parsed() {
        for tag in ["x", "myfs", &"x".repeat(36)] {
            let space = ConfigSpace::new(tag.parse().unwrap(), 63);
            let mut bytes = [0; CONFIG_LEN];
            space.read(0, &mut bytes);
            assert_eq!(ConfigSpace::parse(&bytes), Ok(space));
        }
    }

    #[test]
    fn what_no_driver_takes_is_refused() {
        let mut bytes = [0; CONFIG_LEN];
        bytes[36] = 1;
        let empty = ConfigSpaceError::Tag(TagError::Empty);
        assert_eq!(ConfigSpace::parse(&bytes), Err(empty));
        bytes[0] = 0xff;
        let garbage = ConfigSpace::parse(&bytes);
        assert_eq!(garbage, Err(ConfigSpaceError::NotText));
        bytes[0] = b'x';
        bytes[36] = 0;
        let none = ConfigSpace::parse(&bytes);
        assert_eq!(none, Err(ConfigSpaceError::NoQueues));
    }
}
