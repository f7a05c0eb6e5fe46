use std::fs::File;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};

use crate::Error;
use crate::connection::DeviceConfig;
use crate::memory::Memory;
use crate::options::{Offered, Options};
use crate::queue::Queue;
use crate::watchdog::Watchdog;

pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Length of `tag` in the configuration space (virtio 1.4, 5.11.4).
const TAG_LEN: usize = 36;
/// The tag and `num_request_queues`.
const CONFIG_LEN: usize = TAG_LEN + 4;

/// The vhost-user front-end: what is said over the socket, each message with a time-out.
pub(crate) struct Control {
    frontend: Frontend,
    stream: UnixStream,
    limit: Duration,
    features: u64,
    protocol_features: VhostUserProtocolFeatures,
}

/// The back-end's record of what is in flight, which the front-end keeps for the next back-end.
pub(crate) struct Inflight {
    description: VhostUserInflight,
    file: File,
}

impl Control {
    /// Negotiates features as `options` have it.
    pub(crate) fn negotiate(stream: UnixStream, options: &Options) -> Result<Self, Error> {
        let queues = u64::from(options.request_queues) + 1;
        let mut control = Self {
            frontend: Frontend::from_stream(duplicate(&stream)?, queues),
            stream,
            limit: options.timeout,
            features: 0,
            protocol_features: VhostUserProtocolFeatures::empty(),
        };
        let offered = control.send("read the features", |f| f.get_features())?;
        control.features = choose(offered, options)?;
        control.negotiate_protocol(queues, options.inflight)?;
        control.send("become the owner", |f| f.set_owner())?;
        Ok(control)
    }

    fn negotiate_protocol(&mut self, queues: u64, inflight: Offered) -> Result<(), Error> {
        let offered = self.send("read the protocol features", |f| f.get_protocol_features())?;
        let mut wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG;
        if inflight == Offered::Accept {
            wanted |= VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        }
        let accepted = offered & wanted;
        self.send("set the protocol features", |f| {
            f.set_protocol_features(accepted)
        })?;
        self.protocol_features = accepted;
        if accepted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if !accepted.contains(VhostUserProtocolFeatures::MQ) {
            // Which queues there are is then a matter of convention.
            return Ok(());
        }
        match self.send("read the number of queues", |f| f.get_queue_num())? {
            count if count < queues => Err(Error::Unsupported("as many queues")),
            _ => Ok(()),
        }
    }

    pub(crate) const fn features(&self) -> u64 {
        self.features
    }

    pub(crate) const fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.protocol_features
    }

    /// A duplicate of the socket, to notice its end by.
    pub(crate) fn stream(&self) -> Result<UnixStream, Error> {
        duplicate(&self.stream)
    }

    /// Ends the connection.
    pub(crate) fn hang_up(&self) {
        // It fails where the back-end has done so already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads the configuration space, where the back-end has it.
    pub(crate) fn config(&mut self) -> Result<Option<DeviceConfig>, Error> {
        if !self
            .protocol_features
            .contains(VhostUserProtocolFeatures::CONFIG)
        {
            return Ok(None);
        }
        let (_, bytes) = self.send("read the configuration space", |f| {
            let flags = VhostUserConfigFlags::empty();
            f.get_config(0, CONFIG_LEN as u32, flags, &[0; CONFIG_LEN])
        })?;
        let split = bytes.split_first_chunk::<TAG_LEN>();
        let Some((tag, count)) = split.and_then(|(tag, rest)| Some((tag, rest.first_chunk()?)))
        else {
            return Err(Error::Unsupported("whole configuration space"));
        };
        Ok(Some(DeviceConfig {
            tag: tag.iter().copied().take_while(|&b| b != 0).collect(),
            num_request_queues: u32::from_le_bytes(*count),
        }))
    }

    /// Settles the features and shares the memory.
    pub(crate) fn share(&mut self, memory: &Memory, regions: &[usize]) -> Result<(), Error> {
        let features = self.features;
        self.send("set the features", |f| f.set_features(features))?;
        let regions = memory.regions(regions);
        self.send("share the memory", |f| f.set_mem_table(&regions))?;
        Ok(())
    }

    /// Whether the back-end is to keep record of what is in flight.
    pub(crate) const fn tracks_inflight(&self) -> bool {
        self.protocol_features
            .contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    }

    /// Gets a fresh record of what is in flight.
    pub(crate) fn inflight(&mut self, queues: u16, queue_size: u16) -> Result<Inflight, Error> {
        let asked = VhostUserInflight::new(0, 0, queues, queue_size);
        let (description, file) = self.send("get a record of what is in flight", |f| {
            f.get_inflight_fd(&asked)
        })?;
        Ok(Inflight { description, file })
    }

    /// Hands the back-end the record of what is in flight.
    pub(crate) fn set_inflight(&mut self, inflight: &Inflight) -> Result<(), Error> {
        let file = inflight.file.as_raw_fd();
        self.send("set the record of what is in flight", |f| {
            f.set_inflight_fd(&inflight.description, file)
        })
    }

    /// Starts ring `index`, which goes on at entry `base`.
    pub(crate) fn start(&mut self, index: usize, queue: &Queue, base: u16) -> Result<(), Error> {
        let ring = queue.ring().layout();
        let memory = queue.memory();
        let addresses = VringConfigData {
            queue_max_size: ring.size,
            queue_size: ring.size,
            flags: 0,
            desc_table_addr: memory.user_address(ring.descriptors),
            used_ring_addr: memory.user_address(ring.used),
            avail_ring_addr: memory.user_address(ring.available),
            log_addr: None,
        };
        let events = queue.events();
        self.send("set a ring's size", |f| f.set_vring_num(index, ring.size))?;
        self.send("set a ring's base", |f| f.set_vring_base(index, base))?;
        self.send("set a ring's addresses", |f| {
            f.set_vring_addr(index, &addresses)
        })?;
        self.send("set a ring's error eventfd", |f| {
            f.set_vring_err(index, &events.error)
        })?;
        self.send("set a ring's call eventfd", |f| {
            f.set_vring_call(index, &events.call)
        })?;
        self.send("set a ring's kick eventfd", |f| {
            f.set_vring_kick(index, &events.kick)
        })?;
        self.send("enable a ring", |f| f.set_vring_enable(index, true))
    }

    /// Stops ring `index` and returns the entry at which it would go on.
    pub(crate) fn stop(&mut self, index: usize) -> Result<u16, Error> {
        self.send("disable a ring", |f| f.set_vring_enable(index, false))?;
        let base = self.send("stop a ring", |f| f.get_vring_base(index))?;
        Ok(base as u16)
    }

    /// Sends a message, and waits for its answer where it has one.
    fn send<T>(
        &mut self,
        doing: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, Error> {
        let limit = self.limit;
        let watchdog = Watchdog::new(duplicate(&self.stream)?, limit);
        message(&mut self.frontend).map_err(|source| match watchdog.expired() {
            true => Error::Timeout { doing, limit },
            false => Error::VhostUser { doing, source },
        })
    }
}

/// The features that both sides have and `options` do not withhold.
fn choose(offered: u64, options: &Options) -> Result<u64, Error> {
    if offered & VERSION_1 == 0 {
        return Err(Error::Unsupported("VIRTIO_F_VERSION_1"));
    }
    if offered & PROTOCOL_FEATURES == 0 {
        return Err(Error::Unsupported("VHOST_USER_F_PROTOCOL_FEATURES"));
    }
    let mut wanted = VERSION_1 | PROTOCOL_FEATURES;
    for (feature, choice) in [
        (EVENT_IDX, options.event_idx),
        (INDIRECT_DESC, options.indirect),
    ] {
        if choice == Offered::Accept {
            wanted |= feature;
        }
    }
    Ok(offered & wanted)
}

fn duplicate(stream: &UnixStream) -> Result<UnixStream, Error> {
    stream
        .try_clone()
        .map_err(Error::io("duplicate the socket"))
}
