use fuse_wire::Extensions;

use crate::Blocking;

/// On whose behalf, and how, an operation is done.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Names the request among those in flight.
    pub unique: u64,
    /// User id of the calling process, as the guest sees it.
    pub uid: u32,
    /// Group id of the calling process, as the guest sees it.
    pub gid: u32,
    /// Process id of the caller in the guest; 0 where the kernel itself asks.
    pub pid: u32,
    /// What a creating operation carries besides its arguments.
    pub extensions: Extensions<'a>,
    /// Whether the operation may wait.
    pub blocking: Blocking,
}

impl Context<'_> {
    /// Whether the operation may wait for a device, a lock or another machine. Where it may not
    /// and would have to, it returns [`Error::WouldBlock`](crate::Error::WouldBlock).
    #[must_use]
    pub fn may_block(&self) -> bool {
        self.blocking == Blocking::Allowed
    }
}
