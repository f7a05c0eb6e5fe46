use core::ffi::CStr;
use core::fmt;

use crate::Errno;

/// Longest name of a directory entry or an extended attribute, in bytes (`NAME_MAX`,
/// `XATTR_NAME_MAX`).
pub(crate) const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes, without its NUL (`PATH_MAX` - 1).
const TARGET_MAX: usize = 4095;

/// Why bytes are not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes before the NUL.
    #[error("the name is empty")]
    Empty,
    /// Longer than the kind of name allows.
    #[error("the name is too long")]
    TooLong,
    /// A directory entry cannot contain a slash.
    #[error("the name contains a slash")]
    Slash,
    /// `.` and `..` name no entry that this operation could act on.
    #[error("the name is \".\" or \"..\"")]
    DotOrDotDot,
}

impl From<NameError> for Errno {
    fn from(error: NameError) -> Self {
        match error {
            NameError::TooLong => Self::ENAMETOOLONG,
            NameError::Empty | NameError::Slash | NameError::DotOrDotDot => Self::EINVAL,
        }
    }
}

/// The name of a directory entry: 1 to 255 bytes, no NUL, no slash, neither `.` nor `..`.
///
/// Any other bytes are allowed; names are not text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Checks `name`.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    #[inline]
    pub fn new(name: &'a CStr) -> Result<Self, NameError> {
        match LookupName::new(name)? {
            LookupName::Child(name) => Ok(name),
            LookupName::Current | LookupName::Parent => Err(NameError::DotOrDotDot),
        }
    }

    /// The name, as system calls take it.
    #[must_use]
    pub const fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The bytes of the name, without a NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

/// What LOOKUP may ask for: an entry, or, where the filesystem is exported by the guest, the
/// directory itself or its parent (`FUSE_EXPORT_SUPPORT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookupName<'a> {
    /// An entry of the directory.
    Child(Name<'a>),
    /// `.`
    Current,
    /// `..`
    Parent,
}

impl<'a> LookupName<'a> {
    /// Checks `name`.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn new(name: &'a CStr) -> Result<Self, NameError> {
        match name.to_bytes() {
            b"" => Err(NameError::Empty),
            b"." => Ok(Self::Current),
            b".." => Ok(Self::Parent),
            bytes if bytes.len() > NAME_MAX => Err(NameError::TooLong),
            bytes if bytes.contains(&b'/') => Err(NameError::Slash),
            _ => Ok(Self::Child(Name(name))),
        }
    }

    /// The name as it travels.
    #[must_use]
    pub const fn as_c_str(self) -> &'a CStr {
        match self {
            Self::Child(name) => name.0,
            Self::Current => c".",
            Self::Parent => c"..",
        }
    }
}

/// The name of an extended attribute, with its namespace prefix: 1 to 255 bytes, no NUL
/// (xattr(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XattrName<'a>(&'a CStr);

impl<'a> XattrName<'a> {
    /// Checks `name`.
    ///
    /// # Errors
    /// Empty or too long.
    pub fn new(name: &'a CStr) -> Result<Self, NameError> {
        check_len(name, NAME_MAX).map(Self)
    }

    /// The name, as system calls take it.
    #[must_use]
    pub const fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The bytes of the name, without a NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

/// Where a new symbolic link points: 1 to 4095 bytes, no NUL. Only the guest resolves it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SymlinkTarget<'a>(&'a CStr);

impl<'a> SymlinkTarget<'a> {
    /// Checks `target`.
    ///
    /// # Errors
    /// Empty or too long.
    pub fn new(target: &'a CStr) -> Result<Self, NameError> {
        check_len(target, TARGET_MAX).map(Self)
    }

    /// The target, as system calls take it.
    #[must_use]
    pub const fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The bytes of the target, without a NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

#[inline]
fn check_len(name: &CStr, max: usize) -> Result<&CStr, NameError> {
    match name.count_bytes() {
        0 => Err(NameError::Empty),
        n if n > max => Err(NameError::TooLong),
        _ => Ok(name),
    }
}

macro_rules! fmt_as_escaped_text {
    ($($type:ident)*) => {$(
        impl fmt::Debug for $type<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.as_bytes().escape_ascii())
            }
        }

        impl fmt::Display for $type<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.as_bytes().escape_ascii())
            }
        }
    )*};
}

fmt_as_escaped_text!(Name XattrName SymlinkTarget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for (bytes, error) in [
            (c"", NameError::Empty),
            (c".", NameError::DotOrDotDot),
            (c"..", NameError::DotOrDotDot),
            (c"a/b", NameError::Slash),
            (c"/", NameError::Slash),
            (c"../x", NameError::Slash),
        ] {
            assert_eq!(Name::new(bytes), Err(error), "{bytes:?}");
        }
        for fine in [c"a", c"...", c"..a", c"\xff\x01 \n"] {
            assert_eq!(Name::new(fine).unwrap().as_c_str(), fine);
        }
    }

    #[test]
    fn the_longest_name_has_255_bytes() {
        let bytes = [b'x'; 257];
        let terminated = |n: usize| {
            let mut buffer = bytes;
            buffer[n] = 0;
            buffer
        };
        let longest = terminated(255);
        let longer = terminated(256);
        assert!(Name::new(CStr::from_bytes_until_nul(&longest).unwrap()).is_ok());
        assert_eq!(
            Name::new(CStr::from_bytes_until_nul(&longer).unwrap()),
            Err(NameError::TooLong)
        );
    }
}
