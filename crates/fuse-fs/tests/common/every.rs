//! One request of each operation, as an ordinary guest would send it.

use fuse_fs::abi::*;
use fuse_fs::{Name, NodeId, SymlinkTarget, XattrName};
use fuse_wire::{LookupName, Opcode, Operation};

/// What a WRITE of [`operation`] carries.
pub(crate) const DATA: &[u8] = b"data";

const FORGETS: &[ForgetOne] = &[
    ForgetOne {
        nodeid: NodeId(7),
        nlookup: 2,
    },
    ForgetOne {
        nodeid: NodeId(8),
        nlookup: 1,
    },
];

const MAPPINGS: &[RemovemappingOne] = &[RemovemappingOne { moffset: 0, len: 1 }];

/// The data that goes with `opcode`.
pub(crate) fn data(opcode: Opcode) -> &'static [u8] {
    match opcode {
        Opcode::Write | Opcode::NotifyReply => DATA,
        _ => &[],
    }
}

pub(crate) fn operation(opcode: Opcode) -> Operation<'static> {
    let name = Name::new(c"name").unwrap();
    let new_name = Name::new(c"new name").unwrap();
    let xattr = XattrName::new(c"user.name").unwrap();
    let read = ReadIn {
        size: 4096,
        ..Default::default()
    };
    match opcode {
        Opcode::Lookup => Operation::Lookup {
            name: LookupName::Child(name),
        },
        Opcode::Forget => Operation::Forget(ForgetIn { nlookup: 3 }),
        Opcode::GetAttr => Operation::GetAttr(GetattrIn::default()),
        Opcode::SetAttr => Operation::SetAttr(SetattrIn::default()),
        Opcode::ReadLink => Operation::ReadLink,
        Opcode::Symlink => Operation::Symlink {
            name,
            target: SymlinkTarget::new(c"target").unwrap(),
        },
        Opcode::MkNod => Operation::MkNod {
            args: MknodIn::default(),
            name,
        },
        Opcode::MkDir => Operation::MkDir {
            args: MkdirIn::default(),
            name,
        },
        Opcode::Unlink => Operation::Unlink { name },
        Opcode::RmDir => Operation::RmDir { name },
        Opcode::Rename => Operation::Rename {
            args: RenameIn {
                newdir: NodeId::ROOT,
            },
            name,
            new_name,
        },
        Opcode::Link => Operation::Link {
            args: LinkIn {
                oldnodeid: NodeId(7),
            },
            name,
        },
        Opcode::Open => Operation::Open(OpenIn::default()),
        Opcode::Read => Operation::Read(read),
        Opcode::Write => Operation::Write(WriteIn {
            size: DATA.len() as u32,
            ..Default::default()
        }),
        Opcode::StatFs => Operation::StatFs,
        Opcode::Release => Operation::Release(ReleaseIn::default()),
        Opcode::FSync => Operation::FSync(FsyncIn::default()),
        Opcode::SetXattr => Operation::SetXattr {
            args: SetxattrIn {
                size: 5,
                ..Default::default()
            },
            name: xattr,
            value: b"value",
        },
        Opcode::GetXattr => Operation::GetXattr {
            args: GetxattrIn {
                size: 100,
                padding: 0,
            },
            name: xattr,
        },
        Opcode::ListXattr => Operation::ListXattr(GetxattrIn::default()),
        Opcode::RemoveXattr => Operation::RemoveXattr { name: xattr },
        Opcode::Flush => Operation::Flush(FlushIn::default()),
        Opcode::Init => Operation::Init(super::offer(fuse_fs::flags::InitFlags::all())),
        Opcode::OpenDir => Operation::OpenDir(OpenIn::default()),
        Opcode::ReadDir => Operation::ReadDir(read),
        Opcode::ReleaseDir => Operation::ReleaseDir(ReleaseIn::default()),
        Opcode::FSyncDir => Operation::FSyncDir(FsyncIn::default()),
        Opcode::GetLk => Operation::GetLk(LkIn::default()),
        Opcode::SetLk => Operation::SetLk(LkIn::default()),
        Opcode::SetLkW => Operation::SetLkW(LkIn::default()),
        Opcode::Access => Operation::Access(AccessIn::default()),
        Opcode::Create => Operation::Create {
            args: CreateIn::default(),
            name,
        },
        Opcode::Interrupt => Operation::Interrupt(InterruptIn { unique: 99 }),
        Opcode::BMap => Operation::BMap(BmapIn::default()),
        Opcode::Destroy => Operation::Destroy,
        Opcode::Ioctl => Operation::Ioctl {
            args: IoctlIn {
                cmd: 0x8008_6601,
                in_size: 3,
                out_size: 8,
                ..Default::default()
            },
            data: b"abc",
        },
        Opcode::Poll => Operation::Poll(PollIn::default()),
        Opcode::NotifyReply => Operation::NotifyReply(NotifyRetrieveIn {
            size: DATA.len() as u32,
            ..Default::default()
        }),
        Opcode::BatchForget => Operation::BatchForget(FORGETS.into()),
        Opcode::FAllocate => Operation::FAllocate(FallocateIn {
            length: 1,
            ..Default::default()
        }),
        Opcode::ReadDirPlus => Operation::ReadDirPlus(read),
        Opcode::Rename2 => Operation::Rename2 {
            args: Rename2In {
                newdir: NodeId::ROOT,
                ..Default::default()
            },
            name,
            new_name,
        },
        Opcode::LSeek => Operation::LSeek(LseekIn {
            whence: 3,
            ..Default::default()
        }),
        Opcode::CopyFileRange => Operation::CopyFileRange(copy()),
        Opcode::CopyFileRange64 => Operation::CopyFileRange64(copy()),
        Opcode::SetupMapping => Operation::SetupMapping(SetupmappingIn::default()),
        Opcode::RemoveMapping => Operation::RemoveMapping(MAPPINGS.into()),
        Opcode::SyncFs => Operation::SyncFs(SyncfsIn::default()),
        Opcode::TmpFile => Operation::TmpFile(CreateIn::default()),
        Opcode::Statx => Operation::Statx(StatxIn::default()),
    }
}

fn copy() -> CopyFileRangeIn {
    CopyFileRangeIn {
        len: 10,
        ..Default::default()
    }
}
