use std::io::{self, ErrorKind, Write};

use fuse_fs::{Serve, State};

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

/// The state of `filesystem`, of at most `limit` bytes.
pub(super) fn save(filesystem: &dyn Serve, limit: u64) -> Result<Vec<u8>, Error> {
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

/// Makes `bytes`, which [`save`] returned, the state of `filesystem`. Where that fails, nothing is
/// left of the state that it had.
pub(super) fn load(filesystem: &dyn Serve, mut bytes: &[u8], limit: u64) -> Result<(), Error> {
    if bytes.len() as u64 > limit {
        return Err(Error::StateSize(limit));
    }
    state_of(filesystem)?
        .load(&mut bytes)
        .map_err(Error::io("restore the filesystem's state"))
}

fn state_of(filesystem: &dyn Serve) -> Result<&dyn State, Error> {
    filesystem
        .state()
        .ok_or(Error::Unsupported("state that can be saved and restored"))
}
