//! Any sequence of calls, while daemons die at any message, one after the other: no call hangs, each
//! does what the table of states says or names a reason, and the device can be used in the end.

mod support;

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::fake::{self, FAULTS, Fault};
use support::table::table;
use support::*;
use virtio_fs_device::{
    Call, DIRTY_PAGE, Device, DeviceConfig, Error, Recovery, ReservedWindow, SavedState, State,
    Timeouts, VhostUser, Window,
};

/// How long a daemon has.
const LIMIT: Duration = Duration::from_millis(40);
/// How long a call may take: it is a busy machine that tests run on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most messages before which a daemon dies; more come in the longest of sequences only.
const MESSAGES: usize = 120;

#[derive(Debug, Clone, Copy)]
enum Op {
    Call(Call),
    Unplug,
    StartLog,
    StopLog,
    TakeDirty,
    /// Waits until there is a daemon.
    Await,
}

fn op() -> impl Strategy<Value = Op> {
    // A device that is used is what most calls are about.
    let call = prop_oneof![
        4 => Just(Call::AckFeatures),
        6 => Just(Call::Activate),
        1 => Just(Call::Reset),
        3 => Just(Call::Pause),
        3 => Just(Call::Resume),
        1 => Just(Call::UpdateMemory),
        1 => Just(Call::StartQueue),
        1 => Just(Call::StopQueue),
        1 => Just(Call::UpdateInterrupt),
        2 => Just(Call::Save),
        2 => Just(Call::Restore),
    ];
    prop_oneof![
        26 => call.prop_map(Op::Call),
        1 => Just(Op::Unplug),
        1 => Just(Op::StartLog),
        1 => Just(Op::StopLog),
        1 => Just(Op::TakeDirty),
        2 => Just(Op::Await),
    ]
}

/// What a daemon does at which message: it mostly dies.
fn death() -> impl Strategy<Value = (Fault, usize)> {
    let fault = prop_oneof![
        3 => Just(Fault::HangUp),
        1 => prop::sample::select(FAULTS.to_vec()),
    ];
    (fault, 0..MESSAGES)
}

/// Daemons that die as `deaths` says, and one that does not after them.
fn daemons(deaths: Vec<(Fault, usize)>, recovery: Recovery) -> VhostUser {
    let deaths = Mutex::new(VecDeque::from(deaths));
    let mut daemons = VhostUser::by(move || {
        let next = deaths.lock().unwrap().pop_front();
        let (fault, at) = next.unwrap_or((Fault::Silence, usize::MAX));
        let (ours, theirs) = UnixStream::pair()?;
        std::thread::spawn(move || fake::serve(theirs, fault, at));
        Ok(ours)
    });
    daemons.recovery = recovery;
    daemons.state_limit = 1 << 20;
    daemons.timeouts = Timeouts {
        connect: LIMIT,
        message: LIMIT,
        stop: LIMIT,
        state: LIMIT,
    };
    daemons
}

struct Model {
    device: Device<Memory>,
    machine: Machine,
    /// Where it is, but for its daemon.
    state: State,
    saved: Option<(SavedState, State)>,
}

impl Model {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Call(Call::AckFeatures) => {
                let features = self.machine.features;
                self.call(Call::AckFeatures, |device| device.ack_features(features));
            }
            Op::Call(Call::Activate) => {
                let activation = self.machine.activation();
                self.call(Call::Activate, |device| device.activate(activation));
            }
            Op::Call(Call::Reset) => {
                let reset = self.call(Call::Reset, Device::reset);
                assert_eq!(reset, Some(()), "it always succeeds");
            }
            Op::Call(Call::Pause) => drop(self.call(Call::Pause, Device::pause)),
            Op::Call(Call::Resume) => drop(self.call(Call::Resume, Device::resume)),
            Op::Call(Call::UpdateMemory) => self.update_memory(self.machine.plugged()),
            Op::Unplug => self.update_memory(Arc::clone(&self.machine.memory)),
            Op::Call(Call::StartQueue) => {
                let queue = self.machine.activation().queues.remove(1);
                self.call(Call::StartQueue, |device| device.start_queue(queue, 0));
            }
            Op::Call(Call::StopQueue) => {
                self.call(Call::StopQueue, |device| device.stop_queue(1));
            }
            Op::Call(Call::UpdateInterrupt) => {
                self.call(Call::UpdateInterrupt, |device| device.update_interrupt(1));
            }
            Op::Call(Call::Save) => {
                let saved = self.call(Call::Save, Device::save);
                self.saved = saved.map(|saved| (saved, self.state)).or(self.saved.take());
            }
            Op::Call(_) => self.restore(),
            Op::StartLog => drop(self.untabled(Device::start_dirty_log)),
            Op::StopLog => drop(self.untabled(Device::stop_dirty_log)),
            Op::TakeDirty => self.device.take_dirty(0..u64::MAX, |page| {
                let written = fake::WRITTEN * DIRTY_PAGE;
                assert_eq!(page, written, "daemons note but one that is memory");
            }),
            Op::Await => {
                eventually("there is a daemon", || self.device.status().connected);
            }
        }
        let status = self.device.status();
        assert_eq!(status.needs_reset, status.state == State::Failed);
        if let Some(error) = status.last_error {
            explains(&error);
        }
    }

    fn update_memory(&mut self, memory: Memory) {
        self.call(Call::UpdateMemory, |device| device.update_memory(memory));
    }

    fn restore(&mut self) {
        let Some((saved, was)) = self.saved.clone() else {
            return;
        };
        let memory = Arc::clone(&self.machine.memory);
        let (kicks, interrupts) = (self.machine.kicks(), self.machine.interrupts.clone());
        self.look();
        let next = table(Call::Restore, self.state).map(|next| match was {
            State::Paused => next,
            State::Negotiated => State::Negotiated,
            // The driver did not use it.
            _ => self.state,
        });
        self.call_to(next, Call::Restore, |device| {
            device.restore(&saved, memory, &kicks, interrupts)
        });
    }

    /// Makes a call, and checks what comes of it.
    fn call<T: std::fmt::Debug>(
        &mut self,
        call: Call,
        make: impl FnOnce(&mut Device<Memory>) -> Result<T, Error>,
    ) -> Option<T> {
        self.look();
        self.call_to(table(call, self.state), call, make)
    }

    /// As [`call`](Self::call), which leaves the device at `next` or is not for this state.
    fn call_to<T: std::fmt::Debug>(
        &mut self,
        next: Option<State>,
        call: Call,
        make: impl FnOnce(&mut Device<Memory>) -> Result<T, Error>,
    ) -> Option<T> {
        let before = self.state;
        let result = self.untabled(make);
        match (&result, next) {
            (Ok(_), Some(next)) => self.state = next,
            (Err(Error::WrongState { call: at, state }), next) => {
                assert_eq!(*at, call);
                let is_right = match next {
                    // It may have failed just now.
                    None => *state == before || *state == State::Failed,
                    Some(_) => matches!(state, State::Disconnected | State::Failed),
                };
                assert!(is_right, "{call} when {before}: it says {state}");
            }
            (Err(error), Some(_)) => explains(error),
            (_, None) if self.device.state() == State::Failed => {}
            (result, None) => panic!("{call} when {before}: {result:?}"),
        }
        self.look();
        result.ok()
    }

    /// As [`call`](Self::call), for what is for every state.
    fn untabled<T>(
        &mut self,
        make: impl FnOnce(&mut Device<Memory>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begin = Instant::now();
        let result = make(&mut self.device);
        let took = begin.elapsed();
        assert!(took < PATIENCE, "it took {took:?}");
        result
    }

    /// Looks where the device is: it may have failed with its daemon.
    fn look(&mut self) {
        match self.device.state() {
            State::Disconnected => {}
            State::Failed => {
                let could = [State::Active, State::Paused, State::Failed];
                assert!(could.contains(&self.state), "it failed when {}", self.state);
                self.state = State::Failed;
            }
            state => assert_eq!(state, self.state),
        }
    }

    /// Whatever became of it: with a daemon that lives it is as new after a reset.
    fn end(mut self) {
        eventually("there is a daemon", || {
            self.apply(Op::Call(Call::Reset));
            self.device.ack_features(self.machine.features).unwrap();
            self.state = State::Negotiated;
            // The last one that dies may do so here.
            let activation = self.machine.activation();
            let activated = self.call(Call::Activate, |device| device.activate(activation));
            activated.is_some() && self.device.state() == State::Active
        });
        let begin = Instant::now();
        drop(self.device);
        assert!(begin.elapsed() < PATIENCE);
    }
}

/// What went wrong with a daemon names the message, if there was one, and where the device was.
#[track_caller]
fn explains(error: &Error) {
    match error {
        Error::Disconnected { during }
        | Error::Timeout { during, .. }
        | Error::Refused { during }
        | Error::Protocol { during, .. } => {
            let text = error.to_string();
            assert!(text.contains(&during.state.to_string()), "{text}");
            assert!(text.contains(during.message.unwrap_or("")), "{text}");
        }
        Error::Queue(1)
        | Error::State(_)
        | Error::StateSize(_)
        | Error::Changed(_)
        | Error::ConfigSpace(_)
        | Error::MissingFeatures(_)
        | Error::TooManyQueues { .. }
        | Error::Regions { .. }
        | Error::Unsupported(_) => {}
        _ => panic!("{error:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn calls_in_any_order_while_daemons_die_at_any_message(
        deaths in prop::collection::vec(death(), 1..5),
        resumes in any::<bool>(),
        has_window in any::<bool>(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let recovery = match resumes {
            true => Recovery::Resume,
            false => Recovery::NeedsReset,
        };
        let mut daemons = daemons(deaths, recovery);
        if has_window {
            daemons.window = Some(Window {
                size: fake::WINDOW,
                mapper: Arc::new(ReservedWindow::new(fake::WINDOW).unwrap()),
            });
        }
        // The first ones may die before there is a device.
        let made = Device::vhost_user(&DeviceConfig::default(), daemons);
        if let Err(error) = &made {
            explains(error);
        }
        if let Ok(device) = made {
            let machine = Guest::new(&device, Calls::Relayed).machine;
            let (state, saved) = (State::New, None);
            let mut model = Model { device, machine, state, saved };
            for op in ops {
                model.apply(op);
            }
            model.end();
        }
    }
}
