use fuse_wire::Errno;

use crate::Error;

/// Why a request was not answered with success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The operation failed, or would have to wait.
    Error(Error),
    /// The filesystem broke its contract, in the way that is told.
    Fault(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Error(Error::Errno(errno))
    }
}
