use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::channel::Deadline;
use super::dirty_log::DirtyLog;
use super::inflight::Inflight;
use super::kicks;
use super::regions::Region;
use super::session::{Ring, Session};
use super::wire::protocol;
use crate::saved::QueueState;
use crate::{Error, Event, GuestSpace};

/// What is said to daemons, one at a time: by the VMM's calls while there is one, by the monitor to
/// the one that comes next.
///
/// It is behind a lock that is held for as long as it takes to say it, which the deadlines bound: in
/// between, a daemon would be half set up.
#[derive(Debug)]
pub(super) struct Control<M> {
    /// The daemon, while it is there.
    pub(super) session: Option<Session>,
    /// What the driver has set up.
    pub(super) active: Option<Active<M>>,
    pub(super) logging: Logging,
}

/// Whether pages are noted that are written.
#[derive(Debug)]
pub(super) enum Logging {
    /// They are not.
    Off,
    /// They are to be, as soon as there is memory of which they could be.
    Wanted,
    /// They are. It outlives what the driver sets up: what was noted then is still to be taken.
    On(DirtyLog),
}

/// A device in use: all that the next daemon has to be told.
#[derive(Debug)]
pub(super) struct Active<M> {
    pub(super) features: u64,
    pub(super) memory: M,
    pub(super) rings: Vec<Served>,
    /// As many queues as the device has, and the largest of them.
    pub(super) shape: (u16, u16),
    pub(super) inflight: Option<Inflight>,
    /// Whether the queues are to be served.
    pub(super) running: bool,
    /// Whether a daemon has ever been told to serve them, or what they were before: it then knows more
    /// than what is here.
    pub(super) begun: bool,
}

/// A ring and how far it has got.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) ring: Ring,
    /// Where to go on; only the ring itself says so when a daemon is lost that was serving it.
    pub(super) base: Option<u16>,
}

/// Offset of `idx` in the available ring and in the used ring (virtio 1.x, sections 2.7.6 and 2.7.8).
const IDX: u64 = 2;

impl<M: GuestSpace> Active<M> {
    /// Tells a daemon that knows nothing yet.
    pub(super) fn tell(
        &mut self,
        session: &mut Session,
        logging: &mut Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let regions = Region::all(&*self.memory.memory())?;
        session.check_regions(&regions)?;
        session.set_features(self.features, false, deadline)?;
        session.set_regions(regions, deadline)?;
        self.start_log(session, logging, deadline)?;
        if self.running {
            self.start(session, logging, deadline)?;
        }
        Ok(())
    }

    /// Has the daemon note pages, where that is wanted: all those that there are now.
    pub(super) fn start_log(
        &self,
        session: &Session,
        logging: &mut Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if let Logging::Off = logging {
            return Ok(());
        }
        let regions = Region::all(&*self.memory.memory())?;
        let covered = matches!(logging, Logging::On(log) if log.covers(&regions));
        logging.follow(&regions);
        let small = match covered {
            true => None,
            false => Some(std::mem::replace(
                logging,
                Logging::On(DirtyLog::new(&regions)?),
            )),
        };
        let Logging::On(log) = logging else {
            return Ok(());
        };
        let given = log.give(session, deadline);
        // Also what a daemon noted that is lost.
        if let Some(Logging::On(small)) = small {
            log.merge(&small);
        }
        given?;
        session.set_features(self.features, true, deadline)
    }

    /// Sets anew where the rings are, and whether their own pages are noted.
    pub(super) fn readdress(
        &self,
        session: &Session,
        logging: &Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        for served in &self.rings {
            session.set_ring_addresses(&served.ring, logging.is_on(), deadline)?;
        }
        session.settle(deadline)
    }

    /// Has all rings served, each from where it had got to.
    pub(super) fn start(
        &mut self,
        session: &Session,
        logging: &Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if session.has(protocol::INFLIGHT_SHMFD) {
            let inflight = match self.inflight.take() {
                Some(inflight) => inflight,
                None => session.new_inflight(self.shape.0, self.shape.1, deadline)?,
            };
            session.set_inflight(self.inflight.insert(inflight), deadline)?;
        }
        self.begun = true;
        for served in &mut self.rings {
            served.start(&self.memory, session, logging, deadline)?;
        }
        session.settle(deadline)?;
        let kicks: Vec<_> = self.rings.iter().map(Served::kick).collect();
        kicks::signal_all(&kicks)
    }

    /// Has one ring more served, beside those that are.
    pub(super) fn start_one(
        &mut self,
        index: u16,
        session: &Session,
        logging: &Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let Some(served) = find(&mut self.rings, index) else {
            return Err(Error::Queue(index));
        };
        served.start(&self.memory, session, logging, deadline)?;
        session.settle(deadline)?;
        kicks::signal_all(&[served.kick()])
    }

    /// The ring of queue `index`.
    pub(super) fn served(&mut self, index: u16) -> Result<&mut Served, Error> {
        find(&mut self.rings, index).ok_or(Error::Queue(index))
    }

    /// Forgets the ring of queue `index`.
    pub(super) fn take(&mut self, index: u16) -> Result<Served, Error> {
        let mut rings = self.rings.iter();
        let at = rings.position(|served| served.ring.index == index);
        at.map(|at| self.rings.remove(at))
            .ok_or(Error::Queue(index))
    }

    /// Where each ring is, and has got to; all are stopped.
    ///
    /// # Errors
    /// Nobody has stopped them in order: which requests are in flight is in the daemon's record only.
    pub(super) fn positions(&self) -> Result<Vec<QueueState>, Error> {
        let position = |served: &Served| {
            let in_flight = "requests are in flight that a daemon left: resume the device first";
            Ok(QueueState {
                index: served.ring.index,
                ring: served.ring.addresses,
                next_avail: served.base.ok_or(Error::State(in_flight))?,
            })
        };
        self.rings.iter().map(position).collect()
    }

    /// Whether nothing is in flight: the driver was given back all that it made available, or the rings
    /// were stopped in order. Says no where that cannot be seen.
    pub(super) fn is_idle(&self) -> bool {
        self.rings.iter().all(|served| {
            let given_back = || {
                let used = used_idx(&self.memory, &served.ring).ok()?;
                Some(used == avail_idx(&self.memory, &served.ring).ok()?)
            };
            served.base.is_some() || given_back().unwrap_or(false)
        })
    }

    /// Has no ring served any more, and notes where each had got to.
    pub(super) fn stop(&mut self, session: &Session, deadline: Deadline) -> Result<(), Error> {
        for served in &mut self.rings {
            served.base = Some(session.stop_ring(served.ring.index, deadline)?);
        }
        session.settle(deadline)?;
        self.running = false;
        Ok(())
    }
}

impl Logging {
    /// The guest's memory is in these regions from now on.
    pub(super) fn follow(&mut self, regions: &[Region]) {
        if let Self::On(log) = self {
            log.follow(regions);
        }
    }

    const fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

impl Served {
    /// Has it served from where it had got to.
    fn start<M: GuestSpace>(
        &mut self,
        memory: &M,
        session: &Session,
        logging: &Logging,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let base = match self.base.take() {
            Some(base) => base,
            None => used_idx(memory, &self.ring)?,
        };
        session.start_ring(&self.ring, base, logging.is_on(), deadline)
    }

    /// To be signalled once it is served: what was made available while nobody looked may have had
    /// its kick taken.
    const fn kick(&self) -> &Event {
        &self.ring.kick
    }
}

fn find(rings: &mut [Served], index: u16) -> Option<&mut Served> {
    rings.iter_mut().find(|served| served.ring.index == index)
}

/// How much the driver was given back. What a daemon had taken beyond that it kept a record of.
pub(super) fn used_idx<M: GuestSpace>(memory: &M, ring: &Ring) -> Result<u16, Error> {
    idx(memory, ring.addresses.used, "read a queue's used ring")
}

/// How much the driver has made available.
fn avail_idx<M: GuestSpace>(memory: &M, ring: &Ring) -> Result<u16, Error> {
    idx(
        memory,
        ring.addresses.avail,
        "read a queue's available ring",
    )
}

fn idx<M: GuestSpace>(memory: &M, ring: GuestAddress, doing: &'static str) -> Result<u16, Error> {
    let at = GuestAddress(ring.0.saturating_add(IDX));
    let idx = memory.memory().load(at, Ordering::Acquire);
    idx.map(u16::from_le)
        .map_err(|error| Error::io(doing)(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::{Event, RingAddresses};

    const AVAIL: u64 = 0x1000;
    const USED: u64 = 0x2000;

    fn active(base: Option<u16>) -> Active<Arc<GuestMemoryMmap>> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap();
        let event = Event::new().unwrap();
        let ring = Ring {
            index: 0,
            addresses: RingAddresses {
                size: 64,
                descriptors: GuestAddress(0),
                avail: GuestAddress(AVAIL),
                used: GuestAddress(USED),
            },
            kick: event.clone(),
            call: event.clone(),
            error: event,
        };
        Active {
            features: 0,
            memory: Arc::new(memory),
            rings: vec![Served { ring, base }],
            shape: (1, 64),
            inflight: None,
            running: true,
            begun: true,
        }
    }

    #[test]
    fn rings_say_whether_anything_is_in_flight() {
        let served = active(None);
        for (avail, used) in [(0, 0), (7, 7), (7, 6), (0, u16::MAX), (u16::MAX, 0)] {
            for (ring, idx) in [(AVAIL, avail), (USED, used)] {
                let at = GuestAddress(ring + IDX);
                served.memory.write_obj(u16::to_le(idx), at).unwrap();
            }
            assert_eq!(served.is_idle(), avail == used, "{avail} {used}");
        }
        // Nobody had taken what was made available since it was stopped.
        let stopped = active(Some(0));
        stopped
            .memory
            .write_obj(1u16.to_le(), GuestAddress(AVAIL + IDX))
            .unwrap();
        assert!(stopped.is_idle());
        // What cannot be seen.
        let mut elsewhere = active(None);
        elsewhere.rings[0].ring.addresses.used = GuestAddress(u64::MAX);
        assert!(!elsewhere.is_idle());
    }
}
