use fuse_wire::Errno;

/// Why an operation did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It failed; the guest is told.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// It would have to wait, and [`Context::may_block`](crate::Context::may_block) forbids that.
    ///
    /// Nothing has changed and no payload was lost: the same request is made again where it may
    /// wait. Never returned where waiting is allowed.
    #[error("the operation would block")]
    WouldBlock,
}

/// What an operation returns.
pub type Result<T> = std::result::Result<T, Error>;

impl From<std::io::Error> for Error {
    /// The error number of the system call, or EIO where the error came from elsewhere.
    fn from(error: std::io::Error) -> Self {
        Self::Errno(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Errno(Errno::from_raw(errno.raw_os_error()))
    }
}
