//! A small virtual machine monitor on KVM, whose guests have their files from virtio-fs. See `--help`.

mod acpi;
mod boot;
mod bus;
mod control;
mod fs;
mod layout;
mod machine;
mod memory;
mod options;
mod processor;
mod serial;
mod snapshot;
mod sys;
mod vm;

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use kvm_ioctls::Kvm;

use crate::signals::Signals;
use crate::socket::BoundSocket;
use crate::{cli, limits};
use bus::Power;
use control::Command;
use fs::FsDevice;
use machine::{Machine, Parts, Said};
use memory::Memory;
use options::Options;
use snapshot::Snapshot;

/// What the main thread waits for.
enum Event {
    /// The machine of this number has said something.
    Said(u64, Said),
    /// Somebody has asked for the end.
    Quit,
}

/// Runs the program with the arguments of this process, until the guest powers off.
///
/// Ends with 0 after that, after `quit` and after a signal; 1 where the machine cannot go on, 2 where
/// the program was called wrongly.
#[must_use]
pub fn main() -> ExitCode {
    let options = match cli::parse::<Options>() {
        Ok(options) => options,
        Err(code) => return code,
    };
    options.log.start();
    let ended = run(&options);
    serial::release_terminal();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure("vmm", &*error),
    }
}

/// Returns when the machine has ended.
fn run(options: &Options) -> Result<()> {
    let (sender, events) = channel();
    let quit = {
        let sender = sender.clone();
        move || send(&sender, Event::Quit)
    };
    Signals::catch()?.on_first(quit.clone())?;
    limits::raise_open_files();
    let vmm = Arc::new(Mutex::new(Vmm::new(options, sender)?));
    // Removed when the machine has ended.
    let mut bound = None;
    if let Some(path) = &options.api_socket {
        let (listener, socket) = BoundSocket::listen(path).context("--api-socket")?;
        bound = Some(socket);
        let vmm = Arc::clone(&vmm);
        control::serve(listener, move |command| lock(&vmm).obey(command), quit)?;
    }
    serial::read_input(Arc::clone(&lock(&vmm).parts.serial)).context("no thread")?;
    lock(&vmm).resume()?;
    let ended = events.iter().find_map(|event| match event {
        Event::Quit => Some(Ok(())),
        Event::Said(number, said) => lock(&vmm).hear(number, said),
    });
    // The processors stop before what they reach does.
    lock(&vmm).machine = None;
    drop(bound);
    ended.unwrap_or(Ok(()))
}

/// The machine that there is, and what the next one is made of.
struct Vmm {
    parts: Parts,
    machine: Option<Machine>,
    /// The number of the machine that was made last.
    number: u64,
    paused: bool,
    /// What the machine said before it was paused, and comes about when it goes on.
    unheard: Option<Said>,
}

impl Vmm {
    fn new(options: &Options, sender: Sender<Event>) -> Result<Self> {
        let saved = options.restore.as_deref().map(snapshot::open).transpose()?;
        let design = match &saved {
            Some((snapshot, _)) => snapshot.design.clone(),
            None => options.design(),
        };
        let kvm = Kvm::new()
            .context("cannot use /dev/kvm; load kvm_intel or kvm_amd, and be in the group kvm")?;
        let (devices, windows) = fs::open(&options.fs, layout::windows(design.memory_size))?;
        let reach = processor::reach(&kvm)?;
        ensure!(
            windows.end <= reach || windows.is_empty(),
            "the processors reach no more than {} GiB, too little for the memory and the windows \
             of --fs",
            reach >> 30
        );
        let memory = Memory::new(design.memory_size);
        let memory = memory.context("no memory for the guest; ask for less by --memory")?;
        let parts = Parts {
            kvm,
            // For as long as the process: KVM and daemons have it.
            memory: Box::leak(Box::new(memory)),
            design,
            devices,
            windows,
            serial: Arc::default(),
            say: Arc::new(move |number, it| send(&sender, Event::Said(number, it))),
        };
        let mut vmm = Self {
            parts,
            machine: None,
            number: 0,
            paused: true,
            unheard: None,
        };
        match saved {
            Some((snapshot, file)) => vmm.load(snapshot, &file)?,
            None => vmm.machine = Some(Machine::new(&vmm.parts, vmm.number)?),
        }
        Ok(vmm)
    }

    fn obey(&mut self, command: &Command) -> Result<String> {
        match command {
            Command::Status => return Ok(self.status()),
            Command::Pause => self.pause()?,
            Command::Resume => self.resume()?,
            Command::Reset => self.reset()?,
            Command::Snapshot { file } => self.snapshot(file)?,
            Command::Restore { file } => self.restore(file)?,
            Command::Quit => {}
        }
        Ok(String::new())
    }

    fn status(&self) -> String {
        let devices = self.parts.devices.iter().map(|device| {
            let device = device.lock();
            let status = device.status();
            let daemon = if status.connected { "" } else { " (no daemon)" };
            let mapped = match status.window.map_or(0, |window| window.mappings) {
                0 => String::new(),
                count => format!(" ({count} mappings)"),
            };
            format!(", {} {}{daemon}{mapped}", device.tag(), status.state)
        });
        let machine = if self.paused { "paused" } else { "running" };
        machine.to_owned() + &devices.collect::<String>()
    }

    /// Does what the machine `number` has said; nothing, where there is another one by now. Returns how
    /// the program ends, where it does.
    fn hear(&mut self, number: u64, said: Said) -> Option<Result<()>> {
        if number != self.number {
            return None;
        }
        if self.paused {
            self.unheard.get_or_insert(said);
            return None;
        }
        match said {
            Said::Power(Power::Off) => Some(Ok(())),
            Said::Power(Power::Reset) => {
                tracing::info!("the machine begins anew");
                self.reset().err().map(Err)
            }
            Said::Broken(how) => Some(Err(anyhow!(
                "a processor of the guest does not go on: {how}"
            ))),
        }
    }

    /// First what makes requests, then what serves them.
    fn pause(&mut self) -> Result<()> {
        if !self.paused {
            self.machine.iter_mut().for_each(Machine::pause);
            self.paused = true;
            each_device(&self.parts, |device| device.lock().pause())?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if self.paused {
            let machine = self.machine.as_mut();
            let machine = machine.context("there is no machine; \"reset\" makes one")?;
            each_device(&self.parts, FsDevice::resume)?;
            self.paused = false;
            match self.unheard.take() {
                Some(said) => (self.parts.say)(self.number, said),
                None => machine.resume(),
            }
        }
        Ok(())
    }

    /// Makes a new machine of the same parts.
    fn reset(&mut self) -> Result<()> {
        self.take_apart()?;
        self.machine
            .insert(Machine::new(&self.parts, self.number)?)
            .resume();
        self.paused = false;
        Ok(())
    }

    /// Has the machine in the snapshot at `path` go on, of the same parts. Without one that can, there
    /// is none until the next reset.
    fn restore(&mut self, path: &Path) -> Result<()> {
        let (snapshot, file) = snapshot::open(path)?;
        let [saved, ours] = [&snapshot.design, &self.parts.design].map(|it| it.memory_size >> 20);
        ensure!(
            saved == ours,
            "the machine in it has {saved} MiB of memory, this one {ours}"
        );
        self.take_apart()?;
        let erased = self.parts.memory.erase();
        erased.context("cannot erase the guest's memory")?;
        self.load(snapshot, &file)?;
        self.resume()
    }

    /// Leaves parts that a machine can be made of.
    fn take_apart(&mut self) -> Result<()> {
        self.machine = None;
        self.number += 1;
        self.unheard = None;
        self.paused = true;
        each_device(&self.parts, |device| device.lock().reset())
    }

    /// Makes the machine that was saved of parts that are as new.
    fn load(&mut self, snapshot: Snapshot, file: &File) -> Result<()> {
        let memory_size = self.parts.design.memory_size;
        let copied = snapshot::copy_data(file, &self.parts.memory.file, memory_size);
        copied.context("cannot read the memory in the snapshot")?;
        let own = std::mem::replace(&mut self.parts.design, snapshot.design);
        match Machine::restored(&self.parts, self.number, snapshot.machine) {
            Ok(machine) => self.machine = Some(machine),
            Err(error) => {
                // What a reset makes is what there was before.
                self.parts.design = own;
                return Err(error);
            }
        }
        Ok(())
    }

    fn snapshot(&self, path: &Path) -> Result<()> {
        ensure!(
            self.unheard.is_none(),
            "the guest has just reset or switched off its machine"
        );
        let machine = self.machine.as_ref().filter(|_| self.paused);
        let snapshot = Snapshot {
            design: self.parts.design.clone(),
            machine: machine
                .context("pause the machine first")?
                .state(&self.parts)?,
        };
        snapshot::write(path, &snapshot, &self.parts.memory.file)
    }
}

/// Calls `call` for all of them, also after one for which it fails.
fn each_device(
    parts: &Parts,
    call: impl Fn(&FsDevice) -> Result<(), virtio_fs_device::Error>,
) -> Result<()> {
    let each = parts
        .devices
        .iter()
        .map(|device| call(device).with_context(|| format!("the device {}", device.lock().tag())));
    each.fold(Ok(()), Result::and)
}

fn send(events: &Sender<Event>, event: Event) {
    // Nobody waits where the program is about to end.
    let _ = events.send(event);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
