//! What the front-end's messages do (the vhost-user specification, "Front-end message types").

use std::fs::File;
use std::io;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error as VhostUserError, GpuBackend, Result as VhostUserResult, VhostUserBackendReqHandlerMut,
};
use vhost_user_fs::front_end::{
    self, Handler, MAX_REGIONS, MemoryChange, MemoryError, MemoryTable,
};
use virtio_fs_device::MAX_QUEUE_SIZE;
use vm_memory::GuestAddress;

use super::driver::Driver;
use super::ring::Areas;
use super::served::Served;

/// `VHOST_USER_CONFIG_SIZE`, the most of the config space that a message carries.
const MAX_CONFIG: u32 = 256;
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// One front-end's use of the device. A message that is refused ends the connection.
pub(super) struct FrontEnd {
    driver: Driver,
    protocol_features: u64,
    /// Where the front-end would be asked for something; to be kept open.
    channel: Option<File>,
}

/// Why a message is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the device has no queue {0}")]
    NoQueue(u32),
    #[error("a queue has 1 to {MAX_QUEUE_SIZE} descriptors, not {0}")]
    QueueSize(u32),
    #[error("{0:#x} is not an entry of an available ring")]
    Base(u32),
    #[error("{0:#x} is not in the memory that the front-end shares")]
    NotInMemory(u64),
    #[error("features that were not offered are accepted: {0:#x}")]
    Features(u64),
    #[error("a queue without a kick cannot be relayed")]
    NoKick,
    #[error("the config space of a virtio-fs device is read-only")]
    ReadOnlyConfig,
}

impl From<Refusal> for VhostUserError {
    fn from(refusal: Refusal) -> Self {
        refused(refusal)
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> VhostUserError {
    VhostUserError::ReqHandlerError(io::Error::other(error))
}

/// What is not among the features that are offered.
const fn not_offered<T>() -> VhostUserResult<T> {
    Err(VhostUserError::InvalidOperation("it is not offered"))
}

impl FrontEnd {
    pub(super) fn new(served: Served) -> Self {
        Self {
            driver: Driver::new(served),
            protocol_features: 0,
            channel: None,
        }
    }

    fn queue(&mut self, index: u32) -> Result<u16, Refusal> {
        let queue = u16::try_from(index).map_err(|_| Refusal::NoQueue(index))?;
        match self.driver.ring(queue) {
            Some(_) => Ok(queue),
            None => Err(Refusal::NoQueue(index)),
        }
    }

    fn change_memory(&mut self, change: Result<MemoryChange, MemoryError>) -> VhostUserResult<()> {
        let change = change.map_err(refused)?;
        self.driver.change_memory(change).map_err(refused)
    }

    fn guest_address(&self, user: u64) -> Result<GuestAddress, Refusal> {
        let address = self.driver.memory().guest_address(user);
        address.ok_or(Refusal::NotInMemory(user))
    }

    fn features(&self) -> u64 {
        self.driver.served().device().features() | PROTOCOL_FEATURES
    }

    /// User Mode Linux has no interrupts without BACKEND_REQ, for which it needs the config space.
    fn offered(&self) -> VhostUserProtocolFeatures {
        let always = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE;
        match self.driver.served().tells_tag {
            true => {
                always | VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::BACKEND_REQ
            }
            false => always,
        }
    }

    const fn agreed(&self, feature: VhostUserProtocolFeatures) -> bool {
        self.protocol_features & feature.bits() != 0
    }
}

impl Handler for FrontEnd {
    fn acknowledges(&self) -> bool {
        self.agreed(VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_channel(&mut self, socket: File) -> VhostUserResult<()> {
        if !self.agreed(VhostUserProtocolFeatures::BACKEND_REQ) {
            return not_offered();
        }
        self.channel = Some(socket);
        Ok(())
    }
}

impl VhostUserBackendReqHandlerMut for FrontEnd {
    fn set_owner(&mut self) -> VhostUserResult<()> {
        Ok(())
    }

    /// Deprecated; the specification recommends to ignore it.
    fn reset_owner(&mut self) -> VhostUserResult<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> VhostUserResult<()> {
        self.driver.reset();
        Ok(())
    }

    fn get_features(&mut self) -> VhostUserResult<u64> {
        Ok(self.features())
    }

    /// A front-end that knows no protocol features has no way to enable rings: they are.
    fn set_features(&mut self, features: u64) -> VhostUserResult<()> {
        let unknown = features & !self.features();
        if unknown != 0 {
            return Err(Refusal::Features(unknown).into());
        }
        let set = self.driver.set_features(features & !PROTOCOL_FEATURES);
        set.map_err(refused)?;
        match features & PROTOCOL_FEATURES {
            0 => self.driver.enable_all().map_err(refused),
            _ => Ok(()),
        }
    }

    fn get_protocol_features(&mut self) -> VhostUserResult<VhostUserProtocolFeatures> {
        Ok(self.offered())
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostUserResult<()> {
        let unknown = features & !self.offered().bits();
        if unknown != 0 {
            return Err(Refusal::Features(unknown).into());
        }
        self.protocol_features = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> VhostUserResult<u64> {
        Ok(self.driver.served().device().queue_max_sizes().len() as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> VhostUserResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.change_memory(MemoryTable::replaced(regions, files))?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> VhostUserResult<u64> {
        let capabilities = self.driver.served().device().status().capabilities;
        Ok(capabilities.memory_regions.min(MAX_REGIONS) as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> VhostUserResult<Option<VhostUserMemoryRegionBase>> {
        self.change_memory(self.driver.memory().with(region, file))?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> VhostUserResult<()> {
        self.change_memory(self.driver.memory().without(region))
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostUserResult<()> {
        let size = u16::try_from(num)
            .ok()
            .filter(|size| (1..=MAX_QUEUE_SIZE).contains(size))
            .ok_or(Refusal::QueueSize(num))?;
        let index = self.queue(index)?;
        self.driver.set_size(index, size);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostUserResult<()> {
        let areas = Areas {
            descriptors: self.guest_address(descriptor)?,
            avail: self.guest_address(available)?,
            used: self.guest_address(used)?,
        };
        let index = self.queue(index)?;
        self.driver.set_areas(index, areas);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostUserResult<()> {
        let next_avail = u16::try_from(base).map_err(|_| Refusal::Base(base))?;
        let index = self.queue(index)?;
        self.driver.set_base(index, next_avail);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostUserResult<VhostUserVringState> {
        let base = self
            .queue(index)
            .map(|queue| self.driver.take_base(queue))?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        let event = event.ok_or(Refusal::NoKick)?;
        let kick = front_end::kick(event).map_err(VhostUserError::ReqHandlerError)?;
        let index = self.queue(index.into())?;
        self.driver.set_kick(index, kick).map_err(refused)
    }

    fn set_vring_call(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        let call = event.map(front_end::call).transpose();
        let call = call.map_err(VhostUserError::ReqHandlerError)?;
        let index = self.queue(index.into())?;
        self.driver.set_call(index, call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        let error = event.map(front_end::call).transpose();
        let error = error.map_err(VhostUserError::ReqHandlerError)?;
        let index = self.queue(index.into())?;
        self.driver.set_error(index, error);
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostUserResult<()> {
        let index = self.queue(index)?;
        self.driver.set_enabled(index, enable).map_err(refused)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostUserResult<Vec<u8>> {
        let served = self.driver.served();
        match usize::try_from(size.min(MAX_CONFIG)) {
            Ok(size) if served.tells_tag => {
                let mut bytes = vec![0; size];
                served.device().read_config(offset.into(), &mut bytes);
                Ok(bytes)
            }
            _ => not_offered(),
        }
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> VhostUserResult<()> {
        Err(Refusal::ReadOnlyConfig.into())
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> VhostUserResult<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostUserResult<File> {
        not_offered()
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> VhostUserResult<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
        _file: File,
    ) -> VhostUserResult<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> VhostUserResult<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> VhostUserResult<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> VhostUserResult<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostUserResult<()> {
        not_offered()
    }
}
