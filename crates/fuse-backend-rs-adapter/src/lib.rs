//! Serves a filesystem that was written for [`fuse_backend_rs`] (its `Vfs`, its overlay, its
//! passthrough, those of nydus) by the session and the device of this workspace.
//!
//! [`Adapter`] makes any [`fuse_backend_rs::api::filesystem::FileSystem`] a [`fuse_fs::FileSystem`]:
//!
//! ```
//! use fuse_backend_rs::api::{Vfs, VfsOptions};
//! use fuse_backend_rs_adapter::Adapter;
//! use fuse_fs::Session;
//!
//! let vfs = Vfs::new(VfsOptions::default());
//! // Mount what it shall hold, then serve it, for example by a `vhost_user_fs::Backend`.
//! let session = Session::new(Adapter::new(vfs));
//! # let _ = session;
//! ```
//!
//! # What INIT agrees on
//! What the filesystem asks for, of what the guest offers and the session can carry: never DAX, for
//! example, nor ATOMIC_O_TRUNC, which would let an open that fails truncate a running program. What
//! it does not ask for is off, ASYNC_READ and AUTO_INVAL_DATA too, which the session turns on for
//! filesystems of its own. A bare `PassthroughFs` asks for neither; `Vfs` does.
//!
//! # Waiting
//! These filesystems are synchronous and cannot say in advance that they would have to wait. So
//! LOOKUP, GETATTR, READLINK, ACCESS, POLL and FORGET are done wherever they arrive: they are what
//! a guest sends most, and filesystems answer them from what they or the host's kernel remember. All
//! else returns [`WouldBlock`](fuse_fs::Error::WouldBlock) where it may not wait, and is done by the
//! queue engine's pool. An opened file may be fetched from a registry, and a small write may copy a
//! large file up.
//!
//! # READ and WRITE
//! Data is copied once, through a buffer of up to 1 MiB that each thread keeps: fuse-backend-rs
//! hides the file, and the session hides the guest's memory. The buffer is aligned to 4096 bytes,
//! as O_DIRECT asks for. A WRITE stays one system call.
//!
//! # What is missing
//! * STATX, TMPFILE, SYNCFS and COPY_FILE_RANGE are ENOSYS: fuse-backend-rs has no methods for
//!   them. A Linux guest does without.
//! * Security contexts and supplementary groups of creating operations, and the flags of the long
//!   form of SETXATTR, likewise; none is agreed on.
//! * INTERRUPT is dropped, as the filesystem has no way to stop.
//! * DAX windows, and passing file descriptors through.
//! * Directory listings are as the filesystem makes them. Some leave `.` and `..` out.
//!
//! # What a filesystem may count on
//! Names, sizes and offsets were checked by the session; besides, sizes of buffers are cut to what
//! the reply can hold, and a directory cookie that no lseek(2) takes is EINVAL. Inodes, handles and
//! flags of open(2) come from the guest as they are. A filesystem that panics costs the one request,
//! which the queue engine answers with EIO.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod bounce;
mod convert;
mod filesystem;
mod listing;
mod negotiate;
mod payload;
mod sys;

/// A filesystem of fuse-backend-rs as a [`fuse_fs::FileSystem`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Adapter<F> {
    fs: F,
}

impl<F> Adapter<F> {
    /// Adapts `fs`. An [`Arc`](std::sync::Arc) of a filesystem is one, too: keep another to mount
    /// into a `Vfs` while it is served.
    #[must_use]
    pub const fn new(fs: F) -> Self {
        Self { fs }
    }

    /// The filesystem.
    #[must_use]
    pub const fn get_ref(&self) -> &F {
        &self.fs
    }
}
