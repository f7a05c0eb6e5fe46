//! A machine from its power-on to a reset: processors with their threads, and what they reach.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use libc::{c_int, c_void, siginfo_t};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use virtio_fs_device::Tag;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use super::bus::{Bus, Power};
use super::fs::FsDevice;
use super::function::{self, Function, FunctionState};
use super::gate::Gate;
use super::memory::Memory;
use super::patience::Patience;
use super::processor::{self, ProcessorState};
use super::serial::{self, Port, PortState};
use super::vm::{Refused, Vm, VmState};
use super::window::{Places, Slot};
use super::{boot, layout};

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
    pci_address: u32,
    functions: Vec<FunctionState>,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Kvm(#[from] Refused),
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Serial(#[from] serial::Error),
    #[error("the device {0}: {1}")]
    Function(Tag, #[source] function::Error),
    #[error("the snapshot is of a machine with {0} devices and {1} processors")]
    State(usize, usize),
    #[error("no thread for a processor: {0}")]
    Thread(#[source] io::Error),
}

/// What a machine is like when it is switched on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Design {
    pub(super) kernel: PathBuf,
    pub(super) command_line: String,
    pub(super) processors: u8,
}

/// What machines are made of, each after the last one was reset.
pub(super) struct Parts {
    pub(super) kvm: Kvm,
    pub(super) memory: &'static Memory,
    pub(super) design: Design,
    pub(super) devices: Vec<FsDevice>,
    /// Where their DAX windows are.
    pub(super) windows: Places,
    /// The serial port of the machine that there is.
    pub(super) serial: Arc<Mutex<Option<Port>>>,
    /// Called by the processors' threads.
    pub(super) say: Arc<dyn Fn(Said) + Send + Sync>,
}

/// A machine. Its processors stand still until they are [resumed](Self::resume).
pub(super) struct Machine {
    vm: Arc<Vm>,
    bus: Arc<Bus>,
    gate: Arc<Gate>,
    processors: Vec<Processor>,
}

struct Processor {
    fd: Arc<Mutex<VcpuFd>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// A machine that begins with its kernel.
    pub(super) fn new(parts: &Parts) -> Result<Self, Error> {
        let machine = Self::assemble(parts, &PortState::default(), 0)?;
        let entry = boot::load(parts.memory, &parts.windows.all, &parts.design)?;
        if let Some(first) = machine.processors.first() {
            processor::begin(&lock(&first.fd), entry)?;
        }
        Ok(machine)
    }

    /// A machine that goes on where one was saved, with the memory that it had.
    pub(super) fn restored(parts: &Parts, state: MachineState) -> Result<Self, Error> {
        let machine = Self::assemble(parts, &state.serial, state.pci_address)?;
        let counts = (state.functions.len(), state.processors.len());
        if counts != (parts.devices.len(), machine.processors.len()) {
            return Err(Error::State(counts.0, counts.1));
        }
        machine.vm.restore(&state.vm)?;
        for (processor, state) in machine.processors.iter().zip(&state.processors) {
            processor::restore(&machine.vm, &lock(&processor.fd), state)?;
        }
        for (mut function, state) in machine.bus.functions().zip(state.functions) {
            let restored = function.restore(state);
            restored.map_err(|error| Error::Function(function.tag().clone(), error))?;
        }
        Ok(machine)
    }

    /// Has the processors run.
    pub(super) fn resume(&self) {
        for processor in &self.processors {
            // So that the guest's watchdogs do not take a pause for a hang. Guests that do not use
            // this clock have none to be told.
            let _ = lock(&processor.fd).kvmclock_ctrl();
        }
        self.gate.open();
    }

    /// Stops the processors.
    pub(super) fn pause(&self) {
        self.gate.close(|| self.nudge());
    }

    /// What there is to save while it is paused, and the devices are.
    pub(super) fn state(&self, parts: &Parts) -> Result<MachineState, Error> {
        let processors = self.processors.iter();
        let processors = processors.map(|it| processor::state(&parts.kvm, &lock(&it.fd)));
        let serial = lock(&parts.serial).as_ref().map(Port::state);
        let functions = self.bus.functions().map(|function| {
            let state = function.state();
            state.map_err(|error| Error::Function(function.tag().clone(), error))
        });
        Ok(MachineState {
            processors: processors.collect::<Result<_, _>>()?,
            vm: self.vm.state()?,
            serial: PortState(serial.unwrap_or_default()),
            pci_address: self.bus.pci_address(),
            functions: functions.collect::<Result<_, _>>()?,
        })
    }

    fn assemble(parts: &Parts, serial: &PortState, pci_address: u32) -> Result<Self, Error> {
        let vm = Arc::new(Vm::new(&parts.kvm, &parts.memory.mapped)?);
        *lock(&parts.serial) = Some(serial::new(&vm, serial)?);
        let addresses = (layout::PCI_WINDOW..).step_by(function::MEMORY_LEN as usize);
        let devices = parts.devices.iter().zip(&parts.windows.each);
        let functions = devices.zip(addresses).zip(0..);
        let functions = functions.map(|(((device, place), address), index)| {
            let bus = &parts.windows.all;
            let slot = |window| Slot::new(&vm, index, window, bus.clone());
            let window = device.window().map(slot).zip(*place);
            let function = Function::new(&vm, device, &parts.memory.mapped, address, window);
            function.map_err(|error| Error::Function(device.tag().clone(), error))
        });
        let functions = functions.collect::<Result<_, _>>()?;
        let mut machine = Self {
            bus: Arc::new(Bus::new(Arc::clone(&parts.serial), functions, pci_address)),
            gate: Arc::new(Gate::new()),
            vm,
            processors: Vec::new(),
        };
        // Real-time signals end a process that does not handle them; this one only has to interrupt.
        register_signal_handler(SIGRTMIN(), on_nudge)
            .map_err(|error| Error::Thread(error.into()))?;
        for id in 0..parts.design.processors {
            let fd = processor::new(&parts.kvm, &machine.vm, id)?;
            let processor = machine.start(fd, id, &parts.say)?;
            machine.processors.push(processor);
        }
        Ok(machine)
    }

    fn start(
        &self,
        fd: VcpuFd,
        id: u8,
        say: &Arc<dyn Fn(Said) + Send + Sync>,
    ) -> Result<Processor, Error> {
        let fd = Arc::new(Mutex::new(fd));
        let (bus, gate, say) = (
            Arc::clone(&self.bus),
            Arc::clone(&self.gate),
            Arc::clone(say),
        );
        let run = {
            let fd = Arc::clone(&fd);
            move || {
                let mut patience = Patience::new();
                while gate.pass() {
                    if let Some(said) = run(&mut lock(&fd), &bus, &gate, &mut patience) {
                        say(said);
                        break;
                    }
                }
                gate.leave();
            }
        };
        let thread = thread::Builder::new().name(format!("processor {id}"));
        self.gate.enter();
        match thread.spawn(run) {
            Ok(thread) => Ok(Processor {
                fd,
                thread: Some(thread),
            }),
            Err(error) => {
                self.gate.leave();
                Err(Error::Thread(error))
            }
        }
    }

    /// Has the processors' threads look at the gate.
    fn nudge(&self) {
        for thread in self.processors.iter().filter_map(|it| it.thread.as_ref()) {
            // It fails only where the signal does not exist, which was found out at the start.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.gate.tear(|| self.nudge());
        for thread in self.processors.iter_mut().filter_map(|it| it.thread.take()) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Runs a processor until the gate is closed, or it says something.
fn run(processor: &mut VcpuFd, bus: &Bus, gate: &Gate, patience: &mut Patience) -> Option<Said> {
    let nothing_there = |patience: &mut Patience| {
        let why = "it uses memory of a DAX window where no file is mapped, or none any more";
        (!patience.wait()).then(|| Said::Broken(why.to_owned()))
    };
    while gate.is_open() {
        match processor.run() {
            Ok(VcpuExit::IoIn(port, data)) => bus.read_port(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(power) = bus.write_port(port, data) {
                    return Some(Said::Power(power));
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => bus.read_memory(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.write_memory(address, data),
            // A triple fault, which resets a PC.
            Ok(VcpuExit::Shutdown) => return Some(Said::Power(Power::Reset)),
            Ok(VcpuExit::MemoryFault { .. }) => {
                if let Some(said) = nothing_there(patience) {
                    return Some(said);
                }
            }
            Ok(exit) => return Some(Said::Broken(format!("{exit:?}"))),
            Err(error) => match Errno::from_raw_os_error(error.errno()) {
                Errno::INTR | Errno::AGAIN => {}
                Errno::FAULT => {
                    if let Some(said) = nothing_there(patience) {
                        return Some(said);
                    }
                }
                _ => return Some(Said::Broken(error.to_string())),
            },
        }
    }
    // The instruction that was answered last is completed by entering once more.
    processor.set_kvm_immediate_exit(1);
    let _ = processor.run();
    processor.set_kvm_immediate_exit(0);
    None
}

extern "C" fn on_nudge(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
