use core::fmt;

/// An error number of Linux (`asm-generic/errno.h`), the only error that FUSE can carry.
///
/// Always 1 to 511: the Linux driver takes `out_header.error` down to -511 without a check and
/// misreads anything beyond.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

/// Largest error number that may travel.
const MAX: i32 = 511;

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    EINTR = 4, "Interrupted.";
    EIO = 5, "Input/output error.";
    ENXIO = 6, "No such device or address; LSEEK: no data or hole beyond the offset.";
    E2BIG = 7, "Argument too long.";
    EBADF = 9, "Bad file handle.";
    EAGAIN = 11, "Try again; a lock is held by another owner.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    EXDEV = 18, "Would cross from one filesystem into another.";
    ENODEV = 19, "No such device.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "Is a directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Too many open files in the system.";
    EMFILE = 24, "Too many open files in the process.";
    ENOTTY = 25, "Not a device that takes this ioctl.";
    EFBIG = 27, "File too large.";
    ENOSPC = 28, "No space left on device.";
    EROFS = 30, "Read-only filesystem.";
    EMLINK = 31, "Too many links.";
    ERANGE = 34, "Result does not fit the buffer.";
    EDEADLK = 35, "Waiting for this lock would deadlock.";
    ENAMETOOLONG = 36, "File name too long.";
    ENOLCK = 37, "No locks available.";
    ENOSYS = 38, "Not implemented; Linux never asks for this operation again in the session.";
    ENOTEMPTY = 39, "Directory not empty.";
    ELOOP = 40, "Too many symbolic links.";
    ENODATA = 61, "No such extended attribute.";
    EPROTO = 71, "Protocol error.";
    EOVERFLOW = 75, "Value too large for its type.";
    EOPNOTSUPP = 95, "Operation not supported on this file.";
    ENOTCONN = 107, "No session: INIT has not been seen.";
    ESTALE = 116, "The node is no longer known, or is another file now.";
    EDQUOT = 122, "Disk quota exceeded.";
}

impl Errno {
    /// Smallest value of `out_header.error`.
    pub(crate) const LOWEST_ON_WIRE: i32 = -MAX;

    /// The error number `raw` as system calls report it (positive).
    ///
    /// A value that cannot travel, zero and negatives included, becomes [`Errno::EIO`].
    #[must_use]
    pub const fn from_raw(raw: i32) -> Self {
        if raw >= 1 && raw <= MAX {
            Self(raw as u16)
        } else {
            Self::EIO
        }
    }

    /// The positive error number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_travel_becomes_eio() {
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
        assert_eq!(Errno::from_raw(511).raw(), 511);
        for raw in [0, -1, 512, 4095, i32::MIN, i32::MAX] {
            assert_eq!(Errno::from_raw(raw), Errno::EIO);
        }
    }
}
