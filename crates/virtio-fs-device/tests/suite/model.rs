//! Any sequence of calls does what the table of states says.

use fuse_wire::NodeId;
use proptest::prelude::*;
use virtio_fs_device::{Call, Device, Error, SavedState, State};
use virtio_fs_guest::{Connection, Mount, MountOptions};

use crate::plugged::Plugged;
use crate::served::{Behind, Files, Served};
use crate::support::table::table;
use crate::support::{Machine, Memory};
use crate::work;

/// What is done to a device.
#[derive(Debug, Clone, Copy)]
enum Op {
    AckFeatures,
    AckUnknownFeatures,
    Activate,
    ActivateWrongQueue,
    Reset,
    Pause,
    Resume,
    PlugMemory,
    UnplugMemory,
    Save,
    /// Restores what was saved last of a device that the driver did not use.
    Restore,
    /// Saves the device and goes on with another one.
    Move,
    StartLog,
    StopLog,
    /// The guest works, where it can.
    Work,
}

fn op() -> impl Strategy<Value = Op> {
    // A device that is used is what most calls are about.
    prop_oneof![
        3 => Just(Op::AckFeatures),
        1 => Just(Op::AckUnknownFeatures),
        6 => Just(Op::Activate),
        1 => Just(Op::ActivateWrongQueue),
        1 => Just(Op::Reset),
        3 => Just(Op::Pause),
        3 => Just(Op::Resume),
        1 => Just(Op::PlugMemory),
        1 => Just(Op::UnplugMemory),
        1 => Just(Op::Save),
        1 => Just(Op::Restore),
        2 => Just(Op::Move),
        1 => Just(Op::StartLog),
        1 => Just(Op::StopLog),
        4 => Just(Op::Work),
    ]
}

enum Driver {
    Fresh(Connection),
    Mounted(Mount),
    /// Only while it changes.
    Nobody,
}

struct Model {
    served: Served,
    device: Option<Device<Memory>>,
    driver: Driver,
    machine: Machine,
    plugged: Plugged,
    state: State,
    logging: bool,
    saved: Option<(SavedState, State)>,
    round: usize,
}

impl Model {
    fn new(behind: Behind) -> Self {
        let served = Served::new(behind, Files::Directory);
        let device = served.device();
        let guest = served.guest(&device);
        Self {
            plugged: Plugged::new(behind == Behind::Daemon, &guest.machine.memory),
            served,
            device: Some(device),
            driver: Driver::Fresh(guest.connection),
            machine: guest.machine,
            state: State::New,
            logging: false,
            saved: None,
            round: 0,
        }
    }

    fn device(&mut self) -> &mut Device<Memory> {
        self.device.as_mut().unwrap()
    }

    /// Checks what came of `call`, and returns whether it succeeded.
    fn expect<T: std::fmt::Debug>(&mut self, call: Call, result: &Result<T, Error>) -> bool {
        match (table(call, self.state), result) {
            (Some(next), Ok(_)) => {
                self.state = next;
                true
            }
            (None, Err(Error::WrongState { call: at, state })) => {
                assert_eq!((*at, *state), (call, self.state));
                false
            }
            other => panic!("{call} when {}: {other:?}", self.state),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::AckFeatures => {
                let features = self.machine.features;
                let result = self.device().ack_features(features);
                self.expect(Call::AckFeatures, &result);
            }
            Op::AckUnknownFeatures => {
                let features = self.machine.features | 1 << 63;
                match self.device().ack_features(features) {
                    Err(Error::UnknownFeatures(_)) => {
                        assert!(table(Call::AckFeatures, self.state).is_some());
                    }
                    other => assert!(!self.expect(Call::AckFeatures, &other)),
                }
            }
            Op::Activate => self.activate(),
            Op::ActivateWrongQueue => {
                let mut activation = self.machine.activation();
                activation.queues[0].index = 99;
                match self.device().activate(activation) {
                    Err(Error::Queue(99)) => assert_eq!(self.state, State::Negotiated),
                    other => assert!(!self.expect(Call::Activate, &other)),
                }
            }
            Op::Reset => {
                let result = self.device().reset();
                self.expect(Call::Reset, &result);
                if let Driver::Mounted(mount) = &mut self.driver {
                    mount.connection().reset().unwrap();
                }
            }
            Op::Pause => {
                let result = self.device().pause();
                self.expect(Call::Pause, &result);
            }
            Op::Resume => {
                let result = self.device().resume();
                self.expect(Call::Resume, &result);
            }
            Op::PlugMemory => self.update_memory(self.plugged.memory.clone()),
            Op::UnplugMemory => self.update_memory(self.machine.memory.clone()),
            Op::Save => self.save(),
            Op::Restore => self.restore(),
            Op::Move => self.go_elsewhere(),
            Op::StartLog | Op::StopLog => self.log(matches!(op, Op::StartLog)),
            Op::Work => self.work(),
        }
        let state = self.state;
        let status = self.device().status();
        assert_eq!(status.state, state, "after {op:?}");
        assert!(status.connected && !status.needs_reset);
        let mut tag = [0; 5];
        self.device().read_config(0, &mut tag);
        assert_eq!(&tag, b"test\0");
    }

    fn activate(&mut self) {
        let activation = self.machine.activation();
        let result = self.device().activate(activation);
        if !self.expect(Call::Activate, &result) {
            return;
        }
        let mount = match std::mem::replace(&mut self.driver, Driver::Nobody) {
            Driver::Fresh(connection) => connection.mount(&MountOptions::default()).unwrap(),
            Driver::Mounted(mut mount) => {
                mount.remount(&MountOptions::default()).unwrap();
                mount
            }
            Driver::Nobody => unreachable!(),
        };
        self.driver = Driver::Mounted(mount);
    }

    fn update_memory(&mut self, memory: Memory) {
        let result = self.device().update_memory(memory);
        self.expect(Call::UpdateMemory, &result);
    }

    fn save(&mut self) {
        if self.state == State::Paused && !self.device().status().capabilities.saves_state {
            return;
        }
        let result = self.device().save();
        if self.expect(Call::Save, &result) {
            let saved = result.unwrap();
            assert_eq!(saved.is_active(), self.state == State::Paused);
            if !saved.is_active() {
                self.saved = Some((saved, self.state));
            }
        }
    }

    fn restore(&mut self) {
        let Some((saved, was)) = self.saved.clone() else {
            return;
        };
        let before = self.state;
        let result = self.restore_to_device(&saved);
        if self.expect(Call::Restore, &result) {
            // The driver did not use it.
            self.state = match was {
                State::Negotiated => State::Negotiated,
                _ => before,
            };
        }
    }

    fn restore_to_device(&mut self, saved: &SavedState) -> Result<(), Error> {
        let memory = self.machine.memory.clone();
        let kicks = self.machine.kicks();
        let interrupt = self.machine.interrupts.clone();
        self.device().restore(saved, memory, &kicks, interrupt)
    }

    fn go_elsewhere(&mut self) {
        let capabilities = self.device().status().capabilities;
        if self.state != State::Paused || !capabilities.saves_state {
            return;
        }
        let saved = self.device().save().unwrap();
        self.device = None;
        self.device = Some(self.served.device());
        self.restore_to_device(&saved).unwrap();
        self.logging = false;
    }

    fn log(&mut self, on: bool) {
        if !self.device().status().capabilities.logs_dirty_pages {
            return;
        }
        match on {
            true => self.device().start_dirty_log().unwrap(),
            false => self.device().stop_dirty_log().unwrap(),
        }
        self.logging = on;
        self.dirty_pages();
    }

    fn dirty_pages(&mut self) -> usize {
        let mut pages = 0;
        self.device().take_dirty(0..u64::MAX, |_| pages += 1);
        pages
    }

    fn work(&mut self) {
        if self.state != State::Active {
            return;
        }
        let Driver::Mounted(mount) = &mut self.driver else {
            unreachable!()
        };
        self.round += 1;
        work(mount, "file", self.round);
        mount.use_queue(0);
        mount.getattr(NodeId::ROOT, None).unwrap();
        assert_eq!(self.dirty_pages() > 0, self.logging);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn calls_in_any_order_do_what_the_table_says(
        behind in prop_oneof![1 => Just(Behind::Daemon), 3 => Just(Behind::Process)],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut model = Model::new(behind);
        for op in ops {
            model.apply(op);
        }
    }
}
