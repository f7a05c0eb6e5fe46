use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, send, sendmsg,
    shutdown,
};

use super::Mapped;

/// `VHOST_USER_BACKEND_SHMEM_MAP`.
const SHMEM_MAP: u32 = 9;
/// `VHOST_USER_BACKEND_SHMEM_UNMAP`.
const SHMEM_UNMAP: u32 = 10;
/// Version 1.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
/// The guest may write.
const WRITABLE: u64 = 1;
/// `VIRTIO_FS_SHMCAP_ID_CACHE`: the one region that the device has.
const CACHE: u64 = 0;

/// How long a front-end has for a message.
const PATIENCE: Duration = Duration::from_secs(5);

/// The back-end channel, over which the front-end is asked for mappings, one at a time.
///
/// The `vhost` crate can say the same, but waits for an answer as long as it takes: a front-end that
/// gives none would hold up a thread of the pool for ever.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<UnixStream>,
    /// What nobody waits for and there was no room for yet. It goes before what is asked next.
    left: Vec<u8>,
}

impl Channel {
    pub(super) const fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            socket,
            left: Vec::new(),
        }
    }

    pub(super) fn map(&mut self, offset: u64, mapped: &Mapped) -> io::Result<()> {
        let flags = if mapped.writable { WRITABLE } else { 0 };
        let range = [CACHE, mapped.file_offset, offset, mapped.len, flags];
        self.ask(SHMEM_MAP, range, Some(mapped.file()))
    }

    pub(super) fn unmap(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.ask(SHMEM_UNMAP, [CACHE, 0, offset, len, 0], None)
    }

    /// Says that nothing is to be at these offsets, for these lengths, without waiting for anybody: what
    /// there is no room for is said before something else is asked.
    pub(super) fn forget(&mut self, ranges: impl Iterator<Item = (u64, u64)>) -> io::Result<()> {
        for (offset, len) in ranges {
            let message = message(SHMEM_UNMAP, VERSION, [CACHE, 0, offset, len, 0]);
            self.left.extend_from_slice(&message);
        }
        self.or_end(|channel| channel.send_left(None))
    }

    /// # Errors
    /// EIO where the front-end refuses.
    fn ask(
        &mut self,
        request: u32,
        range: [u64; 5],
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let message = message(request, VERSION | NEED_REPLY, range);
        let refused = self.or_end(|channel| {
            let deadline = Deadline::now();
            channel.send_left(Some(deadline))?;
            channel.send(&message, file, deadline)?;
            channel.receive(request, deadline)
        })?;
        match refused {
            0 => Ok(()),
            _ => Err(Errno::IO.into()),
        }
    }

    /// Does something after which, if it fails, nobody knows what an answer would be to.
    fn or_end<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let done = act(self);
        if let Err(error) = &done {
            tracing::warn!(%error, "the front-end is asked for no more mappings");
            if let Err(error) = shutdown(&self.socket, Shutdown::Both) {
                tracing::debug!(%error, "the back-end channel is closed already");
            }
        }
        done
    }

    /// Sends what is left, or of that what there is room for where nobody waits.
    fn send_left(&mut self, deadline: Option<Deadline>) -> io::Result<()> {
        while !self.left.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match (send(&self.socket, &self.left, flags), deadline) {
                (Ok(sent), _) => drop(self.left.drain(..sent.min(self.left.len()))),
                (Err(Errno::AGAIN), None) => break,
                (Err(Errno::AGAIN), Some(deadline)) => self.wait(PollFlags::OUT, deadline)?,
                (Err(Errno::INTR), _) => {}
                (Err(errno), _) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn send(
        &self,
        mut bytes: &[u8],
        mut file: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(file) = &file
                && !control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(file)))
            {
                return Err(Errno::INVAL.into());
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(sent) => {
                    bytes = bytes.get(sent..).unwrap_or_default();
                    file = None;
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The answer to `request`: 0, or that it is refused. Descriptors that come with it are closed.
    fn receive(&self, request: u32, deadline: Deadline) -> io::Result<u64> {
        let mut answer = [0; 20];
        let mut there = 0;
        while there < answer.len() {
            let into = answer.get_mut(there..).unwrap_or_default();
            match recv(&self.socket, into, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, count)) => there = there.saturating_add(count),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let (header, value) = answer.split_at(12);
        match header == header_of(request, VERSION | REPLY, 8) {
            true => Ok(value.try_into().map_or(1, u64::from_ne_bytes)),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Deadline) -> io::Result<()> {
        let left = deadline.left()?;
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// When a front-end has taken too long.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn now() -> Self {
        Self(Instant::now())
    }

    fn left(self) -> io::Result<Timespec> {
        match PATIENCE.checked_sub(self.0.elapsed()) {
            Some(left) if !left.is_zero() => Ok(Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn header_of(request: u32, flags: u32, len: u32) -> [u8; 12] {
    let mut header = [0; 12];
    let fields = [request, flags, len];
    for (bytes, field) in header.chunks_exact_mut(4).zip(fields) {
        bytes.copy_from_slice(&field.to_ne_bytes());
    }
    header
}

/// A message about a range: region, offset in the file, offset in the region, length, flags.
fn message(request: u32, flags: u32, range: [u64; 5]) -> Vec<u8> {
    let mut message = header_of(request, flags, size_of_val(&range) as u32).to_vec();
    // The region is one byte, and seven of padding.
    let [region, rest @ ..] = range;
    message.extend_from_slice(&region.to_le_bytes());
    message.extend(rest.iter().flat_map(|field| field.to_ne_bytes()));
    message
}
