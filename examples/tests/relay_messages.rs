//! What front-ends may say to the relay: nonsense, and messages that are well-formed in orders that no
//! VMM has. It goes on with the next front-end, and so does the daemon behind it.

#![forbid(unsafe_code)]

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use fuse_wire::NodeId;
use support::Daemon;
use tempfile::TempDir;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_fs_guest::{Connection, MountOptions, Options};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// More than anything here takes, less than the time-outs of the device.
const LONG: Duration = Duration::from_secs(20);

/// A relay, its daemon, and the directory of both.
fn relay() -> (Daemon, Daemon, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let [daemon, relay] = ["daemon", "relay"].map(|name| directory.path().join(name));
    let options: [&str; 0] = [];
    let daemon = Daemon::start(&daemon, directory.path(), &options);
    let relay = Daemon::relay(&relay, daemon.socket(), &[]);
    (relay, daemon, directory)
}

/// A driver works with the relay, by a connection of its own.
fn works(relay: &Daemon) {
    let options = Options {
        timeout: LONG,
        ..Options::default()
    };
    let connection = Connection::connect(relay.socket(), &options).unwrap();
    let mut mount = connection.mount(&MountOptions::default()).unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn nonsense_ends_the_connection() {
    let (mut relay, _daemon, _directory) = relay();
    // Request, flags, size, body.
    let messages: [&[u32]; 6] = [
        &[!0, !0, !0, !0],
        // SET_FEATURES of all there are.
        &[2, 1, 8, !0, !0],
        // SET_VRING_NUM of a queue that is not there, and of more than it can have.
        &[8, 1, 8, 77, 128],
        &[8, 1, 8, 0, !0],
        // SET_VRING_ADDR without memory.
        &[9, 1, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // SET_VRING_KICK without an eventfd.
        &[12, 1, 8, 0x100, 0],
    ];
    for message in messages {
        let mut stream = connect(relay.socket());
        let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_ne_bytes()).collect();
        stream.write_all(&bytes).unwrap();
        // It hangs up, with or without what is left to read.
        let end = stream.read(&mut [0; 100]);
        assert!(!matches!(end, Ok(1..)), "{message:x?}: {end:?}");
        assert!(!matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock));
    }
    works(&relay);
    assert!(relay.is_running());
}

#[test]
fn messages_may_come_in_any_order() {
    const FRONT_ENDS: u64 = 150;
    const MESSAGES: usize = 60;
    let (mut relay, mut daemon, _directory) = relay();
    let mut said = 0;
    for seed in 1..=FRONT_ENDS {
        let mut front_end = FrontEnd::connect(&relay, seed);
        // One that is refused ends the connection.
        said += (0..MESSAGES)
            .take_while(|_| front_end.say_something())
            .count();
        drop(front_end);
        if seed % 10 == 0 {
            works(&relay);
        }
    }
    println!("{said} messages were taken");
    assert!(said > 5000, "{said}");
    assert!(relay.is_running() && daemon.is_running());
}

/// Says what a front-end can say, at random.
struct FrontEnd {
    frontend: Frontend,
    features: u64,
    file: File,
    /// Whether both regions of memory are there.
    both: bool,
    event: EventFd,
    random: u64,
}

const EVENT_IDX: u64 = 1 << 29;
const REGION: u64 = 1 << 20;
/// Where the front-end says that it has the guest's memory.
const USER: u64 = 0x7000_0000;

impl FrontEnd {
    fn connect(relay: &Daemon, seed: u64) -> Self {
        let mut frontend = Frontend::from_stream(connect(relay.socket()), 2);
        let features = frontend.get_features().unwrap();
        frontend.set_owner().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE;
        frontend.set_protocol_features(protocol & wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * REGION).unwrap();
        let new = Self {
            frontend,
            features,
            file,
            both: false,
            event: EventFd::new(EFD_NONBLOCK).unwrap(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        new.frontend.set_features(features).unwrap();
        new.frontend.set_mem_table(&[new.region(0)]).unwrap();
        new
    }

    /// Returns whether it was taken.
    fn say_something(&mut self) -> bool {
        let queue = usize::from(self.below(2) == 1);
        let features = self.features;
        let two = [self.region(0), self.region(1)];
        let addresses = self.addresses();
        let base = [0, 0, 1, 65_535][self.below(4)];
        let size = [1, 3, 64, 1024][self.below(4)];
        let message = self.below(18);
        let frontend = &mut self.frontend;
        match message {
            0 => frontend.set_features(features).is_ok(),
            1 => frontend.set_features(features & !EVENT_IDX).is_ok(),
            2 | 3 => {
                self.both = message == 3;
                let table = if self.both { &two[..] } else { &two[..1] };
                frontend.set_mem_table(table).is_ok()
            }
            4 | 5 => {
                self.both = !self.both;
                match self.both {
                    true => frontend.add_mem_region(&two[1]).is_ok(),
                    false => frontend.remove_mem_region(&two[1]).is_ok(),
                }
            }
            6 => frontend.set_vring_num(queue, size).is_ok(),
            7 | 8 => frontend.set_vring_addr(queue, &addresses).is_ok(),
            9 => frontend.set_vring_base(queue, base).is_ok(),
            10 | 11 => frontend.set_vring_kick(queue, &self.event).is_ok(),
            12 => frontend.set_vring_call(queue, &self.event).is_ok(),
            13 => frontend.set_vring_err(queue, &self.event).is_ok(),
            14 => frontend.set_vring_enable(queue, false).is_ok(),
            15 => frontend.set_vring_enable(queue, true).is_ok(),
            16 => frontend.reset_device().is_ok(),
            _ => frontend.get_vring_base(queue).is_ok(),
        }
    }

    fn region(&self, index: u64) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: index * REGION,
            memory_size: REGION,
            userspace_addr: USER + index * REGION,
            mmap_offset: index * REGION,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Where a ring can be; at the last place a large one reaches into memory that is not there.
    fn addresses(&mut self) -> VringConfigData {
        let regions = if self.both { 2 } else { 1 };
        let near_end = regions * REGION - 0xc000;
        let at = USER + [0, 0x10_000, near_end, near_end + 0x3000][self.below(4)];
        VringConfigData {
            queue_max_size: 1024,
            queue_size: 1024,
            flags: 0,
            desc_table_addr: at,
            avail_ring_addr: at + 0x4000,
            used_ring_addr: at + 0x8000,
            log_addr: None,
        }
    }

    /// The next number below `limit`, by xorshift64.
    fn below(&mut self, limit: u64) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit).unwrap()
    }
}
