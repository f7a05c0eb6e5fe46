//! A filesystem that has a state, and front-ends that transfer it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve, State};
use vhost::vhost_user::Frontend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase,
};

use super::{Running, config, succeed};

/// How long loading takes that takes long.
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Has bytes for a state. Those that begin with `!` cannot be saved, nor loaded; those that begin
/// with `~` take long to load.
#[derive(Default)]
pub(crate) struct Stateful {
    bytes: Mutex<Vec<u8>>,
    pub(crate) resets: AtomicUsize,
}

impl Stateful {
    pub(crate) fn with(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(bytes.to_vec()),
            resets: AtomicUsize::new(0),
        })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Serve for Stateful {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        succeed(message, reply)
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.bytes.lock().unwrap().clear();
    }

    fn state(&self) -> Option<&dyn State> {
        Some(self)
    }
}

impl State for Stateful {
    fn save(&self, to: &mut dyn Write) -> io::Result<()> {
        let bytes = self.bytes();
        to.write_all(&bytes)?;
        match bytes.first() {
            Some(b'!') => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(()),
        }
    }

    fn load(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut first = [0];
        if from.read(&mut first)? == 1 && first == *b"!" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if first == *b"~" {
            thread::sleep(LONG);
        }
        let mut bytes = first.to_vec();
        from.read_to_end(&mut bytes)?;
        *self.bytes.lock().unwrap() = bytes;
        Ok(())
    }
}

pub(crate) fn start(filesystem: &Arc<Stateful>) -> (Running, Frontend) {
    let running = Running::start(config(Arc::clone(filesystem) as Arc<dyn Serve>));
    let frontend = running.negotiate();
    (running, frontend)
}

pub(crate) fn begin(
    frontend: &Frontend,
    direction: Direction,
    end: impl Into<OwnedFd>,
) -> vhost::Result<()> {
    let file = frontend.set_device_state_fd(direction, Phase::STOPPED, end.into())?;
    assert!(file.is_none());
    Ok(())
}

/// What a device saves.
pub(crate) fn save(frontend: &Frontend) -> (Vec<u8>, vhost::Result<()>) {
    let (mut from, to) = io::pipe().unwrap();
    begin(frontend, Direction::SAVE, to).unwrap();
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    (bytes, frontend.check_device_state())
}

pub(crate) fn load(frontend: &Frontend, bytes: &[u8]) -> vhost::Result<()> {
    let (from, mut to) = io::pipe().unwrap();
    begin(frontend, Direction::LOAD, from).unwrap();
    // Who does not want all of it closes its end.
    let _ = to.write_all(bytes);
    drop(to);
    frontend.check_device_state()
}
