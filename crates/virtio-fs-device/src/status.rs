use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::{Happening, Lifecycle, Phase};
use crate::{Call, Error, State, WindowStatus};

/// How a device is, for whoever looks after it.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// Whether there is a daemon at the other end.
    pub connected: bool,
    /// Whether the transport is to show `DEVICE_NEEDS_RESET` to the driver.
    pub needs_reset: bool,
    /// What the back-end can do.
    pub capabilities: Capabilities,
    /// The DAX window, where the device has one.
    pub window: Option<WindowStatus>,
    /// How often a daemon was lost and another one gone on with.
    pub reconnects: u64,
    /// What went wrong last, if ever anything did.
    pub last_error: Option<Arc<Error>>,
}

/// What a back-end can do beside serving requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// What is in flight when the daemon dies is served by the next one (`INFLIGHT_SHMFD`).
    pub keeps_in_flight: bool,
    /// The guest never notices that the daemon dies and another one takes its place: what is in
    /// flight is kept, and the VMM said that the daemon's state is
    /// ([`Recovery::Resume`](crate::Recovery::Resume)).
    pub survives_daemon: bool,
    /// Its state can be saved and restored (`DEVICE_STATE`).
    pub saves_state: bool,
    /// It says which pages of the guest it writes (`LOG_SHMFD`).
    pub logs_dirty_pages: bool,
    /// Memory can be added and taken away one region at a time (`CONFIGURE_MEM_SLOTS`); else all of
    /// it is announced anew, which a daemon deals with as it likes while its queues are served.
    pub memory_slots: bool,
    /// Most regions that the guest's memory may have.
    pub memory_regions: usize,
    /// It can be reset as a whole (`RESET_DEVICE`); else its queues are stopped one by one, and its
    /// filesystem notices when the driver begins anew.
    pub resets: bool,
}

/// What the device and the threads behind it know of its state.
#[derive(Debug)]
pub(crate) struct Health {
    inner: Mutex<Inner>,
    /// How often the driver reset the device. It is not locked while `inner` is.
    era: Mutex<u64>,
}

#[derive(Debug)]
struct Inner {
    lifecycle: Lifecycle,
    /// The driver broke a queue, and has not reset the device since.
    broken: bool,
    reconnects: u64,
    last_error: Option<Arc<Error>>,
}

impl Health {
    pub(crate) const fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                lifecycle: Lifecycle::NEW,
                broken: false,
                reconnects: 0,
                last_error: None,
            }),
            era: Mutex::new(0),
        }
    }

    /// What lasts until the driver resets the device.
    pub(crate) fn era(&self) -> u64 {
        *self.lock_era()
    }

    /// Tells the driver something that does not concern it after a reset: not at all if `era` is over,
    /// and else before it ends. So `tell` must not wait for a call of the device.
    pub(crate) fn within(&self, era: u64, tell: impl FnOnce()) {
        let now = self.lock_era();
        if *now == era {
            tell();
        }
    }

    pub(crate) fn state(&self) -> State {
        self.lock().lifecycle.state()
    }

    /// Whether there are queues that are, or could be, served.
    pub(crate) fn in_use(&self) -> bool {
        matches!(self.lock().lifecycle.phase, Phase::Active | Phase::Paused)
    }

    /// Whether `call` may be made now.
    pub(crate) fn check(&self, call: Call) -> Result<(), Error> {
        self.lock().lifecycle.after(call).map(drop)
    }

    /// Notes that `call` succeeded.
    ///
    /// # Errors
    /// Something happened to the device meanwhile after which it is not possible.
    pub(crate) fn done(&self, call: Call) -> Result<(), Error> {
        let mut era = (call == Call::Reset).then(|| self.lock_era());
        let mut inner = self.lock();
        inner.lifecycle.phase = inner.lifecycle.after(call)?;
        if let Some(era) = &mut era {
            inner.broken = false;
            **era = era.wrapping_add(1);
        }
        Ok(())
    }

    /// Notes what happened, and why. Returns whether the device has failed by it.
    pub(crate) fn happen(&self, happening: Happening, why: Option<Arc<Error>>) -> bool {
        let mut inner = self.lock();
        let before = inner.lifecycle;
        inner.lifecycle = before.on(happening);
        if happening == Happening::Regained {
            inner.reconnects = inner.reconnects.saturating_add(1);
        }
        if why.is_some() {
            inner.last_error = why;
        }
        before.phase != Phase::Failed && inner.lifecycle.phase == Phase::Failed
    }

    /// Notes that the driver broke queue `index`, and returns whether it is to be told so: once, until
    /// it resets the device.
    pub(crate) fn broke(&self, index: u16) -> bool {
        let mut inner = self.lock();
        inner.last_error = Some(Arc::new(Error::Broken(index)));
        !std::mem::replace(&mut inner.broken, true)
    }

    /// Notes an error that changes nothing.
    pub(crate) fn note(&self, error: Arc<Error>) {
        self.lock().last_error = Some(error);
    }

    pub(crate) fn status(
        &self,
        capabilities: Capabilities,
        window: Option<WindowStatus>,
    ) -> Status {
        let inner = self.lock();
        Status {
            state: inner.lifecycle.state(),
            connected: inner.lifecycle.connected,
            needs_reset: inner.broken || inner.lifecycle.phase == Phase::Failed,
            capabilities,
            window,
            reconnects: inner.reconnects,
            last_error: inner.last_error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_era(&self) -> MutexGuard<'_, u64> {
        self.era.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
