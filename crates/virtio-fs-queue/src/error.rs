use std::fmt;

/// One of the three parts of a split virtqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingArea {
    /// The descriptor table.
    Descriptors,
    /// The available ring, which the driver writes.
    Avail,
    /// The used ring, which the device writes.
    Used,
}

impl fmt::Display for RingArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptor table",
            Self::Avail => "available ring",
            Self::Used => "used ring",
        })
    }
}

/// A queue cannot be started as it was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The size is not a power of two, or is 0 or more than 32768.
    #[error("a queue of size {0} cannot be: the size must be a power of two from 1 to 32768")]
    Size(u16),
    /// An area does not lie at a multiple of what the specification asks for.
    #[error("the {area} is at {address:#x}, which is not a multiple of {alignment}")]
    Misaligned {
        /// The area.
        area: RingArea,
        /// Its guest address.
        address: u64,
        /// What the address must be a multiple of.
        alignment: u64,
    },
    /// An area is not in guest memory.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The record of what is in flight is too short.
    #[error("a queue of size {size} cannot be recorded where there is room for {room} descriptors")]
    Record {
        /// The size of the queue.
        size: u16,
        /// Descriptors that the record is about.
        room: u16,
    },
    /// The system refuses the memory that a queue needs (mmap(2)).
    #[error("there is no memory for a queue: {0}")]
    NoMemory(std::io::ErrorKind),
}

/// The driver broke the ring: it is served no more until it is set up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// An area is not, or not any more, within one region of guest memory.
    #[error("the {area} at {address:#x}, {len} bytes, is not within one region of guest memory")]
    Outside {
        /// The area.
        area: RingArea,
        /// Its guest address.
        address: u64,
        /// Its length in bytes.
        len: usize,
    },
    /// `idx` of the available ring went further than there are descriptors.
    #[error("the available ring advanced by {advanced}, but has {size} entries")]
    AvailJump {
        /// By how much it went beyond what was taken.
        advanced: u16,
        /// Number of entries.
        size: u16,
    },
    /// The available ring names a descriptor that does not exist.
    #[error("the available ring names descriptor {head} of {size}")]
    Head {
        /// The descriptor it names.
        head: u16,
        /// Number of descriptors.
        size: u16,
    },
    /// More chains were made available than there are descriptors, without any being given back.
    #[error("more chains are in flight than the queue has descriptors, {size}")]
    TooManyInFlight {
        /// Number of descriptors.
        size: u16,
    },
}

/// A descriptor chain that breaks a rule (virtio 1.x, section 2.7.5). It is given back with length
/// 0, or with an error for an answer; the next one is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It has more descriptors than any request needs, or is a loop.
    #[error(
        "it has more than {} descriptors, or is a loop",
        crate::chain::MAX_DESCRIPTORS
    )]
    TooManyDescriptors,
    /// It describes more bytes than the specification allows.
    #[error("it describes more than 4 GiB")]
    TooLong,
    /// `next` points behind the end of the table.
    #[error("a descriptor is followed by number {next} of a table of {size}")]
    Next {
        /// The descriptor that is named.
        next: u16,
        /// Number of descriptors in the table.
        size: usize,
    },
    /// A buffer is not in guest memory, but may be in memory of a device, such as a DAX window. Where
    /// the head of the request and the room for the answer's are, the answer is `EFAULT`.
    #[error("a buffer at {address:#x}, {len} bytes, is not in guest memory")]
    Outside {
        /// Its guest address.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A buffer for the device to read comes after one for it to write.
    #[error("a readable buffer follows a writable one")]
    ReadableAfterWritable,
    /// There is an indirect table, though that was not negotiated.
    #[error("it has an indirect table, which was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect table refers to another one.
    #[error("an indirect table refers to an indirect table")]
    IndirectNested,
    /// A descriptor refers to an indirect table and to a next descriptor.
    #[error("an indirect table is followed by a descriptor")]
    IndirectWithNext,
    /// An indirect table is empty, has a fraction of a descriptor, or more than any request needs.
    #[error("an indirect table has {0} bytes")]
    IndirectLen(u32),
    /// The memory map changed while the request waited.
    #[error("its buffers are not in guest memory any more")]
    Unmapped,
}
