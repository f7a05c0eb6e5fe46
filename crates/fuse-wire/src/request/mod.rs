//! Requests, from the peer's kernel to the filesystem.

mod decode;
mod encode;
mod error;
mod extension;
mod operation;

pub use decode::argument_len_before_payload;
pub use encode::EncodeError;
pub use error::RequestError;
pub use extension::{Extensions, SecurityContext, SecurityContexts};
pub use operation::Operation;

use crate::abi::InHeader;

/// Most bytes of header, arguments and extensions that any request needs: a value of 64 KiB for
/// SETXATTR with a security context of as much would fit.
///
/// Whoever copies a request out of shared memory copies no more than this and leaves the rest as
/// payload; a request without a payload is then refused.
pub const MAX_ARGUMENTS: usize = 128 * 1024;

/// A request that was checked through and through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// As it was received, except that nothing in it needs checking any more.
    pub header: InHeader,
    /// What is asked for, with its arguments.
    pub operation: Operation<'a>,
    /// What came along, if that was agreed on in INIT.
    pub extensions: Extensions<'a>,
}
