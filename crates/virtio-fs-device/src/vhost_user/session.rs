use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use virtio_fs_config::{CONFIG_LEN, ConfigSpace, EVENT_IDX, INDIRECT_DESC, VERSION_1};

use super::back_channel::BackChannel;
use super::channel::{Channel, Deadline};
use super::options::VhostUser;
use super::regions::Region;
use super::wire::{CONFIG_HEAD, Fields, LOG_ALL, Message, PROTOCOL_FEATURES, Request, protocol};
use crate::{Error, Event, RingAddresses, window};

/// The virtio features that mean the same whoever serves the rings, and nothing to the transport.
const RELAYED: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC;
/// The protocol features that are used here.
const USED: u64 = protocol::MQ
    | protocol::LOG_SHMFD
    | protocol::REPLY_ACK
    | protocol::CONFIG
    | protocol::INFLIGHT_SHMFD
    | protocol::RESET_DEVICE
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::DEVICE_STATE;
/// Those without which a daemon has no use for a DAX window, and used where there is one.
const WINDOW: u64 = protocol::REPLY_ACK | protocol::BACKEND_REQ | protocol::SHMEM;
/// Most regions that every daemon takes, and most that are announced at once.
const BASELINE_REGIONS: usize = 8;

/// A daemon that is connected, and what was agreed on with it. A method per message, or per group of
/// messages that belong together.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    /// What it offers of [`RELAYED`], and whether it notes pages.
    features: u64,
    protocol: u64,
    queues: Option<u64>,
    /// Most regions of memory.
    slots: usize,
    /// As it was told last.
    regions: Vec<Region>,
    /// Bytes of the DAX window that it wants; 0 for none.
    window: u64,
    /// Where it asks for mappings there.
    pub(super) back: Option<BackChannel>,
}

/// How a ring is to be served.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    pub(super) index: u16,
    pub(super) addresses: RingAddresses,
    pub(super) kick: Event,
    pub(super) call: Event,
    /// Signalled by a daemon that finds the ring broken.
    pub(super) error: Event,
}

impl Session {
    /// Agrees with the daemon at the other end of `stream` on what is used.
    pub(super) fn negotiate(
        stream: UnixStream,
        stop: Event,
        options: &VhostUser,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let mut session = Self {
            channel: Channel::new(Arc::new(stream), stop),
            features: 0,
            protocol: 0,
            queues: None,
            slots: BASELINE_REGIONS,
            regions: Vec::new(),
            window: 0,
            back: None,
        };
        let offered = session.ask_number(
            Request::GetFeatures,
            deadline.to("read the daemon's features"),
        )?;
        let needed = PROTOCOL_FEATURES | VERSION_1;
        if needed & !offered != 0 {
            return Err(Error::MissingFeatures(needed & !offered));
        }
        session.features = offered & (RELAYED | LOG_ALL);
        session.negotiate_protocol(options.window.is_some(), deadline)?;
        if session.has(protocol::SHMEM) {
            session.negotiate_window(options.timeouts.message, deadline)?;
        }
        let message = Message::new(Request::SetOwner);
        session
            .channel
            .tell(&message, &[], deadline.to("become the daemon's owner"))?;
        Ok(session)
    }

    fn negotiate_protocol(&mut self, window: bool, deadline: Deadline) -> Result<(), Error> {
        let doing = "read the daemon's protocol features";
        let offered = self.ask_number(Request::GetProtocolFeatures, deadline.to(doing))?;
        self.protocol = match window && offered & WINDOW == WINDOW {
            true => offered & (USED | WINDOW),
            false => offered & USED,
        };
        let message = Message::new(Request::SetProtocolFeatures).u64(self.protocol);
        self.channel
            .tell(&message, &[], deadline.to("set the protocol features"))?;
        if self.has(protocol::REPLY_ACK) {
            self.channel.acknowledge();
        }
        if self.has(protocol::MQ) {
            let doing = "read the daemon's number of queues";
            self.queues = Some(self.ask_number(Request::GetQueueNum, deadline.to(doing))?);
        }
        if self.has(protocol::CONFIGURE_MEM_SLOTS) {
            let doing = "read the daemon's number of memory slots";
            let slots = self.ask_number(Request::GetMaxMemSlots, deadline.to(doing))?;
            self.slots = usize::try_from(slots).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    /// Asks how large a window it wants, and says where it is to ask for mappings.
    fn negotiate_window(&mut self, limit: Duration, deadline: Deadline) -> Result<(), Error> {
        let request = Request::GetShmemConfig;
        let asking = deadline
            .to("read the daemon's shared memory regions")
            .at(request);
        let message = Message::new(request);
        let reply = self.channel.ask(&message, &[], asking)?;
        let body = reply.body;
        let mut fields = Fields::new(&body);
        let (regions, _, size) = (fields.u32(), fields.u32(), fields.u64());
        if regions > 256 {
            return Err(asking.broken("there are more than 256"));
        }
        if !window::is_of_pages(size) {
            return Err(asking.broken("the first is not of whole pages"));
        }
        if size > 0 {
            let (back, theirs) = BackChannel::new(limit)?;
            let message = Message::new(Request::SetBackendReqFd);
            let doing = "give the daemon a channel for its requests";
            self.channel
                .tell(&message, &[theirs.as_fd()], deadline.to(doing))?;
            self.back = Some(back);
        }
        self.window = size;
        Ok(())
    }

    /// Bytes of the DAX window that it wants; 0 for none.
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// Whether a protocol feature was agreed on.
    pub(super) const fn has(&self, feature: u64) -> bool {
        self.protocol & feature != 0
    }

    /// The features that the driver may be offered.
    pub(super) const fn features(&self) -> u64 {
        self.features & RELAYED
    }

    /// Most regions of memory that it takes.
    pub(super) const fn slots(&self) -> usize {
        self.slots
    }

    /// Whether it can say which pages it writes.
    pub(super) const fn logs(&self) -> bool {
        self.has(protocol::LOG_SHMFD) && self.features & LOG_ALL != 0
    }

    /// Whether it offers all that `before` did.
    pub(super) fn can_replace(&self, before: Agreed) -> Result<(), Error> {
        if before.features & !self.features != 0 {
            return Err(Error::Changed("it lacks features that the last one had"));
        }
        if before.protocol & !self.protocol != 0 {
            return Err(Error::Changed(
                "it lacks protocol features that the last one had",
            ));
        }
        if before.window > self.window {
            return Err(Error::Changed("it wants a smaller DAX window"));
        }
        Ok(())
    }

    /// What was agreed on.
    pub(super) const fn agreed(&self) -> Agreed {
        Agreed {
            features: self.features,
            protocol: self.protocol,
            window: self.window,
        }
    }

    /// Checks that it serves so many queues.
    pub(super) fn check_queues(&self, wanted: u16) -> Result<(), Error> {
        match self.queues {
            Some(there) if there < wanted.into() => Err(Error::TooManyQueues { wanted, there }),
            // Without MQ there are hiprio and one more, by convention.
            None if wanted > 2 => Err(Error::TooManyQueues { wanted, there: 2 }),
            _ => Ok(()),
        }
    }

    /// The configuration space, where it has one.
    pub(super) fn config_space(&self, deadline: Deadline) -> Result<Option<ConfigSpace>, Error> {
        if !self.has(protocol::CONFIG) {
            return Ok(None);
        }
        const LEN: u32 = CONFIG_LEN as u32;
        let deadline = deadline
            .to("read the daemon's configuration space")
            .at(Request::GetConfig);
        let message = Message::new(Request::GetConfig)
            .u32(0)
            .u32(LEN)
            .u32(0)
            .bytes(&[0; CONFIG_LEN]);
        let reply = self.channel.ask(&message, &[], deadline)?;
        let body = reply.body;
        let mut fields = Fields::new(&body);
        let bytes = body.get(CONFIG_HEAD..).unwrap_or_default();
        match (fields.u32(), fields.u32(), bytes.try_into()) {
            (0, LEN, Ok(bytes)) => ConfigSpace::parse(bytes)
                .map(Some)
                .map_err(Error::ConfigSpace),
            _ => Err(deadline.broken("it is another part of it")),
        }
    }

    /// Sets what the driver accepted, and whether written pages are noted.
    pub(super) fn set_features(
        &self,
        features: u64,
        logging: bool,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let log = if logging { LOG_ALL } else { 0 };
        let message = Message::new(Request::SetFeatures).u64(features | PROTOCOL_FEATURES | log);
        self.channel
            .tell(&message, &[], deadline.to("set the features"))
    }

    /// Announces all of the guest's memory.
    pub(super) fn set_regions(
        &mut self,
        regions: Vec<Region>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.check_regions(&regions)?;
        let first = regions.get(..BASELINE_REGIONS).unwrap_or(&regions);
        let count = u32::try_from(first.len()).unwrap_or(u32::MAX);
        let table = Message::new(Request::SetMemTable).u32(count).u32(0);
        let table = first
            .iter()
            .fold(table, |table, region| region.describe(table));
        let files: Vec<_> = first.iter().map(Region::file).collect();
        self.channel
            .tell(&table, &files, deadline.to("announce the guest's memory"))?;
        for region in regions.iter().skip(BASELINE_REGIONS) {
            self.add_region(region, deadline)?;
        }
        self.regions = regions;
        Ok(())
    }

    /// Announces what changed of the guest's memory.
    pub(super) fn update_regions(
        &mut self,
        regions: Vec<Region>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if !self.has(protocol::CONFIGURE_MEM_SLOTS) {
            return self.set_regions(regions, deadline);
        }
        self.check_regions(&regions)?;
        let gone = |old: &&Region| !regions.iter().any(|new| new.is(old));
        for old in self.regions.iter().filter(gone) {
            let message = old.describe(Message::new(Request::RemMemReg).u64(0));
            self.channel
                .tell(&message, &[], deadline.to("take memory from the daemon"))?;
        }
        let new = |new: &&Region| !self.regions.iter().any(|old| old.is(new));
        for region in regions.iter().filter(new) {
            self.add_region(region, deadline)?;
        }
        self.regions = regions;
        Ok(())
    }

    /// Checks that it takes so many.
    pub(super) fn check_regions(&self, regions: &[Region]) -> Result<(), Error> {
        match regions.len() {
            there if !(1..=self.slots).contains(&there) => Err(Error::Regions {
                there,
                most: self.slots,
            }),
            _ => Ok(()),
        }
    }

    fn add_region(&self, region: &Region, deadline: Deadline) -> Result<(), Error> {
        let message = region.describe(Message::new(Request::AddMemReg).u64(0));
        self.channel.tell(
            &message,
            &[region.file()],
            deadline.to("give memory to the daemon"),
        )
    }

    /// Has a ring served from entry `base` of the available ring on.
    pub(super) fn start_ring(
        &self,
        ring: &Ring,
        base: u16,
        logging: bool,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let index = u32::from(ring.index);
        let size = u32::from(ring.addresses.size);
        let message = Message::new(Request::SetVringNum).u32(index).u32(size);
        self.channel
            .tell(&message, &[], deadline.to("set a queue's size"))?;
        self.set_ring_addresses(ring, logging, deadline)?;
        let message = Message::new(Request::SetVringBase)
            .u32(index)
            .u32(base.into());
        self.channel
            .tell(&message, &[], deadline.to("set where a queue begins"))?;
        self.set_ring_call(ring, deadline)?;
        let message = Message::new(Request::SetVringErr).u64(index.into());
        self.channel.tell(
            &message,
            &[ring.error.as_fd()],
            deadline.to("set a queue's error"),
        )?;
        let message = Message::new(Request::SetVringKick).u64(index.into());
        self.channel.tell(
            &message,
            &[ring.kick.as_fd()],
            deadline.to("set a queue's kick"),
        )?;
        let message = Message::new(Request::SetVringEnable).u32(index).u32(1);
        self.channel
            .tell(&message, &[], deadline.to("enable a queue"))
    }

    /// Has something else signalled when a ring has used buffers. After this the event before is not.
    pub(super) fn change_ring_call(&self, ring: &Ring, deadline: Deadline) -> Result<(), Error> {
        self.set_ring_call(ring, deadline)?;
        self.settle(deadline)
    }

    fn set_ring_call(&self, ring: &Ring, deadline: Deadline) -> Result<(), Error> {
        let message = Message::new(Request::SetVringCall).u64(ring.index.into());
        let deadline = deadline.to("set a queue's call");
        self.channel.tell(&message, &[ring.call.as_fd()], deadline)
    }

    /// Sets where a ring is, and whether its own pages are noted when they are written.
    pub(super) fn set_ring_addresses(
        &self,
        ring: &Ring,
        logging: bool,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let RingAddresses {
            descriptors,
            avail,
            used,
            ..
        } = ring.addresses;
        let message = Message::new(Request::SetVringAddr)
            .u32(ring.index.into())
            .u32(logging.into())
            .u64(descriptors.0)
            .u64(used.0)
            .u64(avail.0)
            .u64(used.0);
        self.channel
            .tell(&message, &[], deadline.to("set a queue's addresses"))
    }

    /// Has a ring served no more, waits for what is in flight, and returns where it is to go on.
    ///
    /// It is disabled first: vhost-user-backend 0.2x, which other daemons are built on, has its
    /// threads still look at a ring that it stops, and find that it is none.
    pub(super) fn stop_ring(&self, index: u16, deadline: Deadline) -> Result<u16, Error> {
        let deadline = deadline.to("stop a queue");
        let message = Message::new(Request::SetVringEnable)
            .u32(index.into())
            .u32(0);
        self.channel.tell(&message, &[], deadline)?;
        let message = Message::new(Request::GetVringBase).u32(index.into()).u32(0);
        let deadline = deadline.at(message.request);
        let reply = self.channel.ask(&message, &[], deadline)?;
        let body = reply.body;
        let mut fields = Fields::new(&body);
        let (which, base) = (fields.u32(), fields.u32());
        if which != u32::from(index) {
            return Err(deadline.broken("it is another queue's"));
        }
        u16::try_from(base).map_err(|_| deadline.broken("there is no such entry"))
    }

    /// Resets the whole device, where the daemon can do that, and waits until that is done.
    pub(super) fn reset(&self, deadline: Deadline) -> Result<(), Error> {
        let deadline = deadline.to("reset the daemon's device");
        let message = Message::new(Request::ResetDevice);
        self.channel.tell(&message, &[], deadline)?;
        self.settle(deadline)
    }

    /// Waits until everything that it was told is done.
    pub(super) fn settle(&self, deadline: Deadline) -> Result<(), Error> {
        if self.has(protocol::REPLY_ACK) {
            return Ok(());
        }
        self.ask_number(Request::GetFeatures, deadline.to("wait for the daemon"))?;
        Ok(())
    }

    fn ask_number(&self, request: Request, deadline: Deadline) -> Result<u64, Error> {
        let reply = self.channel.ask(&Message::new(request), &[], deadline)?;
        let body = reply.body;
        Ok(Fields::new(&body).u64())
    }
}

impl Drop for Session {
    /// What is shared with the monitor keeps the socket open: the daemon is to know nevertheless.
    fn drop(&mut self) {
        self.channel.hang_up();
    }
}

/// What was agreed on with a daemon, and the next one has to offer too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) features: u64,
    pub(super) protocol: u64,
    pub(super) window: u64,
}
