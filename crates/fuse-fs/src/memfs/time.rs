use std::time::{SystemTime, UNIX_EPOCH};

use fuse_wire::abi::SxTime;

/// A time as files carry it: seconds since 1970, which may be negative, and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp {
    pub(super) sec: i64,
    pub(super) nsec: u32,
}

impl Timestamp {
    pub(super) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nsec: since.subsec_nanos(),
        }
    }

    /// From the wire, where seconds travel unsigned.
    pub(super) const fn from_wire(sec: u64, nsec: u32) -> Self {
        Self {
            sec: sec.cast_signed(),
            nsec,
        }
    }

    /// Seconds as they travel.
    pub(super) const fn wire_sec(self) -> u64 {
        self.sec.cast_unsigned()
    }
}

impl From<Timestamp> for SxTime {
    fn from(time: Timestamp) -> Self {
        Self {
            sec: time.sec,
            nsec: time.nsec,
            reserved: 0,
        }
    }
}
