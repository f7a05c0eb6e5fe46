//! The daemon's own state, on its way (the vhost-user specification, "Migrating back-end state").

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::channel::Deadline;
use super::session::Session;
use super::wire::{Fields, Message, Request};
use crate::Error;

/// Bytes that are moved at once.
const CHUNK: usize = 64 << 10;
/// What a daemon answers that takes the descriptor which it was given.
const NO_DESCRIPTOR: u64 = 1 << 8;

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
enum Direction {
    Save = 0,
    Load = 1,
}

impl Session {
    /// The daemon's state, of at most `most` bytes. All rings are stopped.
    pub(super) fn save(&self, most: u64, deadline: Deadline) -> Result<Vec<u8>, Error> {
        let deadline = deadline
            .to("save the daemon's state")
            .at(Request::SetDeviceStateFd);
        let (ours, theirs) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| deadline.failed(error))?;
        let flags = fcntl_getfl(&ours).map_err(|error| deadline.failed(error))?;
        fcntl_setfl(&ours, flags | OFlags::NONBLOCK).map_err(|error| deadline.failed(error))?;
        self.begin(Direction::Save, theirs.as_fd(), deadline)?;
        drop(theirs);
        let mut state = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while state.len() as u64 <= most {
            match rustix::io::read(&ours, &mut *chunk) {
                Ok(0) => return self.check_state(deadline).map(|()| state),
                Ok(count) => state.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN) => {
                    let ours = ours.as_fd();
                    self.channel.wait_for(ours, PollFlags::IN, deadline)?;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(deadline.failed(errno)),
            }
        }
        // It is asked how it went all the same, after which it is done with it.
        drop(ours);
        match self.check_state(deadline) {
            Ok(()) | Err(Error::Refused { .. }) => Err(Error::StateSize(most)),
            Err(error) => Err(error),
        }
    }

    /// Has the daemon take over a state.
    ///
    /// It goes over a socket, as writing to a pipe whose other end is closed ends a VMM that does not
    /// ignore SIGPIPE.
    pub(super) fn load(&self, mut state: &[u8], deadline: Deadline) -> Result<(), Error> {
        let deadline = deadline
            .to("load the daemon's state")
            .at(Request::SetDeviceStateFd);
        let (ours, theirs) = UnixStream::pair().map_err(|error| deadline.failed(error))?;
        self.begin(Direction::Load, theirs.as_fd(), deadline)?;
        drop(theirs);
        while !state.is_empty() {
            let chunk = state.get(..CHUNK).unwrap_or(state);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&ours, chunk, flags) {
                Ok(count) => state = state.get(count..).unwrap_or_default(),
                Err(Errno::AGAIN) => {
                    let ours = ours.as_fd();
                    self.channel.wait_for(ours, PollFlags::OUT, deadline)?;
                }
                Err(Errno::INTR) => {}
                // It says why when it is asked.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(errno) => return Err(deadline.failed(errno)),
            }
        }
        drop(ours);
        self.check_state(deadline)
    }

    fn begin(
        &self,
        direction: Direction,
        file: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        /// The rings are stopped: the only phase there is.
        const STOPPED: u32 = 0;
        let message = Message::new(Request::SetDeviceStateFd)
            .u32(direction as u32)
            .u32(STOPPED);
        let reply = self.channel.ask(&message, &[file], deadline)?;
        match Fields::new(&reply.body).u64() {
            NO_DESCRIPTOR => Ok(()),
            _ => Err(deadline.refused()),
        }
    }

    /// Whether the daemon is content with how it went.
    fn check_state(&self, deadline: Deadline) -> Result<(), Error> {
        let message = Message::new(Request::CheckDeviceState);
        let reply = self.channel.ask(&message, &[], deadline)?;
        match Fields::new(&reply.body).u64() {
            0 => Ok(()),
            _ => Err(deadline.at(message.request).refused()),
        }
    }
}
