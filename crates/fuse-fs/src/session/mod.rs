//! The session between one guest and one filesystem.

mod agreement;
mod config;
mod saved;
mod stats;

pub(crate) use agreement::{Agreement, PAGE};
pub use config::{Access, SessionConfig};
pub use stats::SessionStats;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_wire::abi::InitIn;
use fuse_wire::flags::InitFlags;
use fuse_wire::{Errno, NodeId, Opcode, Operation, Reply, ReplyForm, Request, RequestError};

use self::agreement::AgreementCell;
use self::saved::Offer;
use self::stats::Counters;
use crate::dispatch::{Answer, Call, Failure, Room, dispatch, least_body};
use crate::negotiate::{self, Limits, Version};
use crate::{
    Blocking, Context, DaxWindow, Error, FileSystem, Outcome, PayloadSink, PayloadSource, Serve,
    State, policy,
};

/// Serves a [`FileSystem`] to one guest.
///
/// A session begins with INIT and ends with DESTROY, with another INIT (a guest that mounts again,
/// or was rebooted) or with [`Serve::reset`]. Each INIT that succeeded is matched by one
/// [`FileSystem::destroy`]. Outside a session every request but INIT is ENOTCONN.
///
/// # Threads
/// Any number of threads may serve at once. Requests share no lock: what INIT agreed on is one
/// atomic word. Each request reads that word once, when it starts, and is checked against it to
/// its end.
///
/// INIT, DESTROY and reset take turns among themselves, but do not wait for requests that are under
/// way: those end on their own terms, between the calls of [`FileSystem::destroy`] and
/// [`FileSystem::init`] or after both. A well-behaved guest has none under way then. One that has
/// some may find that a late LOOKUP left a lookup, or a late OPEN a handle, in its new session;
/// these are given back when that ends.
///
/// # What the guest is held to
/// Numbers of the guest's size no allocation. READ is cut to the room that the guest gave; WRITE
/// beyond what was agreed on is EINVAL; lengths of extended attributes, directory reads and ioctls
/// are cut to the reply buffer. Where the fixed part of a reply would not fit, the filesystem is
/// not called and the request is EINVAL. What a guest gets wrong is counted ([`stats`](Self::stats))
/// and logged ever more rarely.
///
/// # What INIT agrees on
/// Always within what the guest offered:
///
/// | flags | agreed on |
/// |---|---|
/// | ASYNC_READ, ASYNC_DIO, PARALLEL_DIROPS | yes: methods of [`FileSystem`] are called concurrently anyway |
/// | BIG_WRITES, MAX_PAGES, INIT_EXT, SETXATTR_EXT | yes: forms of messages, which the session handles |
/// | AUTO_INVAL_DATA | yes, unless the filesystem removes it: the guest drops pages of files that changed |
/// | POSIX_LOCKS, FLOCK_LOCKS, ATOMIC_O_TRUNC, EXPORT_SUPPORT, NO_EXPORT_SUPPORT, DONT_MASK, HAS_IOCTL_DIR, DO_READDIRPLUS, READDIRPLUS_AUTO, WRITEBACK_CACHE, NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT, HANDLE_KILLPRIV, HANDLE_KILLPRIV_V2, POSIX_ACL, CACHE_SYMLINKS, EXPLICIT_INVAL_DATA, SUBMOUNTS, SECURITY_CTX, CREATE_SUPP_GROUP, HAS_EXPIRE_ONLY, DIRECT_IO_ALLOW_MMAP, ALLOW_IDMAP | if the filesystem asks for it ([`Negotiation::enable`](crate::Negotiation::enable)) |
/// | MAP_ALIGNMENT | where there is a [`DaxWindow`], if the filesystem asks for it |
/// | HAS_INODE_DAX | no: all files are mapped (`-o dax=always`), or none |
/// | SPLICE_*, ABORT_ERROR, PASSTHROUGH, HAS_RESEND, OVER_IO_URING, REQUEST_TIMEOUT | no: of `/dev/fuse` only, or not spoken |
#[derive(Debug)]
pub struct Session<F> {
    fs: F,
    config: SessionConfig,
    agreement: AgreementCell,
    /// Held while the session begins or ends: what the guest said when it began.
    lifecycle: Mutex<Offer>,
    counters: Counters,
    window: Option<Arc<dyn DaxWindow>>,
}

impl<F: FileSystem> Session<F> {
    /// Serves `fs`, with changes allowed.
    #[must_use]
    pub fn new(fs: F) -> Self {
        Self::with_config(fs, SessionConfig::new())
    }

    /// Serves `fs` as far as `config` allows.
    #[must_use]
    pub fn with_config(fs: F, config: SessionConfig) -> Self {
        Self {
            fs,
            config,
            agreement: AgreementCell::default(),
            lifecycle: Mutex::default(),
            counters: Counters::default(),
            window: None,
        }
    }

    /// Has the guest map files into `window`, where the filesystem agrees to that (MAP_ALIGNMENT).
    #[must_use]
    pub fn with_window(mut self, window: Arc<dyn DaxWindow>) -> Self {
        self.window = Some(window);
        self
    }

    /// The filesystem.
    #[must_use]
    pub const fn filesystem(&self) -> &F {
        &self.fs
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.counters.read()
    }

    /// What INIT agreed on; `None` outside a session.
    #[must_use]
    pub fn agreed(&self) -> Option<InitFlags> {
        self.agreement.load().map(|agreement| agreement.flags)
    }
}

impl<F: FileSystem> Serve for Session<F> {
    fn serve(
        &self,
        message: &[u8],
        source: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        let outcome = match Envelope::read(message) {
            Some(envelope) => {
                let room = Room::new(envelope.unique, sink, reply);
                self.serve_enveloped(&envelope, message, source, room, blocking)
            }
            None => {
                let error = RequestError::TruncatedHeader(message.len());
                self.counters.malformed(None, &error);
                Outcome::NoReply
            }
        };
        if !matches!(outcome, Outcome::WouldBlock | Outcome::WouldWait) {
            self.counters.served();
        }
        outcome
    }

    fn cancel_waits(&self) {
        self.fs.cancel_waits();
    }

    fn reset(&self) {
        let _turn = self.take_turn();
        self.end();
    }

    fn state(&self) -> Option<&dyn State> {
        self.fs.state().map(|_| self as &dyn State)
    }
}

/// What the first 16 bytes of a request tell: enough to answer it, however broken the rest is.
struct Envelope {
    opcode: u32,
    unique: u64,
}

impl Envelope {
    fn read(message: &[u8]) -> Option<Self> {
        let front = message.first_chunk::<16>()?;
        let [_len, opcode, unique_0, unique_1]: [[u8; 4]; 4] = zerocopy::transmute!(*front);
        Some(Self {
            opcode: u32::from_ne_bytes(opcode),
            unique: u64::from_ne_bytes(zerocopy::transmute!([unique_0, unique_1])),
        })
    }

    /// Whether it is INIT, or is for the decoder to refuse, as INIT in the other byte order is.
    fn may_come_first(&self) -> bool {
        Opcode::from_raw(self.opcode).is_none_or(|opcode| opcode == Opcode::Init)
    }

    /// An operation that is not known is taken to expect a reply.
    fn expects_reply(&self) -> bool {
        Opcode::from_raw(self.opcode).is_none_or(Opcode::expects_reply)
    }

    /// Answers with an error, if there is an answer and room for it.
    fn refuse(&self, errno: Errno, room: Option<Room<'_>>) -> Outcome {
        match room {
            Some(mut room) if self.expects_reply() => room.fail(errno),
            _ => Outcome::NoReply,
        }
    }
}

impl<F: FileSystem> Session<F> {
    fn serve_enveloped(
        &self,
        envelope: &Envelope,
        message: &[u8],
        source: &mut dyn PayloadSource,
        room: Option<Room<'_>>,
        blocking: Blocking,
    ) -> Outcome {
        let agreement = match self.agreement.load() {
            Some(agreement) => agreement,
            None if envelope.may_come_first() => Agreement::BEFORE_INIT,
            None => return envelope.refuse(Errno::ENOTCONN, room),
        };
        let request = match Request::decode(message, source.remaining(), agreement.flags) {
            Ok(request) => request,
            Err(error) => {
                // Linux leaves it to the filesystem how long a name may be.
                if error.errno() != Errno::ENAMETOOLONG {
                    self.counters.malformed(Some(envelope.opcode), &error);
                }
                return envelope.refuse(error.errno(), room);
            }
        };
        let Some(form) = request.operation.reply_form() else {
            self.serve_unanswered(&request);
            return Outcome::NoReply;
        };
        let mut room = match self.check_room(envelope, form, room) {
            Ok(room) => room,
            Err(outcome) => return outcome,
        };
        let answer = match &request.operation {
            // What a filesystem does at these is rare, and takes its time.
            Operation::Init(_) | Operation::Destroy if blocking == Blocking::Forbidden => {
                return Outcome::WouldBlock;
            }
            Operation::Init(init) => self.init(init, &mut room),
            Operation::Destroy => {
                self.reset();
                room.reply(&Reply::Empty)
            }
            operation => {
                let call = self.call(&request, agreement, blocking);
                self.admit(operation)
                    .and_then(|()| dispatch(&call, operation, source, &mut room))
            }
        };
        answer.unwrap_or_else(|failure| self.fail(envelope, failure, blocking, &mut room))
    }

    /// Does what has no reply.
    fn serve_unanswered(&self, request: &Request<'_>) {
        match &request.operation {
            Operation::Forget(args) => self.forget(request.header.nodeid, args.nlookup),
            Operation::BatchForget(list) => {
                for one in list.iter() {
                    self.forget(one.nodeid, one.nlookup);
                }
            }
            Operation::Interrupt(args) => self.fs.interrupt(args.unique),
            // Nothing asks for what NOTIFY_REPLY brings.
            _ => {}
        }
    }

    /// The root is there as long as the session is, and is not counted.
    fn forget(&self, node: NodeId, nlookup: u64) {
        if node != NodeId::ROOT && nlookup > 0 {
            self.fs.forget(node, nlookup);
        }
    }

    /// Makes sure that what the filesystem does can be told in a reply of `form`.
    fn check_room<'a>(
        &self,
        envelope: &Envelope,
        form: ReplyForm,
        room: Option<Room<'a>>,
    ) -> Result<Room<'a>, Outcome> {
        let needed = least_body(form);
        match room {
            Some(room) if room.body_len() >= needed => Ok(room),
            room => {
                let there = room.as_ref().map(Room::body_len);
                let reason = format_args!("needs room for {needed} bytes of reply, has {there:?}");
                self.counters.malformed(Some(envelope.opcode), &reason);
                Err(envelope.refuse(Errno::EINVAL, room))
            }
        }
    }

    /// Applies the policy of this session.
    fn admit(&self, operation: &Operation<'_>) -> Result<(), Failure> {
        if self.config.access == Access::ReadOnly && policy::changes_something(operation) {
            return Err(Errno::EROFS.into());
        }
        Ok(())
    }

    fn call<'a>(
        &'a self,
        request: &Request<'a>,
        agreement: Agreement,
        blocking: Blocking,
    ) -> Call<'a, F> {
        let header = &request.header;
        Call {
            fs: &self.fs,
            cx: Context {
                unique: header.unique,
                uid: header.uid,
                gid: header.gid,
                pid: header.pid,
                extensions: request.extensions,
                blocking,
            },
            node: header.nodeid,
            agreement,
            window: self.window.as_deref(),
        }
    }

    fn fail(
        &self,
        envelope: &Envelope,
        failure: Failure,
        blocking: Blocking,
        room: &mut Room<'_>,
    ) -> Outcome {
        let reason = match failure {
            Failure::Error(Error::Errno(errno)) => return room.fail(errno),
            Failure::Error(Error::WouldBlock) if blocking == Blocking::Forbidden => {
                return match Opcode::from_raw(envelope.opcode) {
                    Some(Opcode::SetLkW) => Outcome::WouldWait,
                    _ => Outcome::WouldBlock,
                };
            }
            Failure::Error(Error::WouldBlock) => "it would block where it may",
            Failure::Fault(reason) => reason,
        };
        self.counters.fault(envelope.opcode, &reason);
        room.fail(Errno::EIO)
    }

    fn init(&self, init: &InitIn, room: &mut Room<'_>) -> Answer {
        let mut turn = self.take_turn();
        self.end();
        if negotiate::check_version(init)? == Version::NewerMajor {
            return room.reply(&Reply::Init(negotiate::our_version()));
        }
        let limits = self.limits();
        let mut negotiation = negotiate::propose(init, limits);
        self.fs.init(&mut negotiation)?;
        let (agreement, reply) = negotiate::settle(init, &negotiation, limits);
        tracing::debug!(minor = init.minor, ?agreement, "session begins");
        *turn = Offer {
            minor: init.minor,
            max_readahead: init.max_readahead,
        };
        self.agreement.begin(agreement);
        room.reply(&Reply::Init(reply))
    }

    /// What it can carry now.
    fn limits(&self) -> Limits {
        let has_window = self.window.as_ref().is_some_and(|window| window.size() > 0);
        Limits {
            flags: match has_window {
                true => negotiate::SUPPORTED,
                false => negotiate::SUPPORTED.difference(InitFlags::MAP_ALIGNMENT),
            },
            max_write: self.config.max_write,
        }
    }

    /// Ends the session, if there is one. Whoever calls this has the turn.
    fn end(&self) {
        let was_on = self.agreement.end().is_some();
        // Also where there is none: a request can have mapped something after DESTROY, beside which it
        // was served.
        if let Some(window) = &self.window {
            window.clear();
        }
        if was_on {
            tracing::debug!("session ends");
            self.fs.destroy();
        }
    }

    fn take_turn(&self) -> MutexGuard<'_, Offer> {
        // There is nothing behind the lock that a panic could have left half done.
        self.lifecycle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
