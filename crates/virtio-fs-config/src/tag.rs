use alloc::borrow::ToOwned;
use alloc::string::String;
use core::error::Error;
use core::fmt;
use core::str::FromStr;

/// Bytes of a tag in config space (`struct virtio_fs_config`).
pub const TAG_LEN: usize = 36;

/// What the guest mounts: the name of a virtio-fs device, 1 to 36 bytes of UTF-8 without NUL and
/// without a newline, which the Linux driver refuses (virtio 1.x, section 5.11.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(String);

/// Why text is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagError {
    /// Nothing there.
    Empty,
    /// More than 36 bytes.
    TooLong(usize),
    /// A NUL, which would end it early, or a newline.
    Character,
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        match text.len() {
            0 => Err(TagError::Empty),
            len if len > TAG_LEN => Err(TagError::TooLong(len)),
            _ if text.contains(['\0', '\n']) => Err(TagError::Character),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a tag cannot be empty"),
            Self::TooLong(len) => {
                write!(f, "a tag has at most {TAG_LEN} bytes, this one has {len}")
            }
            Self::Character => f.write_str("a tag cannot contain a NUL or a newline"),
        }
    }
}

impl Error for TagError {}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_refuses_is_no_tag() {
        let longest = "x".repeat(36);
        assert_eq!(longest.parse::<Tag>().unwrap().as_str(), longest);
        assert_eq!("x".repeat(37).parse::<Tag>(), Err(TagError::TooLong(37)));
        assert_eq!("".parse::<Tag>(), Err(TagError::Empty));
        assert_eq!("a\nb".parse::<Tag>(), Err(TagError::Character));
        assert_eq!("a\0b".parse::<Tag>(), Err(TagError::Character));
    }
}
