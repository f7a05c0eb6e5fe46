//! What the front-end's messages do (the vhost-user specification, "Front-end message types").

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error as VhostUserError, GpuBackend, Result as VhostUserResult, VhostUserBackendReqHandlerMut,
};
use virtio_fs_config::{EVENT_IDX, INDIRECT_DESC};
use virtio_fs_queue::Kick;
use vm_memory::GuestAddress;

use crate::device::{Device, FEATURES, LOG_ALL, MAX_QUEUE_SIZE, PROTOCOL_FEATURES};
use crate::dirty_log::{DirtyLog, Moved};
use crate::event;
use crate::front_end::Handler;
use crate::inflight::Inflight;
use crate::memory::{Change, MAX_REGIONS, MemoryError, MemoryTable};
use crate::transfer::{Transfer, TransferError};
use crate::vring::{Areas, Surroundings, Vring};
use crate::window::DaxWindow;

/// `VHOST_USER_CONFIG_SIZE`, the most of the config space that a message carries.
const MAX_CONFIG: u32 = 256;

/// One front-end's use of a device.
///
/// A message that is refused ends the connection, which is all that the `vhost` crate can do with
/// an error. Dropping this ends the guest's session.
pub struct Session {
    device: Arc<Device>,
    features: u64,
    protocol_features: u64,
    memory: MemoryTable,
    /// hiprio, then the request queues.
    vrings: Vec<Vring>,
    /// The log of what is written to guest memory.
    log: Arc<DirtyLog>,
    /// Where used rings are for the log, of each vring for which that is not where they are.
    moved: Vec<Option<Moved>>,
    /// The state that is being transferred, or was, and nobody asked how that ended.
    transfer: Option<Transfer>,
    /// The record of what is in flight, where the front-end keeps one.
    inflight: Option<Inflight>,
    /// Where the front-end would be asked for something; to be kept open.
    channel: Option<File>,
    /// The DAX window of the device, if it has one.
    window: Option<Arc<DaxWindow>>,
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
    #[error("the device's state cannot be transferred while its queues are served")]
    Served,
    #[error(
        "a state is not saved while the guest has files mapped: nobody could map them elsewhere"
    )]
    Mapped,
    #[error("a queue cannot be served while the device's state is transferred")]
    Transferred,
    #[error("the config space of a virtio-fs device is read-only")]
    ReadOnlyConfig,
}

impl From<Refusal> for VhostUserError {
    fn from(refusal: Refusal) -> Self {
        refused(refusal)
    }
}

/// What ends the connection.
fn refused(error: impl std::error::Error + Send + Sync + 'static) -> VhostUserError {
    VhostUserError::ReqHandlerError(io::Error::other(error))
}

/// What is not among the features that are offered.
const fn not_offered<T>() -> VhostUserResult<T> {
    Err(VhostUserError::InvalidOperation("it is not offered"))
}

impl Session {
    pub(crate) fn new(device: Arc<Device>, window: Option<Arc<DaxWindow>>) -> Self {
        Self {
            features: 0,
            protocol_features: 0,
            memory: MemoryTable::default(),
            vrings: Vring::all(device.queues.len()),
            log: Arc::default(),
            transfer: None,
            moved: vec![None; device.queues.len()],
            device,
            inflight: None,
            channel: None,
            window,
        }
    }

    /// The protocol features that there are.
    fn offered(&self) -> VhostUserProtocolFeatures {
        let mut features = self.device.protocol_features();
        if self.window.is_some() {
            features |= VhostUserProtocolFeatures::BACKEND_REQ | VhostUserProtocolFeatures::SHMEM;
        }
        features
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, Refusal> {
        usize::try_from(index)
            .ok()
            .and_then(|at| self.vrings.get_mut(at))
            .ok_or(Refusal::NoQueue(index))
    }

    /// Does something to a vring for which that has to know the rest of the device.
    fn with_vring(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Vring, &Surroundings<'_>) -> io::Result<()>,
    ) -> VhostUserResult<()> {
        let at = usize::try_from(index).map_err(|_| Refusal::NoQueue(index))?;
        let (Some(vring), Some(queue), Ok(index)) = (
            self.vrings.get_mut(at),
            self.device.queues.get(at),
            u16::try_from(index),
        ) else {
            return Err(Refusal::NoQueue(index).into());
        };
        let around = Surroundings {
            index,
            device: &self.device,
            queue,
            memory: self.memory.shared(),
            log: &self.log,
            record: self.inflight.as_ref().and_then(|all| all.of(index)),
            event_idx: self.features & EVENT_IDX != 0,
            indirect: self.features & INDIRECT_DESC != 0,
        };
        change(vring, &around).map_err(VhostUserError::ReqHandlerError)
    }

    fn with_all_vrings(
        &mut self,
        mut change: impl FnMut(&mut Vring, &Surroundings<'_>) -> io::Result<()>,
    ) -> VhostUserResult<()> {
        (0u32..)
            .take(self.vrings.len())
            .try_for_each(|index| self.with_vring(index, &mut change))
    }

    /// Queues whose rings are not in the guest's memory any more are not served before these are
    /// there again, and no more of them is touched once the front-end is told that it is gone.
    fn change_memory(&mut self, change: Result<Change, MemoryError>) -> VhostUserResult<()> {
        let change = change.map_err(refused)?;
        self.log.check(change.end()).map_err(refused)?;
        for vring in &mut self.vrings {
            vring.leave_unless_in(change.memory());
        }
        self.memory.apply(change);
        self.with_all_vrings(Vring::resume)
    }

    fn begin_transfer(
        &mut self,
        direction: VhostTransferStateDirection,
        file: File,
    ) -> VhostUserResult<()> {
        if self.device.filesystem.state().is_none() {
            return not_offered();
        }
        if self.vrings.iter().any(Vring::is_served) {
            return Err(Refusal::Served.into());
        }
        let has_mappings = |window: &Arc<DaxWindow>| window.mappings() > 0;
        if direction == VhostTransferStateDirection::SAVE
            && self.window.as_ref().is_some_and(has_mappings)
        {
            return Err(Refusal::Mapped.into());
        }
        // One before it is given up.
        self.transfer = None;
        let device = Arc::clone(&self.device);
        let transfer = Transfer::start(device, direction, file);
        self.transfer = Some(transfer.map_err(VhostUserError::ReqHandlerError)?);
        Ok(())
    }

    /// Nothing is served before a state is there, or is saved.
    fn wait_for_state(&self) -> Result<(), Refusal> {
        match &self.transfer {
            Some(transfer) if !transfer.ends_soon() => Err(Refusal::Transferred),
            _ => Ok(()),
        }
    }

    /// Has what is written to the used ring of a queue logged elsewhere, too.
    fn set_moved(&mut self, index: u32, moved: Option<Moved>) {
        let at = usize::try_from(index).ok();
        if let Some(current) = at.and_then(|at| self.moved.get_mut(at))
            && *current != moved
        {
            *current = moved;
            self.log.set_moved(self.moved.clone());
        }
    }

    fn guest_address(&self, user: u64) -> Result<GuestAddress, Refusal> {
        self.memory
            .guest_address(user)
            .ok_or(Refusal::NotInMemory(user))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Before those who wait for an answer are waited for.
        if let Some(window) = &self.window {
            window.detach();
        }
        for vring in &mut self.vrings {
            vring.stop();
        }
        self.transfer = None;
        self.device.filesystem.reset();
    }
}

impl Handler for Session {
    fn acknowledges(&self) -> bool {
        self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    fn asks(&self) -> bool {
        let needed = VhostUserProtocolFeatures::SHMEM | VhostUserProtocolFeatures::REPLY_ACK;
        self.window.is_some() && self.protocol_features & needed.bits() == needed.bits()
    }

    fn set_channel(&mut self, socket: File) -> VhostUserResult<()> {
        if self.protocol_features & VhostUserProtocolFeatures::BACKEND_REQ.bits() == 0 {
            return not_offered();
        }
        match &self.window {
            Some(window) if self.asks() => window.attach(OwnedFd::from(socket).into()),
            _ => self.channel = Some(socket),
        }
        Ok(())
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> VhostUserResult<()> {
        Ok(())
    }

    /// Deprecated; the specification recommends to ignore it.
    fn reset_owner(&mut self) -> VhostUserResult<()> {
        Ok(())
    }

    /// Everything but the connection and the memory begins anew.
    fn reset_device(&mut self) -> VhostUserResult<()> {
        for vring in &mut self.vrings {
            vring.reset();
        }
        self.features = 0;
        self.log.set_wanted(false);
        self.transfer = None;
        self.inflight = None;
        self.device.filesystem.reset();
        Ok(())
    }

    fn get_features(&mut self) -> VhostUserResult<u64> {
        Ok(FEATURES)
    }

    /// A front-end that knows no protocol features has no way to enable rings: they are.
    fn set_features(&mut self, features: u64) -> VhostUserResult<()> {
        if features & !FEATURES != 0 {
            return Err(Refusal::Features(features & !FEATURES).into());
        }
        let enables = features & PROTOCOL_FEATURES == 0;
        if enables {
            self.wait_for_state()?;
        }
        let changed = self.features ^ features;
        self.features = features;
        if changed & (EVENT_IDX | INDIRECT_DESC) != 0 {
            self.with_all_vrings(Vring::renegotiate)?;
        }
        self.log.set_wanted(features & LOG_ALL != 0);
        self.log.check(self.memory.end()).map_err(refused)?;
        if enables {
            self.with_all_vrings(|vring, around| vring.set_enabled(true, around))?;
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> VhostUserResult<VhostUserProtocolFeatures> {
        Ok(self.offered())
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostUserResult<()> {
        let offered = self.offered().bits();
        if features & !offered != 0 {
            return Err(Refusal::Features(features & !offered).into());
        }
        self.protocol_features = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> VhostUserResult<u64> {
        Ok(self.vrings.len() as u64)
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
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> VhostUserResult<Option<VhostUserMemoryRegionBase>> {
        self.change_memory(self.memory.with(region, file))?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> VhostUserResult<()> {
        self.change_memory(self.memory.without(region))
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostUserResult<()> {
        let size = u16::try_from(num)
            .ok()
            .filter(|size| (1..=MAX_QUEUE_SIZE).contains(size))
            .ok_or(Refusal::QueueSize(num))?;
        self.vring(index)?.set_size(size);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> VhostUserResult<()> {
        let areas = Areas {
            descriptors: self.guest_address(descriptor)?,
            avail: self.guest_address(available)?,
            used: self.guest_address(used)?,
        };
        self.vring(index)?.set_areas(areas);
        let is_moved =
            flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG) && log != areas.used.0;
        self.set_moved(index, is_moved.then(|| Moved::used_ring(areas.used.0, log)));
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostUserResult<()> {
        let next_avail = u16::try_from(base).map_err(|_| Refusal::Base(base))?;
        self.vring(index)?.set_base(next_avail);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostUserResult<VhostUserVringState> {
        let base = self.vring(index)?.take_base();
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        self.wait_for_state()?;
        let event = event
            .map(event::kick)
            .transpose()
            .map_err(VhostUserError::ReqHandlerError)?;
        let kick = event.map_or(Kick::Polled, |event| Kick::Event(Arc::new(event.into())));
        self.with_vring(index.into(), |vring, around| vring.set_kick(kick, around))
    }

    fn set_vring_call(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        let vring = self.vring(index.into())?;
        vring
            .set_call(event)
            .map_err(VhostUserError::ReqHandlerError)
    }

    fn set_vring_err(&mut self, index: u8, event: Option<File>) -> VhostUserResult<()> {
        let vring = self.vring(index.into())?;
        vring
            .set_error(event)
            .map_err(VhostUserError::ReqHandlerError)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostUserResult<()> {
        if enable {
            self.wait_for_state()?;
        }
        self.with_vring(index, |vring, around| vring.set_enabled(enable, around))
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostUserResult<Vec<u8>> {
        match (
            &self.device.config_space,
            usize::try_from(size.min(MAX_CONFIG)),
        ) {
            (Some(space), Ok(size)) => {
                let mut bytes = vec![0; size];
                space.read(offset.into(), &mut bytes);
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
        inflight: &VhostUserInflight,
    ) -> VhostUserResult<(VhostUserInflight, File)> {
        Inflight::create(inflight, self.vrings.len()).map_err(refused)
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> VhostUserResult<()> {
        let inflight = Inflight::map(inflight, file, self.vrings.len()).map_err(refused)?;
        self.inflight = Some(inflight);
        self.with_all_vrings(Vring::renegotiate)
    }

    /// The front-end is told of an error by the reply, and the connection goes on. There is only
    /// one phase, [`VhostTransferStatePhase::STOPPED`].
    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> VhostUserResult<Option<File>> {
        let begun = self.begin_transfer(direction, file);
        begun.inspect_err(|error| tracing::warn!("no state is transferred: {error}"))?;
        Ok(None)
    }

    /// The front-end is told of an error by the reply, and the connection goes on.
    fn check_device_state(&mut self) -> VhostUserResult<()> {
        let transfer = self.transfer.take().ok_or(TransferError::None);
        transfer
            .and_then(Transfer::finish)
            .inspect_err(|error| tracing::warn!("no state is transferred: {error}"))
            .map_err(refused)
    }

    fn get_shmem_config(&mut self) -> VhostUserResult<VhostUserShMemConfig> {
        match &self.window {
            Some(window) => Ok(VhostUserShMemConfig::new(1, &[window.offered()])),
            None => not_offered(),
        }
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> VhostUserResult<()> {
        self.log
            .set(log, file, self.memory.end(), self.moved.clone())
            .map_err(refused)
    }
}
