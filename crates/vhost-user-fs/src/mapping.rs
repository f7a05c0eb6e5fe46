use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_add_seals};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

/// Why memory of the front-end's cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("its file is too short")]
    Short,
    #[error("cannot map it: {0}")]
    Map(#[from] MmapRegionError),
    #[error("cannot look at its file: {0}")]
    File(io::Error),
}

/// Shares `len` bytes of `file` from `offset` on with the front-end.
///
/// A memfd is sealed, so that nobody can make it shorter, which would end this process when it
/// writes there. What cannot be sealed is taken as it is: a front-end can do the same to guest
/// memory, and ends the back-end of its own machine by it.
pub(crate) fn share(file: File, offset: u64, len: usize) -> Result<Arc<MmapRegion>, MappingError> {
    if let Err(error) = fcntl_add_seals(&file, SealFlags::SHRINK) {
        tracing::debug!(%error, "memory of the front-end's cannot be sealed");
    }
    let metadata = file.metadata().map_err(MappingError::File)?;
    let end = offset.checked_add(len as u64);
    if end.is_none_or(|end| end > metadata.len()) {
        return Err(MappingError::Short);
    }
    Ok(Arc::new(MmapRegion::from_file(
        FileOffset::new(file, offset),
        len,
    )?))
}
