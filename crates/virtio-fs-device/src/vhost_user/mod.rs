//! A vhost-user daemon behind the device (the vhost-user specification, as of QEMU 10).

mod back_channel;
mod channel;
mod connect;
mod control;
mod dirty_log;
mod inflight;
mod kicks;
mod monitor;
mod options;
mod queues;
mod regions;
mod relay;
mod rings;
mod session;
mod shared;
mod transfer;
mod wire;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use virtio_fs_config::ConfigSpace;

use channel::Deadline;
use control::{Active, Control, Logging, Served};
use monitor::Peer;
pub use options::{Recovery, Timeouts, VhostUser};
use relay::Relay;
use session::Session;
use shared::{Known, Shared, connect_first};
use wire::protocol;

use crate::backend::{Backend, Offer};
use crate::saved::ActiveState;
use crate::status::Health;
use crate::window::Mappings;
use crate::{
    Activation, Call, Capabilities, DeviceConfig, Error, Event, GuestSpace, MAX_REQUEST_QUEUES,
    QueueSetup, State, WindowStatus,
};

/// A device that a daemon serves.
pub(crate) struct VhostUserBackend<M> {
    shared: Arc<Shared<M>>,
    monitor: Option<JoinHandle<()>>,
}

impl<M: GuestSpace> VhostUserBackend<M> {
    pub(crate) fn connect(
        config: &DeviceConfig,
        options: VhostUser,
        health: Arc<Health>,
    ) -> Result<Self, Error> {
        options.check()?;
        let stop = Event::new().map_err(Error::io("make an eventfd"))?;
        let stream = connect_first(&options)?;
        let deadline = Deadline::after(
            options.timeouts.message,
            "agree with the daemon",
            State::New,
        );
        let mut session = Session::negotiate(stream, stop.clone(), &options, deadline)?;
        let told = match config.tag {
            Some(_) => None,
            None => session.config_space(deadline)?,
        };
        let known = Known {
            offer: offer(config, told.as_ref(), &session)?,
            capabilities: capabilities(&options, &session),
            window: mappings(&options, &session),
            options,
            told,
            health,
            stop,
        };
        let peer = Peer::of(&mut session);
        let shared = Arc::new(Shared::new(known, session)?);
        let monitor = std::thread::Builder::new()
            .name("virtio-fs".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || monitor::run(&shared, peer)
            })
            .map_err(Error::io("start the device's monitor"))?;
        Ok(Self {
            shared,
            monitor: Some(monitor),
        })
    }

    /// Whether there is a daemon to be told, and what is in use; gives the daemon up where `tell`
    /// fails, as nobody knows what it has done of it.
    fn with_daemon(
        &self,
        control: &mut Control<M>,
        tell: impl FnOnce(&mut Session, &mut Active<M>, &mut Logging) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (Some(session), Some(active)) = (&mut control.session, &mut control.active) else {
            return Ok(());
        };
        let told = tell(session, active, &mut control.logging);
        if told.is_err() {
            // The monitor sees it, and looks for another one.
            control.session = None;
        }
        told
    }

    fn set_up(
        &self,
        features: u64,
        activation: Activation<M>,
    ) -> Result<(Active<M>, Relay), Error> {
        let Activation {
            memory,
            queues,
            interrupt,
        } = activation;
        let era = self.shared.health.era();
        let (relay, rings) =
            Relay::new(queues, interrupt, era).map_err(Error::io("make an eventfd"))?;
        let sizes = &self.shared.offer.queue_sizes;
        let queues = u16::try_from(sizes.len()).unwrap_or(u16::MAX);
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let served = rings.into_iter().map(|ring| Served {
            ring,
            base: Some(0),
        });
        let active = Active {
            features,
            memory,
            rings: served.collect(),
            shape: (queues, largest),
            inflight: None,
            running: true,
            begun: false,
        };
        Ok((active, relay))
    }
}

impl<M: GuestSpace> Backend<M> for VhostUserBackend<M> {
    fn offer(&self) -> &Offer {
        &self.shared.offer
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn window(&self) -> Option<WindowStatus> {
        self.shared.window.as_ref().map(Mappings::status)
    }

    fn activate(&mut self, features: u64, activation: Activation<M>) -> Result<(), Error> {
        let memory = activation.memory.memory();
        let regions = regions::Region::all(&*memory)?;
        rings::check(&activation.queues, &*memory, features)?;
        let (active, relay) = self.set_up(features, activation)?;
        let mut control = self.shared.control();
        if let Some(session) = &control.session {
            session.check_regions(&regions)?;
            self.shared.open_window();
        }
        control.active = Some(active);
        self.shared.set_relay(Some(relay));
        let deadline = self.shared.soon("activate the device");
        let told = self.with_daemon(&mut control, |session, active, logging| {
            active.tell(session, logging, deadline)
        });
        if told.is_err() {
            control.active = None;
            self.shared.set_relay(None);
            self.shared.close_window();
        }
        told?;
        self.shared.health.done(Call::Activate)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.shared.set_relay(None);
        let mut control = self.shared.control();
        let deadline = self.shared.later("reset the device");
        let reset = self.with_daemon(&mut control, |session, active, _| {
            match session.has(protocol::RESET_DEVICE) {
                true => session.reset(deadline),
                false if active.running => active.stop(session, deadline),
                false => Ok(()),
            }
        });
        if let Err(error) = reset {
            tracing::warn!(%error, "the daemon could not be reset, and is given up");
            self.shared.note(error);
        }
        control.active = None;
        self.shared.close_window();
        self.shared.health.done(Call::Reset)
    }

    fn pause(&mut self) -> Result<(), Error> {
        let mut control = self.shared.control();
        let deadline = self.shared.later("pause the device");
        self.with_daemon(&mut control, |session, active, _| {
            active.stop(session, deadline)
        })?;
        if let Some(active) = &mut control.active {
            active.running = false;
        }
        self.shared.health.done(Call::Pause)
    }

    fn resume(&mut self) -> Result<(), Error> {
        let mut control = self.shared.control();
        let deadline = self.shared.soon("resume the device");
        self.with_daemon(&mut control, |session, active, logging| {
            active.start(session, logging, deadline)
        })?;
        if let Some(active) = &mut control.active {
            active.running = true;
        }
        self.shared.health.done(Call::Resume)?;
        drop(control);
        if let Some(relay) = self.shared.relay() {
            relay.interrupt_all();
        }
        Ok(())
    }

    fn update_memory(&mut self, memory: M) -> Result<(), Error> {
        let regions = regions::Region::all(&*memory.memory())?;
        let mut control = self.shared.control();
        let deadline = self.shared.soon("update the memory");
        if let Some(session) = &control.session {
            session.check_regions(&regions)?;
        }
        if let Some(active) = &mut control.active {
            active.memory = memory;
        }
        control.logging.follow(&regions);
        self.with_daemon(&mut control, |session, active, logging| {
            // A daemon refuses memory that its log has no room for.
            active.start_log(session, logging, deadline)?;
            session.update_regions(regions, deadline)?;
            session.settle(deadline)
        })?;
        self.shared.health.done(Call::UpdateMemory)
    }

    fn start_queue(&mut self, queue: QueueSetup, next_avail: u16) -> Result<(), Error> {
        self.add_queue(queue, next_avail)
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16, Error> {
        self.remove_queue(index)
    }

    fn update_interrupt(&mut self, index: u16) -> Result<(), Error> {
        self.reroute(index)
    }

    fn save(&mut self) -> Result<ActiveState, Error> {
        if !self.shared.capabilities.saves_state {
            return Err(NO_STATE);
        }
        let mut control = self.shared.control();
        match self.window() {
            Some(window) if window.mappings > 0 => return Err(Error::Mapped(window.mappings)),
            _ => {}
        }
        let deadline = self.shared.transfer("save the device");
        let most = self.shared.options.state_limit;
        let mut saved = Err(deadline.gone());
        self.with_daemon(&mut control, |session, active, _| {
            saved = match session.save(most, deadline) {
                Ok(backend) => active
                    .positions()
                    .map(|queues| ActiveState { queues, backend }),
                // The device can go on.
                Err(error @ (Error::Refused { .. } | Error::StateSize(_))) => Err(error),
                Err(error) => return Err(error),
            };
            Ok(())
        })?;
        saved
    }

    fn restore(
        &mut self,
        features: u64,
        activation: Activation<M>,
        saved: &ActiveState,
    ) -> Result<(), Error> {
        if !self.shared.capabilities.saves_state {
            return Err(NO_STATE);
        }
        if saved.backend.len() as u64 > self.shared.options.state_limit {
            return Err(Error::StateSize(self.shared.options.state_limit));
        }
        let memory = activation.memory.memory();
        let regions = regions::Region::all(&*memory)?;
        rings::check(&activation.queues, &*memory, features)?;
        let (mut active, relay) = self.set_up(features, activation)?;
        active.running = false;
        active.begun = true;
        for (served, queue) in active.rings.iter_mut().zip(&saved.queues) {
            served.base = Some(queue.next_avail);
        }
        let mut control = self.shared.control();
        let deadline = self.shared.transfer("restore the device");
        let session = control.session.as_ref().ok_or(deadline.gone())?;
        session.check_regions(&regions)?;
        control.active = Some(active);
        self.shared.open_window();
        let told = self.with_daemon(&mut control, |session, active, logging| {
            active.tell(session, logging, deadline)?;
            session.load(&saved.backend, deadline)
        });
        if told.is_err() {
            control.active = None;
            self.shared.close_window();
        }
        told?;
        self.shared.set_relay(Some(relay));
        self.shared.health.done(Call::Restore)
    }

    fn start_dirty_log(&mut self) -> Result<(), Error> {
        if !self.shared.capabilities.logs_dirty_pages {
            return Err(Error::Unsupported("to note which pages it writes"));
        }
        let mut control = self.shared.control();
        let deadline = self.shared.soon("log dirty pages");
        if let Logging::Off = control.logging {
            control.logging = Logging::Wanted;
        }
        self.with_daemon(&mut control, |session, active, logging| {
            active.start_log(session, logging, deadline)?;
            active.readdress(session, logging, deadline)
        })
    }

    fn stop_dirty_log(&mut self) -> Result<(), Error> {
        let mut control = self.shared.control();
        let deadline = self.shared.soon("log no dirty pages any more");
        if let Logging::Off = control.logging {
            return Ok(());
        }
        control.logging = Logging::Off;
        self.with_daemon(&mut control, |session, active, logging| {
            session.set_features(active.features, false, deadline)?;
            active.readdress(session, logging, deadline)
        })
    }

    fn take_dirty(&mut self, range: Range<u64>, found: &mut dyn FnMut(u64)) {
        if let Logging::On(log) = &self.shared.control().logging {
            log.take(&range, found);
        }
    }
}

/// Neither an error of the daemon's, nor a reason to give it up.
const NO_STATE: Error = Error::Unsupported("to save and load its state");

impl<M> Drop for VhostUserBackend<M> {
    fn drop(&mut self) {
        if let Err(error) = self.shared.stop.signal() {
            tracing::error!(%error, "cannot stop the device's monitor");
        }
        if let Some(Err(_)) = self.monitor.take().map(JoinHandle::join) {
            tracing::error!("the device's monitor ended early");
        }
    }
}

impl<M> fmt::Debug for VhostUserBackend<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUserBackend")
            .field("options", &self.shared.options)
            .field("offer", &self.shared.offer)
            .finish_non_exhaustive()
    }
}

/// What the driver finds: what the VMM says, or else the daemon.
fn offer(
    config: &DeviceConfig,
    told: Option<&ConfigSpace>,
    session: &Session,
) -> Result<Offer, Error> {
    let tag = config.tag.as_ref().or(told.map(ConfigSpace::tag));
    let tag = tag.ok_or(Error::NoTag)?.clone();
    let there = told.map_or(1, ConfigSpace::request_queues);
    let queues = match config.request_queues {
        Some(queues) => queues,
        None => u16::try_from(there)
            .ok()
            .filter(|queues| *queues <= MAX_REQUEST_QUEUES)
            .ok_or(Error::RequestQueues(there))?,
    };
    let all = queues.saturating_add(1);
    session.check_queues(all)?;
    Ok(Offer {
        features: session.features(),
        config_space: ConfigSpace::new(tag, queues.into()),
        queue_sizes: vec![config.queue_size; all.into()],
    })
}

/// The window that the guest sees: what there is of it for the daemon.
fn mappings(options: &VhostUser, session: &Session) -> Option<Mappings> {
    let window = options.window.as_ref()?;
    let size = window.size.min(session.window());
    (size > 0).then(|| Mappings::new(window, size))
}

fn capabilities(options: &VhostUser, session: &Session) -> Capabilities {
    let keeps_in_flight = session.has(protocol::INFLIGHT_SHMFD);
    Capabilities {
        keeps_in_flight,
        survives_daemon: keeps_in_flight && options.recovery == Recovery::Resume,
        saves_state: session.has(protocol::DEVICE_STATE),
        logs_dirty_pages: session.logs(),
        memory_slots: session.has(protocol::CONFIGURE_MEM_SLOTS),
        memory_regions: session.slots(),
        resets: session.has(protocol::RESET_DEVICE),
    }
}
