use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::monitor::timespec;
use super::wire::{HEADER, Message, ReplyHeader, Request};
use crate::{During, Error, Event, State};

/// A connection to a daemon: one message at a time, each with a deadline.
///
/// The `vhost` crate has a front-end, too. It takes a time-out of the socket's for a reason to wait
/// on, so a daemon that says nothing would hold its VMM up for ever; here the socket is never waited
/// for without a deadline.
#[derive(Debug)]
pub(super) struct Channel {
    stream: Arc<UnixStream>,
    /// Readable when the device goes: then nothing is waited for any more.
    stop: Event,
    /// Whether requests without a reply of their own are acknowledged (`REPLY_ACK`).
    acknowledges: bool,
}

/// How long there is for something, and what it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    during: During,
    limit: Duration,
    end: Instant,
}

/// What a daemon answered.
#[derive(Debug)]
pub(super) struct Reply {
    /// As long as it [has to be](Request::is_answered_by).
    pub(super) body: Vec<u8>,
    /// Only where the request [asks for one](Request::asks_for_file).
    pub(super) file: Option<OwnedFd>,
}

/// Most descriptors that go with a message: one for each region of a memory table.
const MAX_SENT: usize = 8;

impl Deadline {
    pub(super) fn after(limit: Duration, doing: &'static str, state: State) -> Self {
        let now = Instant::now();
        Self {
            during: During {
                doing,
                message: None,
                state,
            },
            limit,
            // One that is too far away to be told counts as a day.
            end: now
                .checked_add(limit)
                .or_else(|| now.checked_add(Duration::from_secs(86_400)))
                .unwrap_or(now),
        }
    }

    /// The same end, for something else.
    pub(super) const fn to(self, doing: &'static str) -> Self {
        let during = During {
            doing,
            ..self.during
        };
        Self { during, ..self }
    }

    /// The same, while `request` is under way.
    pub(super) const fn at(self, request: Request) -> Self {
        self.naming(Some(request.name()))
    }

    /// The same, while the message of that name is under way, or none.
    pub(super) const fn naming(self, message: Option<&'static str>) -> Self {
        let during = During {
            message,
            ..self.during
        };
        Self { during, ..self }
    }

    /// How long there is still.
    pub(super) fn remaining(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// # Errors
    /// It is too late.
    pub(super) fn check(self) -> Result<(), Error> {
        match self.remaining().is_zero() {
            true => Err(Error::Timeout {
                during: self.during,
                limit: self.limit,
            }),
            false => Ok(()),
        }
    }

    fn left(self) -> Result<Timespec, Error> {
        self.check()?;
        Ok(timespec(self.remaining()))
    }

    pub(super) const fn gone(self) -> Error {
        Error::Disconnected {
            during: self.during,
        }
    }

    pub(super) const fn broken(self, rule: &'static str) -> Error {
        Error::Protocol {
            during: self.during,
            rule,
        }
    }

    pub(super) const fn refused(self) -> Error {
        Error::Refused {
            during: self.during,
        }
    }

    /// What became of it where the system says `error` of our end, or of the daemon's.
    pub(super) fn failed(self, error: impl Into<io::Error>) -> Error {
        let source = error.into();
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.gone(),
            _ => Error::Socket {
                during: self.during,
                source,
            },
        }
    }
}

impl Channel {
    pub(super) fn new(stream: Arc<UnixStream>, stop: Event) -> Self {
        Self {
            stream,
            stop,
            acknowledges: false,
        }
    }

    pub(super) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    pub(super) fn acknowledge(&mut self) {
        self.acknowledges = true;
    }

    /// Ends the connection, at the daemon's end too.
    pub(super) fn hang_up(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "the daemon is gone already");
        }
    }

    /// Sends a message that has no reply of its own, and waits for its acknowledgement where
    /// that was agreed on.
    pub(super) fn tell(
        &self,
        message: &Message,
        files: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), Error> {
        let deadline = deadline.at(message.request);
        self.send(&message.encode(self.acknowledges), files, deadline)?;
        if !self.acknowledges {
            return Ok(());
        }
        let body = self.receive(message, deadline)?.body;
        match body.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(deadline.refused()),
        }
    }

    /// Sends a message and waits for its reply.
    pub(super) fn ask(
        &self,
        message: &Message,
        files: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<Reply, Error> {
        let deadline = deadline.at(message.request);
        self.send(&message.encode(false), files, deadline)?;
        self.receive(message, deadline)
    }

    /// Waits until `other` is ready for `flags`.
    ///
    /// # Errors
    /// The daemon hung up first, or it is too late.
    pub(super) fn wait_for(
        &self,
        other: BorrowedFd<'_>,
        flags: PollFlags,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let [ready, hung_up] = self.poll(
            [
                PollFd::from_borrowed_fd(other, flags),
                PollFd::new(&*self.stream, PollFlags::RDHUP),
            ],
            deadline,
        )?;
        match (ready, hung_up) {
            (false, true) => Err(deadline.gone()),
            _ => Ok(()),
        }
    }

    fn send(
        &self,
        mut bytes: &[u8],
        mut files: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SENT))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(deadline.failed(Errno::INVAL));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(&*self.stream, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(sent) => {
                    bytes = bytes.get(sent..).unwrap_or_default();
                    files = &[];
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(deadline.failed(errno)),
            }
        }
        Ok(())
    }

    fn receive(&self, message: &Message, deadline: Deadline) -> Result<Reply, Error> {
        let request = message.request;
        let mut file = None;
        let mut header = [0; HEADER];
        self.fill(&mut header, request, &mut file, deadline)?;
        let header = ReplyHeader::parse(&header);
        if !header.answers(request) {
            return Err(deadline.broken("the answer is to something else"));
        }
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if !request.is_answered_by(size) {
            return Err(deadline.broken("the answer has another length"));
        }
        let mut body = vec![0; size];
        self.fill(&mut body, request, &mut file, deadline)?;
        Ok(Reply { body, file })
    }

    /// Receives a part of the reply to `request`, and the one descriptor that may come with it: each
    /// piece of a reply could bring more.
    ///
    /// One that is not asked for is never this process's: close(2) asks the file system of a file
    /// (`FUSE_FLUSH`), and that could be the daemon's own, which does not answer.
    fn fill(
        &self,
        mut bytes: &mut [u8],
        request: Request,
        file: &mut Option<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = match request.asks_for_file() {
                true => RecvAncillaryBuffer::new(&mut space),
                false => RecvAncillaryBuffer::default(),
            };
            let received = rustix::net::recvmsg(
                &*self.stream,
                &mut [IoSliceMut::new(bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            );
            for message in control.drain() {
                let RecvAncillaryMessage::ScmRights(descriptors) = message else {
                    continue;
                };
                for descriptor in descriptors {
                    if file.replace(descriptor).is_some() {
                        return Err(unwanted(request, deadline));
                    }
                }
            }
            match received {
                Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) => {
                    return Err(unwanted(request, deadline));
                }
                Ok(message) if message.bytes == 0 => return Err(deadline.gone()),
                Ok(message) => bytes = bytes.get_mut(message.bytes..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(deadline.failed(errno)),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, deadline: Deadline) -> Result<(), Error> {
        self.poll([PollFd::new(&*self.stream, flags)], deadline)?;
        Ok(())
    }

    /// Waits until one of `fds` is ready, and returns which are.
    fn poll<const N: usize>(
        &self,
        fds: [PollFd<'_>; N],
        deadline: Deadline,
    ) -> Result<[bool; N], Error> {
        let stop = PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN);
        let mut all: Vec<_> = fds.into_iter().chain([stop]).collect();
        loop {
            match rustix::event::poll(&mut all, Some(&deadline.left()?)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(deadline.failed(errno)),
            }
            let mut ready = [false; N];
            let mut events = all.iter().map(|fd| !fd.revents().is_empty());
            for (ready, is) in ready.iter_mut().zip(&mut events) {
                *ready = is;
            }
            if events.next().unwrap_or(false) {
                return Err(deadline.gone());
            }
            if ready.contains(&true) {
                return Ok(ready);
            }
        }
    }
}

/// That a descriptor came with the reply to `request` which was not asked for.
const fn unwanted(request: Request, deadline: Deadline) -> Error {
    match request {
        Request::SetDeviceStateFd => Error::Unsupported("to have its state by our descriptor"),
        Request::GetInflightFd => deadline.broken("the answer has another number of descriptors"),
        _ => deadline.broken("a descriptor came with the answer"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{FlockOperation, fcntl_lock};

    use super::*;

    /// A channel, and the daemon's end of it.
    fn channel() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(Arc::new(ours), Event::new().unwrap()), theirs)
    }

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(60), "try it", State::New)
    }

    /// Sends a reply to `request`, with `file` at each byte. Returns its length.
    fn send_with(file: &impl AsFd, theirs: &UnixStream, request: Request, body: &[u8]) -> usize {
        let header = [request as u32, 0b101, body.len() as u32];
        let header = header.iter().flat_map(|field| field.to_ne_bytes());
        let reply: Vec<u8> = header.chain(body.iter().copied()).collect();
        for byte in &reply {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let files = [file.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
            let bytes = [IoSlice::new(std::slice::from_ref(byte))];
            let sent = rustix::net::sendmsg(theirs, &bytes, &mut control, SendFlags::empty());
            assert_eq!(sent, Ok(1));
        }
        reply.len()
    }

    #[test]
    fn a_reply_with_many_descriptors_is_not_read_to_its_end() {
        let (channel, theirs) = channel();
        let request = Request::GetInflightFd;
        let sent = send_with(&Event::new().unwrap(), &theirs, request, &[0; 24]);
        let asked = channel.ask(&Message::new(request), &[], deadline());
        assert!(matches!(asked, Err(Error::Protocol { .. })), "{asked:?}");
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut left = Vec::new();
        (&*channel.stream()).read_to_end(&mut left).unwrap();
        assert!(left.len() + 2 >= sent, "{} of {sent}", left.len());
    }

    /// Were it closed, this process's locks on the file would be gone (fcntl_locking(2)).
    #[test]
    fn a_descriptor_that_nobody_asked_for_is_not_even_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inode = format!(":{} ", file.as_file().metadata().unwrap().ino());
        let is_locked = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|lock| lock.contains(&inode))
        };
        fcntl_lock(file.as_file(), FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_locked());
        for request in [Request::GetFeatures, Request::SetDeviceStateFd] {
            let (channel, theirs) = channel();
            send_with(&file, &theirs, request, &[0; 8]);
            let asked = channel.ask(&Message::new(request), &[], deadline());
            match request {
                Request::GetFeatures => assert!(matches!(asked, Err(Error::Protocol { .. }))),
                _ => assert!(matches!(asked, Err(Error::Unsupported(_)))),
            }
            drop(channel);
            assert!(is_locked(), "{}", request.name());
        }
    }
}
