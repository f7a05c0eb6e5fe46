//! The log of what is written to guest memory, for a guest that runs while it is moved (the
//! vhost-user specification, "Migration").

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use arc_swap::ArcSwapOption;
use rustix::thread::{MembarrierCommand, membarrier};
use vhost::vhost_user::message::VhostUserLog;
use virtio_fs_queue::WriteLog;
use vm_memory::{GuestAddress, MmapRegion, VolatileMemory};

use crate::device::MAX_QUEUE_SIZE;
use crate::mapping::{self, MappingError};

/// Bytes of guest memory that a bit is about (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;
/// Bytes of guest memory that a byte of the log is about.
const PAGES_OF_BYTE: u64 = 8 * PAGE;

/// Why there cannot be such a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the log of what is written cannot be: {0}")]
    Mapping(#[from] MappingError),
    #[error("a log of {len} bytes is too short for what is written at {end:#x}")]
    Short { len: u64, end: u64 },
}

/// Where the pages are noted that are written to, by all threads, as long as that is wanted.
///
/// Whoever writes to guest memory notes that here, after the write: then it is in the copy of the
/// page that is taken once the page was found noted. While it is not wanted, that costs a load and a
/// branch. It carries no fence either: who switches it on has the other threads make up for that.
#[derive(Default)]
pub(crate) struct DirtyLog {
    wanted: AtomicBool,
    /// It is wanted, and there is memory for it.
    active: Arc<AtomicBool>,
    log: ArcSwapOption<Log>,
}

/// The log as it is at one time.
#[derive(Debug, Clone)]
struct Log {
    /// A bit for each page of guest memory, the lowest of each byte first.
    bits: Arc<MmapRegion>,
    moved: Vec<Option<Moved>>,
}

/// What is in one place and to be noted as if it were in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Guest addresses of where it is.
    pub(crate) range: Range<u64>,
    /// Guest address at which it begins for the log.
    pub(crate) noted_at: u64,
}

impl Moved {
    /// A used ring at `used` that is noted at `noted_at`: as long as the longest.
    pub(crate) fn used_ring(used: u64, noted_at: u64) -> Self {
        // `flags`, `idx`, the entries and `avail_event` (virtio 1.x, section 2.7.8).
        let len = u64::from(MAX_QUEUE_SIZE)
            .saturating_mul(8)
            .saturating_add(6);
        Self {
            range: used..used.saturating_add(len),
            noted_at,
        }
    }
}

impl DirtyLog {
    /// Notes from now on in the memory that the front-end gives, of which there is enough for guest
    /// memory up to `end`; beside that, `moved` where it was moved to.
    ///
    /// What is noted in the memory that it gave before is noted when this returns.
    pub(crate) fn set(
        &self,
        given: &VhostUserLog,
        file: File,
        end: u64,
        moved: Vec<Option<Moved>>,
    ) -> Result<(), LogError> {
        let len = given.mmap_size;
        let short = LogError::Short { len, end };
        if len < end.div_ceil(PAGES_OF_BYTE) {
            return Err(short);
        }
        let len = usize::try_from(len).map_err(|_| short)?;
        let bits = mapping::share(file, given.mmap_offset, len)?;
        self.replace(Log { bits, moved });
        self.update();
        Ok(())
    }

    /// Notes from now on what is `moved` where it was moved to.
    pub(crate) fn set_moved(&self, moved: Vec<Option<Moved>>) {
        let bits = self.log.load().as_ref().map(|log| Arc::clone(&log.bits));
        if let Some(bits) = bits {
            self.replace(Log { bits, moved });
        }
    }

    /// Says whether what is written is to be noted. From when this returns on, all is that is to be.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
        self.update();
    }

    /// Whether guest memory up to `end` can be noted, if it is to be.
    pub(crate) fn check(&self, end: u64) -> Result<(), LogError> {
        let log = self.log.load();
        let Some(log) = log.as_ref().filter(|_| self.active.load(Ordering::SeqCst)) else {
            return Ok(());
        };
        let len = log.bits.size() as u64;
        if len < end.div_ceil(PAGES_OF_BYTE) {
            return Err(LogError::Short { len, end });
        }
        Ok(())
    }

    fn update(&self) {
        let active = self.wanted.load(Ordering::SeqCst) && self.log.load().is_some();
        let before = self.active.swap(active, Ordering::SeqCst);
        if active && !before {
            make_up_for_fences();
        }
    }

    fn replace(&self, log: Log) {
        let Some(before) = self.log.swap(Some(Arc::new(log))) else {
            return;
        };
        // Who is about to note something there has it, and does not take long.
        while Arc::strong_count(&before) > 1 {
            thread::yield_now();
        }
    }
}

impl WriteLog for DirtyLog {
    fn wrote(&self, address: GuestAddress, len: usize) {
        if let Some(log) = &*self.log.load() {
            log.note(address.0, address.0.saturating_add(len as u64));
        }
    }

    fn switch(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.active))
    }
}

/// Has all threads of this process execute a memory barrier (membarrier(2)).
///
/// One may be about to not note what nobody else can see yet, as what it wrote is still on its way
/// when it looks whether to note that. After the barrier either others see the one, or it sees the
/// other.
fn make_up_for_fences() {
    let done = membarrier(MembarrierCommand::RegisterPrivateExpedited)
        .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited))
        .or_else(|_| membarrier(MembarrierCommand::Global));
    if let Err(error) = done {
        // Then all depends on how long a processor keeps what it is to write: less than it takes to
        // answer the front-end.
        tracing::debug!(%error, "no barrier before guest memory is logged");
    }
}

impl Log {
    /// Notes the pages of guest memory from `start` up to `end`.
    fn note(&self, start: u64, end: u64) {
        self.set_bits(start, end);
        for Moved { range, noted_at } in self.moved.iter().flatten() {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if start < end {
                let offset = start.saturating_sub(range.start);
                let start_there = noted_at.saturating_add(offset);
                let len = end.saturating_sub(start);
                self.set_bits(start_there, start_there.saturating_add(len));
            }
        }
    }

    fn set_bits(&self, start: u64, end: u64) {
        for page in start.div_euclid(PAGE)..end.div_ceil(PAGE) {
            let byte = usize::try_from(page.div_euclid(8)).unwrap_or(usize::MAX);
            let Ok(byte) = self.bits.get_atomic_ref::<AtomicU8>(byte) else {
                // Beyond the end of the log, which has been checked to be behind that of memory.
                return;
            };
            let bit = 1u8.rotate_left(u32::try_from(page.rem_euclid(8)).unwrap_or(0));
            // Release: who sees the bit sees what was written.
            byte.fetch_or(bit, Ordering::Release);
        }
    }
}
