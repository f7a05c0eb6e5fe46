//! The record of what is in flight (the vhost-user specification, "Inflight I/O tracking").

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use vhost::vhost_user::message::VhostUserInflight;
use virtio_fs_queue::{InFlightRecord, RecordError};

use crate::device::MAX_QUEUE_SIZE;
use crate::mapping::{self, MappingError};

/// Why memory cannot be the record of what is in flight.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflightError {
    #[error("cannot create a record of what is in flight: {0}")]
    Create(Errno),
    #[error(
        "a record of what is in flight cannot be about {queues} queues of {size} descriptors: \
         there are {most} queues, each with at most {MAX_QUEUE_SIZE}"
    )]
    Queues { queues: u16, size: u16, most: usize },
    #[error(
        "{len} bytes are too few for a record of what is in flight on {queues} queues of {size} \
         descriptors"
    )]
    Small { len: u64, queues: u16, size: u16 },
    #[error("the record of what is in flight cannot be shared: {0}")]
    Mapping(#[from] MappingError),
    #[error("the record of what is in flight on queue {queue} cannot be: {source}")]
    Record { queue: usize, source: RecordError },
}

/// What is in flight on each queue, in memory that the front-end keeps for the next back-end.
#[derive(Debug)]
pub(crate) struct Inflight(Vec<InFlightRecord>);

impl Inflight {
    /// Memory for as much as the front-end asks for, but no more than a device with `most` queues
    /// needs, and what it is for.
    pub(crate) fn create(
        asked: &VhostUserInflight,
        most: usize,
    ) -> Result<(VhostUserInflight, File), InflightError> {
        let queues = asked
            .num_queues
            .min(u16::try_from(most).unwrap_or(u16::MAX));
        let size = asked.queue_size.min(MAX_QUEUE_SIZE);
        let len = len_of(queues, size);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("virtio-fs-in-flight", flags).map_err(InflightError::Create)?;
        ftruncate(&memory, len).map_err(InflightError::Create)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&memory, seals).map_err(InflightError::Create)?;
        let made = VhostUserInflight::new(len, 0, queues, size);
        Ok((made, memory.into()))
    }

    /// The record in `file` that the front-end describes, for a device with `most` queues.
    pub(crate) fn map(
        given: &VhostUserInflight,
        file: File,
        most: usize,
    ) -> Result<Self, InflightError> {
        let &VhostUserInflight {
            mmap_size: len,
            mmap_offset: offset,
            num_queues: queues,
            queue_size: size,
        } = given;
        if usize::from(queues) > most || size > MAX_QUEUE_SIZE {
            return Err(InflightError::Queues { queues, size, most });
        }
        let needed = len_of(queues, size);
        if len < needed {
            return Err(InflightError::Small { len, queues, size });
        }
        let record = InFlightRecord::len_for(size);
        let bytes = record.saturating_mul(usize::from(queues));
        let memory = mapping::share(file, offset, bytes)?;
        (0..usize::from(queues))
            .map(|queue| {
                let start = queue.saturating_mul(record);
                InFlightRecord::new(Arc::clone(&memory), start, size)
                    .map_err(|source| InflightError::Record { queue, source })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The record of queue `index`, where there is one.
    pub(crate) fn of(&self, index: u16) -> Option<InFlightRecord> {
        self.0.get(usize::from(index)).cloned()
    }
}

/// Bytes of the records for so many queues.
fn len_of(queues: u16, size: u16) -> u64 {
    let record = InFlightRecord::len_for(size) as u64;
    record.saturating_mul(queues.into())
}
