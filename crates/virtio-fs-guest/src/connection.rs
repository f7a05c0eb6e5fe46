use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::Error;
use crate::buffers::Buffers;
use crate::control::{Control, EVENT_IDX, INDIRECT_DESC, Inflight, VERSION_1};
use crate::link::{self, Link};
use crate::memory::{Memory, PAGE};
use crate::options::{Backing, Offered, Options};
use crate::queue::{Events, Queue, QueueContext};
use crate::ring::{Ring, RingFeatures, RingLayout};

/// Index of the queue for FORGET and INTERRUPT.
const HIPRIO: usize = 0;
/// Pages of the hiprio queue: its requests carry no data.
const HIPRIO_PAGES: usize = 64;
/// Most regions that every back-end takes.
const MAX_REGIONS: usize = 8;
/// Pages of all regions but the first and the last.
const REGION_PAGES: usize = 2;
/// Fewest pages of a request queue: enough for a page in every region.
const LEAST_PAGES: usize = MAX_REGIONS * REGION_PAGES;
/// Most descriptors in a ring (virtio 1.4, 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// What the configuration space says, where the back-end has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The name by which the guest mounts, without the padding.
    pub tag: Vec<u8>,
    /// Number of request queues.
    pub num_request_queues: u32,
}

/// A queue of a driver whose device is set up by somebody else.
#[derive(Debug)]
pub struct QueueLayout {
    /// Number of descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// Signalled by the driver when it made something available.
    pub kick: EventFd,
    /// To be signalled when the device used something.
    pub call: EventFd,
}

/// A virtio-fs device that is up, and its driver: its rings run until this is dropped.
pub struct Connection {
    /// `None` where somebody else sets the device up.
    control: Option<Control>,
    features: u64,
    options: Options,
    /// Kept for the next back-end.
    inflight: Option<Inflight>,
    memory: Arc<Memory>,
    /// Where the regions start as which the memory is announced.
    regions: Vec<usize>,
    /// Hiprio, then the request queues.
    queues: Vec<Queue>,
    config: Option<DeviceConfig>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    /// The entry at which each ring is to go on.
    Stopped(Vec<u16>),
}

impl Connection {
    /// Connects to the back-end that listens at `path`, negotiates, shares memory and starts all
    /// rings.
    ///
    /// # Errors
    /// Says which step failed; [`Error::Timeout`] where the back-end did not answer.
    pub fn connect(path: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).map_err(Error::io(
            "connect to the back-end's socket; a back-end must listen there",
        ))?;
        Self::from_stream(stream, options)
    }

    /// As [`connect`](Self::connect), over a connection that exists.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn from_stream(stream: UnixStream, options: &Options) -> Result<Self, Error> {
        check(options)?;
        check_shared(options)?;
        let mut control = Control::negotiate(stream, options)?;
        let config = control.config()?;
        let rings = RingFeatures {
            event_idx: control.features() & EVENT_IDX != 0,
            indirect: control.features() & INDIRECT_DESC != 0,
        };
        let link = Arc::new(Link::new(Some(control.stream()?), options.halt_poll));
        let plan = Plan::new(options);
        let (memory, queues) = build_queues(options, &plan, rings, link)?;
        let mut connection = Self {
            features: control.features(),
            control: Some(control),
            options: options.clone(),
            inflight: None,
            memory,
            regions: plan.regions,
            state: State::Stopped(vec![0; queues.len()]),
            queues,
            config,
        };
        connection.resume()?;
        Ok(connection)
    }

    /// The driver alone, for a device that is set up by a VMM's device model: memory and queues for
    /// a device that offers the virtio features `offered`. Those that the driver accepts are
    /// [`features`](Self::features), [`layouts`](Self::layouts) says where the queues are.
    ///
    /// Stopping and resuming are then up to the VMM, and [`reset`](Self::reset) is what the driver
    /// does beside resetting the device.
    ///
    /// # Errors
    /// The options contradict the protocol, or the system lacks something.
    pub fn driver(offered: u64, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let accepts = |feature, choice| choice == Offered::Accept && offered & feature != 0;
        let rings = RingFeatures {
            event_idx: accepts(EVENT_IDX, options.event_idx),
            indirect: accepts(INDIRECT_DESC, options.indirect),
        };
        let mut features = VERSION_1;
        for (feature, accepted) in [
            (EVENT_IDX, rings.event_idx),
            (INDIRECT_DESC, rings.indirect),
        ] {
            features |= if accepted { feature } else { 0 };
        }
        let link = Arc::new(Link::new(None, options.halt_poll));
        let plan = Plan::new(options);
        let (memory, queues) = build_queues(options, &plan, rings, link)?;
        Ok(Self {
            control: None,
            features,
            options: options.clone(),
            inflight: None,
            memory,
            regions: plan.regions,
            queues,
            config: None,
            state: State::Running,
        })
    }

    /// Where the queues are, hiprio first.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn layouts(&self) -> Result<Vec<QueueLayout>, Error> {
        let layout = |queue: &Queue| -> io::Result<QueueLayout> {
            let ring = queue.ring().layout();
            let events = queue.events();
            Ok(QueueLayout {
                size: ring.size,
                descriptors: self.memory.address(ring.descriptors),
                available: self.memory.address(ring.available),
                used: self.memory.address(ring.used),
                kick: events.kick.try_clone()?,
                call: events.call.try_clone()?,
            })
        };
        let layouts = self.queues.iter().map(layout).collect::<io::Result<_>>();
        layouts.map_err(Error::io("duplicate an eventfd"))
    }

    /// The guest's memory, as a VMM has it.
    ///
    /// # Errors
    /// The system cannot map it once more.
    pub fn guest_memory(&self) -> Result<GuestMemoryMmap, Error> {
        self.memory.map_again(&self.regions)
    }

    /// The virtio feature bits that were negotiated.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// The vhost-user protocol features that were negotiated, as bits; 0 where somebody else set the
    /// device up.
    #[must_use]
    pub const fn protocol_features(&self) -> u64 {
        match &self.control {
            Some(control) => control.protocol_features().bits(),
            None => 0,
        }
    }

    /// The configuration space; `None` where the back-end leaves it to the front-end.
    #[must_use]
    pub const fn config(&self) -> Option<&DeviceConfig> {
        self.config.as_ref()
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The queue for FORGET and INTERRUPT.
    pub fn hiprio(&mut self) -> &mut Queue {
        &mut self.queues[HIPRIO]
    }

    /// The request queues, one for each thread that drives the device.
    pub fn request_queues(&mut self) -> &mut [Queue] {
        &mut self.queues[HIPRIO + 1..]
    }

    /// All queues, hiprio first.
    pub fn queues(&mut self) -> &mut [Queue] {
        &mut self.queues
    }

    /// Stops all rings, as a pause of the virtual machine does. What is in flight completes
    /// before, or after [`resume`](Self::resume).
    ///
    /// # Errors
    /// The back-end refused or is gone.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        if self.state == State::Running {
            let bases = (0..self.queues.len()).map(|index| control.stop(index));
            self.state = State::Stopped(bases.collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    /// Where each ring stopped, hiprio first: the index of the entry of the available ring that
    /// the device would have taken next. `None` while the rings run.
    #[must_use]
    pub fn stopped_at(&self) -> Option<&[u16]> {
        match &self.state {
            State::Running => None,
            State::Stopped(bases) => Some(bases),
        }
    }

    /// Starts all rings where they stopped.
    ///
    /// # Errors
    /// The back-end refused or is gone.
    pub fn resume(&mut self) -> Result<(), Error> {
        let (Some(control), State::Stopped(bases)) = (&mut self.control, &self.state) else {
            return Ok(());
        };
        control.share(&self.memory, &self.regions)?;
        if control.tracks_inflight() {
            let inflight = match self.inflight.take() {
                Some(inflight) => inflight,
                None => control.inflight(self.queues.len() as u16, self.options.queue_size)?,
            };
            control.set_inflight(self.inflight.insert(inflight))?;
        }
        for (index, (queue, &base)) in self.queues.iter().zip(bases).enumerate() {
            control.start(index, queue, base)?;
        }
        self.state = State::Running;
        for queue in &self.queues {
            // What was made available in the meantime had nobody to be kicked.
            link::signal(&queue.events().kick)?;
        }
        Ok(())
    }

    /// Resets the device, as a driver does that is loaded anew: stops all rings, forgets what was
    /// in flight, and starts again from nothing. A session must then begin with INIT.
    ///
    /// # Errors
    /// The back-end refused or is gone.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.stop()?;
        for queue in &mut self.queues {
            queue.reset();
        }
        self.inflight = None;
        if self.control.is_some() {
            self.state = State::Stopped(vec![0; self.queues.len()]);
        }
        self.resume()
    }

    /// Hangs up and goes on with another back-end, over `stream`, as a VMM does whose guest is not
    /// to notice that the one before is gone: the same memory, the same rings. What was in flight completes
    /// where [`Options::inflight`] was agreed on, else it is lost.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Unsupported`] where the new back-end lacks a
    /// feature that the guest uses.
    pub fn reconnect(&mut self, stream: UnixStream) -> Result<(), Error> {
        check_shared(&self.options)?;
        // A back-end may serve one connection at a time.
        if let Some(control) = &self.control {
            control.hang_up();
        }
        let control = Control::negotiate(stream, &self.options)?;
        if control.features() != self.features {
            return Err(Error::Unsupported("feature that the one before had"));
        }
        let link = Arc::new(Link::new(Some(control.stream()?), self.options.halt_poll));
        self.control = Some(control);
        for queue in &mut self.queues {
            queue.set_link(Arc::clone(&link));
        }
        let bases = self.queues.iter().map(|queue| queue.ring().used_index());
        self.state = State::Stopped(bases.collect());
        self.resume()
    }
}

fn check(options: &Options) -> Result<(), Error> {
    if options.request_queues == 0 {
        return Err(Error::Options("a device has at least one request queue"));
    }
    if !options.queue_size.is_power_of_two() || options.queue_size > MAX_QUEUE_SIZE {
        return Err(Error::Options(
            "the size of a queue is a power of two, at most 32768",
        ));
    }
    if !(1..=MAX_REGIONS).contains(&options.memory_regions) {
        return Err(Error::Options("there are 1 to 8 regions of memory"));
    }
    if options.backing == Backing::Private && options.memory_regions != 1 {
        return Err(Error::Options("private memory is one region"));
    }
    Ok(())
}

/// Checks that a daemon can have the memory.
fn check_shared(options: &Options) -> Result<(), Error> {
    match options.backing {
        Backing::Shared => Ok(()),
        Backing::Private => Err(Error::Options("a daemon can map shared memory only")),
    }
}

/// Where everything lies in the memory: per queue its ring, its slots' buffers and its pages.
#[derive(Debug)]
struct Plan {
    /// Each with its number of pages.
    queues: Vec<(RingLayout, usize)>,
    regions: Vec<usize>,
    size: usize,
}

impl Plan {
    fn new(options: &Options) -> Self {
        let size = options.queue_size;
        let data = options.data_memory.div_ceil(PAGE).max(LEAST_PAGES);
        let mut queues = Vec::new();
        let mut end = 0;
        for index in 0..=options.request_queues {
            let layout = RingLayout::new(end, size);
            let pages = match usize::from(index) {
                HIPRIO => HIPRIO_PAGES,
                _ => data,
            };
            end = layout.end() + Buffers::len(size, pages);
            queues.push((layout, pages));
        }
        // A ring lies in one region, as with every driver; pages go to all of them in turn, those
        // of the last queue that are used first.
        let pages = end - data * PAGE;
        let later = (1..options.memory_regions).map(|n| pages + n * REGION_PAGES * PAGE);
        Self {
            queues,
            regions: std::iter::once(0).chain(later).collect(),
            size: end,
        }
    }
}

fn build_queues(
    options: &Options,
    plan: &Plan,
    features: RingFeatures,
    link: Arc<Link>,
) -> Result<(Arc<Memory>, Vec<Queue>), Error> {
    let size = options.queue_size;
    let memory = Arc::new(Memory::new(plan.size, options.backing)?);
    let context = QueueContext {
        memory: Arc::clone(&memory),
        link,
        // 0 names notifications.
        uniques: Arc::new(AtomicU64::new(2)),
        interrupt_delay: options.interrupt_delay,
        timeout: options.timeout,
    };
    let queues = plan
        .queues
        .iter()
        .map(|(layout, pages)| {
            let buffers = Buffers::new(Arc::clone(&memory), layout.end(), size, *pages);
            let ring = Ring::new(Arc::clone(&memory), layout.clone(), features);
            Ok(Queue::new(context.clone(), ring, buffers, events()?))
        })
        .collect::<Result<_, Error>>()?;
    Ok((memory, queues))
}

fn events() -> Result<Events, Error> {
    let new = || EventFd::new(EFD_NONBLOCK).map_err(Error::io("create an eventfd"));
    Ok(Events {
        kick: new()?,
        call: new()?,
        error: new()?,
    })
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("config", &self.config)
            .field("state", &self.state)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_back_end_that_never_answers_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let options = Options {
            timeout: Duration::from_millis(10),
            ..Options::default()
        };
        let result = Connection::from_stream(ours, &options);
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    }

    #[test]
    fn a_back_end_that_hangs_up_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let result = Connection::from_stream(ours, &Options::default());
        assert!(matches!(result, Err(Error::VhostUser { .. })), "{result:?}");
    }

    #[test]
    fn options_that_no_device_can_have_are_refused() {
        for options in [
            Options {
                request_queues: 0,
                ..Options::default()
            },
            Options {
                queue_size: 100,
                ..Options::default()
            },
            Options {
                memory_regions: 9,
                ..Options::default()
            },
            Options {
                backing: Backing::Private,
                memory_regions: 2,
                ..Options::default()
            },
        ] {
            assert!(matches!(check(&options), Err(Error::Options(_))));
        }
    }
}
