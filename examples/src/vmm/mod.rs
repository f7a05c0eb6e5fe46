//! A small virtual machine monitor on KVM, whose guests have their files from virtio-fs. See `--help`.

mod acpi;
mod boot;
mod bus;
mod config_space;
mod control;
mod fs;
mod function;
mod gate;
mod layout;
mod machine;
mod memory;
mod msix;
mod options;
mod patience;
mod processor;
mod registers;
mod serial;
mod snapshot;
mod sys;
mod vm;
mod window;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use kvm_ioctls::Kvm;
use virtio_fs_device::Tag;

use crate::signals::{self, Signals};
use crate::{cli, limits};
use bus::Power;
use control::{Asked, Command};
use fs::FsDevice;
use machine::{Machine, Parts, Said};
use memory::Memory;
use options::{FsOptions, Options};
use snapshot::{Saved, Snapshot};
use window::{Places, Window};

/// What the program is called.
const NAME: &str = "vmm";

/// Why there is no machine any more, or never was one.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot use /dev/kvm: {0}; load kvm_intel or kvm_amd, and be in the group kvm")]
    Kvm(#[source] kvm_ioctls::Error),
    #[error("no memory for the guest: {0}; ask for less by --memory")]
    Memory(#[source] io::Error),
    #[error("cannot listen on {0}: {1}; remove it, or choose another --api-socket")]
    Listen(PathBuf, #[source] io::Error),
    #[error(
        "the processors reach no more than {0} GiB, too little for the memory and the windows of --fs"
    )]
    Windows(u64),
    #[error("no thread: {0}")]
    Thread(#[source] io::Error),
    #[error("a processor of the guest does not go on: {0}")]
    Broken(String),
    #[error("the device {0}: {1}")]
    Lifecycle(Tag, #[source] virtio_fs_device::Error),
    #[error("pause the machine first")]
    Running,
    #[error(transparent)]
    Signals(#[from] signals::Error),
    #[error(transparent)]
    Device(#[from] fs::Error),
    #[error(transparent)]
    Refused(#[from] vm::Refused),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
}

/// What the main thread waits for.
enum Event {
    Said(Said),
    Asked(Asked),
    Signal,
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
    let ended = Vmm::start(options).and_then(|(mut vmm, events)| vmm.run(&events));
    serial::release_terminal();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure(NAME, &error),
    }
}

/// The machine that there is, and what the next one is made of.
struct Vmm {
    options: Options,
    parts: Parts,
    machine: Option<Machine>,
    paused: bool,
}

impl Vmm {
    fn start(options: Options) -> Result<(Self, Receiver<Event>), Error> {
        let (sender, events) = channel();
        let signals = Signals::catch()?;
        let signal = sender.clone();
        signals.on_first(move || send(&signal, Event::Signal))?;
        limits::raise_open_files();
        let saved = options.restore.as_deref().map(Saved::open).transpose()?;
        let (size, design) = match &saved {
            Some((snapshot, _)) => (snapshot.memory_size, snapshot.design.clone()),
            None => (options.memory, options.design()),
        };
        let kvm = Kvm::new().map_err(Error::Kvm)?;
        let devices = devices(&options.fs)?;
        let windows = place_windows(&kvm, size, &devices)?;
        let said = sender.clone();
        let parts = Parts {
            kvm,
            // For as long as the process: KVM and daemons have it.
            memory: Box::leak(Box::new(Memory::new(size).map_err(Error::Memory)?)),
            design,
            devices,
            windows,
            serial: Arc::default(),
            say: Arc::new(move |it| send(&said, Event::Said(it))),
        };
        let machine = match saved {
            Some((snapshot, saved)) => {
                saved.read_memory(&parts.memory.file, size)?;
                Machine::restored(&parts, snapshot.machine)?
            }
            None => Machine::new(&parts)?,
        };
        if let Some(path) = &options.api_socket {
            let listener = UnixListener::bind(path);
            let listener = listener.map_err(|error| Error::Listen(path.clone(), error))?;
            control::serve(listener, move |it| send(&sender, Event::Asked(it)))
                .map_err(Error::Thread)?;
        }
        serial::read_input(Arc::clone(&parts.serial)).map_err(Error::Thread)?;
        let mut vmm = Self {
            options,
            parts,
            machine: Some(machine),
            paused: true,
        };
        vmm.resume()?;
        Ok((vmm, events))
    }

    /// Returns when the machine has ended.
    fn run(&mut self, events: &Receiver<Event>) -> Result<(), Error> {
        for event in events {
            match event {
                Event::Signal | Event::Said(Said::Power(Power::Off)) => break,
                Event::Said(Said::Broken(how)) => return Err(Error::Broken(how)),
                Event::Said(Said::Power(Power::Reset)) => self.reset()?,
                Event::Asked(asked) => {
                    let result = self.obey(&asked.command);
                    asked.answer(&result);
                    if asked.command == Command::Quit {
                        break;
                    }
                }
            }
        }
        // The processors stop before what they reach does.
        self.machine = None;
        if let Some(path) = &self.options.api_socket
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
        }
        Ok(())
    }

    fn obey(&mut self, command: &Command) -> Result<String, Error> {
        match command {
            Command::Status => return Ok(self.status()),
            Command::Pause => self.pause()?,
            Command::Resume => self.resume()?,
            Command::Reset => self.reset()?,
            Command::Snapshot(path) => self.snapshot(path)?,
            Command::Quit => {}
        }
        Ok(String::new())
    }

    fn status(&self) -> String {
        let devices = self.parts.devices.iter().map(|device| {
            let status = device.lock().status();
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
    fn pause(&mut self) -> Result<(), Error> {
        if !self.paused {
            self.machine.as_ref().inspect(|machine| machine.pause());
            self.paused = true;
            self.each_device(|device| device.lock().pause())?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Error> {
        if self.paused {
            self.each_device(|device| device.resume())?;
            self.machine.as_ref().inspect(|machine| machine.resume());
            self.paused = false;
        }
        Ok(())
    }

    /// Makes a new machine of the same parts.
    fn reset(&mut self) -> Result<(), Error> {
        self.machine = None;
        self.each_device(|device| device.lock().reset())?;
        let machine = Machine::new(&self.parts)?;
        self.machine.insert(machine).resume();
        self.paused = false;
        Ok(())
    }

    fn snapshot(&self, path: &Path) -> Result<(), Error> {
        let machine = self.machine.as_ref().filter(|_| self.paused);
        let snapshot = Snapshot {
            memory_size: self.parts.memory.size,
            design: self.parts.design.clone(),
            machine: machine.ok_or(Error::Running)?.state(&self.parts)?,
        };
        Ok(snapshot::write(path, &snapshot, &self.parts.memory.file)?)
    }

    /// Calls `call` for all of them, also after one for which it fails.
    fn each_device(
        &self,
        call: impl Fn(&FsDevice) -> Result<(), virtio_fs_device::Error>,
    ) -> Result<(), Error> {
        let each = self.parts.devices.iter().map(|device| {
            call(device).map_err(|error| Error::Lifecycle(device.tag().clone(), error))
        });
        each.fold(Ok(()), Result::and)
    }
}

fn devices(options: &[FsOptions]) -> Result<Vec<FsDevice>, fs::Error> {
    let device = |device| FsDevice::new(device, options.len());
    options.iter().map(device).collect()
}

/// Finds places for the DAX windows, if the processors reach that far.
fn place_windows(kvm: &Kvm, memory_size: u64, devices: &[FsDevice]) -> Result<Places, Error> {
    let windows = devices.iter().map(FsDevice::window);
    let lens = windows.map(|window| window.map(Window::memory_len));
    let places = Places::new(memory_size, lens);
    let reach = processor::reach(kvm)?;
    if places.all.end > reach && !places.all.is_empty() {
        return Err(Error::Windows(reach >> 30));
    }
    Ok(places)
}

fn send(events: &Sender<Event>, event: Event) {
    // Nobody waits where the program is about to end.
    let _ = events.send(event);
}
