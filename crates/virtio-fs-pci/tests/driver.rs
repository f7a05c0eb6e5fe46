//! A driver that finds the device on the bus as Linux does, sets it up, and uses it.

mod support;

use std::sync::Arc;

use fuse_wire::NodeId;
use support::*;
use virtio_fs_device::{Event, State};
use virtio_fs_guest::{Backing, Connection, Mount, MountOptions, Options, QueueLayout};
use virtio_fs_pci::{BusState, Error};

const COMMON: u64 = 0;
const STATUS: u64 = 0x14;
const OK: u8 = 15;
const NEEDS_RESET: u8 = 64;

/// A driver of the first function on a bus.
struct Driver {
    bus: Arc<TestBus>,
    /// Guest addresses of the parts, by the kind of the capability.
    parts: [u64; 6],
    /// Where the capability of the vectors is, and where its table.
    msix: usize,
    table: u64,
}

impl Driver {
    fn probe(bus: &Arc<TestBus>) -> Self {
        let mut driver = Self {
            bus: Arc::clone(bus),
            parts: [0; 6],
            msix: 0,
            table: 0,
        };
        assert_eq!(driver.config(0), 0x105a_1af4);
        // The size of the registers, then where they are, then that they may be used.
        let place = driver.config(0x10);
        driver.set_config(0x10, u32::MAX);
        assert_eq!(driver.config(0x10), 0xffff_c000);
        driver.set_config(0x10, place);
        driver.set_config(4, 6);
        let mut next = driver.config(0x34) as usize;
        while next != 0 {
            let head = driver.config(next).to_le_bytes();
            match head {
                [0x09, _, _, kind @ 1..=4] => {
                    let offset = driver.config(next + 8);
                    driver.parts[usize::from(kind)] = u64::from(place + offset);
                }
                [0x11, ..] => {
                    driver.msix = next;
                    driver.table = u64::from(place + driver.config(next + 4));
                }
                _ => {}
            }
            next = head[1].into();
        }
        driver
    }

    fn select(&self, at: usize) {
        let address = 0x8000_0000 | 1 << 11 | at as u32;
        self.bus.write_port(0, &address.to_le_bytes());
    }

    fn config(&self, at: usize) -> u32 {
        self.select(at);
        let mut data = [0; 4];
        self.bus.read_port(4, &mut data);
        u32::from_le_bytes(data)
    }

    fn set_config(&self, at: usize, value: u32) {
        self.select(at);
        self.bus.write_port(4, &value.to_le_bytes());
    }

    fn read<const LEN: usize>(&self, kind: usize, offset: u64) -> [u8; LEN] {
        let mut data = [0; LEN];
        self.bus.read_memory(self.parts[kind] + offset, &mut data);
        data
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.bus.write_memory(self.parts[1] + COMMON + offset, data);
    }

    fn write_u64(&self, offset: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.write(offset, &bytes[..4]);
        self.write(offset + 4, &bytes[4..]);
    }

    fn status(&self) -> u8 {
        self.read::<1>(1, STATUS)[0]
    }

    /// Does what a driver does, to DRIVER_OK, with a vector for each queue, after the first.
    fn start(&self, features: u64, queues: &[QueueLayout]) {
        for vector in 0..=queues.len() as u64 {
            let entry = [0xfee0_0000, 0, 0x40 + vector as u32, 0].map(u32::to_le_bytes);
            let address = self.table + vector * 16;
            self.bus.write_memory(address, entry.as_flattened());
        }
        self.set_config(self.msix, 1 << 31);
        self.write(STATUS, &[0]);
        assert_eq!(self.status(), 0);
        self.write(STATUS, &[3]);
        for (select, half) in [features as u32, (features >> 32) as u32]
            .into_iter()
            .enumerate()
        {
            self.write(8, &(select as u32).to_le_bytes());
            self.write(12, &half.to_le_bytes());
        }
        self.write(STATUS, &[11]);
        assert_eq!(self.status(), 11);
        self.write(0x10, &[0, 0]);
        for (index, queue) in (0_u16..).zip(queues) {
            self.write(0x16, &index.to_le_bytes());
            self.write(0x18, &queue.size.to_le_bytes());
            self.write(0x1a, &(index + 1).to_le_bytes());
            self.write_u64(0x20, queue.descriptors);
            self.write_u64(0x28, queue.available);
            self.write_u64(0x30, queue.used);
            self.write(0x1c, &[1, 0]);
        }
        self.write(STATUS, &[OK]);
        assert_eq!(self.status(), OK);
    }

    /// Takes over the notifications and the interrupts of `queues`.
    fn serve(&self, vmm: &Vmm, queues: Vec<QueueLayout>) -> Again {
        let (bus, vmm, notify) = (Arc::clone(&self.bus), vmm.clone(), self.parts[2]);
        Again::start(move || {
            for (index, queue) in (0_u16..).zip(&queues) {
                if queue.kick.read().is_ok() {
                    bus.write_memory(notify + u64::from(index) * 4, &index.to_le_bytes());
                }
                if let Some((vector, _)) = vmm.told().vectors.get(&(index + 1))
                    && vector.read().is_ok()
                {
                    queue.call.write(1).unwrap();
                }
            }
        })
    }
}

fn connection(features: u64) -> Connection {
    let options = Options {
        request_queues: 2,
        queue_size: 64,
        data_memory: 1 << 20,
        backing: Backing::Private,
        ..Options::default()
    };
    Connection::driver(features, &options).unwrap()
}

fn mount(connection: Connection) -> Mount {
    connection.mount(&MountOptions::default()).unwrap()
}

#[test]
fn driver_finds_and_uses_the_device() {
    let (device, vmm) = (device(2), Vmm::default());
    let connection = connection(device.lock().unwrap().features());
    let memory = Arc::new(connection.guest_memory().unwrap());
    let bus = TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap();
    let driver = Driver::probe(&Arc::new(bus));
    let tag: [u8; 36] = driver.read(4, 0);
    assert_eq!(&tag[..5], b"myfs\0");

    let layouts = connection.layouts().unwrap();
    driver.start(connection.features(), &layouts);
    assert_eq!(device.lock().unwrap().state(), State::Active);
    assert_eq!(vmm.told().notifications.len(), 3);
    let messages: Vec<_> = vmm.told().vectors.values().map(|it| it.1.data).collect();
    assert_eq!(messages, [0x40, 0x41, 0x42, 0x43]);
    let served = driver.serve(&vmm, layouts);
    let mut mount = mount(connection);
    mount.getattr(NodeId::ROOT, None).unwrap();

    // The driver moves the registers, and notifications go along.
    driver.set_config(4, 0);
    assert!(vmm.told().notifications.is_empty());
    driver.set_config(0x10, 0xc800_0000);
    driver.set_config(4, 6);
    assert_eq!(vmm.told().notifications[0], 0xc800_3000);
    let moved = Driver::probe(&driver.bus);
    assert_eq!(moved.status(), OK);
    drop(served);
    let served = moved.serve(&vmm, mount.connection().layouts().unwrap());
    mount.getattr(NodeId::ROOT, None).unwrap();

    // A vector that is masked waits.
    moved
        .bus
        .write_memory(moved.table + 16 * 2 + 12, &[1, 0, 0, 0]);
    assert!(!vmm.told().vectors.contains_key(&2));
    drop(served);
    moved.write(STATUS, &[0]);
    assert_eq!(device.lock().unwrap().state(), State::Reset);
}

#[test]
fn driver_is_told_what_it_has_lost() {
    let (device, vmm) = (device(2), Vmm::default());
    let connection = connection(device.lock().unwrap().features());
    let memory = Arc::new(connection.guest_memory().unwrap());
    let bus = TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap();
    let driver = Driver::probe(&Arc::new(bus));
    let mut layouts = connection.layouts().unwrap();
    // Nowhere in the memory.
    layouts[1].descriptors = 1 << 60;
    for vector in 0..4 {
        driver
            .bus
            .write_memory(driver.table + vector * 16 + 12, &[0; 4]);
    }
    driver.set_config(driver.msix, 1 << 31);
    driver.write(STATUS, &[3]);
    driver.write(8, &1_u32.to_le_bytes());
    driver.write(12, &1_u32.to_le_bytes());
    driver.write(STATUS, &[11]);
    driver.write(0x16, &[1, 0]);
    driver.write_u64(0x20, layouts[1].descriptors);
    driver.write(0x1c, &[1, 0]);
    driver.write(STATUS, &[OK]);
    let status = || driver.status() & NEEDS_RESET != 0;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !status() && std::time::Instant::now() < deadline {
        driver.bus.write_memory(driver.parts[2] + 4, &[1, 0]);
    }
    assert!(status());
    driver.write(STATUS, &[0]);
    assert_eq!(driver.status(), 0);
    // Nor can it accept what was not offered.
    driver.write(STATUS, &[3]);
    driver.write(8, &0_u32.to_le_bytes());
    driver.write(12, &1_u32.to_le_bytes());
    driver.write(STATUS, &[11]);
    assert_eq!(driver.status(), 3);
}

/// A driver that is ready does not look at the status again unless it is interrupted for that (virtio
/// 1.2, section 2.1.2).
#[test]
fn driver_is_interrupted_where_the_device_does_not_start() {
    let (device, vmm) = (device(1), Vmm::default());
    let memory = Arc::new(connection(0).guest_memory().unwrap());
    let bus = TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap();
    let driver = Driver::probe(&Arc::new(bus));
    driver.bus.write_memory(driver.table + 12, &[0; 4]);
    driver.set_config(driver.msix, 1 << 31);
    driver.write(STATUS, &[3]);
    driver.write(8, &1_u32.to_le_bytes());
    driver.write(12, &1_u32.to_le_bytes());
    driver.write(STATUS, &[11]);
    driver.write(0x10, &[0, 0]);
    driver.write(0x16, &[1, 0]);
    // Nowhere in the memory.
    driver.write_u64(0x20, 1 << 60);
    driver.write(0x1c, &[1, 0]);
    driver.write(STATUS, &[OK]);
    assert_eq!(driver.status(), OK | NEEDS_RESET);
    assert_eq!(vmm.told().vectors[&0].0.read().unwrap(), 1);
}

#[test]
fn machine_goes_on_elsewhere() {
    let (first, vmm) = (device(2), Vmm::default());
    let memory = Arc::new(connection(0).guest_memory().unwrap());
    let bus = Arc::new(TestBus::new(vec![function(&first, &memory, &vmm)]).unwrap());
    let driver = Driver::probe(&bus);
    driver.set_config(0x10, 0xd000_0000);
    driver.set_config(driver.msix, 1 << 31);
    let driver = Driver::probe(&bus);
    driver.bus.write_memory(driver.table + 16 + 12, &[0; 4]);
    driver.write(STATUS, &[3]);
    let saved = serde_json::to_string(&bus.save().unwrap()).unwrap();
    let state = || serde_json::from_str::<BusState>(&saved).unwrap();

    let (second, vmm) = (device(2), Vmm::default());
    let other = Arc::new(TestBus::new(vec![function(&second, &memory, &vmm)]).unwrap());
    other.restore(state()).unwrap();
    let same = Driver::probe(&other);
    assert_eq!((same.parts, same.status()), (driver.parts, 3));
    assert_eq!(vmm.told().notifications[0], 0xd000_3000);
    assert_eq!(vmm.told().vectors.keys().collect::<Vec<_>>(), [&1]);

    // Not with other queues, nor where the VMM does not do its part, nor without the function.
    let more = device(3);
    let more = TestBus::new(vec![function(&more, &memory, &Vmm::default())]).unwrap();
    assert!(matches!(more.restore(state()), Err(Error::Other(_))));
    let (third, vmm) = (device(2), Vmm::default());
    let refused = TestBus::new(vec![function(&third, &memory, &vmm)]).unwrap();
    vmm.told().refuses = true;
    assert!(matches!(refused.restore(state()), Err(Error::Io { .. })));
    let empty = TestBus::new(Vec::new()).unwrap();
    let error = empty.restore(state()).unwrap_err();
    assert!(matches!(error, Error::Functions { saved: 1, there: 0 }));
    let newer = saved.replacen("\"version\":1", "\"version\":2", 1);
    let newer = serde_json::from_str(&newer).unwrap();
    assert!(matches!(
        other.restore(newer),
        Err(Error::Version { version: 2, .. })
    ));
}

#[test]
fn what_is_signalled_while_masked_is_pending() {
    let (device, vmm) = (device(1), Vmm::default());
    let memory = Arc::new(connection(0).guest_memory().unwrap());
    let bus = Arc::new(TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap());
    let driver = Driver::probe(&bus);
    let pending = || {
        let mut bits = [0; 8];
        bus.read_memory(driver.parts[1] + 0x2800, &mut bits);
        bits[0]
    };
    driver.set_config(driver.msix, 1 << 31);
    bus.write_memory(driver.table + 16 + 12, &[0; 4]);
    let event = vmm.told().vectors[&1].0.try_clone().unwrap();
    assert_eq!(pending(), 0);
    bus.write_memory(driver.table + 16 + 12, &[1, 0, 0, 0]);
    Event::from(event).signal().unwrap();
    assert_eq!(pending(), 2);
    let saved = bus.save().unwrap();
    assert_eq!(pending(), 2);
    let other = support::device(1);
    let other = TestBus::new(vec![function(&other, &memory, &Vmm::default())]).unwrap();
    other.restore(saved).unwrap();
    let mut bits = [0; 1];
    other.read_memory(driver.parts[1] + 0x2800, &mut bits);
    assert_eq!(bits, [2]);
}

/// Firmware that has no way to map the registers goes by the configuration space.
#[test]
fn registers_are_reached_by_the_configuration_space() {
    let (device, vmm) = (device(1), Vmm::default());
    let memory = Arc::new(connection(0).guest_memory().unwrap());
    let bus = Arc::new(TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap());
    let driver = Driver::probe(&bus);
    let mut at = driver.config(0x34) as usize;
    while driver.config(at) >> 24 != 5 {
        at = driver.config(at).to_le_bytes()[1].into();
    }
    let access = |offset: u32, len: u32| {
        driver.set_config(at + 4, 0);
        driver.set_config(at + 8, offset);
        driver.set_config(at + 12, len);
    };
    access(0x12, 2);
    assert_eq!(driver.config(at + 16), 2);
    access(0x14, 1);
    driver.set_config(at + 16, 3);
    assert_eq!((driver.config(at + 16), driver.status()), (3, 3));
    // Nothing happens by what is no access.
    access(0x14, 3);
    driver.set_config(at + 16, 0);
    assert_eq!(driver.status(), 3);
}

#[test]
fn nothing_is_where_no_function_is() {
    let (device, vmm) = (device(1), Vmm::default());
    let memory = Arc::new(connection(0).guest_memory().unwrap());
    let bus = Arc::new(TestBus::new(vec![function(&device, &memory, &vmm)]).unwrap());
    let ones = |port: u16| {
        let mut data = [0; 4];
        bus.read_port(port, &mut data);
        data == [0xff; 4]
    };
    // Not selected, no device, another bus, another function.
    for address in [0, 0x8000_0000 | 2 << 11, 0x8001_0000, 0x8000_0100] {
        bus.write_port(0, &u32::to_le_bytes(address));
        assert!(ones(4), "{address:#x}");
    }
    bus.write_port(0, &u32::to_le_bytes(0x8000_0000));
    assert!(!ones(4) && ones(8) && ones(1));
    // The registers are not there before the driver says so.
    let mut data = [0; 4];
    bus.read_memory(REGISTERS.into(), &mut data);
    assert_eq!(data, [0xff; 4]);
    Driver::probe(&bus);
    bus.read_memory(REGISTERS.into(), &mut data);
    assert_eq!(data, [0; 4]);
    let functions = (0..32).map(|_| function(&device, &memory, &vmm));
    let full = TestBus::new(functions.collect()).unwrap_err();
    assert!(matches!(
        full,
        Error::Full {
            most: 31,
            wanted: 32
        }
    ));
}
