//! The device model of a VMM with daemons in processes of their own: ours, and the reference daemon,
//! where `VIRTIOFSD_PEER` or the path of cargo's programs has it.

#![forbid(unsafe_code)]

#[path = "../../crates/virtio-fs-device/tests/support/machine.rs"]
mod machine;
mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse_wire::abi::SetupmappingIn;
use fuse_wire::flags::{InitFlags, MappingFlags};
use fuse_wire::{Handle, NodeId, Operation};
use machine::*;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use support::Program;
use tempfile::TempDir;
use virtio_fs_device::{
    Capabilities, DIRTY_PAGE, Device, DeviceConfig, Error, ReservedWindow, SavedState, State,
    VhostUser, Window,
};
use virtio_fs_guest::{MountOptions, Options, Payload};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestRegionMmap};

const O_RDWR: u32 = 2;

/// A daemon, killed when dropped.
struct Daemon(Child);

/// A directory, and where its daemon listens.
struct Share {
    program: Program,
    folder: TempDir,
}

impl Share {
    fn new(program: Program) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        Self { program, folder }
    }

    fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, name: &str) -> Daemon {
        self.serve_with(name, &[])
    }

    fn serve_with(&self, name: &str, args: &[&str]) -> Daemon {
        let socket = self.socket(name);
        if socket.exists() {
            fs::remove_file(&socket).unwrap();
        }
        let mut command = self.program.command();
        command
            .arg("--shared-dir")
            .arg(self.shared())
            .arg("--socket-path")
            .arg(&socket)
            .args(["--tag", "share"])
            .args(args)
            .stdout(Stdio::null());
        Daemon(command.spawn().unwrap())
    }

    fn device(&self, name: &str) -> Device<Memory> {
        self.device_with(name, None)
    }

    fn device_with(&self, name: &str, window: Option<Window>) -> Device<Memory> {
        let mut daemon = self.daemon(name);
        daemon.window = window;
        self.device_by(daemon)
    }

    /// How a device finds its daemon.
    fn daemon(&self, name: &str) -> VhostUser {
        let mut daemon = VhostUser::new(self.socket(name));
        daemon.timeouts.connect = LONG;
        daemon
    }

    fn device_by(&self, daemon: VhostUser) -> Device<Memory> {
        let config = DeviceConfig {
            request_queues: Some(1),
            ..DeviceConfig::default()
        };
        Device::vhost_user(&config, daemon).unwrap()
    }
}

impl Daemon {
    /// Has it run no more, until it is killed.
    fn stop(&self) {
        let id = Pid::from_child(&self.0);
        kill_process(id, Signal::STOP).unwrap();
        // Its threads do not stop at once.
        let (_, status) = waitpid(Some(id), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs `test` with each daemon there is.
fn with_each(test: impl Fn(Share)) {
    for program in Program::all() {
        println!("with {program:?}");
        test(Share::new(program));
    }
}

#[test]
fn a_guest_works_and_begins_anew() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        println!("{:?}", device.status().capabilities);
        let mut tag = [0; 36];
        device.read_config(0, &mut tag);
        assert_eq!(&tag[..6], b"share\0");
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        for round in 0..3u8 {
            let name = std::ffi::CString::new(format!("file{round}")).unwrap();
            let (file, open) = mount.create(NodeId::ROOT, &name, O_RDWR, 0o644).unwrap();
            mount
                .write(file.nodeid, open.fh, 0, &[round; 70_000])
                .unwrap();
            let written = fs::read(share.shared().join(format!("file{round}"))).unwrap();
            assert_eq!(written, [round; 70_000]);
            device.reset().unwrap();
            machine.start_anew(&mut device, &mut mount);
        }
    });
}

#[test]
fn files_are_mapped_into_the_window() {
    const SIZE: u64 = 4 << 20;
    with_each(|share| {
        let ours = matches!(share.program, Program::Ours);
        let args: &[&str] = if ours { &["--dax-window=2M"] } else { &[] };
        let _daemon = share.serve_with("a", args);
        let mapper = Arc::new(ReservedWindow::new(SIZE).unwrap());
        let window = Window {
            size: SIZE,
            mapper: mapper.clone(),
        };
        let mut device = share.device_with("a", Some(window));
        assert_eq!(device.window_size(), ours.then_some(SIZE / 2));
        let guest = Guest::new(&device, Calls::Direct);
        guest.machine.start(&mut device);
        let mut options = MountOptions::default();
        options.offer |= InitFlags::MAP_ALIGNMENT;
        let mut mount = guest.connection.mount(&options).unwrap();
        fs::write(share.shared().join("file"), [7; 1 << 20]).unwrap();
        let file = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
        let mapping = Operation::SetupMapping(SetupmappingIn {
            fh: Handle::NONE,
            foffset: 0,
            len: SIZE / 2,
            flags: MappingFlags::READ | MappingFlags::WRITE,
            moffset: 0,
        });
        let mut done = mount.call(file, mapping, Payload::None).unwrap();
        assert_eq!(done.reply().is_ok(), ours);
        drop(done);
        if ours {
            let memory = fs::File::options()
                .read(true)
                .write(true)
                .open("/proc/self/mem");
            let (memory, mut byte) = (memory.unwrap(), [0]);
            let at = mapper.address().addr() as u64 + 4096;
            memory.read_exact_at(&mut byte, at).unwrap();
            assert_eq!(byte, [7]);
            memory.write_all_at(&[8], at).unwrap();
            assert_eq!(fs::read(share.shared().join("file")).unwrap()[4096], 8);
        }
    });
}

#[test]
fn a_pause_is_not_noticed() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let (mut mount, _machine) = Guest::new(&device, Calls::Relayed).start(&mut device);
        let (file, open) = mount.create(NodeId::ROOT, c"file", O_RDWR, 0o644).unwrap();
        let working = std::thread::spawn(move || {
            for round in 0..200 {
                mount
                    .write(file.nodeid, open.fh, round * 1000, &[7; 1000])
                    .unwrap();
            }
        });
        while !working.is_finished() {
            device.pause().unwrap();
            assert_eq!(device.state(), State::Paused);
            device.resume().unwrap();
        }
        working.join().unwrap();
        let size = fs::metadata(share.shared().join("file")).unwrap().len();
        assert_eq!(size, 200_000);
    });
}

/// Memory that a daemon can have, too.
fn region(address: u64, size: usize) -> Arc<GuestRegionMmap> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size as u64).unwrap();
    let file = Some(FileOffset::new(file, 0));
    Arc::new(GuestRegionMmap::from_range(GuestAddress(address), size, file).unwrap())
}

#[test]
fn memory_comes_and_goes() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let guest = Guest::new(&device, Calls::Direct);
        let memory = Arc::clone(&guest.machine.memory);
        let (mut mount, _machine) = guest.start(&mut device);
        for size in [1 << 20, 2 << 20] {
            let more = memory.insert_region(region(1 << 40, size)).unwrap();
            device.update_memory(Arc::new(more)).unwrap();
            mount.getattr(NodeId::ROOT, None).unwrap();
            device.update_memory(Arc::clone(&memory)).unwrap();
            mount.getattr(NodeId::ROOT, None).unwrap();
        }
    });
}

/// More regions than can be announced at once.
#[test]
fn a_machine_may_have_many_regions_of_memory() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let guest = Guest::new(&device, Calls::Direct);
        let mut all = (*guest.machine.memory).clone();
        for number in 0..30u64 {
            let region = region((1 << 33) + (number << 20), 1 << 16);
            all = all.insert_region(region).unwrap();
        }
        let all = Arc::new(all);
        let few = Arc::clone(&guest.machine.memory);
        let (mut mount, mut machine) = guest.start(&mut device);
        device.update_memory(Arc::clone(&all)).unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
        // All at once, with the first of them behind the others.
        device.reset().unwrap();
        mount.connection().reset().unwrap();
        machine.memory = Arc::clone(&all);
        machine.start(&mut device);
        mount.remount(&MountOptions::default()).unwrap();
        device.update_memory(few).unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
    });
}

#[test]
fn a_driver_whose_daemon_is_killed_is_told_to_reset() {
    with_each(|share| {
        let daemon = share.serve("a");
        let mut device = share.device("a");
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        mount.getattr(NodeId::ROOT, None).unwrap();
        drop(daemon);
        eventually("it is told", || machine.resets_needed() == 1);
        assert_eq!(device.state(), State::Failed);
        let _next = share.serve("a");
        eventually("it is back", || device.status().connected);
        device.reset().unwrap();
        machine.start_anew(&mut device, &mut mount);
        mount.getattr(NodeId::ROOT, None).unwrap();
    });
}

/// One that does not run, as one in a debugger: its socket is still there, and connections to it are made.
#[test]
fn a_daemon_that_hangs_is_given_up() {
    with_each(|share| {
        let hanging = share.serve("a");
        let mut daemon = share.daemon("a");
        daemon.timeouts.stop = Duration::from_millis(300);
        daemon.timeouts.message = Duration::from_millis(300);
        let mut device = share.device_by(daemon);
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        mount.getattr(NodeId::ROOT, None).unwrap();
        hanging.stop();
        let begin = Instant::now();
        match device.pause().unwrap_err() {
            Error::Timeout { during, .. } => {
                let message = during.message.unwrap();
                let stops = ["SET_VRING_ENABLE", "GET_VRING_BASE"].contains(&message);
                assert!(stops && during.state == State::Active, "{during}");
            }
            error => panic!("{error}"),
        }
        eventually("it is told", || machine.resets_needed() == 1);
        assert_eq!(device.state(), State::Failed);
        // The VMM goes on, and the driver may begin anew, while one that hangs is all there is.
        device.pause().unwrap();
        device.resume().unwrap();
        device.reset().unwrap();
        mount.connection().reset().unwrap();
        device.ack_features(machine.features).unwrap();
        device.activate(machine.activation()).unwrap();
        assert!(begin.elapsed() < LONG, "it took {:?}", begin.elapsed());
        assert!(!device.status().connected);
        drop(hanging);
        let _next = share.serve("a");
        mount.remount(&MountOptions::default()).unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
        eventually("it is active", || device.state() == State::Active);
    });
}

/// The table in the documentation of virtio-fs-device, in so far as a daemon says it of itself.
#[test]
fn the_daemons_offer_what_is_written() {
    with_each(|share| {
        let ours = matches!(share.program, Program::Ours);
        // The reference daemon serves one connection, and ends.
        let _daemons = ["a", "b"].map(|name| share.serve(name));
        let Capabilities {
            keeps_in_flight,
            saves_state,
            logs_dirty_pages,
            memory_slots,
            resets,
            ..
        } = share.device("a").status().capabilities;
        assert!(saves_state && logs_dirty_pages && memory_slots && resets);
        assert_eq!(keeps_in_flight, ours);
        let config = DeviceConfig {
            request_queues: Some(4),
            ..DeviceConfig::default()
        };
        match Device::<Memory>::vhost_user(&config, share.daemon("b")) {
            Ok(device) => assert!(ours && device.queue_max_sizes().len() == 5),
            Err(Error::TooManyQueues { wanted: 5, there }) => assert!(!ours && there == 2),
            Err(error) => panic!("{error}"),
        }
    });
}

/// Every page of the guest's memory that is not what it was before is noted.
#[test]
fn pages_that_the_daemon_writes_are_noted() {
    with_each(|share| {
        let content: Vec<u8> = (0..300_000u32).map(|i| (i / 7 * 13) as u8).collect();
        fs::write(share.shared().join("file"), &content).unwrap();
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        if !device.status().capabilities.logs_dirty_pages {
            println!("{:?} does not note pages", share.program);
            return;
        }
        let guest = Guest::new(&device, Calls::Direct);
        let used: Vec<_> = guest.machine.activation().queues;
        let (mut mount, machine) = guest.start(&mut device);
        let file = mount.lookup(NodeId::ROOT, c"file").unwrap().nodeid;
        let open = mount.open(file, 0).unwrap();
        let all = |device: &mut Device<Memory>| {
            let mut pages = Vec::new();
            device.take_dirty(0..u64::MAX, |address| pages.push(address));
            pages
        };
        assert!(all(&mut device).is_empty(), "nobody wanted to know");
        device.start_dirty_log().unwrap();
        let _ = all(&mut device);
        let mut read = vec![0; 15 * 4096];
        for round in 0..4 {
            let offset = round * read.len() as u64;
            mount.read(file, open.fh, offset, &mut read).unwrap();
        }
        device.pause().unwrap();
        let noted = all(&mut device);
        let (mut with_content, end) = (0, machine.memory.last_addr().0);
        for page in (1u64 << 32..end).step_by(DIRTY_PAGE as usize) {
            let mut bytes = [0; 4096];
            let size = bytes.len().min((end - page + 1) as usize);
            machine
                .memory
                .read_slice(&mut bytes[..size], GuestAddress(page))
                .unwrap();
            if content.chunks_exact(4096).any(|chunk| chunk == bytes) {
                with_content += 1;
                assert!(noted.contains(&page), "{page:#x} has content");
            }
        }
        assert!(with_content >= 15, "{with_content}");
        let ring = used[1].ring.used.0;
        assert!(noted.contains(&(ring & !(DIRTY_PAGE - 1))), "the used ring");
        // What is noted outlives the driver's use of the device.
        device.resume().unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
        device.reset().unwrap();
        assert!(!all(&mut device).is_empty());
        machine.start_anew(&mut device, &mut mount);
        assert!(!all(&mut device).is_empty(), "noted after a reset, too");
        device.stop_dirty_log().unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
        assert!(all(&mut device).is_empty());
    });
}

#[test]
fn a_device_goes_on_with_another_daemon_where_it_was_saved() {
    with_each(|share| {
        let daemon = share.serve("a");
        let mut device = share.device("a");
        if !device.status().capabilities.saves_state {
            println!("{:?} does not save its state", share.program);
            return;
        }
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        let (file, open) = mount.create(NodeId::ROOT, c"file", O_RDWR, 0o644).unwrap();
        mount.write(file.nodeid, open.fh, 0, b"before").unwrap();
        device.pause().unwrap();
        let saved = device.save().unwrap();
        assert!(saved.is_active());
        assert_eq!(saved.tag(), "share");
        let bytes = serde_json::to_vec(&saved).unwrap();
        // It can go on where it is.
        device.resume().unwrap();
        mount.getattr(file.nodeid, None).unwrap();
        device.pause().unwrap();
        let saved_again = device.save().unwrap();
        assert_ne!(saved, saved_again, "a queue has got further");
        drop((device, daemon));
        drop(bytes);

        let _other = share.serve("b");
        let mut device = share.device("b");
        let bytes = serde_json::to_vec(&saved_again).unwrap();
        let saved = serde_json::from_slice(&bytes).unwrap();
        machine.restore(&mut device, &saved).unwrap();
        assert_eq!(device.state(), State::Paused);
        device.resume().unwrap();
        let mut read = [0; 6];
        mount.read(file.nodeid, open.fh, 0, &mut read).unwrap();
        assert_eq!(&read, b"before");
        mount.write(file.nodeid, open.fh, 0, b"after!").unwrap();
        assert_eq!(fs::read(share.shared().join("file")).unwrap(), b"after!");
        device.reset().unwrap();
    });
}

#[test]
fn a_device_that_is_not_in_use_is_saved_as_that() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let machine = Guest::with(
            &device,
            Calls::Direct,
            &Options {
                data_memory: 1 << 20,
                ..Options::default()
            },
        )
        .machine;
        let new = device.save().unwrap();
        device.ack_features(machine.features).unwrap();
        let negotiated = device.save().unwrap();
        let mut restore = |saved| {
            device.reset().unwrap();
            machine.restore(&mut device, saved).unwrap();
            device.state()
        };
        assert_eq!(restore(&new), State::Reset);
        assert_eq!(restore(&negotiated), State::Negotiated);
    });
}

/// `text`, once more, as a state.
fn state(text: &str) -> SavedState {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        mount.getattr(NodeId::ROOT, None).unwrap();
        device.pause().unwrap();
        let saved = serde_json::to_value(device.save().unwrap()).unwrap();
        drop(device);
        let _other = share.serve("b");
        let mut device = share.device("b");
        let mut restore = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = saved.clone();
            change(&mut value);
            let result = machine.restore(&mut device, &state(&value.to_string()));
            if result.is_err() {
                assert_ne!(device.state(), State::Paused);
            }
            result
        };
        let error = restore(&|state| state["version"] = 2.into()).unwrap_err();
        assert!(matches!(error, Error::StateVersion(2)), "{error}");
        let error = restore(&|state| state["tag"] = "other".into()).unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error}");
        let error = restore(&|state| state["request_queues"] = 7.into()).unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error}");
        let error = restore(&|state| state["features"] = (1u64 << 34).into()).unwrap_err();
        assert!(matches!(error, Error::UnknownFeatures(_)), "{error}");
        let queue = "/active/queues/0";
        let change = |field: &'static str, value: u64| {
            move |state: &mut serde_json::Value| {
                state.pointer_mut(queue).unwrap()[field] = value.into();
            }
        };
        let error = restore(&change("index", 9)).unwrap_err();
        assert!(matches!(error, Error::Queue(9)), "{error}");
        let size = |state: &mut serde_json::Value| {
            state.pointer_mut(queue).unwrap()["ring"]["size"] = 3.into();
        };
        let error = restore(&size).unwrap_err();
        assert!(matches!(error, Error::QueueSize(3)), "{error}");
        restore(&|_| ()).unwrap();
        device.resume().unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
    });
}

#[test]
fn a_daemon_refuses_what_is_not_its_state() {
    with_each(|share| {
        let _daemon = share.serve("a");
        let mut device = share.device("a");
        let (mut mount, machine) = Guest::new(&device, Calls::Direct).start(&mut device);
        mount.getattr(NodeId::ROOT, None).unwrap();
        device.pause().unwrap();
        let mut saved = serde_json::to_value(device.save().unwrap()).unwrap();
        drop(device);
        *saved.pointer_mut("/active/backend").unwrap() = vec![0xa5u8; 100_000].into();
        let _other = share.serve("b");
        let mut device = share.device("b");
        let saved = state(&saved.to_string());
        let error = machine.restore(&mut device, &saved).unwrap_err();
        let gone = matches!(error, Error::Refused { .. } | Error::Disconnected { .. });
        assert!(gone, "{error}");
        assert_ne!(device.state(), State::Paused);
    });
}
