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
    Said(Said),
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
        Event::Quit | Event::Said(Said::Power(Power::Off)) => Some(Ok(())),
        Event::Said(Said::Power(Power::Reset)) => {
            tracing::info!("the machine begins anew");
            lock(&vmm).reset().err().map(Err)
        }
        Event::Said(Said::Broken(how)) => Some(Err(anyhow!(
            "a processor of the guest does not go on: {how}"
        ))),
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
    paused: bool,
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
            say: Arc::new(move |it| send(&sender, Event::Said(it))),
        };
        let mut vmm = Self {
            parts,
            machine: None,
            paused: true,
        };
        match saved {
            Some((snapshot, file)) => vmm.load(snapshot, &file)?,
            None => vmm.machine = Some(Machine::new(&vmm.parts)?),
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

    /// First what makes requests, then what serves them.
    fn pause(&mut self) -> Result<()> {
        if !self.paused {
            self.machine.iter_mut().for_each(Machine::pause);
            self.paused = true;
            self.each_device(|device| device.lock().pause())?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if self.paused {
            self.each_device(FsDevice::resume)?;
            self.machine.iter_mut().for_each(Machine::resume);
            self.paused = false;
        }
        Ok(())
    }

    /// Makes a new machine of the same parts.
    fn reset(&mut self) -> Result<()> {
        self.take_apart()?;
        self.machine.insert(Machine::new(&self.parts)?).resume();
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
        self.paused = true;
        self.each_device(|device| device.lock().reset())
    }

    /// Makes the machine that was saved of parts that are as new.
    fn load(&mut self, snapshot: Snapshot, file: &File) -> Result<()> {
        let memory_size = self.parts.design.memory_size;
        let copied = snapshot::copy_data(file, &self.parts.memory.file, memory_size);
        copied.context("cannot read the memory in the snapshot")?;
        self.parts.design = snapshot.design;
        self.machine = Some(Machine::restored(&self.parts, snapshot.machine)?);
        Ok(())
    }

    fn snapshot(&self, path: &Path) -> Result<()> {
        let machine = self.machine.as_ref().filter(|_| self.paused);
        let snapshot = Snapshot {
            design: self.parts.design.clone(),
            machine: machine
                .context("pause the machine first")?
                .state(&self.parts)?,
        };
        snapshot::write(path, &snapshot, &self.parts.memory.file)
    }

    /// Calls `call` for all of them, also after one for which it fails.
    fn each_device(
        &self,
        call: impl Fn(&FsDevice) -> Result<(), virtio_fs_device::Error>,
    ) -> Result<()> {
        let each = self.parts.devices.iter().map(|device| {
            call(device).with_context(|| format!("the device {}", device.lock().tag()))
        });
        each.fold(Ok(()), Result::and)
    }
}

fn send(events: &Sender<Event>, event: Event) {
    // Nobody waits where the program is about to end.
    let _ = events.send(event);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
