use vm_memory::GuestAddress;

/// Learns what a queue writes to the guest's memory: replies, and its part of the ring. For a device
/// whose guest is moved while it runs; a memory that keeps a [`Bitmap`](vm_memory::bitmap::Bitmap) of
/// its own notes that there, too.
pub trait WriteLog: Send + Sync {
    /// `len` bytes at `address` were written to just now. The driver knows of it later, if it does.
    ///
    /// Called for each reply and more, from the thread that drains and from the pool's.
    fn wrote(&self, address: GuestAddress, len: usize);
}
