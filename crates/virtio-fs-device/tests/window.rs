//! The DAX window: what a daemon maps there, and what it may not.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::fake::{self, Asks, Fault};
use support::*;
use virtio_fs_device::{
    Device, DeviceConfig, Error, FileMapping, Recovery, State, VhostUser, Window, WindowMapper,
};

/// Bytes of a page, or more: a multiple of every host's.
const PAGE: u64 = 64 << 10;
const MAP: u32 = 9;
const UNMAP: u32 = 10;
/// Version 1; and an answer is wanted.
const FLAGS: u32 = 1 | 1 << 3;

/// What is mapped, as a mapper is told.
#[derive(Default)]
struct Mapped(Mutex<Vec<(u64, u64)>>);

impl Mapped {
    fn now(&self) -> Vec<(u64, u64)> {
        self.0.lock().unwrap().clone()
    }
}

impl WindowMapper for Mapped {
    fn map(&self, mapping: FileMapping<'_>) -> std::io::Result<()> {
        self.0.lock().unwrap().push((mapping.offset, mapping.len));
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> std::io::Result<()> {
        let mut mapped = self.0.lock().unwrap();
        let at = mapped.iter().position(|range| *range == (offset, len));
        mapped.remove(at.expect("it is mapped"));
        Ok(())
    }
}

/// Daemons that do nothing but what the test has them ask for.
struct Daemons {
    mapped: Arc<Mapped>,
    channels: Receiver<UnixStream>,
    /// Our ends of the connections, to hang up.
    streams: Receiver<UnixStream>,
}

fn daemons(protocol: u64, size: u64) -> (VhostUser, Daemons) {
    let (channel_to, channels) = channel();
    let (stream_to, streams): (Sender<UnixStream>, _) = channel();
    let mut daemon = VhostUser::by(move || {
        let (ours, theirs) = UnixStream::pair()?;
        stream_to.send(theirs.try_clone()?).unwrap();
        let asks = Asks {
            window: size,
            channel: channel_to.clone(),
        };
        std::thread::spawn(move || {
            fake::serve_that_asks(protocol, &asks, theirs, Fault::Silence, usize::MAX)
        });
        Ok(ours)
    });
    let mapped = Arc::new(Mapped::default());
    daemon.window = Some(Window {
        size: fake::WINDOW,
        mapper: mapped.clone(),
    });
    let daemons = Daemons {
        mapped,
        channels,
        streams,
    };
    (daemon, daemons)
}

/// A device that a driver uses, and the daemon's end of the back-end channel.
fn active(daemon: VhostUser, daemons: &Daemons) -> (Device<Memory>, Machine, UnixStream) {
    let mut device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon).unwrap();
    let machine = Guest::new(&device, Calls::Relayed).machine;
    machine.start(&mut device);
    (device, machine, daemons.channels.recv().unwrap())
}

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, body.len() as u32];
    let header = header.iter().flat_map(|field| field.to_ne_bytes());
    header.chain(body.iter().copied()).collect()
}

fn range(region: u8, file_offset: u64, offset: u64, len: u64, flags: u64) -> Vec<u8> {
    let fields = [region.into(), file_offset, offset, len, flags];
    fields
        .iter()
        .flat_map(|field| field.to_ne_bytes())
        .collect()
}

fn answer(channel: &mut UnixStream, request: u32) -> u64 {
    channel.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = [0; 20];
    channel.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..12], message(request, 1 | 1 << 2, &[0; 8])[..12]);
    u64::from_ne_bytes(answer[12..].try_into().unwrap())
}

fn ask(channel: &mut UnixStream, request: u32, body: &[u8], file: Option<&File>) -> u64 {
    fake::send(channel, &message(request, FLAGS, body), file);
    answer(channel, request)
}

fn map(channel: &mut UnixStream, offset: u64, len: u64) -> u64 {
    let file = tempfile::tempfile().unwrap();
    ask(channel, MAP, &range(0, 0, offset, len, 1), Some(&file))
}

fn unmap(channel: &mut UnixStream, offset: u64, len: u64) -> u64 {
    ask(channel, UNMAP, &range(0, 0, offset, len, 0), None)
}

#[test]
fn a_daemon_maps_and_unmaps() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let (device, _machine, mut channel) = active(daemon, &daemons);
    assert_eq!(device.window_size(), Some(fake::WINDOW));
    assert_eq!(map(&mut channel, PAGE, 2 * PAGE), 0);
    assert_eq!(map(&mut channel, 3 * PAGE, PAGE), 0);
    assert_eq!(daemons.mapped.now(), [(PAGE, 2 * PAGE), (3 * PAGE, PAGE)]);
    let window = device.status().window.unwrap();
    assert_eq!((window.size, window.mappings), (fake::WINDOW, 2));
    assert_eq!(unmap(&mut channel, PAGE, 2 * PAGE), 0);
    assert_eq!(daemons.mapped.now(), [(3 * PAGE, PAGE)]);
    drop(device);
    assert_eq!(daemons.mapped.now(), []);
}

#[test]
fn what_is_refused_changes_nothing_and_the_daemon_goes_on() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let (device, _machine, mut channel) = active(daemon, &daemons);
    let file = tempfile::tempfile().unwrap();
    assert_eq!(map(&mut channel, PAGE, 2 * PAGE), 0);
    for body in [
        // Another region, unknown flags, no length.
        range(1, 0, 0, PAGE, 0),
        range(255, 0, 0, PAGE, 0),
        range(0, 0, 0, PAGE, 2),
        range(0, 0, 0, PAGE, u64::MAX),
        range(0, 0, 0, 0, 0),
        // Not aligned.
        range(0, 1, 0, PAGE, 0),
        range(0, 0, 1, PAGE, 0),
        range(0, 0, 0, PAGE - 1, 0),
        // Beyond the window, and around.
        range(0, 0, fake::WINDOW, PAGE, 0),
        range(0, 0, 4 * PAGE, fake::WINDOW, 0),
        range(0, 0, !(PAGE - 1), PAGE, 0),
        range(0, 0, 4 * PAGE, !(PAGE - 1), 0),
        range(0, !(PAGE - 1), 4 * PAGE, PAGE, 0),
        // Over another.
        range(0, 0, PAGE, 2 * PAGE, 0),
        range(0, 0, 0, fake::WINDOW, 0),
        range(0, 0, 2 * PAGE, PAGE, 0),
    ] {
        assert_ne!(ask(&mut channel, MAP, &body, Some(&file)), 0, "{body:?}");
    }
    let null = File::open("/dev/null").unwrap();
    let body = range(0, 0, 4 * PAGE, PAGE, 0);
    assert_ne!(ask(&mut channel, MAP, &body, Some(&null)), 0);
    for (offset, len) in [
        (PAGE, PAGE),
        (2 * PAGE, PAGE),
        (0, fake::WINDOW),
        (4 * PAGE, PAGE),
    ] {
        assert_ne!(unmap(&mut channel, offset, len), 0);
    }
    assert_ne!(
        ask(&mut channel, UNMAP, &range(1, 0, PAGE, 2 * PAGE, 0), None),
        0
    );
    assert_eq!(daemons.mapped.now(), [(PAGE, 2 * PAGE)]);
    // Nothing in the configuration could have changed.
    assert_eq!(ask(&mut channel, 2, &[], None), 0);
    assert_eq!(unmap(&mut channel, PAGE, 2 * PAGE), 0);
    let status = device.status();
    assert_eq!((status.state, status.reconnects), (State::Active, 0));
}

#[test]
fn nobody_maps_what_no_driver_asked_for() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let mut device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon).unwrap();
    let mut channel = daemons.channels.recv().unwrap();
    assert_ne!(map(&mut channel, 0, PAGE), 0);
    let machine = Guest::new(&device, Calls::Relayed).machine;
    machine.start(&mut device);
    assert_eq!(map(&mut channel, 0, PAGE), 0);
    device.pause().unwrap();
    device.resume().unwrap();
    assert_eq!(daemons.mapped.now(), [(0, PAGE)]);
    device.reset().unwrap();
    assert_eq!(daemons.mapped.now(), []);
    assert_ne!(map(&mut channel, 0, PAGE), 0);
    machine.start(&mut device);
    assert_eq!(map(&mut channel, 0, PAGE), 0);
}

#[test]
fn mappings_go_with_their_daemon() {
    for recovery in [Recovery::NeedsReset, Recovery::Resume] {
        for mapped in [false, true] {
            let (mut daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
            daemon.recovery = recovery;
            let (mut device, machine, mut channel) = active(daemon, &daemons);
            if mapped {
                assert_eq!(map(&mut channel, 0, PAGE), 0);
            }
            let stream = daemons.streams.recv().unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            let mut channel = daemons.channels.recv().unwrap();
            eventually("the next daemon is there", || device.status().connected);
            assert_eq!(daemons.mapped.now(), []);
            let goes_on = recovery == Recovery::Resume && !mapped;
            let state = if goes_on {
                State::Active
            } else {
                State::Failed
            };
            assert_eq!(device.state(), state);
            if !goes_on {
                assert_ne!(map(&mut channel, 0, PAGE), 0);
                device.reset().unwrap();
                machine.start(&mut device);
            }
            assert_eq!(map(&mut channel, 0, PAGE), 0);
        }
    }
}

#[test]
fn a_daemon_that_talks_nonsense_is_given_up() {
    let file = tempfile::tempfile().unwrap();
    let body = range(0, 0, 0, PAGE, 0);
    let cases: [(u32, Vec<u8>, Option<&File>); 13] = [
        (0, message(0, FLAGS, &body), None),
        (1, message(1, FLAGS, &body), None),
        (3, message(3, FLAGS, &body), Some(&file)),
        (11, message(11, FLAGS, &[]), None),
        (u32::MAX, vec![0xff; 52], None),
        // No request, or of another version.
        (MAP, message(MAP, FLAGS | 1 << 2, &body), Some(&file)),
        (MAP, message(MAP, 2, &body), Some(&file)),
        (UNMAP, message(UNMAP, 0, &body), None),
        // Too short, too long.
        (MAP, message(MAP, FLAGS, &body[1..]), Some(&file)),
        (UNMAP, message(UNMAP, FLAGS, &[0; 4096]), None),
        // Without a file, or with one too many.
        (MAP, message(MAP, FLAGS, &body), None),
        (UNMAP, message(UNMAP, FLAGS, &body), Some(&file)),
        (2, message(2, FLAGS, &[]), Some(&file)),
    ];
    for (number, bytes, file) in cases {
        let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
        let (device, machine, mut channel) = active(daemon, &daemons);
        assert_eq!(map(&mut channel, PAGE, PAGE), 0);
        fake::send(&channel, &bytes, file);
        eventually("it is given up", || device.state() == State::Failed);
        assert_eq!(daemons.mapped.now(), []);
        eventually("the driver is told", || machine.resets_needed() == 1);
        let error = device.status().last_error.unwrap();
        match &*error {
            Error::BackChannel { request, state, .. } => {
                assert_eq!((*request, *state), (number, State::Active));
            }
            other => panic!("{other}"),
        }
        // Nothing is left of it here.
        assert_eq!(channel.read(&mut [0; 64]).unwrap_or(0), 0);
    }
}

#[test]
fn a_message_has_one_descriptor_at_most() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let (device, _machine, channel) = active(daemon, &daemons);
    let file = tempfile::tempfile().unwrap();
    let whole = message(MAP, FLAGS, &range(0, 0, 0, PAGE, 0));
    // One with each part.
    let (head, rest) = whole.split_at(20);
    fake::send(&channel, head, Some(&file));
    fake::send(&channel, rest, Some(&file));
    eventually("it is given up", || device.state() == State::Failed);
    let error = device.status().last_error.unwrap();
    assert!(
        matches!(&*error, Error::BackChannel { request: MAP, .. }),
        "{error}"
    );
}

#[test]
fn a_message_may_come_in_parts_but_not_for_ever() {
    let (mut daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    daemon.timeouts.message = Duration::from_millis(500);
    let (device, _machine, mut channel) = active(daemon, &daemons);
    let file = tempfile::tempfile().unwrap();
    let whole = message(MAP, FLAGS, &range(0, 0, 0, PAGE, 0));
    let mut file = Some(&file);
    for byte in whole.chunks(5) {
        fake::send(&channel, byte, file.take());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(answer(&mut channel, MAP), 0);
    channel.write_all(&whole[..13]).unwrap();
    eventually("it is given up", || device.state() == State::Failed);
    let error = device.status().last_error.unwrap();
    assert!(matches!(&*error, Error::Timeout { .. }), "{error}");
}

#[test]
fn a_daemon_that_takes_no_answers_is_given_up() {
    let (mut daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    daemon.timeouts.message = Duration::from_millis(500);
    let (device, _machine, mut channel) = active(daemon, &daemons);
    let bytes = message(UNMAP, FLAGS, &range(0, 0, 0, PAGE, 0));
    while channel.write_all(&bytes).is_ok() {}
    eventually("it is given up", || device.state() == State::Failed);
}

#[test]
fn a_daemon_that_wants_no_answers_gets_none() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let (_device, _machine, mut channel) = active(daemon, &daemons);
    let file = tempfile::tempfile().unwrap();
    for number in 0..3 {
        let body = range(0, 0, number * PAGE, PAGE, 0);
        fake::send(&channel, &message(MAP, 1, &body), Some(&file));
    }
    assert_eq!(map(&mut channel, 4 * PAGE, PAGE), 0);
    assert_eq!(daemons.mapped.now().len(), 4);
}

#[test]
fn a_device_is_not_saved_with_what_cannot_be_elsewhere() {
    let (daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    let (mut device, _machine, mut channel) = active(daemon, &daemons);
    assert_eq!(map(&mut channel, 0, PAGE), 0);
    device.pause().unwrap();
    assert!(matches!(device.save(), Err(Error::Mapped(1))));
    device.resume().unwrap();
    assert_eq!(device.state(), State::Active);
    assert_eq!(unmap(&mut channel, 0, PAGE), 0);
    device.pause().unwrap();
    device.save().unwrap();
}

#[test]
fn the_window_is_as_large_as_both_have_it() {
    let size = |protocol, there, ours| {
        let (mut daemon, daemons) = daemons(protocol, there);
        let window = daemon.window.as_mut().unwrap();
        window.size = ours;
        let device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon);
        drop(daemons);
        device.map(|device| {
            let window = device.status().window;
            assert_eq!(window.map(|window| window.size), device.window_size());
            device.window_size()
        })
    };
    let all = fake::ALL;
    assert_eq!(size(all, 4 * PAGE, 8 * PAGE).unwrap(), Some(4 * PAGE));
    assert_eq!(size(all, 8 * PAGE, 4 * PAGE).unwrap(), Some(4 * PAGE));
    assert_eq!(size(all, 0, 4 * PAGE).unwrap(), None);
    for lacking in [fake::SHMEM, fake::BACKEND_REQ, fake::REPLY_ACK] {
        assert_eq!(size(all & !lacking, 4 * PAGE, 4 * PAGE).unwrap(), None);
    }
    assert!(matches!(size(all, 100, PAGE), Err(Error::Protocol { .. })));
    for ours in [0, 100] {
        assert!(matches!(size(all, PAGE, ours), Err(Error::WindowSize(_))));
    }
}

#[test]
fn a_device_without_a_window_asks_for_none() {
    let (mut daemon, daemons) = daemons(fake::ALL, fake::WINDOW);
    daemon.window = None;
    let device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon).unwrap();
    assert_eq!(device.window_size(), None);
    drop(device);
    assert!(
        daemons
            .channels
            .recv_timeout(Duration::from_millis(10))
            .is_err()
    );
}

#[test]
fn the_next_daemon_has_as_large_a_window() {
    let (to, channels) = channel();
    let made = std::sync::atomic::AtomicUsize::new(0);
    let (stream_to, streams) = channel();
    let mut daemon = VhostUser::by(move || {
        let (ours, theirs) = UnixStream::pair()?;
        stream_to.send(theirs.try_clone()?).unwrap();
        let number = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let asks = Asks {
            window: [2, 1, 2].get(number).unwrap_or(&2) * PAGE,
            channel: to.clone(),
        };
        std::thread::spawn(move || {
            fake::serve_that_asks(fake::ALL, &asks, theirs, Fault::Silence, usize::MAX)
        });
        Ok(ours)
    });
    daemon.window = Some(Window {
        size: 2 * PAGE,
        mapper: Arc::new(Mapped::default()),
    });
    let device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon).unwrap();
    let first: UnixStream = streams.recv().unwrap();
    first.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("there is one", || device.status().reconnects == 1);
    // The first, one that was refused, and the one that took its place.
    let channels: Vec<_> = channels.iter().take(3).collect();
    let error = device.status().last_error.unwrap();
    assert!(matches!(&*error, Error::Changed(_)), "{error}");
    // One that is closed is a daemon that is gone.
    drop(channels);
}
