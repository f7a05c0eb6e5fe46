//! A guest that writes anywhere, anything, in pieces of any length: nothing panics, what the VMM is told
//! makes sense (see `Vmm`), and the device can be used after a reset.

mod support;

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use support::*;
use virtio_fs_device::Device;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// What a guest does.
#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    ReadConfig(usize, usize),
    WriteConfig(usize, Vec<u8>),
    /// Whether the VMM refuses from now on.
    Refuse(bool),
    SaveAndRestore,
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let values = prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()];
    prop::collection::vec(values, 0..10)
}

/// Mostly where something is.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0_u64..0x40,
        2 => 0x1000_u64..0x1050,
        1 => 0x3000_u64..0x3010,
        2 => 0_u64..0x4000,
        1 => any::<u64>(),
    ]
}

fn config_offset() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0_usize..264, 2 => Just(4_usize), 1 => any::<usize>()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (offset(), 0_usize..10).prop_map(|(at, len)| Step::Read(at, len)),
        8 => (offset(), data()).prop_map(|(at, data)| Step::Write(at, data)),
        // The status, as that is what has the device do something.
        6 => prop_oneof![Just(0_u8), Just(3), Just(11), Just(15), any::<u8>()]
            .prop_map(|status| Step::Write(0x14, vec![status])),
        // What a driver has to accept.
        3 => Just(Step::Write(8, vec![1, 0, 0, 0])),
        3 => Just(Step::Write(12, vec![1, 0, 0, 0])),
        2 => (config_offset(), 0_usize..10).prop_map(|(at, len)| Step::ReadConfig(at, len)),
        4 => (config_offset(), data()).prop_map(|(at, data)| Step::WriteConfig(at, data)),
        2 => Just(Step::WriteConfig(4, vec![6])),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => Just(Step::SaveAndRestore),
    ]
}

struct Machine {
    device: Arc<Mutex<Device<Memory>>>,
    memory: Memory,
    vmm: Vmm,
    function: TestFunction,
}

impl Machine {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let (device, memory, vmm) = (device(1), Arc::new(memory), Vmm::default());
        let function = function(&device, &memory, &vmm);
        Self {
            device,
            memory,
            vmm,
            function,
        }
    }

    fn base(&self) -> u64 {
        self.function.registers_at().unwrap_or(u64::from(REGISTERS))
    }

    fn do_step(&mut self, step: Step) {
        match step {
            Step::Read(offset, len) => {
                let address = self.base().wrapping_add(offset);
                self.function.read_memory(address, &mut vec![0xa5; len]);
            }
            Step::Write(offset, data) => {
                let address = self.base().wrapping_add(offset);
                self.function.write_memory(address, &data);
            }
            Step::ReadConfig(offset, len) => {
                self.function.read_config(offset, &mut vec![0xa5; len]);
            }
            Step::WriteConfig(offset, data) => self.function.write_config(offset, &data),
            Step::Refuse(refuses) => self.vmm.told().refuses = refuses,
            Step::SaveAndRestore => self.save_and_restore(),
        }
        self.check();
    }

    /// Whatever a guest did can be saved, where the device can, and restored.
    fn save_and_restore(&mut self) {
        let paused = self.device.lock().unwrap().pause().is_ok();
        if paused && let Ok(state) = self.function.save() {
            let state = serde_json::to_vec(&state).unwrap();
            let mut other = Self::new();
            other.memory = Arc::clone(&self.memory);
            other.function = function(&other.device, &other.memory, &other.vmm);
            let state = serde_json::from_slice(&state).unwrap();
            other.function.restore(state).unwrap();
            let [mut one, mut two] = [[0; 0x38]; 2];
            let base = self.base();
            self.function.read_memory(base, &mut one);
            other.function.read_memory(base, &mut two);
            assert_eq!(one, two);
        }
        let _ = self.device.lock().unwrap().resume();
    }

    fn check(&self) {
        let told = self.vmm.told();
        assert!(told.window.is_none());
        match self.function.registers_at() {
            Some(base) => {
                let expected = [0x3000, 0x3004].map(|offset| base + offset);
                assert!(told.notifications.iter().all(|at| expected.contains(at)));
            }
            None => assert!(told.notifications.is_empty()),
        }
        assert!(told.vectors.keys().all(|vector| *vector < 3));
    }

    /// After a reset all is as a driver wants it.
    fn reset(&mut self) {
        self.vmm.told().refuses = false;
        self.function.write_config(4, &[6]);
        let base = self.base();
        self.function.write_memory(base + 0x14, &[0]);
        for status in [1, 3] {
            self.function.write_memory(base + 0x14, &[status]);
        }
        for (select, half) in [(0_u32, 0_u32), (1, 1)] {
            self.function.write_memory(base + 8, &select.to_le_bytes());
            self.function.write_memory(base + 12, &half.to_le_bytes());
        }
        for status in [11, 15] {
            self.function.write_memory(base + 0x14, &[status]);
            let mut seen = [0];
            self.function.read_memory(base + 0x14, &mut seen);
            assert_eq!(seen, [status]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_access_does_harm(steps in prop::collection::vec(step(), 0..60)) {
        let mut machine = Machine::new();
        for step in steps {
            machine.do_step(step);
        }
        machine.reset();
    }
}
