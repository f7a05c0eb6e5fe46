//! A machine with one function, and what a VMM does for it.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuse_fs::{MemFs, Session};
use virtio_fs_device::{Device, DeviceConfig, InProcess};
use virtio_fs_pci::{Bus, Function, Host, Message, Places};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

pub(crate) type Memory = Arc<GuestMemoryMmap>;
pub(crate) type TestFunction = Function<Memory, Vmm>;
pub(crate) type TestBus = Bus<Memory, Vmm>;

pub(crate) const TAG: &str = "myfs";
pub(crate) const REGISTERS: u32 = 0xc000_4000;
pub(crate) const WINDOWS: Range<u64> = 4 << 30..8 << 30;

/// What a VMM has been told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) vectors: BTreeMap<u16, (EventFd, Message)>,
    pub(crate) notifications: Vec<u64>,
    pub(crate) window: Option<u64>,
    /// Whether it refuses whatever can be refused.
    pub(crate) refuses: bool,
}

/// A VMM that notes what it is told, and sees to it that this makes sense.
#[derive(Clone, Default)]
pub(crate) struct Vmm(Arc<Mutex<Told>>);

impl Vmm {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    fn allowed(&self) -> io::Result<MutexGuard<'_, Told>> {
        let told = self.told();
        if told.refuses {
            return Err(io::Error::other("refused"));
        }
        Ok(told)
    }
}

impl Host for Vmm {
    fn connect_vector(&mut self, vector: u16, event: &EventFd, message: Message) -> io::Result<()> {
        let mut told = self.allowed()?;
        let before = told.vectors.insert(vector, (event.try_clone()?, message));
        assert!(before.is_none(), "vector {vector} is connected twice");
        Ok(())
    }

    fn disconnect_vector(&mut self, vector: u16, _: &EventFd) -> io::Result<()> {
        let before = self.told().vectors.remove(&vector);
        assert!(before.is_some(), "vector {vector} is not connected");
        Ok(())
    }

    fn connect_notification(&mut self, _: &EventFd, address: u64) -> io::Result<()> {
        let mut told = self.allowed()?;
        assert!(!told.notifications.contains(&address));
        told.notifications.push(address);
        Ok(())
    }

    fn disconnect_notification(&mut self, _: &EventFd, address: u64) -> io::Result<()> {
        let mut told = self.told();
        let at = told.notifications.iter().position(|it| *it == address);
        told.notifications.remove(at.expect("it is connected"));
        Ok(())
    }

    fn place_window(&mut self, address: Option<u64>) -> io::Result<()> {
        let mut told = self.allowed()?;
        assert!(address.is_none_or(|address| WINDOWS.contains(&address)));
        told.window = address;
        Ok(())
    }
}

pub(crate) fn device(request_queues: u16) -> Arc<Mutex<Device<Memory>>> {
    let config = DeviceConfig {
        tag: Some(TAG.parse().unwrap()),
        request_queues: Some(request_queues),
        ..DeviceConfig::default()
    };
    let filesystem = InProcess::new(Arc::new(Session::new(MemFs::new())));
    let device = Device::in_process(&config, filesystem).unwrap();
    Arc::new(Mutex::new(device))
}

pub(crate) fn function(
    device: &Arc<Mutex<Device<Memory>>>,
    memory: &Memory,
    vmm: &Vmm,
) -> TestFunction {
    let places = Places {
        registers: REGISTERS,
        window: Some(WINDOWS.start),
        windows: WINDOWS,
    };
    Function::new(Arc::clone(device), Arc::clone(memory), &places, vmm.clone()).unwrap()
}

/// Does something again and again until it is dropped.
pub(crate) struct Again {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Again {
    pub(crate) fn start(mut action: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                action();
                thread::sleep(Duration::from_micros(200));
            }
        });
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}
