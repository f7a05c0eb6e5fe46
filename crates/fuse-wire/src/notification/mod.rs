//! Notifications: what a server sends of its own accord.

mod decode;
mod encode;

pub use decode::NotificationError;

use crate::abi::{NotifyInvalInodeOut, NotifyPollWakeupOut, NotifyRetrieveOut};
use crate::flags::NotifyInvalEntryFlags;
use crate::{Name, NodeId, NodeIdList};

macro_rules! codes {
    ($($name:ident = $value:literal,)*) => {
        /// What a notification is about (`enum fuse_notify_code`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        #[allow(missing_docs, reason = "each is documented at its variant of `Notification`")]
        pub enum NotifyCode {
            $($name = $value,)*
        }

        impl NotifyCode {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code with this number, if there is one.
            #[must_use]
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number on the wire, in `out_header.error`.
            #[must_use]
            pub const fn raw(self) -> i32 {
                self as i32
            }
        }
    };
}

codes! {
    Poll = 1,
    InvalInode = 2,
    InvalEntry = 3,
    Store = 4,
    Retrieve = 5,
    Delete = 6,
    Resend = 7,
    IncEpoch = 8,
    Prune = 9,
}

/// What a server tells the peer's kernel without having been asked.
///
/// On the wire it is a reply to request 0 whose error is the (positive) code. Linux takes
/// notifications from `/dev/fuse` only; its virtio-fs driver has no queue for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification<'a> {
    /// A file that POLL asked about may be ready now.
    Poll(NotifyPollWakeupOut),
    /// Cached attributes and data of an inode are out of date.
    InvalInode(NotifyInvalInodeOut),
    /// A cached entry of a directory is out of date.
    InvalEntry {
        /// The directory.
        parent: NodeId,
        /// Drop or expire.
        flags: NotifyInvalEntryFlags,
        /// The entry.
        name: Name<'a>,
    },
    /// Data for the page cache.
    Store {
        /// The inode.
        nodeid: NodeId,
        /// Position in bytes.
        offset: u64,
        /// The data.
        data: &'a [u8],
    },
    /// Asks for data of the page cache; NOTIFY_REPLY brings it.
    Retrieve(NotifyRetrieveOut),
    /// An entry of a directory was deleted.
    Delete {
        /// The directory.
        parent: NodeId,
        /// The inode that was deleted.
        child: NodeId,
        /// The entry.
        name: Name<'a>,
    },
    /// Asks for all requests that are not answered yet to be sent again (7.40).
    Resend,
    /// All cached entries are out of date (7.44).
    IncEpoch,
    /// Asks for inodes to be forgotten that nothing uses (7.45).
    Prune(NodeIdList<'a>),
}

impl Notification<'_> {
    /// Its code.
    #[must_use]
    pub const fn code(&self) -> NotifyCode {
        match self {
            Self::Poll(_) => NotifyCode::Poll,
            Self::InvalInode(_) => NotifyCode::InvalInode,
            Self::InvalEntry { .. } => NotifyCode::InvalEntry,
            Self::Store { .. } => NotifyCode::Store,
            Self::Retrieve(_) => NotifyCode::Retrieve,
            Self::Delete { .. } => NotifyCode::Delete,
            Self::Resend => NotifyCode::Resend,
            Self::IncEpoch => NotifyCode::IncEpoch,
            Self::Prune(_) => NotifyCode::Prune,
        }
    }
}
