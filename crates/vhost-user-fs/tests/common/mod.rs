//! A front-end with one queue, and filesystems for it.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod stateful;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use fuse_fs::{Blocking, Outcome, PayloadSink, PayloadSource, Serve};
use fuse_wire::abi::{InHeader, OutHeader};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_user_fs::{Backend, BackendConfig, Daemon, DaemonError, StopHandle};
use virtio_fs_queue::{Polling, Pool};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use zerocopy::IntoBytes;

/// Answers every request with success, and counts resets.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    pub(crate) resets: AtomicUsize,
}

impl Serve for Quiet {
    fn serve(
        &self,
        message: &[u8],
        _: &mut dyn PayloadSource,
        _: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        _: Blocking,
    ) -> Outcome {
        succeed(message, reply)
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn succeed(message: &[u8], reply: &mut [u8]) -> Outcome {
    let header = InHeader::peek(message).unwrap();
    reply[..16].copy_from_slice(OutHeader::success(header.unique, 0).as_bytes());
    Outcome::Reply {
        head: 16,
        payload: 0,
    }
}

pub(crate) fn config(filesystem: Arc<dyn Serve>) -> BackendConfig {
    BackendConfig {
        filesystem,
        tag: Some("myfs".parse().unwrap()),
        request_queues: Some(1),
        queue_affinity: None,
        pool: Arc::new(Pool::new(1)),
        polling: Arc::new(Polling::never()),
    }
}

/// Whether `test` has this process for itself. Where it has not, it is run in one of its own.
pub(crate) fn alone(test: &str) -> bool {
    const INNER: &str = "TEST_RUNS_ALONE";
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(INNER, "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

/// Waits until `holds`: a thread gets its name when it runs, and procfs forgets it some time after it
/// was joined.
#[track_caller]
pub(crate) fn eventually(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never holds");
        thread::yield_now();
    }
}

/// A daemon that runs until it is dropped.
pub(crate) struct Running {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    pub(crate) backend: Backend,
    pub(crate) stop: StopHandle,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
}

impl Running {
    pub(crate) fn start(config: BackendConfig) -> Self {
        Self::serve(Backend::new(config).unwrap())
    }

    pub(crate) fn serve(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = Daemon::new(backend.clone(), listener).unwrap();
        Self {
            _folder: folder,
            path,
            backend,
            stop: daemon.stop_handle(),
            thread: Some(thread::spawn(|| daemon.run())),
        }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// A front-end that negotiated.
    pub(crate) fn negotiate(&self) -> Frontend {
        negotiate(self.connect())
    }

    /// A front-end that negotiated, and a socket to say what it would not.
    pub(crate) fn negotiate_raw(&self) -> (Frontend, UnixStream) {
        let stream = self.connect();
        (negotiate(stream.try_clone().unwrap()), stream)
    }

    /// Waits for [`Daemon::run`] to return.
    pub(crate) fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

pub(crate) fn negotiate(stream: UnixStream) -> Frontend {
    let mut frontend = Frontend::from_stream(stream, 64);
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_features(features).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::all() & protocol;
    frontend.set_protocol_features(wanted).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend
}

/// Sends a message that asks for an acknowledgement, and returns whether it was a good one.
pub(crate) fn tell(mut stream: &UnixStream, request: u32, body: &[u8], files: &[RawFd]) -> bool {
    const VERSION: u32 = 1;
    const NEED_REPLY: u32 = 8;
    let header = [request, VERSION | NEED_REPLY, body.len() as u32];
    let message = [header.as_bytes(), body].concat();
    stream.send_with_fds(&[&message[..]], files).unwrap();
    let mut reply = [0; 20];
    stream.read_exact(&mut reply).is_ok() && reply[12..] == [0; 8]
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

/// Where the guest's memory is in the front-end, as it says.
pub(crate) const USER: u64 = 0x7000_0000;
pub(crate) const LEN: u64 = 0x10_0000;
pub(crate) const SIZE: u16 = 16;

/// The guest: memory, and one queue in it at `base`.
pub(crate) struct Guest {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) file: File,
    pub(crate) base: u64,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let range = (GuestAddress(0), LEN as usize, Some(offset));
        Self {
            memory: GuestMemoryMmap::from_ranges_with_files([range]).unwrap(),
            file,
            base: 0,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(0).unwrap(),
        }
    }

    pub(crate) fn give_memory(&self, frontend: &Frontend) {
        frontend.set_mem_table(&[self.region()]).unwrap();
    }

    /// All of its memory.
    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: LEN,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Sets queue `index` up to start at `next_avail`, and enables it.
    pub(crate) fn set_up(&self, frontend: &mut Frontend, index: usize, next_avail: u16) {
        frontend.set_vring_num(index, SIZE).unwrap();
        self.set_addresses(frontend, index);
        frontend.set_vring_base(index, next_avail).unwrap();
        frontend.set_vring_call(index, &self.call).unwrap();
        frontend.set_vring_kick(index, &self.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
    }

    pub(crate) fn set_addresses(&self, frontend: &Frontend, index: usize) {
        let area = |offset| USER + self.base + offset;
        let addresses = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: area(0),
            avail_ring_addr: area(0x1000),
            used_ring_addr: area(0x2000),
            log_addr: None,
        };
        frontend.set_vring_addr(index, &addresses).unwrap();
    }

    pub(crate) fn put<T: vm_memory::ByteValued>(&self, offset: u64, value: T) {
        let address = GuestAddress(self.base + offset);
        self.memory.write_obj(value, address).unwrap();
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.memory
            .read_obj(GuestAddress(self.base + 0x2002))
            .unwrap()
    }

    /// What a driver does to its rings before it uses them for the first time.
    pub(crate) fn clear_rings(&self) {
        for offset in [0x1000, 0x2000] {
            let ring = GuestAddress(self.base + offset);
            self.memory.write_slice(&[0; 0x100], ring).unwrap();
        }
    }

    pub(crate) fn avail_idx(&self) -> u16 {
        self.memory
            .read_obj(GuestAddress(self.base + 0x1002))
            .unwrap()
    }

    /// Offers a request in descriptors 0 and 1, and kicks.
    pub(crate) fn offer(&self) {
        self.offer_silently();
        self.kick.write(1).unwrap();
    }

    /// Offers a request and does not kick.
    pub(crate) fn offer_silently(&self) {
        let header = InHeader {
            len: 40,
            opcode: 1000,
            ..Default::default()
        };
        let request = GuestAddress(self.base + 0x3000);
        self.memory.write_slice(header.as_bytes(), request).unwrap();
        self.put(0, self.base + 0x3000);
        self.put(8, [40u32, 1 | 1 << 16]);
        self.put(16, self.base + 0x3100);
        self.put(24, [16u32, 2]);
        let idx = self.avail_idx();
        self.put(0x1004 + 2 * u64::from(idx % SIZE), 0u16);
        self.put(0x1002, idx.wrapping_add(1));
    }

    /// Offers a request and waits until it is given back.
    pub(crate) fn ask(&self) {
        let next = self.ask_for_interrupt();
        self.offer();
        self.wait_beyond(next);
    }

    /// Wants an interrupt at the next that is given back, and returns how many were.
    pub(crate) fn ask_for_interrupt(&self) -> u16 {
        let next = self.used_idx();
        self.put(0x1004 + 2 * u64::from(SIZE), next);
        next
    }

    /// Waits until more is given back than `used`.
    pub(crate) fn wait_beyond(&self, used: u16) {
        while self.used_idx() == used {
            self.call.read().unwrap();
        }
    }
}
