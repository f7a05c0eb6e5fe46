use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use virtio_fs_config::ConfigSpace;

use super::channel::Deadline;
use super::control::{Control, Logging};
use super::monitor::{Peer, wait_for};
use super::options::{Recovery, VhostUser};
use super::relay::Relay;
use super::session::{Agreed, Session};
use crate::backend::Offer;
use crate::state::Happening;
use crate::status::Health;
use crate::window::Mappings;
use crate::{Capabilities, Error, Event, GuestSpace};

/// What the VMM's calls and the monitor share.
pub(super) struct Shared<M> {
    pub(super) options: VhostUser,
    pub(super) offer: Offer,
    pub(super) agreed: Agreed,
    pub(super) capabilities: Capabilities,
    /// The daemon's own configuration space, where it was asked for it.
    pub(super) told: Option<ConfigSpace>,
    pub(super) health: Arc<Health>,
    pub(super) window: Option<Mappings>,
    control: Mutex<Control<M>>,
    relay: Mutex<Option<Arc<Relay>>>,
    /// Signalled when the relay changed.
    pub(super) wake: Event,
    /// Signalled when the device is dropped.
    pub(super) stop: Event,
}

/// What is known from the first daemon on.
pub(super) struct Known {
    pub(super) options: VhostUser,
    pub(super) offer: Offer,
    pub(super) capabilities: Capabilities,
    pub(super) told: Option<ConfigSpace>,
    pub(super) health: Arc<Health>,
    pub(super) window: Option<Mappings>,
    pub(super) stop: Event,
}

/// How long between attempts to connect to a daemon that is just being started.
const RETRY: Duration = Duration::from_millis(20);

impl<M: GuestSpace> Shared<M> {
    pub(super) fn new(known: Known, session: Session) -> Result<Self, Error> {
        Ok(Self {
            options: known.options,
            offer: known.offer,
            agreed: session.agreed(),
            capabilities: known.capabilities,
            told: known.told,
            health: known.health,
            window: known.window,
            control: Mutex::new(Control {
                session: Some(session),
                active: None,
                logging: Logging::Off,
            }),
            relay: Mutex::new(None),
            wake: Event::new().map_err(Error::io("make an eventfd"))?,
            stop: known.stop,
        })
    }

    /// What is said to the daemon: for whoever holds this, alone.
    pub(super) fn control(&self) -> MutexGuard<'_, Control<M>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the messages of one call.
    pub(super) fn soon(&self, doing: &'static str) -> Deadline {
        Deadline::after(self.options.timeouts.message, doing, self.health.state())
    }

    /// To stop serving.
    pub(super) fn later(&self, doing: &'static str) -> Deadline {
        Deadline::after(self.options.timeouts.stop, doing, self.health.state())
    }

    /// To save or load the daemon's state.
    pub(super) fn transfer(&self, doing: &'static str) -> Deadline {
        Deadline::after(self.options.timeouts.state, doing, self.health.state())
    }

    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        self.lock_relay().clone()
    }

    /// Changes whom to interrupt.
    pub(super) fn set_relay(&self, relay: Option<Relay>) {
        *self.lock_relay() = relay.map(Arc::new);
        if let Err(error) = self.wake.signal() {
            tracing::error!(%error, "cannot wake the device's monitor up");
        }
    }

    fn lock_relay(&self) -> MutexGuard<'_, Option<Arc<Relay>>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, error: Error) {
        self.health.note(Arc::new(error));
    }

    /// From now on a daemon may map files.
    pub(super) fn open_window(&self) {
        if let Some(window) = &self.window {
            window.open();
        }
    }

    /// Drops what daemons have mapped, and returns whether there was anything.
    pub(super) fn close_window(&self) -> bool {
        self.window
            .as_ref()
            .is_some_and(|window| window.close() > 0)
    }

    /// Notes that the daemon hung up, or was given up, and why.
    pub(super) fn lost(&self, error: Error) {
        let failed = {
            let mut control = self.control();
            control.session = None;
            self.lose(&mut control, error)
        };
        self.tell_of_failure(failed);
    }

    /// Notes that there is no daemon, and returns whom to tell where the device has failed by it.
    fn lose(&self, control: &mut Control<M>, error: Error) -> Option<Arc<Relay>> {
        let mapped = self.close_window();
        let lost = Happening::Lost {
            resumable: self.is_resumable(control, mapped),
        };
        if !self.health.happen(lost, Some(Arc::new(error))) {
            return None;
        }
        control.active = None;
        let relay = self.relay();
        self.set_relay(None);
        relay
    }

    /// Whether another daemon can go on where the last one was. Where files were `mapped` for the
    /// guest, that does not know of them.
    fn is_resumable(&self, control: &Control<M>, mapped: bool) -> bool {
        let Some(active) = &control.active else {
            return true;
        };
        let resumes = self.options.recovery == Recovery::Resume;
        let keeps = || self.capabilities.keeps_in_flight || active.is_idle();
        // What no daemon has begun to serve, the next one can serve as well.
        !active.begun || resumes && !mapped && keeps()
    }

    /// Connects to a daemon in the place of the one that was lost, and goes on with it.
    pub(super) fn connect_anew(&self) -> Result<Peer, Error> {
        let stream = self.options.connect.connect()?;
        let deadline = self.soon("agree with the daemon");
        let mut session = Session::negotiate(stream, self.stop.clone(), &self.options, deadline)?;
        session.can_replace(self.agreed)?;
        let queues = u16::try_from(self.offer.queue_sizes.len()).unwrap_or(u16::MAX);
        session.check_queues(queues)?;
        if self.told.is_some() && session.config_space(deadline)? != self.told {
            return Err(Error::Changed("its configuration space is another one"));
        }
        let peer = Peer::of(&mut session);
        self.go_on(session)?;
        if let Some(relay) = self.relay() {
            relay.interrupt_all();
        }
        Ok(peer)
    }

    /// Tells the daemon all that the last one knew.
    fn go_on(&self, mut session: Session) -> Result<(), Error> {
        let mut control = self.control();
        let deadline = self.soon("go on with the daemon");
        let Control {
            active, logging, ..
        } = &mut *control;
        let told = match active {
            Some(active) => {
                self.open_window();
                active.tell(&mut session, logging, deadline)
            }
            None => Ok(()),
        };
        if let Err(error) = told {
            drop(session);
            // It may have served something, which the next one knows nothing of.
            let failed = self.lose(&mut control, deadline.gone());
            drop(control);
            self.tell_of_failure(failed);
            return Err(error);
        }
        control.session = Some(session);
        self.health.happen(Happening::Regained, None);
        Ok(())
    }

    fn tell_of_failure(&self, relay: Option<Arc<Relay>>) {
        if let Some(relay) = relay {
            relay.needs_reset(&self.health);
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.is_signalled()
    }

    /// Waits, unless the device is dropped.
    pub(super) fn sleep(&self, limit: Duration) {
        wait_for(&self.stop, limit);
    }
}

/// Connects to a daemon, which may still have to start.
pub(super) fn connect_first(options: &VhostUser) -> Result<UnixStream, Error> {
    let begin = Instant::now();
    loop {
        match options.connect.connect() {
            Err(_) if begin.elapsed() < options.timeouts.connect => std::thread::sleep(RETRY),
            other => return other,
        }
    }
}
