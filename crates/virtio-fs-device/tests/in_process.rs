//! What only a device without a daemon has.

mod support;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fuse_fs::{Blocking, MemFs, Outcome, PayloadSink, PayloadSource, Serve, Session};
use fuse_wire::NodeId;
use passthrough_fs::{Config, PassthroughFs};
use support::*;
use tempfile::TempDir;
use virtio_fs_device::{Device, DeviceConfig, During, Error, InProcess, Interrupt, State};
use virtio_fs_guest::{Backing, Mount, MountOptions, Options};
use virtio_fs_queue::{PollLimit, Polling, Pool};

fn config() -> DeviceConfig {
    DeviceConfig {
        tag: Some(TAG.parse().unwrap()),
        request_queues: Some(REQUEST_QUEUES),
        ..DeviceConfig::default()
    }
}

fn options() -> InProcess {
    InProcess::new(Arc::new(Session::new(MemFs::new())))
}

/// Serves a directory: what a guest has open there can be saved.
fn saving(directory: &TempDir) -> InProcess {
    let config = Config::new(directory.path());
    let filesystem = PassthroughFs::new(config).unwrap();
    InProcess::new(Arc::new(Session::new(filesystem)))
}

fn device(options: InProcess) -> Device<Memory> {
    Device::in_process(&config(), options).unwrap()
}

fn guest(device: &Device<Memory>) -> Guest {
    let options = Options {
        request_queues: REQUEST_QUEUES,
        queue_size: 64,
        data_memory: 1 << 20,
        timeout: LONG,
        backing: Backing::Private,
        ..Options::default()
    };
    Guest::with(device, Calls::Direct, &options)
}

fn mounted(options: InProcess) -> (Device<Memory>, Mount, Machine) {
    let mut device = device(options);
    let (mount, machine) = guest(&device).start(&mut device);
    (device, mount, machine)
}

/// The threads of this process whose names begin like that. One that was waited for is there for a
/// moment longer.
fn threads(prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

#[test]
fn queues_are_started_and_stopped_one_by_one() {
    let mut device = device(options());
    let guest = guest(&device);
    device.ack_features(guest.machine.features).unwrap();
    let mut activation = guest.machine.activation();
    let all = std::mem::take(&mut activation.queues);
    device.activate(activation).unwrap();
    for queue in &all {
        device.start_queue(queue.clone(), 0).unwrap();
    }
    let mut mount = guest.connection.mount(&MountOptions::default()).unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
    device.update_interrupt(1).unwrap();
    assert_eq!(device.stop_queue(1).unwrap(), 2);
    for result in [device.stop_queue(1).map(drop), device.update_interrupt(1)] {
        assert!(matches!(result, Err(Error::Queue(1))));
    }
    device.start_queue(all[1].clone(), 2).unwrap();
    let again = device.start_queue(all[1].clone(), 2);
    assert!(matches!(again, Err(Error::Queue(1))));
    mount.getattr(NodeId::ROOT, None).unwrap();
}

/// Notes for which queues there were interrupts.
#[derive(Default)]
struct Notes(Mutex<Vec<u16>>);

impl Interrupt for Notes {
    fn signal_queue(&self, index: u16) {
        self.0.lock().unwrap().push(index);
    }

    fn signal_needs_reset(&self) {}
}

#[test]
fn a_driver_is_interrupted_for_every_queue_when_the_machine_goes_on() {
    let mut device = device(options());
    let guest = guest(&device);
    device.ack_features(guest.machine.features).unwrap();
    let notes = Arc::new(Notes::default());
    let mut activation = guest.machine.activation();
    activation.interrupt = Arc::clone(&notes) as _;
    device.activate(activation).unwrap();
    device.pause().unwrap();
    notes.0.lock().unwrap().clear();
    device.resume().unwrap();
    assert_eq!(*notes.0.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn the_vmm_has_to_name_the_device() {
    let nameless = DeviceConfig::default();
    let error = Device::<Memory>::in_process(&nameless, options()).unwrap_err();
    assert!(matches!(error, Error::NoTag), "{error}");
    let named = DeviceConfig {
        tag: config().tag,
        ..nameless
    };
    let device = Device::<Memory>::in_process(&named, options()).unwrap();
    assert_eq!(device.queue_max_sizes(), [1024; 2]);
}

#[test]
fn nothing_can_be_lost() {
    let directory = TempDir::new().unwrap();
    for (options, saves) in [(options(), false), (saving(&directory), true)] {
        let capabilities = device(options).status().capabilities;
        assert!(capabilities.survives_daemon && capabilities.keeps_in_flight);
        assert!(capabilities.logs_dirty_pages && capabilities.resets);
        assert_eq!(capabilities.saves_state, saves);
    }
}

#[test]
fn a_driver_that_breaks_a_queue_is_told_and_heals_it_by_a_reset() {
    let (mut device, mut mount, machine) = mounted(options());
    let mut raw = mount.connection().request_queues()[1].raw();
    let index = raw.available_index();
    raw.write_available_index(index.wrapping_add(1000));
    raw.kick().unwrap();
    eventually("it is told", || machine.resets_needed() == 1);
    let error = device.status().last_error.unwrap();
    assert!(matches!(*error, Error::Broken(2)), "{error}");
    // The other queue goes on, also after a pause.
    mount.getattr(NodeId::ROOT, None).unwrap();
    device.pause().unwrap();
    device.resume().unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
    device.reset().unwrap();
    machine.start_anew(&mut device, &mut mount);
    mount.use_queue(1);
    mount.getattr(NodeId::ROOT, None).unwrap();
}

#[test]
fn a_state_has_a_limit_in_both_directions() {
    let directory = TempDir::new().unwrap();
    let mut small = saving(&directory);
    small.state_limit = 16;
    let (mut device, mut mount, machine) = mounted(small);
    device.pause().unwrap();
    let error = device.save().unwrap_err();
    assert!(matches!(error, Error::StateSize(16)), "{error}");
    // That changed nothing.
    device.resume().unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
    drop(device);

    let (mut device, _mount, other) = mounted(saving(&directory));
    device.pause().unwrap();
    let saved = device.save().unwrap();
    let mut small = saving(&directory);
    small.state_limit = 16;
    let mut next = self::device(small);
    let error = machine.restore(&mut next, &saved).unwrap_err();
    assert!(matches!(error, Error::StateSize(16)), "{error}");
    assert_eq!(next.state(), State::New);
    drop(other);
}

#[test]
fn a_state_that_cannot_be_leaves_a_device_that_works() {
    let directory = TempDir::new().unwrap();
    let (mut device, _mount, machine) = mounted(saving(&directory));
    device.pause().unwrap();
    let saved = device.save().unwrap();
    drop(device);
    let text = serde_json::to_string(&saved).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["active"]["backend"] = serde_json::json!([1, 2, 3]);
    let damaged = serde_json::from_value(json).unwrap();
    let mut next = self::device(saving(&directory));
    let fresh = guest(&next);
    machine.restore(&mut next, &damaged).unwrap_err();
    assert_eq!(next.state(), State::New);
    let (mut mount, _machine) = fresh.start(&mut next);
    mount.getattr(NodeId::ROOT, None).unwrap();
}

#[test]
fn a_log_outlives_a_reset() {
    let (mut device, mut mount, machine) = mounted(options());
    device.start_dirty_log().unwrap();
    mount.getattr(NodeId::ROOT, None).unwrap();
    device.reset().unwrap();
    let taken = |device: &mut Device<Memory>| {
        let mut pages = 0;
        device.take_dirty(0..u64::MAX, |_| pages += 1);
        pages
    };
    assert!(taken(&mut device) > 0);
    machine.start_anew(&mut device, &mut mount);
    assert!(taken(&mut device) > 0);
    // One that begins while nobody uses the device.
    device.reset().unwrap();
    device.stop_dirty_log().unwrap();
    device.start_dirty_log().unwrap();
    assert_eq!(taken(&mut device), 0);
    machine.start_anew(&mut device, &mut mount);
    assert!(taken(&mut device) > 0);
}

#[test]
fn devices_share_a_pool_and_keep_to_processors() {
    let pool = Arc::new(Pool::new(1));
    let polling = Arc::new(Polling::new(PollLimit::NEVER));
    let with = || {
        let mut options = options();
        options.pool = Arc::clone(&pool);
        options.polling = Arc::clone(&polling);
        options.queue_affinity = first_processor().parse().ok();
        assert!(options.queue_affinity.is_some());
        options
    };
    let (_first, mut one, _one) = mounted(with());
    let (_second, mut two, _two) = mounted(with());
    one.getattr(NodeId::ROOT, None).unwrap();
    two.getattr(NodeId::ROOT, None).unwrap();
}

/// One that this process may use.
fn first_processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let digits = |c: char| !c.is_ascii_digit();
    list.unwrap()
        .trim()
        .split(digits)
        .next()
        .unwrap()
        .to_owned()
}

/// A filesystem that holds requests up, as one does whose server does not answer.
struct Holding {
    inner: Session<MemFs>,
    holds: Mutex<bool>,
    changed: Condvar,
    held: AtomicUsize,
}

impl Holding {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Session::new(MemFs::new()),
            holds: Mutex::new(false),
            changed: Condvar::new(),
            held: AtomicUsize::new(0),
        })
    }

    fn hold(&self, holds: bool) {
        *self.holds.lock().unwrap() = holds;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let holds = self.holds.lock().unwrap();
        if *holds {
            self.held.fetch_add(1, Ordering::SeqCst);
        }
        drop(self.changed.wait_while(holds, |holds| *holds));
    }
}

impl Serve for Holding {
    fn serve(
        &self,
        message: &[u8],
        payload: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        self.pass();
        self.inner.serve(message, payload, sink, reply, blocking)
    }

    fn reset(&self) {
        assert!(!*self.holds.lock().unwrap(), "something is in flight");
        self.inner.reset();
    }

    fn state(&self) -> Option<&dyn fuse_fs::State> {
        Some(self)
    }
}

/// No state, that takes long.
impl fuse_fs::State for Holding {
    fn save(&self, _: &mut dyn io::Write) -> io::Result<()> {
        self.pass();
        Ok(())
    }

    fn load(&self, _: &mut dyn io::Read) -> io::Result<()> {
        self.pass();
        Ok(())
    }
}

/// What an error of a filesystem that does not return says of when it happened.
#[track_caller]
fn during(error: &Error) -> During {
    match error {
        Error::Stuck { during, .. } => *during,
        _ => panic!("{error}"),
    }
}

#[track_caller]
fn assert_stuck(error: &Error, state: State) {
    assert_eq!(during(error).state, state, "{error}");
    assert!(error.to_string().contains(&state.to_string()), "{error}");
}

#[test]
fn a_filesystem_that_does_not_return_is_not_waited_for_for_ever() {
    type Stop = fn(&mut Device<Memory>) -> Result<(), Error>;
    let ways: [Stop; 4] = [
        |device| device.pause(),
        |device| device.stop_queue(1).map(drop),
        |device| device.start_dirty_log(),
        |device| device.reset(),
    ];
    for stop in ways {
        let filesystem = Holding::new();
        let mut options = InProcess::new(filesystem.clone());
        options.stop_limit = Duration::from_millis(50);
        let (mut device, mut mount, machine) = mounted(options);
        filesystem.hold(true);
        let waiting = std::thread::spawn(move || {
            mount.getattr(NodeId::ROOT, None).unwrap();
            mount
        });
        eventually("it is held up", || {
            filesystem.held.load(Ordering::SeqCst) == 1
        });

        if let Err(error) = stop(&mut device) {
            assert_stuck(&error, State::Active);
            assert_eq!(device.state(), State::Failed);
            assert!(device.status().needs_reset);
            assert_eq!(machine.resets_needed(), 1);
            device.pause().unwrap();
            device.resume().unwrap();
            assert!(device.save().is_err());
            device.reset().unwrap();
        }
        assert_eq!(device.state(), State::Reset);
        let state = during(&device.status().last_error.unwrap()).state;
        assert!([State::Active, State::Failed].contains(&state), "{state}");
        // Not beside what may still write to the guest's memory.
        device.ack_features(machine.features).unwrap();
        let error = device.activate(machine.activation()).unwrap_err();
        assert_stuck(&error, State::Negotiated);
        assert_eq!(device.state(), State::Negotiated);

        filesystem.hold(false);
        let mut mount = waiting.join().unwrap();
        machine.start_anew(&mut device, &mut mount);
        mount.getattr(NodeId::ROOT, None).unwrap();
    }
}

#[test]
fn a_filesystem_that_does_not_return_its_state_is_not_waited_for_for_ever() {
    let filesystem = Holding::new();
    let mut options = InProcess::new(filesystem.clone());
    options.stop_limit = Duration::from_millis(50);
    let (mut device, mut mount, machine) = mounted(options);
    device.pause().unwrap();
    filesystem.hold(true);
    for _ in 0..3 {
        assert_stuck(&device.save().unwrap_err(), State::Paused);
        assert_eq!(device.state(), State::Paused);
    }
    assert_eq!(
        filesystem.held.load(Ordering::SeqCst),
        1,
        "it is asked once"
    );
    device.resume().unwrap();
    device.pause().unwrap();
    // It is not reset beside that, either.
    device.reset().unwrap();
    assert_stuck(&device.status().last_error.unwrap(), State::Paused);
    filesystem.hold(false);
    machine.start_anew(&mut device, &mut mount);
    device.pause().unwrap();
    let saved = device.save().unwrap();
    device.reset().unwrap();

    filesystem.hold(true);
    for _ in 0..3 {
        let error = machine.restore(&mut device, &saved).unwrap_err();
        assert_stuck(&error, State::Reset);
        assert_eq!(device.state(), State::Reset);
    }
    assert_eq!(
        filesystem.held.load(Ordering::SeqCst),
        2,
        "it is asked once"
    );
    filesystem.hold(false);
    machine.restore(&mut device, &saved).unwrap();
    device.resume().unwrap();
    assert_eq!(device.state(), State::Active);
    assert_eq!(machine.resets_needed(), 0);
}

#[test]
fn a_device_is_dropped_while_its_filesystem_does_not_return() {
    let filesystem = Holding::new();
    let mut options = InProcess::new(filesystem.clone());
    options.stop_limit = Duration::from_millis(50);
    let (device, mut mount, _machine) = mounted(options);
    filesystem.hold(true);
    let waiting = std::thread::spawn(move || mount.getattr(NodeId::ROOT, None).map(drop));
    eventually("it is held up", || {
        filesystem.held.load(Ordering::SeqCst) == 1
    });
    drop(device);
    filesystem.hold(false);
    waiting.join().unwrap().unwrap();
    eventually("nobody has it any more", || {
        Arc::strong_count(&filesystem) == 1
    });
}

/// It counts what belongs to the process: it runs itself, alone.
#[test]
fn queues_have_threads_while_they_are_served_and_leave_none() {
    const NAME: &str = "queues_have_threads_while_they_are_served_and_leave_none";
    if std::env::var_os("ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("ALONE", "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let queues = ["virtio-fs-q0", "virtio-fs-q1", "virtio-fs-q2"];
    let before = descriptors();
    for end in 0..4 {
        let mut device = device(options());
        eventually("none is left", || threads("virtio-fs").is_empty());
        let (mut mount, machine) = guest(&device).start(&mut device);
        eventually("they are named", || threads("virtio-fs-q") == queues);
        device.pause().unwrap();
        eventually("none is left", || threads("virtio-fs-q").is_empty());
        device.resume().unwrap();
        mount.getattr(NodeId::ROOT, None).unwrap();
        eventually("they are named", || threads("virtio-fs-q") == queues);
        match end {
            0 => device.reset().unwrap(),
            1 => device.pause().unwrap(),
            2 => device.start_dirty_log().unwrap(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
        drop(device);
        eventually("none is left", || threads("virtio-fs").is_empty());
        drop((mount, machine));
        assert!(descriptors() <= before);
    }
}

/// Panics when it is reset, the first time.
struct Panicking {
    inner: Session<MemFs>,
    panicked: AtomicBool,
}

impl Serve for Panicking {
    fn serve(
        &self,
        message: &[u8],
        payload: &mut dyn PayloadSource,
        sink: Option<&mut dyn PayloadSink>,
        reply: &mut [u8],
        blocking: Blocking,
    ) -> Outcome {
        self.inner.serve(message, payload, sink, reply, blocking)
    }

    fn reset(&self) {
        assert!(self.panicked.swap(true, Ordering::SeqCst), "as it is told");
        self.inner.reset();
    }
}

#[test]
fn a_filesystem_that_panics_at_a_reset_is_not_waited_for() {
    let (mut device, mut mount, machine) = mounted(InProcess::new(Arc::new(Panicking {
        inner: Session::new(MemFs::new()),
        panicked: AtomicBool::new(false),
    })));
    device.reset().unwrap();
    machine.start_anew(&mut device, &mut mount);
}
