//! What a read-only session refuses.

use crate::common::probe::Probe;
use crate::common::{Answer, Guest};
use crate::each_opcode;
use fuse_fs::abi::*;
use fuse_fs::{Access, Errno, NodeId, Session, SessionConfig};
use fuse_wire::{Opcode, Operation};

/// What a read-only session does with the request of [`operation`]. There is no catch-all: a new
/// operation has to be judged here as well.
fn is_a_change(opcode: Opcode) -> bool {
    match opcode {
        Opcode::SetAttr
        | Opcode::Symlink
        | Opcode::MkNod
        | Opcode::MkDir
        | Opcode::Unlink
        | Opcode::RmDir
        | Opcode::Rename
        | Opcode::Rename2
        | Opcode::Link
        | Opcode::Create
        | Opcode::TmpFile
        | Opcode::Write
        | Opcode::SetXattr
        | Opcode::RemoveXattr
        | Opcode::FAllocate
        | Opcode::CopyFileRange
        | Opcode::CopyFileRange64 => true,
        Opcode::Lookup
        | Opcode::Forget
        | Opcode::GetAttr
        | Opcode::ReadLink
        | Opcode::Open
        | Opcode::Read
        | Opcode::StatFs
        | Opcode::Release
        | Opcode::FSync
        | Opcode::GetXattr
        | Opcode::ListXattr
        | Opcode::Flush
        | Opcode::Init
        | Opcode::OpenDir
        | Opcode::ReadDir
        | Opcode::ReleaseDir
        | Opcode::FSyncDir
        | Opcode::GetLk
        | Opcode::SetLk
        | Opcode::SetLkW
        | Opcode::Access
        | Opcode::Interrupt
        | Opcode::BMap
        | Opcode::Destroy
        | Opcode::Ioctl
        | Opcode::Poll
        | Opcode::NotifyReply
        | Opcode::BatchForget
        | Opcode::ReadDirPlus
        | Opcode::LSeek
        | Opcode::SetupMapping
        | Opcode::RemoveMapping
        | Opcode::SyncFs
        | Opcode::Statx => false,
    }
}

#[test]
fn a_read_only_session_refuses_every_change() {
    let read_only = SessionConfig::new().access(Access::ReadOnly);
    each_opcode(read_only, |opcode, answer, calls| {
        let refused = answer == Answer::Error(Errno::EROFS);
        assert_eq!(refused, is_a_change(opcode), "{opcode}: {answer:?}");
        assert!(!refused || calls.is_empty(), "{opcode}: {calls:?}");
    });
}

#[test]
fn arguments_can_make_a_change_of_what_is_none() {
    let read_only = SessionConfig::new().access(Access::ReadOnly);
    let session = Session::with_config(Probe::default(), read_only);
    let guest = Guest::begun(&session);
    session.filesystem().take_calls();
    let open = |flags| OpenIn {
        flags,
        ..Default::default()
    };
    let ioctl = |cmd| Operation::Ioctl {
        args: IoctlIn {
            cmd,
            ..Default::default()
        },
        data: &[],
    };
    let mapping = |flags| {
        Operation::SetupMapping(SetupmappingIn {
            flags: fuse_fs::flags::MappingFlags::from_bits_retain(flags),
            ..Default::default()
        })
    };
    let access = |mask| Operation::Access(AccessIn { mask, padding: 0 });
    for flags in [1, 2, 3, 0o1000, 0o1001, 0o100, 0o102, 0o20_200_002] {
        for operation in [
            Operation::Open(open(flags)),
            Operation::OpenDir(open(flags)),
        ] {
            assert_eq!(guest.ask(NodeId(7), operation).error(), Errno::EROFS);
        }
    }
    let set_flags = 0x4008_6602;
    for operation in [
        access(2),
        access(6),
        ioctl(set_flags),
        ioctl(0),
        mapping(1),
        mapping(3),
    ] {
        assert_eq!(guest.ask(NodeId(7), operation).error(), Errno::EROFS);
    }
    assert!(session.filesystem().take_calls().is_empty());
    for operation in [access(0), access(5), ioctl(0x8008_6601), ioctl(0x801c_581f)] {
        guest.ask(NodeId(7), operation).body();
    }
    guest.ask(NodeId(7), Operation::Open(open(0o2000))).body();
    assert_eq!(guest.ask(NodeId(7), mapping(2)).error(), Errno::ENOSYS);
}
