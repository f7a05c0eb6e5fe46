use crate::{Errno, NameError};

/// The rule that a request broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Fewer than the 40 bytes of a header.
    #[error("the request has {0} bytes, fewer than its header")]
    TruncatedHeader(usize),
    /// The opcode is INIT's with its bytes swapped: the peer has the other byte order.
    #[error("the peer has the other byte order")]
    ByteOrder,
    /// No such operation.
    #[error("opcode {0} is unknown")]
    UnknownOpcode(u32),
    /// `header.len` is not the length of the request.
    #[error("the header says {header} bytes, the request has {actual}")]
    Length {
        /// What the header says.
        header: u32,
        /// Bytes that are there, payload included.
        actual: usize,
    },
    /// The arguments end early.
    #[error("the arguments are truncated")]
    Truncated,
    /// Bytes are left over after the arguments.
    #[error("{0} bytes are left over after the arguments")]
    TrailingBytes(usize),
    /// A string has no NUL.
    #[error("a name has no NUL")]
    UnterminatedName,
    /// A string is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The data is not as long as the arguments say.
    #[error("the arguments say {expected} bytes of data, there are {actual}")]
    PayloadLength {
        /// What the arguments say.
        expected: u32,
        /// Bytes of data that are there.
        actual: usize,
    },
    /// The operation carries no data, or more arguments than any request may have.
    #[error("{0} bytes follow an operation that carries no data")]
    UnexpectedPayload(usize),
    /// An extension's lengths disagree, or it is of an unknown type.
    #[error("an extension is malformed")]
    Extension,
    /// An extension of a type that comes once came twice.
    #[error("an extension came twice")]
    RepeatedExtension,
}

impl RequestError {
    /// The error number that tells the peer.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::UnknownOpcode(_) => Errno::ENOSYS,
            Self::Name(error) => error.into(),
            Self::ByteOrder => Errno::EPROTO,
            Self::UnexpectedPayload(_) => Errno::E2BIG,
            _ => Errno::EINVAL,
        }
    }
}
