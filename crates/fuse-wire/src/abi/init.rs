use crate::flags::InitFlags;

wire_struct! {
    /// INIT (`fuse_init_in`, 64 bytes; 16 before 7.36).
    InitIn {
        /// Major version that the peer speaks.
        major: u32,
        /// Newest minor version that the peer speaks.
        minor: u32,
        /// Bytes that the peer would read ahead.
        max_readahead: u32,
        /// Low half of [`InitFlags`].
        flags: u32,
        /// High half of [`InitFlags`] (7.36).
        flags2: u32,
        /// Reserved.
        unused: [u32; 11],
    }
}

impl InitIn {
    /// Length before 7.36, without `flags2`.
    pub const COMPAT_SIZE: usize = 16;

    /// The flags offered. `flags2` counts only with [`InitFlags::INIT_EXT`].
    #[must_use]
    pub fn offered(&self) -> InitFlags {
        join(self.flags, self.flags2)
    }
}

wire_struct! {
    /// Reply to INIT (`fuse_init_out`, 64 bytes; 24 before 7.23, 8 before 7.5).
    InitOut {
        /// Major version that the server speaks.
        major: u32,
        /// Newest minor version that the server speaks.
        minor: u32,
        /// Bytes that the peer may read ahead.
        max_readahead: u32,
        /// Low half of [`InitFlags`].
        flags: u32,
        /// Most background requests (readahead, asynchronous direct I/O) in flight.
        max_background: u16,
        /// In-flight background requests from which on the peer counts as congested.
        congestion_threshold: u16,
        /// Most bytes of data in a WRITE.
        max_write: u32,
        /// Granularity of timestamps in nanoseconds.
        time_gran: u32,
        /// Most pages in a request, with [`InitFlags::MAX_PAGES`].
        max_pages: u16,
        /// Base-2 logarithm of the alignment of DAX mappings, with [`InitFlags::MAP_ALIGNMENT`].
        map_alignment: u16,
        /// High half of [`InitFlags`].
        flags2: u32,
        /// With [`InitFlags::PASSTHROUGH`]: depth of stacked backing filesystems.
        max_stack_depth: u32,
        /// With [`InitFlags::REQUEST_TIMEOUT`]: seconds after which a request is given up.
        request_timeout: u16,
        /// Reserved.
        unused: [u16; 11],
    }
}

impl InitOut {
    /// Length before 7.5: the two versions only.
    pub const COMPAT_SIZE: usize = 8;
    /// Length before 7.23.
    pub const COMPAT_22_SIZE: usize = 24;

    /// The flags agreed on. `flags2` counts only with [`InitFlags::INIT_EXT`].
    #[must_use]
    pub fn agreed(&self) -> InitFlags {
        join(self.flags, self.flags2)
    }
}

fn join(low: u32, high: u32) -> InitFlags {
    let low = InitFlags::from_bits_retain(u64::from(low));
    if low.contains(InitFlags::INIT_EXT) {
        low | InitFlags::from_bits_retain(u64::from(high) << 32)
    } else {
        low
    }
}

impl InitFlags {
    /// The low and the high word, as `flags` and `flags2` hold them.
    #[must_use]
    pub const fn halves(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}
