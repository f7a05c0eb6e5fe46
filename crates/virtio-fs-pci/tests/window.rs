//! The DAX window as the guest finds it: shared memory region 0, in a BAR that it can move.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use fuse_fs::{MemFs, Session};
use support::*;
use vhost_user_fs::{Backend, BackendConfig, Daemon, DaxWindow};
use virtio_fs_device::{Device, DeviceConfig, ReservedWindow, VhostUser, Window};
use virtio_fs_pci::{Error, Function, Places, WindowMemory};
use virtio_fs_queue::{Polling, Pool};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const SET_ASIDE: u64 = 16 << 20;
/// What the daemon wants, of which the guest has the whole pieces.
const WANTED: u64 = (7 << 20) - (1 << 16);
const SHOWN: u64 = 6 << 20;
const ON_BUS: u64 = 8 << 20;

/// Calls `test` with a device whose daemon has a window.
fn with_device(test: impl FnOnce(Arc<Mutex<Device<Memory>>>)) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let window = Arc::new(DaxWindow::new(WANTED).unwrap());
    let backend = Backend::new(BackendConfig {
        filesystem: Arc::new(Session::new(MemFs::new()).with_window(window.clone())),
        tag: None,
        request_queues: None,
        queue_affinity: None,
        pool: Arc::new(Pool::new(1)),
        polling: Arc::new(Polling::never()),
    });
    let backend = backend.unwrap().with_window(window);
    let daemon = Daemon::new(backend, UnixListener::bind(&socket).unwrap()).unwrap();
    let stop = daemon.stop_handle();
    let serving = thread::spawn(move || daemon.run());
    let config = DeviceConfig {
        tag: Some(TAG.parse().unwrap()),
        request_queues: Some(1),
        ..DeviceConfig::default()
    };
    let mut options = VhostUser::new(&socket);
    options.window = Some(Window {
        size: SET_ASIDE,
        mapper: Arc::new(ReservedWindow::new(SET_ASIDE).unwrap()),
    });
    let device = Device::vhost_user(&config, options).unwrap();
    test(Arc::new(Mutex::new(device)));
    stop.stop();
    serving.join().unwrap().unwrap();
}

fn memory() -> Memory {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap())
}

fn config(function: &mut TestFunction, at: usize) -> u32 {
    let mut data = [0; 4];
    function.read_config(at, &mut data);
    u32::from_le_bytes(data)
}

/// The capability of a shared memory region.
fn shared_memory(function: &mut TestFunction) -> Option<usize> {
    let mut at = config(function, 0x34) as usize;
    while at != 0 {
        let [id, next, _, kind] = config(function, at).to_le_bytes();
        if (id, kind) == (9, 8) {
            return Some(at);
        }
        at = next.into();
    }
    None
}

#[test]
fn the_guest_finds_the_window_and_moves_it() {
    with_device(|device| {
        let vmm = Vmm::default();
        let mut function = function(&device, &memory(), &vmm);
        let at = shared_memory(&mut function).unwrap();
        let words = [4, 8, 12, 16, 20].map(|offset| config(&mut function, at + offset));
        assert_eq!(words, [2, 0, SHOWN as u32, 0, 0]);
        assert_eq!(vmm.told().window, None);
        // As Linux finds out the size, and lets it be used.
        for (bar, mask) in [(0x18, !(ON_BUS as u32 - 1) | 0xc), (0x1c, u32::MAX)] {
            let place = config(&mut function, bar);
            function.write_config(bar, &[0xff; 4]);
            assert_eq!(config(&mut function, bar), mask);
            function.write_config(bar, &place.to_le_bytes());
        }
        function.write_config(4, &[6]);
        assert_eq!(vmm.told().window, Some(WINDOWS.start));
        // Anywhere on the bus, whole, and nowhere else.
        for (address, there) in [
            (WINDOWS.end - ON_BUS, true),
            (WINDOWS.end, false),
            (WINDOWS.start + ON_BUS, true),
            (0, false),
            (u64::MAX << 23, false),
        ] {
            let before = vmm.told().window;
            function.write_config(4, &[0]);
            assert_eq!(vmm.told().window, None, "{before:x?}");
            function.write_config(0x18, &address.to_le_bytes());
            function.write_config(4, &[6]);
            assert_eq!(vmm.told().window, there.then_some(address));
        }
    });
}

#[test]
fn the_vmm_decides_where_it_begins() {
    with_device(|device| {
        let memory_of_window = device.lock().unwrap().window_size();
        let window = memory_of_window.and_then(WindowMemory::new).unwrap();
        assert_eq!((window.size(), window.len_on_bus()), (SHOWN, ON_BUS));
        let new = |places: Places| {
            let device = Arc::clone(&device);
            Function::new(device, memory(), &places, Vmm::default())
        };
        let mut without = new(Places::default()).unwrap();
        assert_eq!(shared_memory(&mut without), None);
        for (registers, window) in [(0x2000, None), (0, Some(4 << 20))] {
            let places = Places {
                registers,
                window,
                windows: WINDOWS,
            };
            assert!(matches!(new(places), Err(Error::Address { .. })));
        }
    });
}
