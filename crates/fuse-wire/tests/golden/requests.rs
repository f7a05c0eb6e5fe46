use fuse_wire::abi::*;
use fuse_wire::flags::*;
use fuse_wire::{
    Extensions, Handle, LookupName, Name, NodeId, Operation, Request, SecurityContext,
    SecurityContexts, SymlinkTarget, XattrName,
};

use super::bytes;

pub(crate) struct Golden {
    pub(crate) name: &'static str,
    /// Header, arguments and extensions.
    pub(crate) message: Vec<u8>,
    pub(crate) payload_len: usize,
    pub(crate) agreed: InitFlags,
    pub(crate) request: Request<'static>,
    /// Lengths to which the message can be cut or filled up and still is one.
    pub(crate) also_valid_at: &'static [usize],
    /// Whether this is how we would write it; else a form that we only read.
    pub(crate) ours: bool,
}

pub(crate) fn name(name: &'static std::ffi::CStr) -> Name<'static> {
    Name::new(name).unwrap()
}

pub(crate) fn xattr_name(name: &'static std::ffi::CStr) -> XattrName<'static> {
    XattrName::new(name).unwrap()
}

fn header(len: u32, opcode: u32, total_extlen: u16) -> Vec<u8> {
    bytes![
        u32 len, u32 opcode, u64 0x0102_0304_0506_0708, u64 0xa1, u32 1000, u32 1001, u32 1002,
        u16 total_extlen, u16 0,
    ]
}

fn golden(
    name: &'static str,
    len: u32,
    opcode: u32,
    body: &[u8],
    operation: Operation<'static>,
) -> Golden {
    let header_value = InHeader {
        len,
        opcode,
        unique: 0x0102_0304_0506_0708,
        nodeid: NodeId(0xa1),
        uid: 1000,
        gid: 1001,
        pid: 1002,
        total_extlen: 0,
        padding: 0,
    };
    Golden {
        name,
        message: [&header(len, opcode, 0), body].concat(),
        payload_len: 0,
        agreed: InitFlags::SETXATTR_EXT,
        request: Request {
            header: header_value,
            operation,
            extensions: Extensions::default(),
        },
        also_valid_at: &[],
        ours: true,
    }
}

impl Golden {
    fn payload(mut self, len: usize) -> Self {
        self.payload_len = len;
        self
    }

    fn agreed(mut self, agreed: InitFlags) -> Self {
        self.agreed = agreed;
        self
    }

    fn extensions(mut self, units: u16, extensions: Extensions<'static>) -> Self {
        self.message[36..38].copy_from_slice(&units.to_le_bytes());
        self.request.header.total_extlen = units;
        self.request.extensions = extensions;
        self
    }

    fn read_only(mut self, extensions: Extensions<'static>) -> Self {
        self.request.extensions = extensions;
        self.ours = false;
        self
    }

    fn also_valid_at(mut self, lens: &'static [usize]) -> Self {
        self.also_valid_at = lens;
        self
    }
}

pub(crate) fn all() -> Vec<Golden> {
    [
        names(),
        attributes(),
        files(),
        xattrs(),
        session(),
        others(),
        extended(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn names() -> Vec<Golden> {
    vec![
        golden(
            "LOOKUP",
            45,
            1,
            &bytes![s "file\0"],
            Operation::Lookup {
                name: LookupName::Child(name(c"file")),
            },
        ),
        golden(
            "LOOKUP .",
            42,
            1,
            &bytes![s ".\0"],
            Operation::Lookup {
                name: LookupName::Current,
            },
        ),
        golden(
            "LOOKUP ..",
            43,
            1,
            &bytes![s "..\0"],
            Operation::Lookup {
                name: LookupName::Parent,
            },
        ),
        golden(
            "FORGET",
            48,
            2,
            &bytes![u64 3],
            Operation::Forget(ForgetIn { nlookup: 3 }),
        ),
        golden("READLINK", 40, 5, &[], Operation::ReadLink),
        golden(
            "SYMLINK",
            54,
            6,
            &bytes![s "link\0", s "../there\0"],
            Operation::Symlink {
                name: name(c"link"),
                target: SymlinkTarget::new(c"../there").unwrap(),
            },
        ),
        golden(
            "MKNOD",
            61,
            8,
            &bytes![u32 0o10644, u32 0x1203, u32 0o22, u32 0, s "pipe\0"],
            Operation::MkNod {
                args: MknodIn {
                    mode: 0o10644,
                    rdev: 0x1203,
                    umask: 0o22,
                    padding: 0,
                },
                name: name(c"pipe"),
            },
        ),
        golden(
            "MKDIR",
            52,
            9,
            &bytes![u32 0o755, u32 0o27, s "dir\0"],
            Operation::MkDir {
                args: MkdirIn {
                    mode: 0o755,
                    umask: 0o27,
                },
                name: name(c"dir"),
            },
        ),
        golden(
            "UNLINK",
            45,
            10,
            &bytes![s "gone\0"],
            Operation::Unlink {
                name: name(c"gone"),
            },
        ),
        golden(
            "RMDIR",
            44,
            11,
            &bytes![s "dir\0"],
            Operation::RmDir { name: name(c"dir") },
        ),
        golden(
            "RENAME",
            56,
            12,
            &bytes![u64 0xb2, s "old\0", s "new\0"],
            Operation::Rename {
                args: RenameIn {
                    newdir: NodeId(0xb2),
                },
                name: name(c"old"),
                new_name: name(c"new"),
            },
        ),
        golden(
            "LINK",
            53,
            13,
            &bytes![u64 0xc3, s "hard\0"],
            Operation::Link {
                args: LinkIn {
                    oldnodeid: NodeId(0xc3),
                },
                name: name(c"hard"),
            },
        ),
        golden(
            "BATCH_FORGET",
            80,
            42,
            &bytes![u32 2, u32 0, u64 0xd4, u64 4, u64 0xe5, u64 5],
            Operation::BatchForget(
                [
                    ForgetOne {
                        nodeid: NodeId(0xd4),
                        nlookup: 4,
                    },
                    ForgetOne {
                        nodeid: NodeId(0xe5),
                        nlookup: 5,
                    },
                ]
                .leak_slice()
                .into(),
            ),
        ),
        golden("BATCH_FORGET of none", 48, 42, &bytes![u32 0, u32 0], {
            const NONE: &[ForgetOne] = &[];
            Operation::BatchForget(NONE.into())
        }),
        golden(
            "RENAME2",
            64,
            45,
            &bytes![u64 0xb2, u32 2, u32 0, s "old\0", s "new\0"],
            Operation::Rename2 {
                args: Rename2In {
                    newdir: NodeId(0xb2),
                    flags: RenameFlags::EXCHANGE,
                    padding: 0,
                },
                name: name(c"old"),
                new_name: name(c"new"),
            },
        ),
    ]
}

fn attributes() -> Vec<Golden> {
    vec![
        golden(
            "GETATTR",
            56,
            3,
            &bytes![u32 1, u32 0, u64 0x21],
            Operation::GetAttr(GetattrIn {
                getattr_flags: GetattrFlags::FH,
                dummy: 0,
                fh: Handle(0x21),
            }),
        ),
        golden(
            "SETATTR",
            128,
            4,
            &bytes![
                u32 0xfff, u32 0, u64 0x22, u64 0x23, u64 0x24, u64 0x25, u64 0x26, u64 0x27,
                u32 0x28, u32 0x29, u32 0x2a, u32 0o644, u32 0, u32 0x2b, u32 0x2c, u32 0,
            ],
            Operation::SetAttr(SetattrIn {
                valid: SetattrValid::from_bits_retain(0xfff),
                padding: 0,
                fh: Handle(0x22),
                size: 0x23,
                lock_owner: 0x24,
                atime: 0x25,
                mtime: 0x26,
                ctime: 0x27,
                atimensec: 0x28,
                mtimensec: 0x29,
                ctimensec: 0x2a,
                mode: 0o644,
                unused4: 0,
                uid: 0x2b,
                gid: 0x2c,
                unused5: 0,
            }),
        ),
        golden("STATFS", 40, 17, &[], Operation::StatFs),
        golden(
            "ACCESS",
            48,
            34,
            &bytes![u32 5, u32 0],
            Operation::Access(AccessIn {
                mask: 5,
                padding: 0,
            }),
        ),
        golden(
            "STATX",
            64,
            52,
            &bytes![u32 1, u32 0, u64 0x2d, u32 0x2000, u32 0xfff],
            Operation::Statx(StatxIn {
                getattr_flags: GetattrFlags::FH,
                reserved: 0,
                fh: Handle(0x2d),
                sx_flags: 0x2000,
                sx_mask: 0xfff,
            }),
        ),
    ]
}

fn read_in(base: u64) -> ReadIn {
    ReadIn {
        fh: Handle(base),
        offset: base + 1,
        size: 4096,
        read_flags: ReadFlags::LOCKOWNER,
        lock_owner: base + 2,
        flags: 0o100000,
        padding: 0,
    }
}

fn read_in_bytes(base: u64) -> Vec<u8> {
    bytes![
        u64 base, u64 base + 1, u32 4096, u32 2, u64 base + 2, u32 0o100000, u32 0,
    ]
}

fn release_in(fh: u64) -> ReleaseIn {
    ReleaseIn {
        fh: Handle(fh),
        flags: 0o100002,
        release_flags: ReleaseFlags::FLOCK_UNLOCK,
        lock_owner: 0x37,
    }
}

fn copy_in() -> CopyFileRangeIn {
    CopyFileRangeIn {
        fh_in: Handle(0x51),
        off_in: 0x52,
        nodeid_out: NodeId(0x53),
        fh_out: Handle(0x54),
        off_out: 0x55,
        len: 0x1_0000_0056,
        flags: 0x57,
    }
}

fn copy_in_bytes() -> Vec<u8> {
    bytes![u64 0x51, u64 0x52, u64 0x53, u64 0x54, u64 0x55, u64 0x1_0000_0056, u64 0x57]
}

fn files() -> Vec<Golden> {
    let open_in = OpenIn {
        flags: 0o1002,
        open_flags: OpenInFlags::KILL_SUIDGID,
    };
    let opendir_in = OpenIn {
        flags: 0o200000,
        open_flags: OpenInFlags::empty(),
    };
    let fsync_in = |fh| FsyncIn {
        fh: Handle(fh),
        fsync_flags: FsyncFlags::FDATASYNC,
        padding: 0,
    };
    let release = |fh: u64| bytes![u64 fh, u32 0o100002, u32 2, u64 0x37];
    let fsync = |fh: u64| bytes![u64 fh, u32 1, u32 0];
    vec![
        golden(
            "OPEN",
            48,
            14,
            &bytes![u32 0o1002, u32 1],
            Operation::Open(open_in),
        ),
        golden(
            "READ",
            80,
            15,
            &read_in_bytes(0x31),
            Operation::Read(read_in(0x31)),
        ),
        golden(
            "WRITE",
            80 + 10,
            16,
            &bytes![u64 0x34, u64 0x35, u32 10, u32 7, u64 0x36, u32 0o100001, u32 0],
            Operation::Write(WriteIn {
                fh: Handle(0x34),
                offset: 0x35,
                size: 10,
                write_flags: WriteFlags::from_bits_retain(7),
                lock_owner: 0x36,
                flags: 0o100001,
                padding: 0,
            }),
        )
        .payload(10),
        golden(
            "RELEASE",
            64,
            18,
            &release(0x38),
            Operation::Release(release_in(0x38)),
        ),
        golden(
            "FSYNC",
            56,
            20,
            &fsync(0x39),
            Operation::FSync(fsync_in(0x39)),
        ),
        golden(
            "FLUSH",
            64,
            25,
            &bytes![u64 0x3a, u32 0, u32 0, u64 0x3b],
            Operation::Flush(FlushIn {
                fh: Handle(0x3a),
                unused: 0,
                padding: 0,
                lock_owner: 0x3b,
            }),
        ),
        golden(
            "OPENDIR",
            48,
            27,
            &bytes![u32 0o200000, u32 0],
            Operation::OpenDir(opendir_in),
        ),
        golden(
            "READDIR",
            80,
            28,
            &read_in_bytes(0x3c),
            Operation::ReadDir(read_in(0x3c)),
        ),
        golden(
            "RELEASEDIR",
            64,
            29,
            &release(0x3f),
            Operation::ReleaseDir(release_in(0x3f)),
        ),
        golden(
            "FSYNCDIR",
            56,
            30,
            &fsync(0x40),
            Operation::FSyncDir(fsync_in(0x40)),
        ),
        golden(
            "CREATE",
            60,
            35,
            &bytes![u32 0o102, u32 0o100600, u32 0o77, u32 1, s "new\0"],
            Operation::Create {
                args: CreateIn {
                    flags: 0o102,
                    mode: 0o100600,
                    umask: 0o77,
                    open_flags: OpenInFlags::KILL_SUIDGID,
                },
                name: name(c"new"),
            },
        ),
        golden(
            "FALLOCATE",
            72,
            43,
            &bytes![u64 0x41, u64 0x42, u64 0x43, u32 3, u32 0],
            Operation::FAllocate(FallocateIn {
                fh: Handle(0x41),
                offset: 0x42,
                length: 0x43,
                mode: 3,
                padding: 0,
            }),
        ),
        golden(
            "READDIRPLUS",
            80,
            44,
            &read_in_bytes(0x44),
            Operation::ReadDirPlus(read_in(0x44)),
        ),
        golden(
            "LSEEK",
            64,
            46,
            &bytes![u64 0x47, u64 0x48, u32 4, u32 0],
            Operation::LSeek(LseekIn {
                fh: Handle(0x47),
                offset: 0x48,
                whence: 4,
                padding: 0,
            }),
        ),
        golden(
            "COPY_FILE_RANGE",
            96,
            47,
            &copy_in_bytes(),
            Operation::CopyFileRange(copy_in()),
        ),
        golden(
            "COPY_FILE_RANGE_64",
            96,
            53,
            &copy_in_bytes(),
            Operation::CopyFileRange64(copy_in()),
        ),
        golden(
            "TMPFILE",
            58,
            51,
            &bytes![u32 0o20200002, u32 0o100600, u32 0o22, u32 0, s "/\0"],
            Operation::TmpFile(CreateIn {
                flags: 0o20200002,
                mode: 0o100600,
                umask: 0o22,
                open_flags: OpenInFlags::empty(),
            }),
        ),
    ]
}

fn xattrs() -> Vec<Golden> {
    let setxattr = |setxattr_flags| Operation::SetXattr {
        args: SetxattrIn {
            size: 5,
            flags: 2,
            setxattr_flags,
            padding: 0,
        },
        name: xattr_name(c"user.a"),
        value: b"value",
    };
    vec![
        golden(
            "SETXATTR",
            68,
            21,
            &bytes![u32 5, u32 2, u32 1, u32 0, s "user.a\0", s "value"],
            setxattr(SetxattrFlags::ACL_KILL_SGID),
        ),
        golden(
            "SETXATTR without SETXATTR_EXT",
            60,
            21,
            &bytes![u32 5, u32 2, s "user.a\0", s "value"],
            setxattr(SetxattrFlags::empty()),
        )
        .agreed(InitFlags::empty()),
        golden(
            "GETXATTR",
            55,
            22,
            &bytes![u32 99, u32 0, s "user.a\0"],
            Operation::GetXattr {
                args: GetxattrIn {
                    size: 99,
                    padding: 0,
                },
                name: xattr_name(c"user.a"),
            },
        ),
        golden(
            "LISTXATTR",
            48,
            23,
            &bytes![u32 0, u32 0],
            Operation::ListXattr(GetxattrIn {
                size: 0,
                padding: 0,
            }),
        ),
        golden(
            "REMOVEXATTR",
            47,
            24,
            &bytes![s "user.a\0"],
            Operation::RemoveXattr {
                name: xattr_name(c"user.a"),
            },
        ),
    ]
}

fn session() -> Vec<Golden> {
    let short = InitIn {
        major: 7,
        minor: 35,
        max_readahead: 0x20000,
        flags: 0x03ff_ffff,
        ..Default::default()
    };
    vec![
        golden(
            "INIT",
            104,
            26,
            &bytes![u32 7, u32 45, u32 0x20000, u32 0x7fff_ffff, u32 0x7ff, z 44],
            Operation::Init(InitIn {
                minor: 45,
                flags: 0x7fff_ffff,
                flags2: 0x7ff,
                ..short
            }),
        )
        .agreed(InitFlags::empty()),
        golden(
            "INIT before 7.36",
            56,
            26,
            &bytes![u32 7, u32 35, u32 0x20000, u32 0x03ff_ffff],
            Operation::Init(short),
        )
        .also_valid_at(&[104])
        .agreed(InitFlags::empty()),
        golden("DESTROY", 40, 38, &[], Operation::Destroy),
        golden(
            "INTERRUPT",
            48,
            36,
            &bytes![u64 0x77],
            Operation::Interrupt(InterruptIn { unique: 0x77 }),
        ),
        golden(
            "SYNCFS",
            48,
            50,
            &bytes![u64 0],
            Operation::SyncFs(SyncfsIn { padding: 0 }),
        ),
    ]
}

fn lk_in(base: u64) -> LkIn {
    LkIn {
        fh: Handle(base),
        owner: base + 1,
        lk: FileLock {
            start: base + 2,
            end: i64::MAX as u64,
            lock_type: 1,
            pid: 0x69,
        },
        lk_flags: LkFlags::FLOCK,
        padding: 0,
    }
}

fn lk_in_bytes(base: u64) -> Vec<u8> {
    bytes![
        u64 base, u64 base + 1, u64 base + 2, u64 0x7fff_ffff_ffff_ffff, u32 1, u32 0x69, u32 1,
        u32 0,
    ]
}

fn others() -> Vec<Golden> {
    vec![
        golden(
            "GETLK",
            88,
            31,
            &lk_in_bytes(0x61),
            Operation::GetLk(lk_in(0x61)),
        ),
        golden(
            "SETLK",
            88,
            32,
            &lk_in_bytes(0x64),
            Operation::SetLk(lk_in(0x64)),
        ),
        golden(
            "SETLKW",
            88,
            33,
            &lk_in_bytes(0x67),
            Operation::SetLkW(lk_in(0x67)),
        ),
        golden(
            "BMAP",
            56,
            37,
            &bytes![u64 0x6a, u32 4096, u32 0],
            Operation::BMap(BmapIn {
                block: 0x6a,
                blocksize: 4096,
                padding: 0,
            }),
        ),
        golden(
            "IOCTL",
            76,
            39,
            &bytes![u64 0x6b, u32 8, u32 0x5401, u64 0x6c, u32 4, u32 60, s "\x01\x02\x03\x04"],
            Operation::Ioctl {
                args: IoctlIn {
                    fh: Handle(0x6b),
                    flags: IoctlFlags::IOCTL_32BIT,
                    cmd: 0x5401,
                    arg: 0x6c,
                    in_size: 4,
                    out_size: 60,
                },
                data: &[1, 2, 3, 4],
            },
        ),
        golden(
            "POLL",
            64,
            40,
            &bytes![u64 0x6d, u64 0x6e, u32 1, u32 5],
            Operation::Poll(PollIn {
                fh: Handle(0x6d),
                kh: 0x6e,
                flags: PollFlags::SCHEDULE_NOTIFY,
                events: 5,
            }),
        ),
        golden(
            "NOTIFY_REPLY",
            80 + 3,
            41,
            &bytes![u64 0, u64 0x6f, u32 3, u32 0, u64 0, u64 0],
            Operation::NotifyReply(NotifyRetrieveIn {
                offset: 0x6f,
                size: 3,
                ..Default::default()
            }),
        )
        .payload(3),
        golden(
            "SETUPMAPPING",
            80,
            48,
            &bytes![u64 0xffff_ffff_ffff_ffff, u64 0x71, u64 0x200000, u64 3, u64 0x72],
            Operation::SetupMapping(SetupmappingIn {
                fh: Handle(u64::MAX),
                foffset: 0x71,
                len: 0x200000,
                flags: MappingFlags::READ | MappingFlags::WRITE,
                moffset: 0x72,
            }),
        ),
        golden(
            "REMOVEMAPPING",
            76,
            49,
            &bytes![u32 2, u64 0x73, u64 0x74, u64 0x75, u64 0x76],
            Operation::RemoveMapping(
                [
                    RemovemappingOne {
                        moffset: 0x73,
                        len: 0x74,
                    },
                    RemovemappingOne {
                        moffset: 0x75,
                        len: 0x76,
                    },
                ]
                .leak_slice()
                .into(),
            ),
        ),
    ]
}

/// One security context and its bytes: 8 of head, 17 of name, 3 of value, 4 of padding.
fn context_bytes() -> Vec<u8> {
    bytes![u32 3, u32 0, s "security.selinux\0", s "ctx", z 4]
}

fn contexts() -> SecurityContexts<'static> {
    let context = SecurityContext {
        name: xattr_name(c"security.selinux"),
        value: b"ctx",
    };
    SecurityContexts::write(&[context], vec![0xee; 64].leak()).unwrap()
}

/// What can end in extensions, in each form that these have.
fn extended() -> Vec<Golden> {
    let both = InitFlags::SECURITY_CTX | InitFlags::CREATE_SUPP_GROUP;
    let group: &[u32] = &[100];
    let groups: &[u32] = &[100, 101];
    let mkdir = Operation::MkDir {
        args: MkdirIn {
            mode: 0o700,
            umask: 0,
        },
        name: name(c"d"),
    };
    let create_in = CreateIn {
        flags: 0o102,
        mode: 0o100600,
        umask: 0,
        open_flags: OpenInFlags::empty(),
    };
    vec![
        golden(
            "MKDIR, no security context though they are agreed on",
            58,
            9,
            &bytes![u32 0o700, u32 0, s "d\0", u32 8, u32 0],
            mkdir,
        )
        .agreed(InitFlags::SECURITY_CTX)
        .extensions(1, Extensions::default()),
        golden(
            "MKDIR with a security context",
            90,
            9,
            &bytes![u32 0o700, u32 0, s "d\0", u32 40, u32 1, s &context_bytes()],
            mkdir,
        )
        .agreed(both)
        .extensions(5, Extensions::new(contexts(), &[])),
        golden(
            "CREATE with a supplementary group",
            74,
            35,
            &bytes![
                u32 0o102, u32 0o100600, u32 0, u32 0, s "n\0", u32 16, u32 32, u32 1, u32 100,
            ],
            Operation::Create {
                args: create_in,
                name: name(c"n"),
            },
        )
        .agreed(InitFlags::CREATE_SUPP_GROUP)
        .extensions(2, Extensions::new(SecurityContexts::default(), group)),
        golden(
            "MKNOD with all there is",
            122,
            8,
            &bytes![
                u32 0o100644, u32 0, u32 0, u32 0, s "n\0", u32 40, u32 1, s &context_bytes(),
                u32 24, u32 32, u32 2, u32 100, u32 101, z 4,
            ],
            Operation::MkNod {
                args: MknodIn {
                    mode: 0o100644,
                    ..Default::default()
                },
                name: name(c"n"),
            },
        )
        .agreed(both)
        .extensions(8, Extensions::new(contexts(), groups)),
        golden(
            "SYMLINK with a security context",
            84,
            6,
            &bytes![s "l\0", s "t\0", u32 40, u32 1, s &context_bytes()],
            Operation::Symlink {
                name: name(c"l"),
                target: SymlinkTarget::new(c"t").unwrap(),
            },
        )
        .agreed(both)
        .extensions(5, Extensions::new(contexts(), &[])),
        golden(
            "TMPFILE with a supplementary group",
            82,
            51,
            &bytes![
                u32 0o102, u32 0o100600, u32 0, u32 0, s "/\0", u32 8, u32 0, u32 16, u32 32, u32 1,
                u32 100,
            ],
            Operation::TmpFile(create_in),
        )
        .agreed(both)
        .extensions(3, Extensions::new(SecurityContexts::default(), group)),
        golden(
            "MKDIR with a security context that is not announced",
            90,
            9,
            &bytes![u32 0o700, u32 0, s "d\0", u32 40, u32 1, s &context_bytes()],
            mkdir,
        )
        .agreed(InitFlags::SECURITY_CTX)
        .also_valid_at(&[50])
        .read_only(Extensions::new(contexts(), &[])),
    ]
}

trait LeakSlice<T> {
    fn leak_slice(self) -> &'static [T];
}

impl<T, const N: usize> LeakSlice<T> for [T; N] {
    fn leak_slice(self) -> &'static [T] {
        Vec::from(self).leak()
    }
}
