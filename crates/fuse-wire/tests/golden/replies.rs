use fuse_wire::abi::*;
use fuse_wire::flags::*;
use fuse_wire::{Errno, Handle, NodeId, Reply, ReplyForm};

use super::bytes;

pub(crate) struct Golden {
    pub(crate) name: &'static str,
    pub(crate) message: Vec<u8>,
    pub(crate) form: ReplyForm,
    pub(crate) reply: Reply<'static>,
    /// Lengths to which the message can be cut so that a message is left.
    pub(crate) also_valid_at: Vec<usize>,
    /// Whether this is how we would write it; else a form that we only read.
    pub(crate) ours: bool,
}

/// `unique` of each message here.
pub(crate) const UNIQUE: u64 = 0x1112_1314_1516_1718;

fn golden(name: &'static str, len: u32, body: &[u8], reply: Reply<'static>) -> Golden {
    Golden {
        name,
        message: [&bytes![u32 len, i32 0, u64 0x1112_1314_1516_1718][..], body].concat(),
        form: reply.form(),
        reply,
        also_valid_at: Vec::new(),
        ours: true,
    }
}

impl Golden {
    fn also_valid_at(mut self, lens: impl IntoIterator<Item = usize>) -> Self {
        self.also_valid_at = lens.into_iter().collect();
        self
    }

    fn read_only(mut self) -> Self {
        self.ours = false;
        self
    }
}

/// Each error that a reply can be, and the message.
pub(crate) fn errors() -> Vec<(Errno, Vec<u8>)> {
    vec![
        (
            Errno::ENOENT,
            bytes![u32 16, i32 -2, u64 0x1112_1314_1516_1718],
        ),
        (
            Errno::EPERM,
            bytes![u32 16, i32 -1, u64 0x1112_1314_1516_1718],
        ),
        (
            Errno::from_raw(511),
            bytes![u32 16, i32 -511, u64 0x1112_1314_1516_1718],
        ),
    ]
}

fn attr() -> Attr {
    Attr {
        ino: 0x81,
        size: 0x82,
        blocks: 0x83,
        atime: 0x84,
        mtime: 0x85,
        ctime: 0x86,
        atimensec: 0x87,
        mtimensec: 0x88,
        ctimensec: 0x89,
        mode: 0o100644,
        nlink: 0x8a,
        uid: 0x8b,
        gid: 0x8c,
        rdev: 0x8d,
        blksize: 0x8e,
        flags: AttrFlags::DAX,
    }
}

fn attr_bytes() -> Vec<u8> {
    bytes![
        u64 0x81, u64 0x82, u64 0x83, u64 0x84, u64 0x85, u64 0x86, u32 0x87, u32 0x88, u32 0x89,
        u32 0o100644, u32 0x8a, u32 0x8b, u32 0x8c, u32 0x8d, u32 0x8e, u32 2,
    ]
}

pub(crate) fn entry() -> EntryOut {
    EntryOut {
        nodeid: NodeId(0x91),
        generation: 0x92,
        entry_valid: 0x93,
        attr_valid: 0x94,
        entry_valid_nsec: 0x95,
        attr_valid_nsec: 0x96,
        attr: attr(),
    }
}

pub(crate) fn entry_bytes() -> Vec<u8> {
    bytes![
        u64 0x91, u64 0x92, u64 0x93, u64 0x94, u32 0x95, u32 0x96, s &attr_bytes(),
    ]
}

fn open() -> OpenOut {
    OpenOut {
        fh: Handle(0xa1),
        open_flags: OpenOutFlags::KEEP_CACHE | OpenOutFlags::PASSTHROUGH,
        backing_id: -0xa2,
    }
}

fn open_bytes() -> Vec<u8> {
    bytes![u64 0xa1, u32 0x82, i32 -0xa2]
}

pub(crate) fn all() -> Vec<Golden> {
    [inodes(), files(), init(), others()]
        .into_iter()
        .flatten()
        .collect()
}

fn inodes() -> Vec<Golden> {
    vec![
        golden("empty", 16, &[], Reply::Empty),
        golden("entry", 144, &entry_bytes(), Reply::Entry(entry())),
        golden(
            "attr",
            120,
            &bytes![u64 0x97, u32 0x98, u32 0, s &attr_bytes()],
            Reply::Attr(AttrOut {
                attr_valid: 0x97,
                attr_valid_nsec: 0x98,
                dummy: 0,
                attr: attr(),
            }),
        ),
        golden(
            "statfs",
            96,
            &bytes![
                u64 0xb1, u64 0xb2, u64 0xb3, u64 0xb4, u64 0xb5, u32 0xb6, u32 255, u32 0xb7, u32 0,
                z 24,
            ],
            Reply::StatFs(Kstatfs {
                blocks: 0xb1,
                bfree: 0xb2,
                bavail: 0xb3,
                files: 0xb4,
                ffree: 0xb5,
                bsize: 0xb6,
                namelen: 255,
                frsize: 0xb7,
                padding: 0,
                spare: [0; 6],
            }),
        ),
        golden(
            "statx",
            304,
            &bytes![
                u64 0xc1, u32 0xc2, u32 1, u64 0, u64 0,
                u32 0xc3, u32 0xc4, u64 0xc5, u32 0xc6, u32 0xc7, u32 0xc8, u16 0o100644, u16 0,
                u64 0xc9, u64 0xca, u64 0xcb, u64 0xcc,
                i64 -1, u32 1, i32 0, i64 -2, u32 2, i32 0, i64 -3, u32 3, i32 0, i64 -4, u32 4,
                i32 0,
                u32 0xcd, u32 0xce, u32 0xcf, u32 0xd0, z 112,
            ],
            Reply::Statx(statx()),
        ),
    ]
}

fn statx() -> StatxOut {
    let time = |n: u32| SxTime {
        sec: -i64::from(n),
        nsec: n,
        reserved: 0,
    };
    StatxOut {
        attr_valid: 0xc1,
        attr_valid_nsec: 0xc2,
        flags: AttrFlags::SUBMOUNT,
        spare: [0; 2],
        stat: Statx {
            mask: 0xc3,
            blksize: 0xc4,
            attributes: 0xc5,
            nlink: 0xc6,
            uid: 0xc7,
            gid: 0xc8,
            mode: 0o100644,
            spare0: 0,
            ino: 0xc9,
            size: 0xca,
            blocks: 0xcb,
            attributes_mask: 0xcc,
            atime: time(1),
            btime: time(2),
            ctime: time(3),
            mtime: time(4),
            rdev_major: 0xcd,
            rdev_minor: 0xce,
            dev_major: 0xcf,
            dev_minor: 0xd0,
            spare2: [0; 14],
        },
    }
}

fn files() -> Vec<Golden> {
    vec![
        golden("open", 32, &open_bytes(), Reply::Open(open())),
        golden(
            "create",
            160,
            &bytes![s & entry_bytes(), s & open_bytes()],
            Reply::Create(entry(), open()),
        ),
        golden("data", 21, b"bytes", Reply::Data(b"bytes")).also_valid_at(16..21),
        golden("no data", 16, b"", Reply::Data(b"")),
        golden(
            "write",
            24,
            &bytes![u32 0xd1, u32 0],
            Reply::Write(WriteOut {
                size: 0xd1,
                padding: 0,
            }),
        ),
        golden(
            "lseek",
            24,
            &bytes![u64 0xd2],
            Reply::LSeek(LseekOut { offset: 0xd2 }),
        ),
        golden(
            "copy_file_range_64",
            24,
            &bytes![u64 0x1_0000_00d3],
            Reply::CopyFileRange64(CopyFileRangeOut {
                bytes_copied: 0x1_0000_00d3,
            }),
        ),
        golden(
            "xattr size",
            24,
            &bytes![u32 0xd4, u32 0],
            Reply::XattrSize(GetxattrOut {
                size: 0xd4,
                padding: 0,
            }),
        ),
    ]
}

fn init() -> Vec<Golden> {
    let oldest = InitOut {
        major: 7,
        minor: 4,
        ..Default::default()
    };
    let older = InitOut {
        minor: 22,
        max_readahead: 0x20000,
        flags: 0x7fff_ffff,
        max_background: 0xe1,
        congestion_threshold: 0xe2,
        max_write: 0x100000,
        ..oldest
    };
    let newest = InitOut {
        minor: 45,
        time_gran: 1,
        max_pages: 256,
        map_alignment: 21,
        flags2: 0x7ff,
        max_stack_depth: 2,
        request_timeout: 60,
        ..older
    };
    let older_bytes = |minor| {
        bytes![
            u32 7, u32 minor, u32 0x20000, u32 0x7fff_ffff, u16 0xe1, u16 0xe2, u32 0x100000,
        ]
    };
    vec![
        golden(
            "init",
            80,
            &bytes![
                s &older_bytes(45), u32 1, u16 256, u16 21, u32 0x7ff, u32 2, u16 60, z 22,
            ],
            Reply::Init(newest),
        )
        .also_valid_at([24, 40]),
        golden("init before 7.23", 40, &older_bytes(22), Reply::Init(older))
            .also_valid_at([24])
            .read_only(),
        golden(
            "init before 7.5",
            24,
            &bytes![u32 7, u32 4],
            Reply::Init(oldest),
        )
        .read_only(),
    ]
}

fn others() -> Vec<Golden> {
    vec![
        golden(
            "lk",
            40,
            &bytes![u64 0xe3, u64 0xe4, u32 2, u32 0xe5],
            Reply::Lk(LkOut {
                lk: FileLock {
                    start: 0xe3,
                    end: 0xe4,
                    lock_type: 2,
                    pid: 0xe5,
                },
            }),
        ),
        golden(
            "bmap",
            24,
            &bytes![u64 0xe6],
            Reply::BMap(BmapOut { block: 0xe6 }),
        ),
        golden(
            "ioctl",
            35,
            &bytes![i32 -7, u32 4, u32 0xe7, u32 0xe8, s "out"],
            Reply::Ioctl(
                IoctlOut {
                    result: -7,
                    flags: IoctlFlags::RETRY,
                    in_iovs: 0xe7,
                    out_iovs: 0xe8,
                },
                b"out",
            ),
        )
        .also_valid_at(32..35),
        golden(
            "poll",
            24,
            &bytes![u32 5, u32 0],
            Reply::Poll(PollOut {
                revents: 5,
                padding: 0,
            }),
        ),
    ]
}
