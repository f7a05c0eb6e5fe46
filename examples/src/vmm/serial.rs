//! The serial port: the guest's console on this process's standard input and output.

use std::io::{self, Read as _, Stdout};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::terminal::Terminal as _;

use super::vm::Vm;
use super::{layout, lock};

/// An interrupt line that KVM raises when the eventfd is signalled.
pub(super) struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

pub(super) type Port = Serial<Line, NoEvents, Stdout>;

/// [`SerialState`], to be stored.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SerialState")]
struct StoredState {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    in_buffer: Vec<u8>,
}

/// What a snapshot has of it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct PortState(#[serde(with = "StoredState")] pub(super) SerialState);

/// The serial port of `vm`, in `state`.
pub(super) fn new(vm: &Vm, state: &PortState) -> Result<Port> {
    let line = EventFd::new(EFD_NONBLOCK).context("no eventfd")?;
    let bound = vm.fd.register_irqfd(&line, layout::SERIAL_INTERRUPT);
    bound.context("KVM cannot take an interrupt line")?;
    Port::from_state(&state.0, Line(line), NoEvents, io::stdout())
        .map_err(|error| anyhow!("no serial port: {error:?}"))
}

/// Has what is typed go to `port`, which is replaced when the machine is, until the end of the input.
/// A terminal passes on all that is typed; [`release_terminal`] undoes that.
pub(super) fn read_input(port: Arc<Mutex<Option<Port>>>) -> io::Result<()> {
    if is_terminal() {
        io::stdin().lock().set_raw_mode()?;
    }
    let read = move || {
        let mut bytes = [0; 64];
        while let Ok(len @ 1..) = io::stdin().lock().read(&mut bytes) {
            type_in(&port, &bytes[..len]);
        }
    };
    let thread = thread::Builder::new().name("input".to_owned());
    thread.spawn(read).map(drop)
}

/// Has the terminal as it should be for a shell.
pub(super) fn release_terminal() {
    if is_terminal() {
        // Nobody is left to be told.
        let _ = io::stdin().lock().set_canon_mode();
    }
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdin())
}

/// Gives `port` all `bytes`, as it has room for them.
fn type_in(port: &Mutex<Option<Port>>, mut bytes: &[u8]) {
    const ROOM_AGAIN: Duration = Duration::from_millis(10);
    while !bytes.is_empty() {
        let taken = lock(port).as_mut().map(|it| it.enqueue_raw_bytes(bytes));
        match taken {
            Some(Ok(len @ 1..)) => bytes = bytes.get(len..).unwrap_or_default(),
            _ => thread::sleep(ROOM_AGAIN),
        }
    }
}
