//! What is in flight, as a daemon notes it (the vhost-user specification, "Inflight I/O tracking").

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::fcntl_get_seals;

use super::channel::{Deadline, Reply};
use super::session::Session;
use super::wire::{Fields, Message, Request};
use crate::Error;

/// A daemon's record of what is in flight, which the next one is given. It is never mapped here:
/// the file is the daemon's, and could be cut short at any time.
#[derive(Debug)]
pub(super) struct Inflight {
    size: u64,
    offset: u64,
    queues: u16,
    queue_size: u16,
    file: OwnedFd,
}

impl Session {
    /// Gets a fresh record of what is in flight.
    pub(super) fn new_inflight(
        &self,
        queues: u16,
        queue_size: u16,
        deadline: Deadline,
    ) -> Result<Inflight, Error> {
        let deadline = deadline
            .to("get a record of what is in flight")
            .at(Request::GetInflightFd);
        let message = Message::new(Request::GetInflightFd)
            .u64(0)
            .u64(0)
            .u16(queues)
            .u16(queue_size)
            .u32(0);
        let reply = self.channel.ask(&message, &[], deadline)?;
        Inflight::of(reply, (queues, queue_size), deadline)
    }

    /// Hands the record of what is in flight over.
    pub(super) fn set_inflight(
        &self,
        inflight: &Inflight,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let message = Message::new(Request::SetInflightFd)
            .u64(inflight.size)
            .u64(inflight.offset)
            .u16(inflight.queues)
            .u16(inflight.queue_size)
            .u32(0);
        let doing = "hand over the record of what is in flight";
        self.channel
            .tell(&message, &[inflight.file.as_fd()], deadline.to(doing))
    }
}

impl Inflight {
    /// That of so many queues of that size, as a daemon gave it.
    fn of(
        reply: Reply,
        (queues, queue_size): (u16, u16),
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let mut fields = Fields::new(&reply.body);
        match (fields.u64(), fields.u64(), reply.file) {
            (1.., _, Some(file)) if !is_in_memory(&file) => {
                Err(deadline.broken("the record is not in memory"))
            }
            (size @ 1.., offset, Some(file)) => Ok(Self {
                size,
                offset,
                queues,
                queue_size,
                file,
            }),
            _ => Err(deadline.broken("there is no record")),
        }
    }
}

/// Whether it is a file of memory only, such as a memfd. What has seals has no other file system
/// (fcntl(2)), which would be asked when it is closed and could be one that never answers.
fn is_in_memory(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::State;

    fn of(file: Option<OwnedFd>) -> Result<Inflight, Error> {
        let body = [1; 24].to_vec();
        let deadline = Deadline::after(Duration::from_secs(1), "try it", State::New);
        Inflight::of(Reply { body, file }, (2, 64), deadline)
    }

    #[test]
    fn a_record_is_in_memory() {
        let memory = memfd_create(c"record", MemfdFlags::CLOEXEC).unwrap();
        of(Some(memory)).unwrap();
        let elsewhere = std::fs::File::open("/proc/self/exe").unwrap();
        for file in [None, Some(OwnedFd::from(elsewhere))] {
            let refused = of(file);
            assert!(
                matches!(refused, Err(Error::Protocol { .. })),
                "{refused:?}"
            );
        }
    }
}
