//! Files that bypass the page cache of the host (O_DIRECT).
//!
//! What cannot be done directly, as an offset, a length or a place in memory is not a multiple of
//! what the host's device wants, fails with EINVAL on some filesystems (ext4, XFS) and goes through
//! the page cache on others (Btrfs). To the guest it never fails: its kernel checks no alignment,
//! and what it writes back from its own cache is as long as the file is. So the host's page cache
//! is used for that one request, and a write is on the device when it is answered.

use std::os::fd::{AsFd, OwnedFd};

use fuse_fs::{Context, Errno, Error, IoFlags, PayloadSink, PayloadSource, Result};
use rustix::fs::OFlags;

use crate::PassthroughFs;
use crate::handle_table::OpenFile;
use crate::io::{Extent, read_all, write_all};

/// What a second descriptor has in common with the first.
const KEPT: OFlags = OFlags::RWMODE
    .union(OFlags::NOATIME)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);

impl PassthroughFs {
    pub(crate) fn read_direct(
        &self,
        file: &OpenFile,
        extent: Extent,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        let before = sink.remaining();
        match read_all(file.fd.as_fd(), extent, sink, IoFlags::empty()) {
            Err(Error::Errno(Errno::EINVAL)) => {
                let done = before.saturating_sub(sink.remaining());
                let cached = self.reopen_cached(file, OFlags::empty())?;
                let rest = extent.after(done);
                let read = read_all(cached.as_fd(), rest, sink, IoFlags::empty())?;
                Ok(done.saturating_add(read))
            }
            result => result,
        }
    }

    pub(crate) fn write_direct(
        &self,
        cx: &Context<'_>,
        file: &OpenFile,
        extent: Extent,
        source: &mut dyn PayloadSource,
        flags: IoFlags,
    ) -> Result<usize> {
        let volume = &file.volume;
        let done = match write_all(cx, (file.fd.as_fd(), volume), extent, source, flags) {
            Err(Error::Errno(Errno::EINVAL)) => 0,
            result => result?,
        };
        if done == extent.len {
            return Ok(done);
        }
        let rest = self.reopen_cached(file, OFlags::DSYNC).and_then(|cached| {
            let rest = extent.after(done);
            write_all(cx, (cached.as_fd(), volume), rest, source, flags)
        });
        match rest {
            Ok(written) => Ok(done.saturating_add(written)),
            // The guest learns of it when it writes the rest.
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }

    /// Another descriptor of the file, for the time of a request, that uses the page cache.
    ///
    /// # Errors
    /// EINVAL, which is what the first one said, where there cannot be one.
    fn reopen_cached(&self, file: &OpenFile, more: OFlags) -> Result<OwnedFd> {
        let flags = rustix::fs::fcntl_getfl(&file.fd)? & KEPT;
        let cached = self.open_again(&file.fd, flags | more);
        cached.map_err(|_| Errno::EINVAL.into())
    }
}
