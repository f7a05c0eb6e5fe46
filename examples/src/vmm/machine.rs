//! A machine from its power-on to a reset: processors with their threads, and what they reach.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use libc::{c_int, c_void, siginfo_t};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use virtio_fs_device::Patience;
use virtio_fs_pci::{BusState, Function, Places};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use super::bus::{Bus, Power};
use super::fs::FsDevice;
use super::memory::Memory;
use super::processor::{self, ProcessorState};
use super::serial::{self, Port, PortState};
use super::vm::{DeviceHost, Vm, VmState};
use super::{boot, layout, lock};

/// What a machine says of itself.
#[derive(Debug)]
pub(super) enum Said {
    Power(Power),
    /// A processor does not go on.
    Broken(String),
}

/// What a snapshot has of a machine, apart from its memory and what is behind its devices.
#[derive(Serialize, Deserialize)]
pub(super) struct MachineState {
    vm: VmState,
    processors: Vec<ProcessorState>,
    serial: PortState,
    pci: BusState,
}

/// What a machine is like when it is switched on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Design {
    pub(super) kernel: PathBuf,
    pub(super) command_line: String,
    pub(super) memory_size: u64,
    pub(super) processors: u8,
}

/// What machines are made of, each after the last one was reset.
pub(super) struct Parts {
    pub(super) kvm: Kvm,
    pub(super) memory: &'static Memory,
    pub(super) design: Design,
    pub(super) devices: Vec<FsDevice>,
    /// Guest addresses where their DAX windows can be.
    pub(super) windows: Range<u64>,
    /// The serial port of the machine that there is.
    pub(super) serial: Arc<Mutex<Option<Port>>>,
    /// Called by the processors' threads, with the number of their machine.
    pub(super) say: Arc<dyn Fn(u64, Said) + Send + Sync>,
}

/// A machine. Its processors stand still until they are [resumed](Self::resume).
pub(super) struct Machine {
    vm: Arc<Vm>,
    bus: Arc<Bus>,
    say: Arc<dyn Fn(u64, Said) + Send + Sync>,
    /// What tells it from the machines before it.
    number: u64,
    /// Those that stand still, and those that run.
    processors: Vec<VcpuFd>,
    threads: Vec<JoinHandle<VcpuFd>>,
    /// Whether the threads are to end.
    stop: Arc<AtomicBool>,
}

impl Machine {
    /// A machine that begins with its kernel.
    pub(super) fn new(parts: &Parts, number: u64) -> Result<Self> {
        let machine = Self::assemble(parts, number)?;
        *lock(&parts.serial) = Some(serial::new(&machine.vm, &PortState::default())?);
        let entry = boot::load(parts.memory, &parts.windows, &parts.design)?;
        let first = machine.processors.first().context("no processor")?;
        processor::begin(first, entry).context("KVM cannot set a processor's registers")?;
        Ok(machine)
    }

    /// A machine that goes on where one was saved, with the memory that it had.
    pub(super) fn restored(parts: &Parts, number: u64, state: MachineState) -> Result<Self> {
        let machine = Self::assemble(parts, number)?;
        let processors = machine.processors.iter().zip(&state.processors);
        ensure!(
            machine.processors.len() == state.processors.len(),
            "the snapshot lacks processors"
        );
        let restored = machine.vm.restore(&state.vm);
        restored.context("KVM cannot restore interrupt controllers and clock")?;
        for (processor, state) in processors {
            let restored = processor::restore(&machine.vm, processor, state);
            restored.context("KVM cannot restore a processor")?;
        }
        machine.bus.pci.restore(state.pci)?;
        // It interrupts for what was typed, which the interrupt controllers forget when they are restored.
        *lock(&parts.serial) = Some(serial::new(&machine.vm, &state.serial)?);
        Ok(machine)
    }

    /// Has the processors run.
    pub(super) fn resume(&mut self) {
        self.stop.store(false, Ordering::Release);
        for mut processor in self.processors.drain(..) {
            // So that the guest's watchdogs do not take a pause for a hang. Guests that do not use
            // this clock have none to be told.
            let _ = processor.kvmclock_ctrl();
            let (bus, stop, say) = (
                Arc::clone(&self.bus),
                Arc::clone(&self.stop),
                Arc::clone(&self.say),
            );
            let number = self.number;
            let run = move || {
                if let Some(said) = run(&mut processor, &bus, &stop) {
                    say(number, said);
                }
                processor
            };
            match thread::Builder::new()
                .name("processor".to_owned())
                .spawn(run)
            {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    (self.say)(number, Said::Broken(format!("it has no thread: {error}")));
                }
            }
        }
    }

    /// Stops the processors.
    pub(super) fn pause(&mut self) {
        const AGAIN: Duration = Duration::from_millis(1);
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // One that was about to enter the guest has not noticed.
            while !thread.is_finished() {
                // It fails only where the signal does not exist, which was found out at the start.
                let _ = thread.kill(SIGRTMIN());
                thread::sleep(AGAIN);
            }
            // A thread that panicked has said so.
            self.processors.extend(thread.join());
        }
    }

    /// What there is to save while it is paused, and the devices are.
    pub(super) fn state(&self, parts: &Parts) -> Result<MachineState> {
        // What is typed meanwhile would interrupt processors whose state is taken already.
        let serial = lock(&parts.serial);
        let processors = self.processors.iter();
        let processors = processors.map(|it| processor::state(&parts.kvm, it));
        let processors = processors.collect::<Result<_, _>>();
        Ok(MachineState {
            processors: processors.context("KVM cannot tell the state of a processor")?,
            vm: self
                .vm
                .state()
                .context("KVM cannot tell the state of the machine")?,
            serial: PortState(serial.as_ref().map(Port::state).unwrap_or_default()),
            pci: self.bus.pci.save()?,
        })
    }

    /// Lacks the serial port.
    fn assemble(parts: &Parts, number: u64) -> Result<Self> {
        let vm = Arc::new(Vm::new(&parts.kvm, &parts.memory.mapped)?);
        let registers = Function::<&GuestMemoryMmap, DeviceHost>::REGISTERS_LEN;
        let addresses = (layout::PCI_WINDOW..).step_by(registers as usize);
        let devices = (0..).zip(&parts.devices).zip(addresses);
        let functions = devices.map(|((index, device), registers)| {
            let places = Places {
                registers,
                window: device.window.map(|window| window.address),
                windows: parts.windows.clone(),
            };
            let host = DeviceHost {
                vm: Arc::clone(&vm),
                index,
                window: device.window,
                placed: false,
            };
            Function::new(
                Arc::clone(&device.device),
                &parts.memory.mapped,
                &places,
                host,
            )
        });
        let pci = virtio_fs_pci::Bus::new(functions.collect::<Result<_, _>>()?)?;
        let processors = 0..parts.design.processors;
        let processors = processors.map(|id| processor::new(&parts.kvm, &vm, id));
        // Real-time signals end a process that does not handle them; this one only has to interrupt.
        register_signal_handler(SIGRTMIN(), on_signal)?;
        Ok(Self {
            processors: processors.collect::<Result<_>>()?,
            threads: Vec::new(),
            stop: Arc::default(),
            say: Arc::clone(&parts.say),
            number,
            bus: Arc::new(Bus {
                serial: Arc::clone(&parts.serial),
                pci,
            }),
            vm,
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.pause();
    }
}

/// Runs a processor until it is to stop, or says something.
///
/// An instruction that was answered is completed by entering once more, and may need another answer:
/// so a processor stops where KVM says that nothing is left to be done.
fn run(processor: &mut VcpuFd, bus: &Bus, stop: &AtomicBool) -> Option<Said> {
    let mut patience = Patience::new();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        processor.set_kvm_immediate_exit(stopping.into());
        let mut missing = false;
        match processor.run() {
            Ok(VcpuExit::IoIn(port, data)) => bus.read_port(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(power) = bus.write_port(port, data) {
                    return Some(Said::Power(power));
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => bus.pci.read_memory(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.pci.write_memory(address, data),
            // That resets a PC.
            Ok(VcpuExit::Shutdown) => {
                tracing::warn!("a processor of the guest broke down (triple fault)");
                return Some(Said::Power(Power::Reset));
            }
            Ok(VcpuExit::MemoryFault { .. }) => missing = true,
            Ok(exit) => return Some(Said::Broken(format!("{exit:?}"))),
            Err(error) => match Errno::from_raw_os_error(error.errno()) {
                Errno::INTR if stopping => return None,
                Errno::INTR | Errno::AGAIN => {}
                Errno::FAULT => missing = true,
                _ => return Some(Said::Broken(error.to_string())),
            },
        }
        if missing && !patience.wait() {
            let why = "it uses memory of a DAX window where no file is mapped, or none any more";
            return Some(Said::Broken(why.to_owned()));
        }
    }
}

extern "C" fn on_signal(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}
