use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_fs_config::{DEVICE_ID, VERSION_1};

use crate::backend::Backend;
#[cfg(feature = "in-process")]
use crate::in_process::{InProcess, InProcessBackend};
use crate::saved::{SavedState, VERSION};
use crate::status::Health;
use crate::vhost_user::{VhostUser, VhostUserBackend};
use crate::{
    Activation, Call, DeviceConfig, Error, Event, GuestSpace, Interrupt, QueueSetup, State, Status,
    Tag,
};

/// Bytes of a page in the dirty log.
pub const DIRTY_PAGE: u64 = 4096;

/// A virtio-fs device, as the VMM's transport sees it.
///
/// All calls are made by the VMM, one at a time, from any thread; none waits longer than the
/// time-outs of the back-end allow. Dropping the device ends it: what is in flight is lost to the
/// guest, and no thread is left but those that a filesystem of this process does not return to.
///
/// # States
/// What a call leaves the device in, in each state. A dash is an error that names both, and changes
/// nothing.
///
/// | | New | Negotiated | Active | Paused | Reset | Failed |
/// |---|---|---|---|---|---|---|
/// | [`ack_features`](Self::ack_features) | Negotiated | Negotiated | – | – | Negotiated | – |
/// | [`activate`](Self::activate) | – | Active | – | – | – | – |
/// | [`pause`](Self::pause) | New | Negotiated | Paused | – | Reset | Failed |
/// | [`resume`](Self::resume) | New | Negotiated | – | Active | Reset | Failed |
/// | [`reset`](Self::reset) | Reset | Reset | Reset | Reset | Reset | Reset |
/// | [`update_memory`](Self::update_memory) | – | – | Active | Paused | – | – |
/// | [`start_queue`](Self::start_queue) | – | – | Active | – | – | – |
/// | [`stop_queue`](Self::stop_queue) | – | – | Active | – | – | – |
/// | [`update_interrupt`](Self::update_interrupt) | – | – | Active | – | – | – |
/// | [`save`](Self::save) | New | Negotiated | – | Paused | Reset | – |
/// | [`restore`](Self::restore) | Paused | – | – | – | Paused | – |
///
/// What is not in the table is for every state.
///
/// A daemon that dies makes the device [`Disconnected`](State::Disconnected), where it would else be
/// new, negotiated, active, paused or reset. In that state the calls are those of the one beneath,
/// but for `save` of a paused device and `restore`, which need the daemon; what they ask for is
/// done once a daemon is there. A device that cannot go on with another daemon where it was, as
/// [`Recovery`](crate::Recovery) says, is [`Failed`](State::Failed) instead, and tells the driver.
pub struct Device<M> {
    backend: Box<dyn Backend<M>>,
    health: Arc<Health>,
    /// What the driver accepted.
    features: Option<u64>,
    /// Whether a driver was seen to write to the configuration space.
    written: AtomicBool,
}

impl<M: GuestSpace> Device<M> {
    /// A device that is served by a vhost-user daemon, with which it is connected at once.
    ///
    /// # Errors
    /// No daemon is there, or it cannot be that of such a device.
    pub fn vhost_user(config: &DeviceConfig, daemon: VhostUser) -> Result<Self, Error> {
        config.check()?;
        let health = Arc::new(Health::new());
        let backend = VhostUserBackend::connect(config, daemon, Arc::clone(&health))?;
        Ok(Self {
            backend: Box::new(backend),
            health,
            features: None,
            written: AtomicBool::new(false),
        })
    }
}

#[cfg(feature = "in-process")]
impl<M: GuestSpace> Device<M> {
    /// A device that threads of this process serve: there is no daemon that has to be started, or
    /// could die, and any memory will do for the guest.
    ///
    /// # Errors
    /// Something is wrong with `config`, or it lacks a tag.
    pub fn in_process(config: &DeviceConfig, options: InProcess) -> Result<Self, Error> {
        config.check()?;
        let health = Arc::new(Health::new());
        let backend = InProcessBackend::new(config, options, Arc::clone(&health))?;
        Ok(Self {
            backend: Box::new(backend),
            health,
            features: None,
            written: AtomicBool::new(false),
        })
    }
}

impl<M> Device<M> {
    /// The virtio device id: 26.
    #[must_use]
    pub const fn device_type(&self) -> u32 {
        DEVICE_ID
    }

    /// The tag that the guest mounts it by.
    #[must_use]
    pub fn tag(&self) -> &Tag {
        self.backend.offer().config_space.tag()
    }

    /// Most descriptors of each queue, hiprio first.
    #[must_use]
    pub fn queue_max_sizes(&self) -> &[u16] {
        &self.backend.offer().queue_sizes
    }

    /// The features that the driver is offered.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.backend.offer().features
    }

    /// Bytes of shared memory region 0, the DAX window (`VIRTIO_FS_SHMCAP_ID_CACHE`), which the
    /// transport shows to the driver; `None` where there is none. It is the first part of what the
    /// VMM set aside ([`VhostUser::window`]), or all of it: as much as the daemon wants.
    #[must_use]
    pub fn window_size(&self) -> Option<u64> {
        self.backend.window().map(|window| window.size)
    }

    /// The driver accepts `features`, all that it wants (at `FEATURES_OK`).
    ///
    /// # Errors
    /// Some were not offered, or VERSION_1 is not among them: the transport leaves `FEATURES_OK`
    /// unset then.
    pub fn ack_features(&mut self, features: u64) -> Result<(), Error> {
        self.health.check(Call::AckFeatures)?;
        self.check_features(features)?;
        self.health.done(Call::AckFeatures)?;
        self.features = Some(features);
        Ok(())
    }

    /// Fills `bytes` with the configuration space from `offset` on: any part of it can be read, and
    /// what is beyond it is zero.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        self.backend.offer().config_space.read(offset, bytes);
    }

    /// Does nothing: the driver has nothing to write in this configuration space (virtio 1.x,
    /// section 5.11.4.1).
    pub fn write_config(&self, offset: u64, bytes: &[u8]) {
        if !self.written.swap(true, Ordering::Relaxed) {
            let len = bytes.len();
            tracing::warn!(offset, len, "the driver writes to the configuration space");
        }
    }

    /// Starts the device (`DRIVER_OK`): from now on the queues are served.
    ///
    /// While there is no daemon it succeeds, and the queues are served once there is.
    ///
    /// # Errors
    /// A queue is not as it may be, the memory cannot be shared, or the daemon failed, or a filesystem
    /// of this process has not returned from a call before a reset: the device stays negotiated.
    pub fn activate(&mut self, activation: Activation<M>) -> Result<(), Error> {
        self.health.check(Call::Activate)?;
        check_queues(&activation.queues, &self.backend.offer().queue_sizes)?;
        let features = self.features.unwrap_or(VERSION_1);
        self.backend.activate(features, activation)
    }

    /// Resets the device (a driver that writes 0 to the device status): what was in flight is
    /// forgotten, and the memory is not touched any more. Always succeeds: a daemon that fails at it
    /// is given up and connected anew; a filesystem of this process that does not return is left
    /// to itself, with what it has in hand ([`Error::Stuck`]).
    ///
    /// # Errors
    /// None today.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.health.check(Call::Reset)?;
        self.features = None;
        self.backend.reset()
    }

    /// Stops the device for a while: returns when what was in flight is done, or after a time-out.
    /// The memory is not written any more then. Without a daemon it is not anyway, and the next one
    /// leaves it alone until [`resume`](Self::resume).
    ///
    /// # Errors
    /// The daemon did not stop; it was given up, and one that takes its place goes on as if this had
    /// not been called. A filesystem of this process did not return from a call: the device has
    /// failed, and the driver is told so.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.health.check(Call::Pause)?;
        match self.health.in_use() {
            true => self.backend.pause(),
            false => self.health.done(Call::Pause),
        }
    }

    /// Goes on after a [`pause`](Self::pause) or a [`restore`](Self::restore).
    ///
    /// The driver is interrupted for every queue that it uses: an interrupt that was under way when the
    /// machine stopped may not be in its state.
    ///
    /// # Errors
    /// The daemon failed: the device stays paused.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.health.check(Call::Resume)?;
        match self.health.in_use() {
            true => self.backend.resume(),
            false => self.health.done(Call::Resume),
        }
    }

    /// Tells of memory that was plugged or unplugged: `memory` is all that there is now. Regions that
    /// are in use stay as they are.
    ///
    /// Call it after memory was added and before the guest knows; and before memory is unmapped that
    /// the guest has given up. A request that is under way may have memory in use that is no longer
    /// there: it has to stay mapped for as long as anybody holds the map that it was in, as it does
    /// where that is an `Arc<GuestMemoryMmap>`.
    ///
    /// # Errors
    /// A region cannot be shared, or the daemon failed.
    pub fn update_memory(&mut self, memory: M) -> Result<(), Error> {
        self.health.check(Call::UpdateMemory)?;
        self.backend.update_memory(memory)
    }

    /// Has one more queue served, which the driver enables while the device is active, or enables
    /// again after [`stop_queue`](Self::stop_queue): from entry `next_avail` of its available ring
    /// on, 0 for a driver that begins with it.
    ///
    /// A daemon that fails at it is given up, and the queue is served by the one that takes its
    /// place.
    ///
    /// # Errors
    /// The queue is not as it may be, or is served already.
    pub fn start_queue(&mut self, queue: QueueSetup, next_avail: u16) -> Result<(), Error> {
        self.health.check(Call::StartQueue)?;
        check_queue(&queue, &self.backend.offer().queue_sizes)?;
        self.backend.start_queue(queue, next_avail)
    }

    /// Has queue `index` served no more, and returns the entry of its available ring to go on at.
    /// What was in flight on it is done then.
    ///
    /// A daemon that fails at it is given up. Without a daemon, what was in flight is served when
    /// the queue is started again at that entry, and not before.
    ///
    /// # Errors
    /// The queue is not served, or it is not in the guest's memory.
    pub fn stop_queue(&mut self, index: u16) -> Result<u16, Error> {
        self.health.check(Call::StopQueue)?;
        self.backend.stop_queue(index)
    }

    /// Asks [`Interrupt::queue_event`] anew for queue `index`: what it says is signalled from now on.
    /// The driver is interrupted once, as an interrupt may have been on its way.
    ///
    /// A daemon that fails at it is given up, and the one that takes its place is told.
    ///
    /// # Errors
    /// The queue is not served, or the process has no descriptor left.
    pub fn update_interrupt(&mut self, index: u16) -> Result<(), Error> {
        self.health.check(Call::UpdateInterrupt)?;
        self.backend.update_interrupt(index)
    }

    /// The state of the device, to be restored elsewhere or later. The device stays paused, and can
    /// go on.
    ///
    /// # Errors
    /// The daemon cannot save its state, it is larger than it may be, or the filesystem of this process
    /// does not return: the device can go on.
    pub fn save(&mut self) -> Result<SavedState, Error> {
        self.health.check(Call::Save)?;
        let active = match self.health.in_use() {
            true => Some(self.backend.save()?),
            false => None,
        };
        let space = &self.backend.offer().config_space;
        Ok(SavedState {
            version: VERSION,
            tag: space.tag().as_str().to_owned(),
            request_queues: space.request_queues(),
            features: self.features,
            active,
        })
    }

    /// Makes the device what was saved. It is paused then, or, if the driver did not use the device
    /// that was saved, where that one was.
    ///
    /// `kicks` are the events of all queues, hiprio first, as many as
    /// [`queue_max_sizes`](Self::queue_max_sizes) has.
    ///
    /// # Errors
    /// The state is not of such a device, or the daemon refuses its part of it, and was given up, or
    /// the filesystem of this process does not return, which leaves the device as it was.
    pub fn restore(
        &mut self,
        saved: &SavedState,
        memory: M,
        kicks: &[Event],
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<(), Error> {
        self.health.check(Call::Restore)?;
        self.check_saved(saved)?;
        if let Some(active) = &saved.active {
            let queues = active.queues.iter().map(|queue| {
                let kick = kicks.get(usize::from(queue.index));
                Ok(QueueSetup {
                    index: queue.index,
                    ring: queue.ring,
                    kick: kick.ok_or(Error::Queue(queue.index))?.clone(),
                })
            });
            let activation = Activation {
                memory,
                queues: queues.collect::<Result<_, Error>>()?,
                interrupt,
            };
            check_queues(&activation.queues, &self.backend.offer().queue_sizes)?;
            let features = saved.features.unwrap_or(VERSION_1);
            self.backend.restore(features, activation, active)?;
            self.features = Some(features);
        } else if let Some(features) = saved.features {
            self.ack_features(features)?;
        }
        Ok(())
    }

    /// Notes from now on which pages of the guest's memory the device writes, over resets and
    /// activations and other daemons, until [`stop_dirty_log`](Self::stop_dirty_log). Where they are
    /// noted already, nothing changes.
    ///
    /// # Errors
    /// The daemon cannot, or failed.
    pub fn start_dirty_log(&mut self) -> Result<(), Error> {
        self.backend.start_dirty_log()
    }

    /// Ends [`start_dirty_log`](Self::start_dirty_log). What was noted and not taken is forgotten.
    ///
    /// # Errors
    /// The daemon failed.
    pub fn stop_dirty_log(&mut self) -> Result<(), Error> {
        self.backend.stop_dirty_log()
    }

    /// Calls `found` with the guest address of each page of [`DIRTY_PAGE`] bytes within `range` that
    /// the device wrote since this was last called for it: pages of the guest's memory only. To have all
    /// of them, pause the device before the last time.
    pub fn take_dirty(&mut self, range: Range<u64>, mut found: impl FnMut(u64)) {
        self.backend.take_dirty(range, &mut found);
    }

    /// How the device is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.health
            .status(self.backend.capabilities(), self.backend.window())
    }

    /// Where the device is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.health.state()
    }

    fn check_features(&self, features: u64) -> Result<(), Error> {
        let unknown = features & !self.features();
        if unknown != 0 {
            return Err(Error::UnknownFeatures(unknown));
        }
        match VERSION_1 & !features {
            0 => Ok(()),
            missing => Err(Error::MissingFeatures(missing)),
        }
    }

    fn check_saved(&self, saved: &SavedState) -> Result<(), Error> {
        let space = &self.backend.offer().config_space;
        if saved.version != VERSION {
            return Err(Error::StateVersion(saved.version));
        }
        if saved.tag != space.tag().as_str() {
            return Err(Error::State("it has another tag"));
        }
        if saved.request_queues != space.request_queues() {
            return Err(Error::State("it has another number of queues"));
        }
        saved
            .features
            .map_or(Ok(()), |features| self.check_features(features))
    }
}

impl<M> fmt::Debug for Device<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("state", &self.state())
            .field("features", &self.features)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// Checks that each queue is one that the device has, with a size that it may have.
fn check_queues(queues: &[QueueSetup], most: &[u16]) -> Result<(), Error> {
    let mut seen = vec![false; most.len()];
    for queue in queues {
        match seen.get_mut(usize::from(queue.index)) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(Error::Queue(queue.index)),
        }
        check_queue(queue, most)?;
    }
    Ok(())
}

fn check_queue(queue: &QueueSetup, most: &[u16]) -> Result<(), Error> {
    let size = queue.ring.size;
    match most.get(usize::from(queue.index)) {
        Some(&most) if size.is_power_of_two() && size <= most => Ok(()),
        Some(_) => Err(Error::QueueSize(size)),
        None => Err(Error::Queue(queue.index)),
    }
}
