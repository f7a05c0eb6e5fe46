//! What is said over the socket of one front-end.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};
use vhost::vhost_user::message::{MAX_MSG_SIZE, VhostUserMemoryRegion};
use vhost::vhost_user::{BackendReqHandler, Error as VhostUserError, Result as VhostUserResult};

use crate::event;
use crate::front_end::Handler;
use crate::patience;

/// Why a connection ended, other than by the front-end's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("cannot receive from the front-end: {0}")]
    Receive(Errno),
    #[error("cannot answer the front-end: {0}")]
    Send(Errno),
    #[error(
        "cannot take a descriptor from the front-end: {0}; raise the limit on open files (--rlimit-nofile)"
    )]
    NoDescriptor(Errno),
    #[error("a channel to the front-end is one socket: {0}")]
    Channel(std::io::Error),
    #[error("a message of the front-end breaks off")]
    Incomplete,
    #[error("a message of the front-end cannot be served: {0}")]
    Message(#[from] VhostUserError),
}

/// A message that is on its way, as far as it says what it is.
struct Coming {
    request: u32,
    flags: u32,
    /// Bytes of its body.
    size: usize,
    /// The first field of its body: number of regions, where it is a memory table.
    count: u32,
}

/// How often the rest of one is looked for.
const LOOK_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// `VHOST_USER_SET_MEM_TABLE`.
const SET_MEM_TABLE: u32 = 5;
/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;
/// Bytes of a message's header: request, flags, size of the body.
const HEADER: usize = 12;
/// The header and the first fields of a memory table: number of regions, padding.
const TABLE_HEADER: usize = HEADER + 8;
/// Bytes of a region in a memory table.
const REGION: usize = 32;
/// Most regions of a memory table: as many descriptors as a message can carry here.
const MAX_TABLE: usize = 32;
/// Version 1, and the flag of a reply.
const REPLY_FLAGS: u32 = 1 | 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A front-end that is connected.
pub(crate) struct Connection<H: Handler> {
    session: Arc<Mutex<H>>,
    handler: BackendReqHandler<Mutex<H>>,
    stream: Arc<UnixStream>,
}

impl<H: Handler> Connection<H> {
    /// Has `session` serve the front-end at the other end of `stream`.
    pub(crate) fn new(session: H, stream: UnixStream) -> std::io::Result<Self> {
        let session = Arc::new(Mutex::new(session));
        let theirs = stream.try_clone()?;
        Ok(Self {
            handler: BackendReqHandler::from_stream(theirs, Arc::clone(&session)),
            session,
            stream: Arc::new(stream),
        })
    }

    /// The socket: who shuts it down ends [`serve`](Self::serve).
    pub(crate) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    /// Serves the front-end until it is gone. Dropping this drops the session.
    ///
    /// # Errors
    /// The front-end broke the protocol, or the system lacks something that it asked for.
    pub(crate) fn serve(&mut self) -> Result<(), ConnectionError> {
        while let Some(coming) = self.peek()? {
            self.check_descriptors(&coming)?;
            let served = if coming.has_surplus() {
                self.receive_table(&coming)
            } else if coming.request == SET_BACKEND_REQ_FD {
                self.receive_channel(&coming)
            } else {
                self.handler.handle_request().map_err(Into::into)
            };
            match served {
                Err(ConnectionError::Message(
                    VhostUserError::Disconnected | VhostUserError::PartialMessage,
                )) => break,
                other => other?,
            }
            if !self.is_answerable() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the front-end can be told anything. It cannot where it is gone, and where it gave its
    /// own end of the connection away for something else (see [`seal`](crate::event::seal)).
    fn is_answerable(&self) -> bool {
        send(&self.stream, &[], SendFlags::NOSIGNAL).is_ok()
    }

    /// Waits for the next message, and leaves it where it is.
    ///
    /// All of it is there then: the `vhost` crate waits for the rest of one for ever.
    fn peek(&self) -> Result<Option<Coming>, ConnectionError> {
        let mut bytes = [0; TABLE_HEADER];
        let mut deadline = None;
        loop {
            let count = match recv(&self.stream, &mut bytes, RecvFlags::PEEK) {
                Ok((0, _)) => return Ok(None),
                Ok((count, _)) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(ConnectionError::Receive(error)),
            };
            let coming = Coming::parse(bytes.get(..count));
            let there = ioctl_fionread(&self.stream).map_err(ConnectionError::Receive)?;
            if count >= HEADER && there >= coming.len() {
                return Ok(Some(coming));
            }
            let now = Instant::now();
            if *deadline.get_or_insert(now.checked_add(patience::MESSAGE)) <= Some(now) {
                return Err(ConnectionError::Incomplete);
            }
            if self.hangs_up()? {
                return Ok(None);
            }
        }
    }

    /// Waits a little, and returns whether the front-end hung up.
    fn hangs_up(&self) -> Result<bool, ConnectionError> {
        let mut events = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        match poll(&mut events, Some(&LOOK_INTERVAL)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(ConnectionError::Receive(error)),
        }
    }

    /// Makes sure that there is room for the descriptors which come with a message.
    ///
    /// The `vhost` crate takes a message without its descriptors for one that is still to come, and
    /// waits for it as long as the front-end waits for an answer.
    fn check_descriptors(&self, coming: &Coming) -> Result<(), ConnectionError> {
        let spare = (0..coming.descriptors())
            .map(|_| rustix::io::fcntl_dupfd_cloexec(&self.stream, 0))
            .collect::<Result<Vec<_>, _>>();
        match spare {
            Ok(_) => Ok(()),
            Err(error) => Err(ConnectionError::NoDescriptor(error)),
        }
    }

    /// Serves a memory table with room for more regions than it has, which the `vhost` crate
    /// refuses: User Mode Linux always sends room for two (`arch/um/drivers/virtio_uml.c`).
    fn receive_table(&mut self, coming: &Coming) -> Result<(), ConnectionError> {
        let (body, files) = self.receive(coming)?;
        let regions = regions(&body, coming.count as usize);
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match regions {
            Some(regions) if regions.len() == files.len() => {
                session.set_mem_table(&regions, files, None).map(|_| ())
            }
            _ => Err(VhostUserError::InvalidMessage),
        };
        let acknowledges = session.acknowledges();
        self.answer(coming, acknowledges, result)
    }

    /// Serves `VHOST_USER_SET_BACKEND_REQ_FD`: the `vhost` crate would make more of it than can be
    /// made sure to hold nothing else open.
    fn receive_channel(&self, coming: &Coming) -> Result<(), ConnectionError> {
        if coming.size > MAX_MSG_SIZE {
            return Err(VhostUserError::InvalidMessage.into());
        }
        let (_, files) = self.receive(coming)?;
        let [socket] = <[File; 1]>::try_from(files).map_err(|_| VhostUserError::InvalidMessage)?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if !session.asks() {
            event::seal(&socket).map_err(ConnectionError::Channel)?;
        }
        let result = session.set_channel(socket);
        let acknowledges = session.acknowledges();
        self.answer(coming, acknowledges, result)
    }

    /// The body of the message and what came with it.
    fn receive(&self, coming: &Coming) -> Result<(Vec<u8>, Vec<File>), ConnectionError> {
        let mut header = [0; HEADER];
        let mut body = vec![0; coming.size];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_TABLE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut body)];
        let received = recvmsg(
            &self.stream,
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(ConnectionError::Receive)?;
        if received.bytes != HEADER.saturating_add(coming.size) {
            return Err(VhostUserError::PartialMessage.into());
        }
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors.map(File::from));
            }
        }
        Ok((body, files))
    }

    /// Tells the front-end the `result` of a message, if that is agreed on and it wants to know.
    fn answer(
        &self,
        coming: &Coming,
        acknowledges: bool,
        result: VhostUserResult<()>,
    ) -> Result<(), ConnectionError> {
        if acknowledges && coming.flags & NEED_REPLY != 0 {
            let fields = [coming.request, REPLY_FLAGS, size_of::<u64>() as u32];
            let header = fields.iter().flat_map(|field| field.to_ne_bytes());
            let body = u64::from(result.is_err()).to_ne_bytes();
            let message: Vec<u8> = header.chain(body).collect();
            send(&self.stream, &message, SendFlags::NOSIGNAL).map_err(ConnectionError::Send)?;
        }
        Ok(result?)
    }
}

impl Coming {
    /// What is known of a message of which these bytes are there; what is not there counts as 0.
    fn parse(bytes: Option<&[u8]>) -> Self {
        let mut fields = bytes
            .unwrap_or_default()
            .chunks_exact(size_of::<u32>())
            .map(|field| field.try_into().map_or(0, u32::from_ne_bytes))
            .chain(std::iter::repeat(0));
        let mut next = || fields.next().unwrap_or(0);
        Self {
            request: next(),
            flags: next(),
            size: next() as usize,
            count: next(),
        }
    }

    /// Bytes of the whole message; of one that is too long, those that say so.
    fn len(&self) -> u64 {
        let body = if self.size > MAX_MSG_SIZE {
            0
        } else {
            self.size
        };
        HEADER.saturating_add(body) as u64
    }

    fn table_len(&self) -> Option<usize> {
        let count = usize::try_from(self.count).ok()?;
        (self.request == SET_MEM_TABLE && (1..=MAX_TABLE).contains(&count)).then(|| {
            count
                .saturating_mul(REGION)
                .saturating_add(TABLE_HEADER - HEADER)
        })
    }

    /// Whether this is a memory table, and longer than its regions are.
    fn has_surplus(&self) -> bool {
        self.size <= MAX_MSG_SIZE && self.table_len().is_some_and(|len| self.size > len)
    }

    /// How many descriptors may come with it, where it is valid.
    fn descriptors(&self) -> u32 {
        self.table_len().map_or(1, |_| self.count)
    }
}

/// The first `count` regions of a memory table.
fn regions(body: &[u8], count: usize) -> Option<Vec<VhostUserMemoryRegion>> {
    let table = body.get(TABLE_HEADER - HEADER..)?;
    let regions = table.chunks_exact(REGION).take(count).map(|region| {
        let mut fields = region
            .chunks_exact(size_of::<u64>())
            .map(|field| field.try_into().map_or(0, u64::from_ne_bytes));
        let mut next = || fields.next().unwrap_or(0);
        let (guest, size, user, offset) = (next(), next(), next(), next());
        VhostUserMemoryRegion::new(guest, size, user, offset)
    });
    Some(regions.collect())
}
