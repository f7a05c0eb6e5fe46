use std::io;

use vmm_sys_util::eventfd::EventFd;

/// What a message-signalled interrupt writes, and where, as the guest has it in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Guest address: on x86 it says which processors are interrupted.
    pub address: u64,
    /// On x86 it says by which of their vectors.
    pub data: u32,
}

/// What a function asks of the VMM that it is part of.
///
/// All of it follows what the guest writes, and happens within the call of the
/// [`Function`](crate::Function)'s that passes this on. What fails is logged, and but for notifications
/// the driver is told that the device needs a reset.
pub trait Host {
    /// From now on sends `message` whenever `event` is signalled, once at once where it is: KVM's
    /// `KVM_IRQFD` does with a route of the kind `KVM_IRQ_ROUTING_MSI`. `vector` is not connected.
    ///
    /// # Errors
    /// The vector stays unconnected.
    fn connect_vector(&mut self, vector: u16, event: &EventFd, message: Message) -> io::Result<()>;

    /// Ends it. What is signalled later stays in `event`.
    ///
    /// # Errors
    /// The vector counts as unconnected all the same.
    fn disconnect_vector(&mut self, vector: u16, event: &EventFd) -> io::Result<()>;

    /// From now on signals `event` whenever the guest writes at `address`, whatever and however much
    /// (`KVM_IOEVENTFD` with a length of 0). Where the VMM does not, it is enough that it passes such
    /// writes on to [`Function::write_memory`](crate::Function::write_memory).
    ///
    /// # Errors
    /// It does not, which is logged.
    fn connect_notification(&mut self, event: &EventFd, address: u64) -> io::Result<()>;

    /// Ends it: the guest has moved the function's registers, or hidden them.
    ///
    /// # Errors
    /// It counts as ended all the same.
    fn disconnect_notification(&mut self, event: &EventFd, address: u64) -> io::Result<()>;

    /// Has the guest find the DAX window at `address`, and nowhere else, or nowhere at all. Where it may
    /// be is checked: see [`Places`](crate::Places).
    ///
    /// # Errors
    /// The window is nowhere.
    fn place_window(&mut self, address: Option<u64>) -> io::Result<()>;
}
