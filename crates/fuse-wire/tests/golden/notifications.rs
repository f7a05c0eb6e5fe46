use fuse_wire::abi::*;
use fuse_wire::flags::NotifyInvalEntryFlags;
use fuse_wire::{NodeId, Notification};

use super::bytes;
use super::requests::name;

pub(crate) struct Golden {
    pub(crate) name: &'static str,
    pub(crate) message: Vec<u8>,
    pub(crate) notification: Notification<'static>,
}

fn golden(
    name: &'static str,
    len: u32,
    code: i32,
    body: &[u8],
    notification: Notification<'static>,
) -> Golden {
    Golden {
        name,
        message: [&bytes![u32 len, i32 code, u64 0][..], body].concat(),
        notification,
    }
}

pub(crate) fn all() -> Vec<Golden> {
    const NODES: &[NodeId] = &[NodeId(0x1a), NodeId(0x1b)];
    vec![
        golden(
            "POLL",
            24,
            1,
            &bytes![u64 0x11],
            Notification::Poll(NotifyPollWakeupOut { kh: 0x11 }),
        ),
        golden(
            "INVAL_INODE",
            40,
            2,
            &bytes![u64 0x12, i64 -1, i64 0x13],
            Notification::InvalInode(NotifyInvalInodeOut {
                ino: NodeId(0x12),
                off: -1,
                len: 0x13,
            }),
        ),
        golden(
            "INVAL_ENTRY",
            37,
            3,
            &bytes![u64 0x14, u32 4, u32 1, s "name\0"],
            Notification::InvalEntry {
                parent: NodeId(0x14),
                flags: NotifyInvalEntryFlags::EXPIRE_ONLY,
                name: name(c"name"),
            },
        ),
        golden(
            "STORE",
            44,
            4,
            &bytes![u64 0x15, u64 0x16, u32 4, u32 0, s "data"],
            Notification::Store {
                nodeid: NodeId(0x15),
                offset: 0x16,
                data: b"data",
            },
        ),
        golden(
            "RETRIEVE",
            48,
            5,
            &bytes![u64 0x17, u64 0x18, u64 0x19, u32 0x1a, u32 0],
            Notification::Retrieve(NotifyRetrieveOut {
                notify_unique: 0x17,
                nodeid: NodeId(0x18),
                offset: 0x19,
                size: 0x1a,
                padding: 0,
            }),
        ),
        golden(
            "DELETE",
            45,
            6,
            &bytes![u64 0x1b, u64 0x1c, u32 4, u32 0, s "gone\0"],
            Notification::Delete {
                parent: NodeId(0x1b),
                child: NodeId(0x1c),
                name: name(c"gone"),
            },
        ),
        golden("RESEND", 16, 7, &[], Notification::Resend),
        golden("INC_EPOCH", 16, 8, &[], Notification::IncEpoch),
        golden(
            "PRUNE",
            48,
            9,
            &bytes![u32 2, u32 0, u64 0, u64 0x1a, u64 0x1b],
            Notification::Prune(NODES.into()),
        ),
    ]
}
