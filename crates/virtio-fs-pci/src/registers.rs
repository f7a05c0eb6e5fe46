//! The common configuration of a virtio device on PCI, as a machine of registers that knows nothing
//! of what is behind them (virtio 1.2, 4.1.4.3; the names are its own).

use serde::{Deserialize, Serialize};

use crate::bytes;

/// No vector is assigned (`VIRTIO_MSI_NO_VECTOR`).
pub(crate) const NO_VECTOR: u16 = 0xffff;
/// Length of the registers.
pub(crate) const LEN: usize = 0x38;

const FEATURE_SELECT: usize = 0x00;
const FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const CONFIG_VECTOR: usize = 0x10;
const NUM_QUEUES: usize = 0x12;
const STATUS: usize = 0x14;
#[cfg(test)]
const CONFIG_GENERATION: usize = 0x15;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_VECTOR: usize = 0x1a;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFF: usize = 0x1e;
const QUEUE_DESC: usize = 0x20;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;

const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;

/// What the device has for the driver, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    /// Most descriptors of each queue.
    pub(crate) queue_sizes: Vec<u16>,
    /// Number of vectors.
    pub(crate) vectors: u16,
}

/// What the driver has said of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueRegisters {
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    /// Guest addresses of the descriptor table, the available ring and the used ring.
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// What the driver has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DriverRegisters {
    feature_select: u32,
    driver_feature_select: u32,
    features: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
}

/// What a write asks of the device behind the registers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Take the features that the driver accepted, or [refuse](Registers::refuse_features) them.
    Negotiate,
    /// Serve the queues.
    Activate,
    /// Forget all.
    Reset,
}

/// The registers of one device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    offer: Offer,
    driver: DriverRegisters,
}

impl Registers {
    /// Registers after a reset.
    pub(crate) fn new(offer: Offer) -> Self {
        let driver = DriverRegisters::new(&offer);
        Self { offer, driver }
    }

    /// What the driver accepted.
    pub(crate) fn driver_features(&self) -> u64 {
        self.driver.features
    }

    pub(crate) fn queues(&self) -> &[QueueRegisters] {
        &self.driver.queues
    }

    pub(crate) fn config_vector(&self) -> u16 {
        self.driver.config_vector
    }

    /// Lets the driver know that the device does not take its features.
    pub(crate) fn refuse_features(&mut self) {
        self.driver.status &= !FEATURES_OK;
    }

    /// Tells the driver that only a reset helps.
    pub(crate) fn fail(&mut self) {
        self.driver.status |= NEEDS_RESET;
    }

    /// Reads at `offset`, beyond the end zeros.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        bytes::read(&self.image(), offset, data);
    }

    /// Writes at `offset`. What the driver must not write is ignored.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Option<Request> {
        let value = bytes::value(data);
        let low = value as u16;
        match (offset, data.len()) {
            (FEATURE_SELECT, 4) => self.driver.feature_select = value,
            (DRIVER_FEATURE_SELECT, 4) => self.driver.driver_feature_select = value,
            (DRIVER_FEATURE, 4) if self.driver.status & FEATURES_OK == 0 => {
                match self.driver.driver_feature_select {
                    0 => set_low(&mut self.driver.features, value),
                    1 => set_high(&mut self.driver.features, value),
                    _ => {}
                }
            }
            (CONFIG_VECTOR, 2) => self.driver.config_vector = self.offer.vector(low),
            (STATUS, 1) => return self.set_status(value as u8),
            (QUEUE_SELECT, 2) => self.driver.queue_select = low,
            (QUEUE_SIZE..LEN, len) => self.write_queue(offset, len, value),
            _ => {}
        }
        None
    }

    pub(crate) fn save(&self) -> DriverRegisters {
        self.driver.clone()
    }

    /// Takes over what was saved. `false`, and nothing is changed, where no driver can have said so.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: DriverRegisters) -> bool {
        let possible = saved.is_possible(&self.offer);
        if possible {
            self.driver = saved;
        }
        possible
    }

    fn set_status(&mut self, status: u8) -> Option<Request> {
        if status == 0 {
            self.driver = DriverRegisters::new(&self.offer);
            return Some(Request::Reset);
        }
        let now = &mut self.driver.status;
        let new = status & !*now;
        let settled = *now & FEATURES_OK != 0;
        // The driver only ever sets bits, and only the device sets that it needs a reset.
        *now |= status & !NEEDS_RESET;
        // Nor is a driver ready before it can know whether its features were taken.
        if !settled {
            *now &= !DRIVER_OK;
        }
        match *now & new {
            bits if bits & FEATURES_OK != 0 => Some(Request::Negotiate),
            bits if bits & DRIVER_OK != 0 => Some(Request::Activate),
            _ => None,
        }
    }

    fn write_queue(&mut self, offset: usize, len: usize, value: u32) {
        let vector = self.offer.vector(value as u16);
        let select = usize::from(self.driver.queue_select);
        let queue = self.driver.queues.get_mut(select);
        let Some((queue, &most)) = queue.zip(self.offer.queue_sizes.get(select)) else {
            return;
        };
        match (offset, len) {
            (QUEUE_VECTOR, 2) => queue.vector = vector,
            // An enabled queue is not changed any more.
            _ if queue.enabled => {}
            (QUEUE_SIZE, 2) if is_size(value as u16, most) => queue.size = value as u16,
            (QUEUE_ENABLE, 2) => queue.enabled = value == 1,
            (QUEUE_DESC, 4) => set_low(&mut queue.desc, value),
            (0x24, 4) => set_high(&mut queue.desc, value),
            (QUEUE_DRIVER, 4) => set_low(&mut queue.driver, value),
            (0x2c, 4) => set_high(&mut queue.driver, value),
            (QUEUE_DEVICE, 4) => set_low(&mut queue.device, value),
            (0x34, 4) => set_high(&mut queue.device, value),
            _ => {}
        }
    }

    fn image(&self) -> [u8; LEN] {
        let half = |features: u64, select: u32| {
            let [low, high] = bytes::halves(features);
            match select {
                0 => low,
                1 => high,
                _ => 0,
            }
        };
        let (offer, driver) = (&self.offer, &self.driver);
        let mut image = [0; LEN];
        let mut put = |offset: usize, bytes: &[u8]| bytes::write(&mut image, offset, bytes);
        let select = driver.feature_select;
        put(FEATURE_SELECT, &select.to_le_bytes());
        put(FEATURE, &half(offer.features, select).to_le_bytes());
        let select = driver.driver_feature_select;
        put(DRIVER_FEATURE_SELECT, &select.to_le_bytes());
        put(DRIVER_FEATURE, &half(driver.features, select).to_le_bytes());
        put(CONFIG_VECTOR, &driver.config_vector.to_le_bytes());
        let queues = u16::try_from(driver.queues.len()).unwrap_or(u16::MAX);
        put(NUM_QUEUES, &queues.to_le_bytes());
        // What a virtio-fs device tells of itself never changes: the generation stays 0.
        put(STATUS, &[driver.status]);
        put(QUEUE_SELECT, &driver.queue_select.to_le_bytes());
        if let Some(queue) = driver.queues.get(usize::from(driver.queue_select)) {
            put(QUEUE_SIZE, &queue.size.to_le_bytes());
            put(QUEUE_VECTOR, &queue.vector.to_le_bytes());
            put(QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(QUEUE_NOTIFY_OFF, &driver.queue_select.to_le_bytes());
            put(QUEUE_DESC, &queue.desc.to_le_bytes());
            put(QUEUE_DRIVER, &queue.driver.to_le_bytes());
            put(QUEUE_DEVICE, &queue.device.to_le_bytes());
        }
        image
    }
}

impl Offer {
    /// The vector that is assigned where the driver asks for `vector`.
    fn vector(&self, vector: u16) -> u16 {
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }
}

impl DriverRegisters {
    /// What they are before the driver said anything.
    fn new(offer: &Offer) -> Self {
        let queue = |&size: &u16| QueueRegisters {
            size,
            vector: NO_VECTOR,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
        };
        Self {
            feature_select: 0,
            driver_feature_select: 0,
            features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: offer.queue_sizes.iter().map(queue).collect(),
        }
    }

    fn is_possible(&self, offer: &Offer) -> bool {
        let mut queues = self.queues.iter().zip(&offer.queue_sizes);
        let mut vectors = self.queues.iter().map(|queue| queue.vector);
        self.queues.len() == offer.queue_sizes.len()
            && queues.all(|(queue, &most)| is_size(queue.size, most))
            && vectors.all(|vector| vector == offer.vector(vector))
            && self.config_vector == offer.vector(self.config_vector)
    }
}

fn is_size(size: u16, most: u16) -> bool {
    size.is_power_of_two() && size <= most
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: u64 = 1 << 32 | 1 << 28;

    fn registers() -> Registers {
        Registers::new(Offer {
            features: FEATURES,
            queue_sizes: vec![256, 1024],
            vectors: 3,
        })
    }

    fn read<const LEN: usize>(registers: &Registers, offset: usize) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        registers.read(offset, &mut bytes);
        bytes
    }

    fn write(registers: &mut Registers, offset: usize, value: u32, len: usize) -> Option<Request> {
        registers.write(offset, &value.to_le_bytes()[..len])
    }

    fn set_status(registers: &mut Registers, status: u8) -> Option<Request> {
        registers.write(STATUS, &[status])
    }

    #[test]
    fn features_are_read_and_accepted_in_halves() {
        let mut registers = registers();
        assert_eq!(read(&registers, FEATURE), (1_u32 << 28).to_le_bytes());
        write(&mut registers, FEATURE_SELECT, 1, 4);
        assert_eq!(read(&registers, FEATURE), 1_u32.to_le_bytes());
        write(&mut registers, FEATURE_SELECT, 2, 4);
        assert_eq!(read(&registers, FEATURE), [0; 4]);
        for (select, half) in [(0, 1 << 28), (1, 1), (2, u32::MAX), (u32::MAX, u32::MAX)] {
            write(&mut registers, DRIVER_FEATURE_SELECT, select, 4);
            write(&mut registers, DRIVER_FEATURE, half, 4);
        }
        assert_eq!(registers.driver_features(), FEATURES);
    }

    #[test]
    fn features_are_settled_once() {
        let mut registers = registers();
        assert_eq!(set_status(&mut registers, 1), None);
        assert_eq!(set_status(&mut registers, 3), None);
        write(&mut registers, DRIVER_FEATURE, 1 << 28, 4);
        assert_eq!(set_status(&mut registers, 11), Some(Request::Negotiate));
        write(&mut registers, DRIVER_FEATURE, 0, 4);
        assert_eq!(registers.driver_features(), 1 << 28);
        assert_eq!(set_status(&mut registers, 11), None);
        assert_eq!(set_status(&mut registers, 15), Some(Request::Activate));
        assert_eq!(set_status(&mut registers, 15), None);
        assert_eq!(read(&registers, STATUS), [15]);
    }

    #[test]
    fn no_driver_is_ready_before_its_features_are_settled() {
        let mut registers = registers();
        assert_eq!(set_status(&mut registers, 15), Some(Request::Negotiate));
        assert_eq!(read(&registers, STATUS), [11]);
        assert_eq!(set_status(&mut registers, 15), Some(Request::Activate));
    }

    #[test]
    fn no_driver_is_ready_whose_features_are_refused() {
        let mut registers = registers();
        assert_eq!(set_status(&mut registers, 11), Some(Request::Negotiate));
        registers.refuse_features();
        assert_eq!(read(&registers, STATUS), [3]);
        assert_eq!(set_status(&mut registers, 7), None);
        assert_eq!(read(&registers, STATUS), [3]);
    }

    #[test]
    fn reset_forgets_all_but_what_the_device_is() {
        let mut registers = registers();
        write(&mut registers, QUEUE_SELECT, 1, 2);
        write(&mut registers, QUEUE_VECTOR, 2, 2);
        write(&mut registers, QUEUE_ENABLE, 1, 2);
        set_status(&mut registers, 11);
        set_status(&mut registers, 15);
        registers.fail();
        assert_eq!(read(&registers, STATUS), [15 | NEEDS_RESET]);
        assert_eq!(set_status(&mut registers, 0), Some(Request::Reset));
        assert_eq!(registers, self::registers());
    }

    #[test]
    fn driver_cannot_say_that_it_needs_a_reset() {
        let mut registers = registers();
        set_status(&mut registers, NEEDS_RESET | 1);
        assert_eq!(read(&registers, STATUS), [1]);
    }

    #[test]
    fn queues_are_set_up_one_by_one() {
        let mut registers = registers();
        assert_eq!(read(&registers, NUM_QUEUES), [2, 0]);
        write(&mut registers, QUEUE_SELECT, 1, 2);
        assert_eq!(read(&registers, QUEUE_SIZE), 1024_u16.to_le_bytes());
        assert_eq!(read(&registers, QUEUE_NOTIFY_OFF), [1, 0]);
        write(&mut registers, QUEUE_SIZE, 512, 2);
        write(&mut registers, QUEUE_VECTOR, 2, 2);
        for (offset, value) in [(QUEUE_DESC, 1), (QUEUE_DRIVER, 3), (QUEUE_DEVICE, 5)] {
            write(&mut registers, offset, value << 12, 4);
            write(&mut registers, offset + 4, value + 1, 4);
        }
        write(&mut registers, QUEUE_ENABLE, 1, 2);
        let queue = QueueRegisters {
            size: 512,
            vector: 2,
            enabled: true,
            desc: 2 << 32 | 1 << 12,
            driver: 4 << 32 | 3 << 12,
            device: 6 << 32 | 5 << 12,
        };
        assert_eq!(registers.queues()[1], queue);
        assert!(!registers.queues()[0].enabled);
        assert_eq!(
            read(&registers, QUEUE_DESC),
            (2_u64 << 32 | 1 << 12).to_le_bytes()
        );

        // Once enabled, it stays where it is.
        write(&mut registers, QUEUE_SIZE, 256, 2);
        write(&mut registers, QUEUE_DESC, 0, 4);
        write(&mut registers, QUEUE_ENABLE, 0, 2);
        assert_eq!(registers.queues()[1], queue);
    }

    #[test]
    fn sizes_vectors_and_queues_that_are_not_there_are_not_taken() {
        let mut registers = registers();
        for size in [0, 3, 512, 0xffff] {
            write(&mut registers, QUEUE_SIZE, size, 2);
            assert_eq!(registers.queues()[0].size, 256, "{size}");
        }
        write(&mut registers, QUEUE_VECTOR, 3, 2);
        assert_eq!(read(&registers, QUEUE_VECTOR), NO_VECTOR.to_le_bytes());
        write(&mut registers, CONFIG_VECTOR, 2, 2);
        assert_eq!(read(&registers, CONFIG_VECTOR), [2, 0]);
        write(&mut registers, QUEUE_SELECT, 2, 2);
        write(&mut registers, QUEUE_ENABLE, 1, 2);
        assert_eq!(read(&registers, QUEUE_SIZE), [0, 0]);
        assert!(registers.queues().iter().all(|queue| !queue.enabled));
    }

    #[test]
    fn only_what_a_driver_can_say_is_restored() {
        let mut before = registers();
        write(&mut before, QUEUE_SELECT, 1, 2);
        write(&mut before, QUEUE_SIZE, 8, 2);
        set_status(&mut before, 3);
        let mut after = registers();
        assert!(after.restore(before.save()));
        assert_eq!(after, before);
        let spoil: [fn(&mut DriverRegisters); 5] = [
            |it| it.queues.truncate(1),
            |it| it.queues[0].size = 512,
            |it| it.queues[0].size = 0,
            |it| it.queues[1].vector = 3,
            |it| it.config_vector = 7,
        ];
        for spoil in spoil {
            let mut saved = registers().save();
            spoil(&mut saved);
            assert!(!after.restore(saved));
            assert_eq!(after, before);
        }
    }

    #[test]
    fn every_access_is_harmless() {
        let mut registers = registers();
        for offset in (0..LEN + 16).chain([usize::MAX]) {
            for len in 0..=8 {
                registers.write(offset, &[0xff; 8][..len]);
                registers.read(offset, &mut [0; 8][..len]);
            }
        }
        assert_eq!(read(&registers, CONFIG_GENERATION), [0]);
    }
}
