//! `/dev/fuse` (fuse(4)): requests come by read(2), one each, and replies go by writev(2).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuse_fs::Negotiation;
use fuse_wire::abi::{InHeader, WriteIn};
use fuse_wire::{MAX_ARGUMENTS, argument_len_before_payload};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zerocopy::FromBytes as _;

use super::pages::{PAGE, Pages};
use crate::sys;

/// Where the device is.
pub(super) const PATH: &str = "/dev/fuse";

/// What comes before the data of a WRITE, in bytes.
const WRITE_HEAD: usize = size_of::<InHeader>() + size_of::<WriteIn>();

/// Most data in a WRITE, in bytes.
const MAX_WRITE: usize = Negotiation::MAX_WRITE as usize;

/// The kernel hands out no request to a buffer that the longest one would not fit.
const REQUEST_LEN: usize = WRITE_HEAD + MAX_WRITE;

const _: () = assert!(
    MAX_ARGUMENTS <= REQUEST_LEN,
    "a request that fits no buffer"
);

/// The device, which is one end of a mount.
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

/// Room for one request: the data of a WRITE starts at a page, so that it can be written to a file
/// that was opened with O_DIRECT.
pub(super) struct RequestBuffer(Pages);

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRequest<'b> {
    /// Header and arguments.
    pub(super) message: &'b [u8],
    /// What follows them.
    pub(super) payload: &'b [u8],
}

impl Device {
    /// Opens the device. It is not yet part of a mount.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open() -> io::Result<Self> {
        let fd = rustix::fs::open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(fd))
    }

    /// Another way to the same mount, with a queue of requests under way of its own: what is read
    /// there is answered there.
    ///
    /// # Errors
    /// As open(2); EINVAL where there is no mount yet, ENOTTY on Linux before 4.2.
    pub(super) fn another(&self) -> io::Result<Self> {
        let device = Self::open()?;
        sys::clone_fuse_device(device.0.as_fd(), self.0.as_fd())?;
        Ok(device)
    }

    /// Waits for a request and returns its bytes. `None` when the mount is gone.
    ///
    /// # Errors
    /// As read(2) on the device. EPERM where there is no mount yet.
    pub(super) fn receive<'b>(
        &self,
        buffer: &'b mut RequestBuffer,
    ) -> io::Result<Option<&'b [u8]>> {
        let room = buffer.room();
        let len = loop {
            match rustix::io::read(&self.0, &mut *room) {
                Ok(len) => break len,
                // ENOENT: the request was withdrawn while it was being read.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Some(&room[..len]))
    }

    /// Answers the request that `head`, the header of the reply, names. A mount that is gone takes
    /// any answer, and so does a request whose process was killed.
    ///
    /// # Errors
    /// As writev(2) on the device: EINVAL where the kernel does not take this for an answer.
    pub(super) fn send(&self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(head), IoSlice::new(payload)];
        let parts = if payload.is_empty() {
            &parts[..1]
        } else {
            &parts
        };
        match rustix::io::writev(&self.0, parts) {
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RequestBuffer {
    pub(super) fn new() -> Self {
        Self(Pages::new(PAGE + MAX_WRITE))
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.0.bytes()[PAGE - WRITE_HEAD..]
    }
}

impl<'b> RawRequest<'b> {
    /// Tells header and arguments from the payload.
    pub(super) fn split(bytes: &'b [u8]) -> Self {
        let end = InHeader::read_from_prefix(bytes)
            .ok()
            .and_then(|(header, _)| argument_len_before_payload(header.opcode))
            .unwrap_or(MAX_ARGUMENTS);
        let (message, payload) = bytes.split_at(end.min(bytes.len()));
        Self { message, payload }
    }
}
