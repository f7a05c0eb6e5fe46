//! Whatever a daemon does, and whichever calls a VMM makes meanwhile: no call of a device panics, nor
//! waits longer than its time-outs, and nothing is left of a device that was dropped.

#![no_main]

mod daemon;
#[allow(dead_code, reason = "the tests of the device use more of it")]
#[path = "../../../crates/virtio-fs-device/tests/support/fake.rs"]
mod fake;
mod input;
mod machine;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use virtio_fs_device::{
    Device, DeviceConfig, Recovery, SavedState, State, Timeouts, VhostUser, Window,
};

use daemon::Daemon;
use input::Input;
use machine::{Interrupts, MEMORIES, Mapped, Memory, activation, queue};

/// Bytes of a region of the guest's memory.
pub(crate) const MEMORY: u64 = 1 << 20;
/// Bytes of the DAX window.
pub(crate) const WINDOW: u64 = 64 * PAGE;
pub(crate) const PAGE: u64 = 4096;

/// How long a daemon has for anything.
const LIMIT: Duration = Duration::from_millis(2);
/// How long a call may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Daemons, one after the other.
const DAEMONS: usize = 4;

// First the calls, as many as the first byte says; the rest is for the daemons.
fuzz_target!(|data: &[u8]| {
    LazyLock::force(&MEMORIES);
    let before = held();
    let mut input = Input::new(data);
    let calls = Input::new(input.bytes());
    let mut daemon = Daemon::new(input);
    let (connect, connections) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            block_broken_pipes();
            connections
                .into_iter()
                .for_each(|stream| daemon.serve(stream));
        });
        live(connect, calls);
    });
    let deadline = Instant::now() + PATIENCE;
    // A thread that was joined is counted a moment longer.
    while held() != before {
        assert!(Instant::now() < deadline, "left: {:?}", descriptors());
        std::thread::yield_now();
    }
});

/// A daemon ignores SIGPIPE, a VMM need not.
fn block_broken_pipes() {
    let signal = rustix::process::Signal::PIPE.as_raw();
    vmm_sys_util::signal::block_signal(signal).unwrap();
}

/// How many descriptors and threads there are.
fn held() -> [usize; 2] {
    ["/proc/self/fd", "/proc/self/task"].map(|dir| std::fs::read_dir(dir).unwrap().count())
}

/// What the descriptors of this process are.
fn descriptors() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect()
}

/// A device, from its beginning to its end.
fn live(connect: mpsc::Sender<UnixStream>, mut calls: Input<'_>) {
    let mapped = Arc::new(Mapped::default());
    let daemon = options(connect, &mapped, &mut calls);
    let config = DeviceConfig {
        tag: calls.flag().then(|| "fake".parse().unwrap()),
        request_queues: calls.flag().then_some(1),
        ..DeviceConfig::default()
    };
    if let Ok(mut device) = timed(|| Device::vhost_user(&config, daemon)) {
        let mut vmm = Vmm {
            direct: calls.flag(),
            saved: None,
        };
        while !calls.is_empty() {
            timed(|| vmm.call(&mut device, &mut calls));
        }
        timed(|| drop(device));
    }
    assert!(mapped.is_empty());
}

fn options(
    connect: mpsc::Sender<UnixStream>,
    mapped: &Arc<Mapped>,
    calls: &mut Input<'_>,
) -> VhostUser {
    let made = AtomicUsize::new(0);
    let mut daemon = VhostUser::by(move || {
        if made.fetch_add(1, Ordering::SeqCst) == DAEMONS {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = UnixStream::pair()?;
        connect.send(theirs).map_err(io::Error::other)?;
        Ok(ours)
    });
    daemon.timeouts = Timeouts {
        connect: Duration::ZERO,
        message: LIMIT,
        stop: LIMIT,
        state: LIMIT,
    };
    daemon.state_limit = 1 << 16;
    if calls.flag() {
        daemon.recovery = Recovery::Resume;
    }
    if calls.flag() {
        daemon.window = Some(Window {
            size: WINDOW,
            mapper: Arc::clone(mapped) as _,
        });
    }
    daemon
}

#[track_caller]
fn timed<T>(call: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = call();
    let took = begin.elapsed();
    assert!(took < PATIENCE, "it took {took:?}");
    result
}

/// What a VMM remembers.
struct Vmm {
    /// Interrupts are events.
    direct: bool,
    saved: Option<SavedState>,
}

impl Vmm {
    fn call(&mut self, device: &mut Device<Memory>, calls: &mut Input<'_>) {
        let queues = device.queue_max_sizes().len().min(4) as u16;
        match calls.byte() % 18 {
            // What a driver does until it is in use.
            0 => {
                let _ = device.ack_features(device.features());
                let _ = device.activate(activation(queues, self.direct));
            }
            1 => drop(device.ack_features(calls.long())),
            2 => drop(device.activate(activation(calls.byte().into(), self.direct))),
            3 => drop(device.pause()),
            4 => drop(device.resume()),
            5 => {
                device.reset().unwrap();
                assert!(matches!(device.state(), State::Reset | State::Disconnected));
            }
            6 => self.saved = device.save().ok().or(self.saved.take()),
            7 => self.restore(device, queues),
            8 => {
                let memory = &MEMORIES[usize::from(calls.flag())];
                let _ = device.update_memory(Arc::clone(memory));
            }
            9 => drop(device.start_dirty_log()),
            10 => drop(device.stop_dirty_log()),
            11 => {
                let end = calls.long();
                device.take_dirty(0..end, |page| assert!(page < end));
            }
            12 => drop(device.start_queue(queue(calls.byte().into()), 0)),
            13 => drop(device.stop_queue(calls.byte().into())),
            14 => drop(device.update_interrupt(calls.byte().into())),
            15 => device.read_config(calls.long(), &mut [0; 64]),
            16 => drop(format!("{:?} {device:?}", device.status())),
            // Something happens meanwhile.
            _ => std::thread::sleep(LIMIT / 8),
        }
    }

    fn restore(&mut self, device: &mut Device<Memory>, queues: u16) {
        let Some(saved) = &self.saved else { return };
        let kicks: Vec<_> = (0..queues).map(|index| queue(index).kick).collect();
        let interrupts = Arc::new(Interrupts {
            direct: self.direct,
        });
        let _ = device.restore(saved, Arc::clone(&MEMORIES[0]), &kicks, interrupts);
    }
}
