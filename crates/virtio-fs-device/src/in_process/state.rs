use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Instant;

use fuse_fs::{Serve, State};

use super::Service;
use super::pending::Pending;
use crate::Error;

/// What a filesystem writes of its state, up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit.saturating_sub(self.bytes.len());
        if bytes.len() > room {
            self.exceeded = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A filesystem's state on its way: in the end, what was saved or loaded.
type Transfer = Pending<Result<Vec<u8>, Error>>;

/// Saves and loads the state of a filesystem, which is not waited for for ever. What it has not
/// returned from yet goes on, and nothing else begins before it has.
#[derive(Default)]
pub(super) struct Transfers(Option<Transfer>);

impl Transfers {
    /// The state of the filesystem.
    pub(super) fn save(&mut self, service: &Service, deadline: Instant) -> Result<Vec<u8>, Error> {
        let options = &service.options;
        let (filesystem, limit) = (Arc::clone(&options.filesystem), options.state_limit);
        let save = move || save(&*filesystem, limit);
        self.finish(save, deadline)
            .unwrap_or_else(|| Err(options.stuck("save the device", service.health.state())))
    }

    /// Makes `bytes`, which [`save`](Self::save) returned, the state of the filesystem. Where that
    /// fails, nothing is left of the state that it had.
    pub(super) fn load(
        &mut self,
        service: &Service,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), Error> {
        let options = &service.options;
        if bytes.len() as u64 > options.state_limit {
            return Err(Error::StateSize(options.state_limit));
        }
        let (filesystem, bytes) = (Arc::clone(&options.filesystem), bytes.to_vec());
        let load = move || load(&*filesystem, &bytes).map(|()| bytes);
        self.finish(load, deadline)
            .unwrap_or_else(|| Err(options.stuck("restore the device", service.health.state())))
            .map(drop)
    }

    /// Whether none is under way any more, by `deadline`.
    pub(super) fn have_ended(&mut self, deadline: Instant) -> bool {
        let Some(transfer) = self.0.take() else {
            return true;
        };
        self.0 = transfer.wait(deadline).err();
        self.0.is_none()
    }

    /// What `transfer` returns, if it does by `deadline`.
    fn finish(
        &mut self,
        transfer: impl FnOnce() -> Result<Vec<u8>, Error> + Send + 'static,
        deadline: Instant,
    ) -> Option<Result<Vec<u8>, Error>> {
        if !self.have_ended(deadline) {
            return None;
        }
        let panicked = || Error::io("transfer the filesystem's state")(io::Error::other("a panic"));
        match Pending::begin(transfer).wait(deadline) {
            Ok(done) => Some(done.unwrap_or_else(|| Err(panicked()))),
            Err(transfer) => {
                self.0 = Some(transfer);
                None
            }
        }
    }
}

fn save(filesystem: &dyn Serve, limit: u64) -> Result<Vec<u8>, Error> {
    let mut to = Bounded {
        bytes: Vec::new(),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        exceeded: false,
    };
    match state_of(filesystem)?.save(&mut to) {
        _ if to.exceeded => Err(Error::StateSize(limit)),
        Ok(()) => Ok(to.bytes),
        Err(error) => Err(Error::io("save the filesystem's state")(error)),
    }
}

fn load(filesystem: &dyn Serve, mut bytes: &[u8]) -> Result<(), Error> {
    state_of(filesystem)?
        .load(&mut bytes)
        .map_err(Error::io("restore the filesystem's state"))
}

fn state_of(filesystem: &dyn Serve) -> Result<&dyn State, Error> {
    filesystem
        .state()
        .ok_or(Error::Unsupported("state that can be saved and restored"))
}
