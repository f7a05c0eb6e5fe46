//! What becomes of the flags of open(2), on their way to the host and on their way back.

use fuse_fs::flags::OpenOutFlags;
use fuse_fs::{Errno, Result};
use rustix::fs::OFlags;

use crate::handle_table::Durability;
use crate::volume::{Storage, Volume};
use crate::{Extras, PassthroughFs};

/// The flags of the guest that the host's open(2) is given in any case.
///
/// O_APPEND is left to each write, as the guest can change it (fcntl(2)). O_NONBLOCK, O_ASYNC and
/// the like mean nothing to a regular file.
const HONOURED: OFlags = OFlags::RWMODE
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);

/// Whether a file can be read as far as the guest's kernel has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readable {
    /// It can, or the guest did not open it for reading and its kernel need not read it either.
    AsNeeded,
    /// The guest's kernel [has to](PassthroughFs::must_also_read), and cannot.
    No,
}

impl PassthroughFs {
    /// What is passed on of the guest's `flags`.
    ///
    /// # Errors
    /// EINVAL for the fourth value of the access mode, which is for ioctls on drivers (open(2)).
    pub(crate) fn host_flags(&self, flags: u32) -> Result<OFlags> {
        let mut honoured = HONOURED;
        honoured.set(
            OFlags::DIRECT,
            self.extras.contains(Extras::ALLOW_DIRECT_IO),
        );
        honoured.set(
            OFlags::NOATIME,
            self.extras.contains(Extras::PRESERVE_NOATIME),
        );
        let flags = OFlags::from_bits_retain(flags) & honoured;
        if access_mode(flags) == OFlags::RWMODE {
            return Err(Errno::EINVAL.into());
        }
        Ok(flags)
    }

    /// Whether a file is to be opened for reading, too, of which the guest only said that it will
    /// write: it reads the rest of a page of which it has written a part.
    pub(crate) fn must_also_read(&self, host_flags: OFlags) -> bool {
        access_mode(host_flags) == OFlags::WRONLY && self.agreed.contains(Extras::WRITEBACK)
    }

    /// How the guest may use a file on `volume` that was opened with `host_flags`.
    pub(crate) fn file_flags(
        &self,
        volume: &Volume,
        host_flags: OFlags,
        readable: Readable,
    ) -> OpenOutFlags {
        let mut flags = self.cache.file_flags();
        let policy_is_direct = flags.contains(OpenOutFlags::DIRECT_IO);
        let mapped = self.agreed.contains(Extras::ALLOW_MMAP);
        // Each WRITE is one write(2) of the host, where it takes turns with others. The guest still
        // appends and extends files one write at a time. What is not certain any more is the order
        // of two write(2) that overlap and are longer than a WRITE: as with O_DIRECT on ext4 and
        // XFS. Kernels before 6.9 mix that up with shared mappings.
        if policy_is_direct && !mapped {
            flags |= OpenOutFlags::PARALLEL_DIRECT_WRITES;
        }
        if readable == Readable::No {
            // The guest writes just what its programs write.
            flags |= OpenOutFlags::DIRECT_IO;
            flags.remove(OpenOutFlags::KEEP_CACHE);
        }
        // No FLUSH at each close(2) where that could do nothing: the host's filesystem has nothing
        // to report, no locks are to be dropped, and the guest has no changed pages to write back,
        // as the file is open for reading only, or can be changed by write(2) only and that is passed
        // on at once: only what is open for both can be mapped shared and written (mmap(2)).
        let access = access_mode(host_flags);
        let writes_through = !self.agreed.contains(Extras::WRITEBACK);
        let never_dirty = access == OFlags::RDONLY
            || access == OFlags::WRONLY && writes_through
            || policy_is_direct && !mapped;
        let locks = self.agreed.contains(Extras::POSIX_LOCK);
        if never_dirty && !locks && volume.storage != Storage::Remote {
            flags |= OpenOutFlags::NOFLUSH;
        }
        flags
    }
}

/// When a write to a file that was opened with `host_flags` is done.
pub(crate) fn durability(host_flags: OFlags) -> Durability {
    if host_flags.contains(OFlags::DIRECT) {
        Durability::Direct
    } else if host_flags.intersects(OFlags::DSYNC | OFlags::SYNC) {
        Durability::Synchronous
    } else {
        Durability::Cached
    }
}

pub(crate) fn access_mode(flags: OFlags) -> OFlags {
    flags & OFlags::RWMODE
}
