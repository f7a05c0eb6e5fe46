//! What outlives a session, and how it is written down.

mod record;

use std::io;

pub use record::{StateForm, StateReader, StateWriter};

/// What outlives a [`Session`](crate::Session), or a [`FileSystem`](crate::FileSystem) in it: saved
/// in one process and loaded in another, so that a guest that was moved, or taken from a snapshot,
/// goes on with the files that it had open, and notices nothing.
///
/// Nothing may be served from before [`save`](Self::save) until the guest runs elsewhere, or from
/// before [`load`](Self::load) until that returns: a request that is under way may be in what is
/// saved, or not, or in part. Nothing is unsafe about it, but the guest may find it done twice.
///
/// A state is not to be trusted. Who writes one decides on what files the guest has open as far as
/// the filesystem would let the guest open them, not beyond, and takes no more memory than
/// a guest could.
pub trait State: Send + Sync {
    /// Writes the state to `to`, in small pieces as it is found: it may be larger than what should
    /// be in memory twice. Nothing changes by it: what was saved may go on.
    ///
    /// # Errors
    /// Where `to` fails, or the state cannot be told. What was written is of no use then.
    fn save(&self, to: &mut dyn io::Write) -> io::Result<()>;

    /// Replaces the state by the one that [`save`](Self::save) wrote, which is all that `from` has
    /// up to its end.
    ///
    /// # Errors
    /// Where `from` fails ([`io::ErrorKind::UnexpectedEof`] where it ends too early), or what it
    /// holds is no state, not one of this filesystem, or not one that can be gone on with here
    /// ([`io::ErrorKind::InvalidData`]). Nothing is left of the earlier state then either.
    fn load(&self, from: &mut dyn io::Read) -> io::Result<()>;
}
