//! A vhost-user daemon behind the device (the vhost-user specification, as of QEMU 10).

mod options;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

pub use options::{Recovery, Timeouts, VhostUser};

use crate::backend::{Backend, Offer};
use crate::saved::ActiveState;
use crate::status::Health;
use crate::{Activation, Capabilities, DeviceConfig, Error, GuestSpace};

/// A device that a daemon serves.
pub(crate) struct VhostUserBackend<M> {
    offer: Offer,
    memory: PhantomData<fn(M)>,
}

impl<M> fmt::Debug for VhostUserBackend<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUserBackend")
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}

const MISSING: Error = Error::Unsupported("it: this crate does not have it yet");

impl<M: GuestSpace> VhostUserBackend<M> {
    pub(crate) fn connect(
        _config: &DeviceConfig,
        _daemon: VhostUser,
        _health: Arc<Health>,
    ) -> Result<Self, Error> {
        Err(MISSING)
    }
}

impl<M: GuestSpace> Backend<M> for VhostUserBackend<M> {
    fn offer(&self) -> &Offer {
        &self.offer
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn activate(&mut self, _features: u64, _activation: Activation<M>) -> Result<(), Error> {
        Err(MISSING)
    }

    fn reset(&mut self) {}

    fn pause(&mut self) -> Result<(), Error> {
        Err(MISSING)
    }

    fn resume(&mut self) -> Result<(), Error> {
        Err(MISSING)
    }

    fn update_memory(&mut self, _memory: M) -> Result<(), Error> {
        Err(MISSING)
    }

    fn save(&mut self) -> Result<ActiveState, Error> {
        Err(MISSING)
    }

    fn restore(
        &mut self,
        _features: u64,
        _activation: Activation<M>,
        _saved: &ActiveState,
    ) -> Result<(), Error> {
        Err(MISSING)
    }

    fn start_dirty_log(&mut self) -> Result<(), Error> {
        Err(MISSING)
    }

    fn stop_dirty_log(&mut self) -> Result<(), Error> {
        Err(MISSING)
    }

    fn take_dirty(&mut self, _: Range<u64>, _: &mut dyn FnMut(u64)) -> Result<(), Error> {
        Err(MISSING)
    }
}
