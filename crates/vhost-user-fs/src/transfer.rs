//! The device's state on its way from or to the front-end (the vhost-user specification, "Migrating
//! back-end state").

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use vhost::vhost_user::message::VhostTransferStateDirection;

use crate::device::Device;
use crate::patience;

/// Most bytes of a state: that of some millions of inodes. What is loaded is bounded by the
/// filesystem, too, but not for how long it may be read.
const MAX_STATE: u64 = 1 << 30;
/// How long nothing has to happen at the front-end's end until it is given up.
const IDLE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
/// Bytes that a pipe takes at once when it has room for any (pipe(7), `PIPE_BUF`).
const PIPE_BUF: usize = 4096;
/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;

/// Why there is no state at the other end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("cannot {0} the device's state: {1}")]
    Failed(&'static str, io::Error),
    #[error("no state of the device was to be transferred")]
    None,
}

/// A state that is being transferred, by a thread of its own. Dropping it gives that up.
#[derive(Debug)]
pub(crate) struct Transfer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    cancel: Cancel,
    outcome: Mutex<Option<Result<(), TransferError>>>,
    done: Condvar,
}

/// Says when a transfer is to be given up.
#[derive(Debug)]
struct Cancel {
    /// Readable from when the front-end is waited for no longer.
    event: OwnedFd,
    /// What it has sent already does not count either.
    at_once: AtomicBool,
}

impl Transfer {
    /// Begins to save the state of `device` to `file`, or to load it from there.
    ///
    /// # Errors
    /// The file is not open for that, or the system has no descriptors or threads left.
    pub(crate) fn start(
        device: Arc<Device>,
        direction: VhostTransferStateDirection,
        file: File,
    ) -> io::Result<Self> {
        check(direction, &file)?;
        let shared = Arc::new(Shared {
            cancel: Cancel {
                event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                at_once: AtomicBool::new(false),
            },
            outcome: Mutex::new(None),
            done: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("virtio-fs-state".to_owned())
            .spawn(move || {
                let outcome = transfer(&device, direction, file, &theirs.cancel);
                *theirs.outcome() = Some(outcome);
                theirs.done.notify_all();
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for the end of it, for some seconds, and returns whether it came.
    pub(crate) fn ends_soon(&self) -> bool {
        let waited = self.shared.done.wait_timeout_while(
            self.shared.outcome(),
            patience::TRANSFER,
            |outcome| outcome.is_none(),
        );
        let (outcome, _) = waited.unwrap_or_else(PoisonError::into_inner);
        outcome.is_some()
    }

    /// How it ended. The filesystem may take its time for that, also to read what a front-end sent that
    /// has closed its end; the front-end may not.
    pub(crate) fn finish(mut self) -> Result<(), TransferError> {
        if !self.ends_soon() {
            self.give_up();
        }
        self.join();
        let outcome = self.shared.outcome().take();
        outcome.unwrap_or(Err(TransferError::None))
    }

    /// Waits for the front-end no longer.
    fn give_up(&self) {
        if let Err(error) = rustix::io::write(&self.shared.cancel.event, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot give up the transfer of a state");
        }
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that transferred a state panicked");
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.shared.cancel.at_once.store(true, Ordering::SeqCst);
        self.give_up();
        self.join();
    }
}

impl Shared {
    fn outcome(&self) -> MutexGuard<'_, Option<Result<(), TransferError>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `file` can be written to, or read from: nobody would wait for it in vain.
fn check(direction: VhostTransferStateDirection, file: &File) -> io::Result<()> {
    let unfit = match direction {
        VhostTransferStateDirection::SAVE => OFlags::RDONLY,
        VhostTransferStateDirection::LOAD => OFlags::WRONLY,
    };
    match fcntl_getfl(file)? & OFlags::RWMODE == unfit {
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => Ok(()),
    }
}

/// What the thread does. The file is closed when this returns.
fn transfer(
    device: &Device,
    direction: VhostTransferStateDirection,
    file: File,
    cancel: &Cancel,
) -> Result<(), TransferError> {
    let state = device.filesystem.state().ok_or(TransferError::None)?;
    let channel = Channel {
        file,
        cancel,
        left: MAX_STATE,
        ended: false,
    };
    match direction {
        VhostTransferStateDirection::SAVE => {
            let mut to = BufWriter::new(channel);
            state
                .save(&mut to)
                .and_then(|()| to.flush())
                .map_err(|error| TransferError::Failed("save", error))
        }
        VhostTransferStateDirection::LOAD => {
            let mut from = BufReader::with_capacity(BUFFER, channel);
            state
                .load(&mut from)
                .and_then(|()| expect_end(&mut from))
                .map_err(|error| TransferError::Failed("load", error))
        }
    }
}

fn expect_end(from: &mut impl Read) -> io::Result<()> {
    match io::copy(&mut from.take(1), &mut io::sink())? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The end of the front-end's channel that is ours.
///
/// Nothing waits for the front-end so that it could not be ended: the file may be shared with it and
/// is left in its mode, so it is asked whether there is anything to be done at once.
struct Channel<'c> {
    file: File,
    cancel: &'c Cancel,
    /// Bytes that may still come.
    left: u64,
    /// The other end said that nothing does.
    ended: bool,
}

impl Channel<'_> {
    fn wait_for(&self, event: PollFlags) -> io::Result<()> {
        let mut fds = [
            PollFd::new(&self.file, event),
            PollFd::new(&self.cancel.event, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&IDLE)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [file, cancel] = &fds;
        let all_is_there =
            file.revents().contains(PollFlags::HUP) && !self.cancel.at_once.load(Ordering::SeqCst);
        match cancel.revents().is_empty() || all_is_there {
            true => Ok(()),
            // Not `Interrupted`: that is tried again.
            false => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Does something to the file when it is ready, with as many bytes as it may be done with.
    fn when_ready(
        &mut self,
        event: PollFlags,
        len: usize,
        mut act: impl FnMut(&mut File, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let len = len.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        loop {
            self.wait_for(event)?;
            match act(&mut self.file, len) {
                Ok(done) => {
                    self.left = self.left.saturating_sub(done as u64);
                    return Ok(done);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl Read for Channel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let read = self.when_ready(PollFlags::IN, buffer.len(), |file, len| {
            file.read(buffer.get_mut(..len).unwrap_or_default())
        })?;
        self.ended = read == 0;
        Ok(read)
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.when_ready(PollFlags::OUT, data.len().min(PIPE_BUF), |file, len| {
            file.write(data.get(..len).unwrap_or_default())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
