//! Daemons that do what they should not. Whatever they do, each call returns in time.

mod support;

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::fake::{self, FAULTS, Fault};
use support::*;
use virtio_fs_device::{
    DIRTY_PAGE, Device, DeviceConfig, During, Error, Recovery, ReservedWindow, State, Timeouts,
    VhostUser, Window,
};

/// How long a daemon has for anything that does not do it.
const LIMIT: Duration = Duration::from_millis(40);
/// How long a call may take: it is a busy machine that tests run on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon of which the first has `fault` at message `at`, and later ones never.
fn daemon(fault: Fault, at: usize) -> VhostUser {
    watched_daemon(fault, at).0
}

/// As [`daemon`], and where each tells which messages came.
fn watched_daemon(fault: Fault, at: usize) -> (VhostUser, Receiver<Vec<u32>>) {
    let made = AtomicUsize::new(0);
    let (tell, told) = channel();
    let mut daemon = VhostUser::by(move || {
        let first = made.fetch_add(1, Ordering::SeqCst) == 0;
        let at = if first { at } else { usize::MAX };
        begin(fake::ALL, fault, at, tell.clone())
    });
    daemon.state_limit = 1 << 20;
    daemon.window = Some(Window {
        size: fake::WINDOW,
        mapper: Arc::new(ReservedWindow::new(fake::WINDOW).unwrap()),
    });
    let limit = limit(fault, at);
    daemon.timeouts = Timeouts {
        connect: limit,
        message: limit,
        stop: limit,
        state: limit,
    };
    (daemon, told)
}

/// Begins to serve somebody, who may have left when it ends.
fn begin(
    protocol: u64,
    fault: Fault,
    at: usize,
    tell: Sender<Vec<u32>>,
) -> std::io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    std::thread::spawn(move || {
        let came = fake::serve_with(protocol, theirs, fault, at);
        let _ = tell.send(came);
    });
    Ok(ours)
}

/// How long a daemon has: that of one which makes nobody wait in vain does not matter.
fn limit(fault: Fault, at: usize) -> Duration {
    match fault {
        Fault::HangUp | Fault::Half | Fault::Junk | Fault::Endless => LONG,
        _ if at == usize::MAX => LONG,
        _ => LIMIT,
    }
}

#[track_caller]
fn timed<T>(call: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = call();
    let took = begin.elapsed();
    assert!(took < PATIENCE, "it took {took:?}");
    result
}

/// Makes every call there is, and ends well whatever becomes of them. Returns the first error.
fn live(daemon: VhostUser) -> Result<(), Error> {
    let config = DeviceConfig::default();
    let mut device = timed(|| Device::<Memory>::vhost_user(&config, daemon))?;
    let guest = Guest::new(&device, Calls::Relayed);
    let machine = &guest.machine;
    let mut results = vec![device.ack_features(machine.features)];
    results.push(timed(|| device.activate(machine.activation())));
    results.push(timed(|| device.start_dirty_log()));
    results.push(timed(|| device.update_memory(machine.plugged())));
    results.push(timed(|| device.update_memory(Arc::clone(&machine.memory))));
    results.push(timed(|| device.update_interrupt(1)));
    results.push(timed(|| device.stop_queue(1)).map(drop));
    let queue = machine.activation().queues.remove(1);
    results.push(timed(|| device.start_queue(queue, 0)));
    results.push(timed(|| device.pause()));
    let saved = timed(|| device.save()).map_err(|error| results.push(Err(error)));
    results.push(timed(|| device.resume()));
    results.push(timed(|| device.stop_dirty_log()));
    results.push(timed(|| device.reset()));
    if let Ok(saved) = saved {
        results.push(timed(|| machine.restore(&mut device, &saved)));
        results.push(timed(|| device.resume()));
    }
    results.push(timed(|| device.reset()));
    if device.ack_features(machine.features).is_ok() {
        results.push(timed(|| device.activate(machine.activation())));
    }
    device.take_dirty(0..u64::MAX, |_| ());
    timed(|| device.status());
    timed(|| drop(device));
    results.into_iter().collect()
}

/// The messages that a daemon gets which does nothing wrong.
fn well_behaved() -> Vec<u32> {
    let (daemon, came) = watched_daemon(Fault::Silence, usize::MAX);
    live(daemon).unwrap();
    came.recv_timeout(LONG).unwrap()
}

/// All that a device ever tells a daemon, as the specification has them.
const MESSAGES: [(u32, &str); 27] = [
    (1, "GET_FEATURES"),
    (2, "SET_FEATURES"),
    (3, "SET_OWNER"),
    (5, "SET_MEM_TABLE"),
    (6, "SET_LOG_BASE"),
    (8, "SET_VRING_NUM"),
    (9, "SET_VRING_ADDR"),
    (10, "SET_VRING_BASE"),
    (11, "GET_VRING_BASE"),
    (12, "SET_VRING_KICK"),
    (13, "SET_VRING_CALL"),
    (14, "SET_VRING_ERR"),
    (15, "GET_PROTOCOL_FEATURES"),
    (16, "SET_PROTOCOL_FEATURES"),
    (17, "GET_QUEUE_NUM"),
    (18, "SET_VRING_ENABLE"),
    (21, "SET_BACKEND_REQ_FD"),
    (24, "GET_CONFIG"),
    (31, "GET_INFLIGHT_FD"),
    (32, "SET_INFLIGHT_FD"),
    (34, "RESET_DEVICE"),
    (36, "GET_MAX_MEM_SLOTS"),
    (37, "ADD_MEM_REG"),
    (38, "REM_MEM_REG"),
    (42, "SET_DEVICE_STATE_FD"),
    (43, "CHECK_DEVICE_STATE"),
    (44, "GET_SHMEM_CONFIG"),
];

#[test]
fn whatever_a_daemon_does_no_call_hangs() {
    let messages = well_behaved();
    for (number, name) in MESSAGES {
        assert!(messages.contains(&number), "{name} is not tried");
    }
    let messages = messages.len();
    let next = AtomicUsize::new(0);
    // They mostly wait.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let (at, fault) = (number / FAULTS.len(), FAULTS[number % FAULTS.len()]);
                    if at >= messages {
                        break;
                    }
                    // Some faults are none at some messages.
                    let _ = live(daemon(fault, at));
                }
            });
        }
    });
}

#[test]
fn what_a_daemon_did_is_told() {
    let first = |fault| live(daemon(fault, 0)).unwrap_err();
    assert!(matches!(first(Fault::Silence), Error::Timeout { .. }));
    assert!(matches!(first(Fault::Trickle), Error::Timeout { .. }));
    assert!(matches!(first(Fault::HangUp), Error::Disconnected { .. }));
    assert!(matches!(first(Fault::Half), Error::Disconnected { .. }));
    for fault in [
        Fault::Junk,
        Fault::OtherRequest,
        Fault::Endless,
        Fault::Empty,
        Fault::Longer,
        Fault::Descriptor,
    ] {
        let error = first(fault);
        assert!(
            matches!(error, Error::Protocol { .. }),
            "{fault:?}: {error}"
        );
    }
}

/// What an error of a daemon's says of when it happened.
fn during(error: &Error) -> During {
    match error {
        Error::Disconnected { during }
        | Error::Timeout { during, .. }
        | Error::Refused { during }
        | Error::Protocol { during, .. } => *during,
        _ => panic!("{error:?}"),
    }
}

#[test]
fn an_error_says_at_which_message_it_was_and_where_the_device_was() {
    let name_of = |number| MESSAGES.into_iter().find(|(named, _)| *named == number);
    let messages = well_behaved();
    let mut seen = BTreeSet::new();
    for (at, number) in messages.iter().enumerate() {
        let (_, mut name) = name_of(*number).unwrap();
        if name == "SET_PROTOCOL_FEATURES" {
            // That is acknowledged by nobody: it comes out at the next one.
            name = name_of(messages[at + 1]).unwrap().1;
        }
        for fault in [Fault::HangUp, Fault::Half, Fault::Junk, Fault::Endless] {
            let error = match live(daemon(fault, at)) {
                // Calls that are about a queue, and a reset, succeed whatever the daemon does, but
                // then it is gone.
                Ok(()) | Err(Error::WrongState { .. }) => continue,
                Err(error) => error,
            };
            let during = during(&error);
            if ["save the device", "restore the device"].contains(&during.doing) {
                assert_eq!(during.message, None);
                continue;
            }
            assert_eq!(during.message, Some(name), "{fault:?} at message {at}");
            let text = error.to_string();
            assert!(text.contains(name), "{text}");
            assert!(text.contains(&during.state.to_string()), "{text}");
            seen.insert((name, during.state.to_string()));
        }
    }
    for (name, state) in [
        ("GET_FEATURES", State::New),
        ("GET_SHMEM_CONFIG", State::New),
        ("SET_MEM_TABLE", State::Negotiated),
        ("SET_INFLIGHT_FD", State::Negotiated),
        ("SET_LOG_BASE", State::Active),
        ("ADD_MEM_REG", State::Active),
        ("GET_VRING_BASE", State::Active),
        ("SET_DEVICE_STATE_FD", State::Paused),
        ("CHECK_DEVICE_STATE", State::Paused),
        ("SET_INFLIGHT_FD", State::Paused),
        ("SET_DEVICE_STATE_FD", State::Reset),
        ("CHECK_DEVICE_STATE", State::Reset),
    ] {
        let there = seen.contains(&(name, state.to_string()));
        assert!(there, "{name} of a device that is {state}: {seen:?}");
    }
}

#[test]
fn a_daemon_that_is_gone_while_nobody_asks_it_for_anything_is_noted_with_the_state() {
    let streams = Arc::new(Mutex::new(Vec::<UnixStream>::new()));
    let kept = Arc::clone(&streams);
    let by = VhostUser::by(move || {
        let (ours, theirs) = UnixStream::pair()?;
        kept.lock().unwrap().push(ours.try_clone()?);
        std::thread::spawn(move || fake::serve(theirs, Fault::Silence, usize::MAX));
        Ok(ours)
    });
    let (mut device, _machine) = active(by).unwrap();
    device.pause().unwrap();
    let first = streams.lock().unwrap().pop().unwrap();
    first.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("it is noted", || device.status().last_error.is_some());
    let error = device.status().last_error.unwrap();
    let During { message, state, .. } = during(&error);
    assert_eq!((message, state), (None, State::Paused), "{error}");
}

#[test]
fn a_daemon_has_no_more_state_than_is_wanted() {
    // Whichever message it is that asks for the state.
    let errors = (0..well_behaved().len()).map(|at| live(daemon(Fault::EndlessState, at)));
    let too_large = |error: &Error| matches!(error, Error::StateSize(0x10_0000));
    assert!(
        errors
            .filter_map(Result::err)
            .any(|error| too_large(&error))
    );
}

/// One daemon, with `fault` at message `at`, and none after it; and where it tells which messages
/// came.
fn only_daemon(protocol: u64, fault: Fault, at: usize) -> (VhostUser, Receiver<Vec<u32>>) {
    let made = AtomicUsize::new(0);
    let (tell, told) = channel();
    let mut daemon = VhostUser::by(move || match made.fetch_add(1, Ordering::SeqCst) {
        0 => begin(protocol, fault, at, tell.clone()),
        _ => Err(std::io::ErrorKind::ConnectionRefused.into()),
    });
    daemon.timeouts.message = 3 * limit(fault, at);
    daemon.timeouts.stop = 3 * limit(fault, at);
    (daemon, told)
}

/// A device that the driver uses, if it came to that.
fn active(daemon: VhostUser) -> Option<(Device<Memory>, Machine)> {
    let mut device = Device::<Memory>::vhost_user(&DeviceConfig::default(), daemon).ok()?;
    let machine = Guest::new(&device, Calls::Relayed).machine;
    device.ack_features(machine.features).ok()?;
    device.activate(machine.activation()).ok()?;
    Some((device, machine))
}

#[test]
fn what_a_daemon_wrote_is_known_whenever_it_dies() {
    let (mut known, mut done) = (0, false);
    for at in 0.. {
        let (daemon, _) = only_daemon(fake::ALL, Fault::HangUp, at);
        let Some((mut device, machine)) = active(daemon) else {
            continue;
        };
        if device.start_dirty_log().is_ok() {
            // Too much for the log that there is.
            done = device.update_memory(machine.plugged()).is_ok();
            let mut pages = Vec::new();
            device.take_dirty(0..u64::MAX, |page| pages.push(page));
            assert_eq!(
                pages,
                [fake::WRITTEN * DIRTY_PAGE],
                "it died at message {at}"
            );
            known += 1;
        }
        if done {
            break;
        }
    }
    assert!(known > 2, "{known}");
}

#[test]
fn a_daemon_that_acknowledges_nothing_is_waited_for() {
    for call in [
        |device: &mut Device<Memory>| device.reset(),
        |device: &mut Device<Memory>| device.update_interrupt(1),
    ] {
        // How many messages came, and what became of it where the daemon fell silent at one.
        let silent = |at| {
            let protocol = fake::ALL & !fake::REPLY_ACK;
            let (daemon, came) = only_daemon(protocol, Fault::Silence, at);
            let (mut device, _machine) = active(daemon)?;
            call(&mut device).unwrap();
            let error = device.status().last_error;
            drop(device);
            Some((came.recv_timeout(LONG).unwrap().len(), error))
        };
        let (messages, _) = silent(usize::MAX).unwrap();
        let mut waited = 0;
        for (_, error) in (0..messages).filter_map(silent) {
            assert!(error.is_some(), "it was not waited for");
            waited += 1;
        }
        assert!(waited > 0);
    }
}

#[test]
fn a_driver_that_tries_again_is_served() {
    let (mut failed, mut at) = (0, 0);
    loop {
        let daemon = daemon(Fault::HangUp, at);
        at += 1;
        let config = DeviceConfig::default();
        let Ok(mut device) = Device::<Memory>::vhost_user(&config, daemon) else {
            continue;
        };
        let machine = Guest::new(&device, Calls::Relayed).machine;
        device.ack_features(machine.features).unwrap();
        if device.activate(machine.activation()).is_ok() {
            break;
        }
        failed += 1;
        // Whether it was noticed already or not.
        device.activate(machine.activation()).unwrap();
        eventually("it is served", || {
            let status = device.status();
            status.state == State::Active && status.reconnects == 1
        });
        assert_eq!(machine.resets_needed(), 0);
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn a_daemon_may_lack_anything() {
    for bit in 0..64 {
        let protocol = fake::ALL & !(1 << bit);
        let mut daemon = VhostUser::by(move || {
            let (ours, theirs) = UnixStream::pair()?;
            std::thread::spawn(move || {
                fake::serve_with(protocol, theirs, Fault::Silence, usize::MAX)
            });
            Ok(ours)
        });
        daemon.recovery = Recovery::Resume;
        let lacking = 1u64 << bit;
        let result = live(daemon);
        match lacking {
            fake::CONFIG => assert!(matches!(result, Err(Error::NoTag))),
            fake::LOG_SHMFD | fake::DEVICE_STATE => {
                assert!(matches!(result, Err(Error::Unsupported(_))), "{result:?}");
            }
            _ => result.unwrap(),
        }
    }
}

#[test]
fn a_device_is_dropped_while_a_daemon_says_nothing() {
    let place = Place::new();
    let listener = std::os::unix::net::UnixListener::bind(place.socket()).unwrap();
    let mut options = VhostUser::new(place.socket());
    options.timeouts.message = LONG;
    let (made, is_made) = std::sync::mpsc::channel();
    let accepted = std::thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        let stream = first.try_clone().unwrap();
        let serving = std::thread::spawn(|| fake::serve(first, Fault::Silence, usize::MAX));
        // It dies, and the next one accepts the connection and no more.
        is_made.recv().unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        serving.join().unwrap();
        let second = listener.accept().unwrap();
        (listener, second)
    });
    let device = Device::<Memory>::vhost_user(&DeviceConfig::default(), options).unwrap();
    made.send(()).unwrap();
    let silent = accepted.join().unwrap();
    timed(|| drop(device));
    drop(silent);
}
