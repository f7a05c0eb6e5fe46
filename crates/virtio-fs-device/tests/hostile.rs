//! Daemons that do what they should not. Whatever they do, each call returns in time.

mod support;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::fake::{self, FAULTS, Fault};
use support::*;
use virtio_fs_device::{
    Device, DeviceConfig, Error, Recovery, ReservedWindow, State, Timeouts, VhostUser, Window,
};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

/// How long a daemon has for anything that does not do it.
const LIMIT: Duration = Duration::from_millis(40);
/// How long a call may take: it is a busy machine that tests run on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon of which the first has `fault` at message `at`, and later ones never; `count` is how
/// many messages came to the first.
fn daemon(fault: Fault, at: usize, count: Arc<AtomicUsize>) -> VhostUser {
    let made = AtomicUsize::new(0);
    let mut daemon = VhostUser::by(move || {
        let (ours, theirs) = UnixStream::pair()?;
        let count = Arc::clone(&count);
        let first = made.fetch_add(1, Ordering::SeqCst) == 0;
        std::thread::spawn(move || {
            let came = fake::serve(theirs, fault, if first { at } else { usize::MAX });
            if first {
                count.store(came, Ordering::SeqCst);
            }
        });
        Ok(ours)
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
    daemon
}

/// How long a daemon has: that of one which makes nobody wait in vain does not matter.
fn limit(fault: Fault, at: usize) -> Duration {
    match fault {
        Fault::HangUp | Fault::Half => LONG,
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
    results.push(timed(|| device.update_memory(Arc::clone(&machine.memory))));
    results.push(timed(|| device.pause()));
    results.push(timed(|| device.save()).map(drop));
    results.push(timed(|| device.resume()));
    results.push(timed(|| device.stop_dirty_log()));
    results.push(timed(|| device.reset()));
    if device.ack_features(machine.features).is_ok() {
        results.push(timed(|| device.activate(machine.activation())));
    }
    device.take_dirty(0..u64::MAX, |_| ());
    timed(|| device.status());
    timed(|| drop(device));
    results.into_iter().collect()
}

fn well_behaved() -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    live(daemon(Fault::Silence, usize::MAX, Arc::clone(&count))).unwrap();
    eventually("it has counted", || count.load(Ordering::SeqCst) > 0);
    count.load(Ordering::SeqCst)
}

#[test]
fn whatever_a_daemon_does_no_call_hangs() {
    let messages = well_behaved();
    assert!(messages > 50, "{messages}");
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
                    let _ = live(daemon(fault, at, Arc::default()));
                }
            });
        }
    });
}

#[test]
fn what_a_daemon_did_is_told() {
    let first = |fault| live(daemon(fault, 0, Arc::default())).unwrap_err();
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

#[test]
fn a_daemon_has_no_more_state_than_is_wanted() {
    // Whichever message it is that asks for the state.
    let errors =
        (0..well_behaved()).map(|at| live(daemon(Fault::EndlessState, at, Arc::default())));
    let too_large = |error: &Error| matches!(error, Error::StateSize(0x10_0000));
    assert!(
        errors
            .filter_map(Result::err)
            .any(|error| too_large(&error))
    );
}

/// One daemon, with `fault` at message `at`, and none after it.
fn only_daemon(protocol: u64, fault: Fault, at: usize, count: Arc<AtomicUsize>) -> VhostUser {
    let made = AtomicUsize::new(0);
    let mut daemon = VhostUser::by(move || {
        if made.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = UnixStream::pair()?;
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            let came = fake::serve_with(protocol, theirs, fault, at);
            count.store(came, Ordering::SeqCst);
        });
        Ok(ours)
    });
    daemon.timeouts.message = 3 * limit(fault, at);
    daemon.timeouts.stop = 3 * limit(fault, at);
    daemon
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
        let daemon = only_daemon(fake::ALL, Fault::HangUp, at, Arc::default());
        let Some((mut device, machine)) = active(daemon) else {
            continue;
        };
        if device.start_dirty_log().is_ok() {
            // Too much for the log that there is.
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            let (start, file) = (GuestAddress(1 << 40), FileOffset::new(file, 0));
            let plugged = GuestRegionMmap::from_range(start, 1 << 20, Some(file)).unwrap();
            let memory = machine.memory.insert_region(Arc::new(plugged)).unwrap();
            done = device.update_memory(Arc::new(memory)).is_ok();
            let mut pages = Vec::new();
            device.take_dirty(0..u64::MAX, |page| pages.push(page));
            assert_eq!(pages, [0], "it died at message {at}");
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
            let count = Arc::new(AtomicUsize::new(0));
            let protocol = fake::ALL & !fake::REPLY_ACK;
            let daemon = only_daemon(protocol, Fault::Silence, at, Arc::clone(&count));
            let (mut device, _machine) = active(daemon)?;
            call(&mut device).unwrap();
            let error = device.status().last_error;
            drop(device);
            eventually("it has counted", || count.load(Ordering::SeqCst) > 0);
            Some((count.load(Ordering::SeqCst), error))
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
        let daemon = daemon(Fault::HangUp, at, Arc::default());
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
