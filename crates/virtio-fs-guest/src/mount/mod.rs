mod directory;
mod file;
mod namespace;
mod xattr;

use std::ffi::CStr;

use fuse_wire::abi::InitIn;
use fuse_wire::flags::InitFlags;
use fuse_wire::{
    EncodeError, Name, NameError, NodeId, Operation, Reply, RequestError, VERSION_MAJOR,
    VERSION_MINOR, XattrName,
};

pub use directory::DirectoryEntry;

use crate::{Completion, Connection, Error, PAGE, Payload, ProtocolError, Queue};

/// Most pages of data in a request of Linux (`FUSE_MAX_MAX_PAGES`).
const MAX_PAGES: usize = 256;
/// The same where the server does not say (`FUSE_DEFAULT_MAX_PAGES_PER_REQ`).
const DEFAULT_MAX_PAGES: usize = 32;
/// Descriptors that a request needs beside its data (`FUSE_HEADER_OVERHEAD`).
const HEADER_OVERHEAD: usize = 4;
/// Fewest bytes that a WRITE may carry, whatever the server says (`fs/fuse/inode.c`).
const LEAST_MAX_WRITE: usize = 4096;

/// What INIT offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions {
    /// Newest minor version of FUSE. Default [`VERSION_MINOR`].
    pub minor: u32,
    /// Features. Default what the virtio-fs driver of Linux 6.12 offers without DAX.
    pub offer: InitFlags,
    /// Bytes to read ahead. Default 128 KiB.
    pub max_readahead: u32,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            minor: VERSION_MINOR,
            offer: InitFlags::ASYNC_READ
                | InitFlags::POSIX_LOCKS
                | InitFlags::ATOMIC_O_TRUNC
                | InitFlags::EXPORT_SUPPORT
                | InitFlags::BIG_WRITES
                | InitFlags::DONT_MASK
                | InitFlags::FLOCK_LOCKS
                | InitFlags::HAS_IOCTL_DIR
                | InitFlags::AUTO_INVAL_DATA
                | InitFlags::DO_READDIRPLUS
                | InitFlags::READDIRPLUS_AUTO
                | InitFlags::ASYNC_DIO
                | InitFlags::WRITEBACK_CACHE
                | InitFlags::NO_OPEN_SUPPORT
                | InitFlags::PARALLEL_DIROPS
                | InitFlags::HANDLE_KILLPRIV
                | InitFlags::POSIX_ACL
                | InitFlags::ABORT_ERROR
                | InitFlags::MAX_PAGES
                | InitFlags::CACHE_SYMLINKS
                | InitFlags::NO_OPENDIR_SUPPORT
                | InitFlags::EXPLICIT_INVAL_DATA
                | InitFlags::SUBMOUNTS
                | InitFlags::HANDLE_KILLPRIV_V2
                | InitFlags::SETXATTR_EXT
                | InitFlags::INIT_EXT
                | InitFlags::SECURITY_CTX
                | InitFlags::CREATE_SUPP_GROUP
                | InitFlags::HAS_EXPIRE_ONLY
                | InitFlags::DIRECT_IO_ALLOW_MMAP
                | InitFlags::NO_EXPORT_SUPPORT
                | InitFlags::HAS_RESEND
                | InitFlags::ALLOW_IDMAP,
            max_readahead: 128 << 10,
        }
    }
}

/// What INIT settled, and what the ring allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Minor version that the server speaks.
    pub minor: u32,
    /// Features that both sides have.
    pub agreed: InitFlags,
    /// Most bytes of data in a READ or READDIR: as many pages as the server allows, 32 where it
    /// does not say, 256 at most, and no more than a ring has descriptors beyond 4.
    pub max_read: usize,
    /// Most bytes of data in a WRITE.
    pub max_write: usize,
}

/// A mounted filesystem: a method for each operation, each of which waits for its reply.
///
/// Operations go to one request queue, the first unless [`use_queue`](Self::use_queue) says
/// otherwise. For many in flight, or a thread for each queue, see
/// [`connection`](Self::connection) and [`Queue`].
///
/// All methods fail with [`Error::Errno`] where the filesystem says so, else as [`Queue::call`]
/// does.
#[derive(Debug)]
pub struct Mount {
    connection: Connection,
    limits: Limits,
    /// Index of the request queue in use.
    queue: usize,
}

impl Connection {
    /// Mounts the filesystem: begins a session with INIT.
    ///
    /// # Errors
    /// The filesystem refused, [`ProtocolError::Version`] where it speaks another version.
    pub fn mount(mut self, options: &MountOptions) -> Result<Mount, Error> {
        let limits = init(&mut self, options)?;
        Ok(Mount {
            connection: self,
            limits,
            queue: 0,
        })
    }
}

fn init(connection: &mut Connection, options: &MountOptions) -> Result<Limits, Error> {
    let (flags, flags2) = options.offer.halves();
    let init = Operation::Init(InitIn {
        major: VERSION_MAJOR,
        minor: options.minor,
        max_readahead: options.max_readahead,
        flags,
        flags2,
        unused: [0; 11],
    });
    let queue = &mut connection.request_queues()[0];
    let ring_pages = usize::from(queue.size()).saturating_sub(HEADER_OVERHEAD);
    let mut completion = queue.call(NodeId(0), init, Payload::None)?;
    let Reply::Init(out) = completion.reply()? else {
        unreachable!("{FORM}")
    };
    drop(completion);
    if out.major != VERSION_MAJOR {
        return Err(ProtocolError::Version(out.major).into());
    }
    let agreed = out.agreed() & options.offer;
    let pages = match agreed.contains(InitFlags::MAX_PAGES) {
        true => usize::from(out.max_pages).clamp(1, MAX_PAGES),
        false => DEFAULT_MAX_PAGES,
    };
    let max_read = pages.min(ring_pages).max(1) * PAGE;
    for queue in connection.queues() {
        queue.set_agreed(agreed);
    }
    Ok(Limits {
        minor: out.minor,
        agreed,
        max_read,
        max_write: max_read.min(LEAST_MAX_WRITE.max(out.max_write as usize)),
    })
}

impl Mount {
    /// What INIT settled.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The device, to drive its queues directly.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends operations to request queue `index`, counted from 0, from now on.
    ///
    /// # Panics
    /// There is no such queue.
    pub fn use_queue(&mut self, index: usize) {
        assert!(index < self.connection.request_queues().len());
        self.queue = index;
    }

    /// Mounts again without an unmount or a device reset, as after a crash of the guest's driver:
    /// a new INIT ends the session.
    ///
    /// # Errors
    /// As [`Connection::mount`].
    pub fn remount(&mut self, options: &MountOptions) -> Result<(), Error> {
        self.limits = init(&mut self.connection, options)?;
        Ok(())
    }

    /// Unmounts as Linux does: with DESTROY and no FORGET, and whatever the reply to it says. The
    /// device stays up.
    ///
    /// # Errors
    /// No reply came. The device is gone then.
    pub fn destroy(mut self) -> Result<Connection, Error> {
        self.call(NodeId(0), Operation::Destroy, Payload::None)?;
        Ok(self.connection)
    }

    /// Does any operation.
    ///
    /// # Errors
    /// As [`Queue::call`].
    pub fn call(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        payload: Payload<'_>,
    ) -> Result<Completion<'_>, Error> {
        self.active_queue().call(node, operation, payload)
    }

    fn active_queue(&mut self) -> &mut Queue {
        &mut self.connection.request_queues()[self.queue]
    }

    /// Does an operation and lets `take` have its reply, which is in the operation's form.
    fn reply<T>(
        &mut self,
        node: NodeId,
        operation: Operation<'_>,
        take: impl FnOnce(Reply<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut completion = self.call(node, operation, Payload::None)?;
        Ok(take(completion.reply()?).expect(FORM))
    }

    /// Does an operation whose reply has no body.
    fn empty(&mut self, node: NodeId, operation: Operation<'_>) -> Result<(), Error> {
        self.call(node, operation, Payload::None)?.result()?;
        Ok(())
    }
}

/// Why a reply cannot be of another kind than its request's.
const FORM: &str = "a reply is decoded in the form that its request calls for";

/// The variant of a reply that an operation calls for.
macro_rules! reply {
    ($pattern:pat => $value:expr) => {
        |reply| match reply {
            $pattern => Some($value),
            _ => None,
        }
    };
}
use reply;

fn name(name: &CStr) -> Result<Name<'_>, Error> {
    Name::new(name).map_err(bad_name)
}

fn xattr_name(name: &CStr) -> Result<XattrName<'_>, Error> {
    XattrName::new(name).map_err(bad_name)
}

fn bad_name(error: NameError) -> Error {
    EncodeError::from(RequestError::from(error)).into()
}
