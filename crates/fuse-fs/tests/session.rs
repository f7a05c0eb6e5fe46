//! The session by raw messages: when it begins and ends, what it lets through and what it answers.

mod common;

use common::every::{data, operation};
use common::probe::{Behaviour, Probe};
use common::{Answer, Guest, Sending, UNIQUE, encode, offer};
use fuse_fs::abi::*;
use fuse_fs::flags::{InitFlags, RenameFlags, SetattrValid};
use fuse_fs::{
    Access, Blocking, Errno, MemFs, Name, Negotiation, NodeId, Serve, Session, SessionConfig,
    XattrName,
};
use fuse_wire::{LookupName, MAX_ARGUMENTS, Opcode, Operation};
use zerocopy::{FromBytes, IntoBytes};

/// Sends one request of each operation that is part of a session, in a session of its own.
fn each_opcode(config: SessionConfig, check: impl Fn(Opcode, Answer, Vec<String>)) {
    for &opcode in Opcode::ALL {
        let session = Session::with_config(Probe::default(), config);
        let guest = Guest::begun(&session);
        session.filesystem().take_calls();
        let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
        check(opcode, answer, session.filesystem().take_calls());
    }
}

#[test]
fn every_operation_reaches_the_filesystem() {
    each_opcode(SessionConfig::new(), |opcode, answer, calls| match opcode {
        Opcode::NotifyReply => assert_eq!((answer, calls.len()), (Answer::NoReply, 0)),
        Opcode::SetupMapping | Opcode::RemoveMapping => {
            assert_eq!((answer.error(), calls.len()), (Errno::ENOSYS, 0));
        }
        Opcode::Init => assert_eq!(calls, ["destroy", "init"]),
        Opcode::BatchForget => assert_eq!(calls, ["forget 7 2", "forget 8 1"]),
        Opcode::Forget => assert_eq!(calls, ["forget 7 3"]),
        Opcode::Interrupt => assert_eq!(calls, ["interrupt 99"]),
        _ => {
            assert_eq!(calls.len(), 1, "{opcode}: {calls:?}");
            answer.body();
        }
    });
}

/// Linux would look up the name "/" when the time is up, and overlayfs would lose a file that it has
/// copied up.
#[test]
fn the_name_of_a_nameless_file_is_valid_for_ever() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    let body = guest.ask(NodeId(7), operation(Opcode::TmpFile)).body();
    let (entry, _) = EntryOut::read_from_prefix(&body).unwrap();
    assert!(entry.entry_valid > 100 * 365 * 24 * 3600);
    assert_eq!((entry.attr_valid, entry.attr_valid_nsec), (0, 0));
}

#[test]
fn outside_a_session_only_init_is_served() {
    for &opcode in Opcode::ALL.iter().filter(|&&opcode| opcode != Opcode::Init) {
        let session = Session::new(Probe::default());
        let guest = Guest::new(&session);
        let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
        if opcode.expects_reply() {
            assert_eq!(answer.error(), Errno::ENOTCONN, "{opcode}");
        } else {
            assert_eq!(answer, Answer::NoReply, "{opcode}");
        }
        assert!(session.filesystem().take_calls().is_empty(), "{opcode}");
    }
}

#[test]
fn a_session_ends_with_destroy_init_or_reset() {
    let session = Session::new(Probe::default());
    let calls = || session.filesystem().take_calls();
    session.reset();
    assert!(calls().is_empty(), "there was none to end");
    let mut guest = Guest::begun(&session);
    assert_eq!(calls(), ["init"]);

    guest.init(&offer(InitFlags::empty()));
    assert_eq!(calls(), ["destroy", "init"]);
    assert_eq!(session.agreed(), Some(InitFlags::empty()));

    assert!(guest.ask(NodeId(0), Operation::Destroy).is_empty_success());
    assert_eq!(calls(), ["destroy"]);
    assert_eq!(session.agreed(), None);
    assert_eq!(
        guest.ask(NodeId(0), Operation::Destroy).error(),
        Errno::ENOTCONN
    );
    assert_eq!(
        guest.ask(NodeId(1), Operation::StatFs).error(),
        Errno::ENOTCONN
    );
    session.reset();
    assert!(calls().is_empty());

    guest.init(&offer(InitFlags::empty()));
    session.reset();
    assert_eq!(calls(), ["init", "destroy"]);
    assert_eq!(
        guest.ask(NodeId(1), Operation::StatFs).error(),
        Errno::ENOTCONN
    );
}

#[test]
fn the_ends_of_a_session_are_served_where_waiting_is_allowed() {
    let session = Session::new(Probe::default());
    let mut guest = Guest::begun(&session);
    session.filesystem().take_calls();
    guest.sending.blocking = Blocking::Forbidden;
    for opcode in [Opcode::Init, Opcode::Destroy] {
        assert_eq!(guest.ask(NodeId(0), operation(opcode)), Answer::WouldBlock);
    }
    assert!(session.filesystem().take_calls().is_empty());
    guest.ask(NodeId(1), Operation::StatFs).body();
}

#[test]
fn versions_are_compared() {
    let session = Session::new(Probe::default());
    let ask = |major, minor| {
        let init = InitIn {
            major,
            minor,
            ..offer(InitFlags::empty())
        };
        Guest::new(&session).ask(NodeId(0), Operation::Init(init))
    };
    for (major, minor) in [(6, 45), (0, 0), (7, 26), (7, 0)] {
        assert_eq!(ask(major, minor).error(), Errno::EPROTO, "{major}.{minor}");
        assert_eq!(session.agreed(), None);
    }
    let out: InitOut = ask(8, 0).structure();
    assert_eq!((out.major, out.minor, out.max_write), (7, 45, 0));
    assert_eq!(session.agreed(), None, "another INIT is to come");
    assert!(session.filesystem().take_calls().is_empty());
    for minor in [27, 31, 36, 45, 99] {
        let out: InitOut = ask(7, minor).structure();
        assert_eq!((out.major, out.minor), (7, 45));
        assert!(session.agreed().is_some());
    }
}

#[test]
fn what_is_agreed_on_was_offered_and_can_be_carried() {
    let everything = Probe {
        wanted: InitFlags::all(),
        wanted_max_write: Some(u32::MAX),
        ..Default::default()
    };
    let session = Session::new(everything);
    let mut guest = Guest::new(&session);
    let never = InitFlags::FILE_OPS
        | InitFlags::SPLICE_READ
        | InitFlags::SPLICE_WRITE
        | InitFlags::SPLICE_MOVE
        | InitFlags::ABORT_ERROR
        | InitFlags::MAP_ALIGNMENT
        | InitFlags::INIT_RESERVED
        | InitFlags::HAS_INODE_DAX
        | InitFlags::PASSTHROUGH
        | InitFlags::HAS_RESEND
        | InitFlags::OVER_IO_URING
        | InitFlags::REQUEST_TIMEOUT
        | InitFlags::from_bits_retain(!0 << 43);
    for bit in (0..64).map(|n| InitFlags::from_bits_retain(1 << n)) {
        let offered = bit | InitFlags::INIT_EXT;
        let out = guest.init(&offer(offered));
        assert_eq!(out.agreed(), offered.difference(never), "{bit:?}");
        assert_eq!(session.agreed(), Some(out.agreed()));
    }
    let without_ext = InitFlags::all().difference(InitFlags::INIT_EXT);
    let out = guest.init(&offer(without_ext));
    assert_eq!(out.flags2, 0);
    assert_eq!(out.max_write, Negotiation::MAX_WRITE);
    assert_eq!(out.max_pages, 256);
    assert_eq!(out.max_readahead, 128 << 10, "no more than was offered");
    assert_eq!(out.time_gran, 1);
    assert_eq!(out.congestion_threshold, out.max_background);
}

#[test]
fn by_itself_a_session_agrees_on_what_it_handles() {
    let session = Session::new(Probe::default());
    let out = Guest::new(&session).init(&offer(InitFlags::all()));
    let expected = InitFlags::ASYNC_READ
        | InitFlags::BIG_WRITES
        | InitFlags::AUTO_INVAL_DATA
        | InitFlags::ASYNC_DIO
        | InitFlags::PARALLEL_DIROPS
        | InitFlags::MAX_PAGES
        | InitFlags::SETXATTR_EXT
        | InitFlags::INIT_EXT;
    assert_eq!(out.agreed(), expected);
}

#[test]
fn max_write_follows_configuration_filesystem_and_guest() {
    let max_write = |config: u32, wanted, offered| {
        let probe = Probe {
            wanted_max_write: wanted,
            ..Default::default()
        };
        let config = SessionConfig::new().max_write(config);
        let session = Session::with_config(probe, config);
        let init = InitIn {
            max_readahead: u32::MAX,
            ..offer(offered)
        };
        let out = Guest::new(&session).init(&init);
        assert!(out.max_readahead <= out.max_write);
        (out.max_write, out.max_pages)
    };
    let all = InitFlags::all();
    assert_eq!(max_write(1 << 20, None, all), (1 << 20, 256));
    assert_eq!(max_write(u32::MAX, None, all), (1 << 20, 256));
    assert_eq!(max_write(300_000, None, all), (73 * 4096, 73));
    assert_eq!(max_write(0, None, all), (4096, 1));
    assert_eq!(max_write(1 << 20, Some(0), all), (4096, 1));
    assert_eq!(max_write(65536, Some(1 << 20), all), (65536, 16));
    let no_pages = all.difference(InitFlags::MAX_PAGES);
    assert_eq!(max_write(1 << 20, None, no_pages), (32 * 4096, 0));
    let small = no_pages.difference(InitFlags::BIG_WRITES);
    assert_eq!(max_write(1 << 20, None, small), (4096, 0));
}

#[test]
fn a_filesystem_can_refuse_a_session() {
    let session = Session::new(Probe::new(Behaviour::Fail(Errno::EACCES)));
    let guest = Guest::new(&session);
    let answer = guest.ask(NodeId(0), operation(Opcode::Init));
    assert_eq!(answer.error(), Errno::EACCES);
    assert_eq!(session.agreed(), None);
    session.reset();
    assert_eq!(session.filesystem().take_calls(), ["init"]);
}

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

#[test]
fn nothing_is_done_that_could_not_be_told() {
    for &opcode in Opcode::ALL.iter().filter(|opcode| opcode.expects_reply()) {
        let session = Session::new(Probe::default());
        let mut guest = Guest::begun(&session);
        let ask = |guest: &Guest<'_>| {
            session.filesystem().take_calls();
            let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
            (answer, session.filesystem().take_calls())
        };
        guest.sending.room = None;
        assert_eq!(ask(&guest), (Answer::NoReply, vec![]), "{opcode}");
        guest.sending = Sending {
            reply_buffer: 15,
            ..Default::default()
        };
        assert_eq!(ask(&guest), (Answer::NoReply, vec![]), "{opcode}");

        // The least room with which it is served. Then the reply must fit it exactly, or have
        // been cut to it.
        let mut least = 0;
        loop {
            guest.sending = Sending {
                room: Some(least),
                ..Default::default()
            };
            match ask(&guest) {
                (Answer::Error(Errno::EINVAL), calls) => assert!(calls.is_empty(), "{opcode}"),
                (answer, _) => {
                    if let Answer::Body(body) = answer {
                        let entries = matches!(opcode, Opcode::ReadDir | Opcode::ReadDirPlus);
                        assert!(entries || body.len() == least, "{opcode}");
                    }
                    break;
                }
            }
            guest.sending = Sending {
                reply_buffer: 16 + least,
                ..Default::default()
            };
            assert_eq!(ask(&guest).0, Answer::Error(Errno::EINVAL), "{opcode}");
            least += 1;
        }
        assert_eq!(
            session.stats().malformed as usize,
            2 + 2 * least,
            "{opcode}"
        );
    }
}

#[test]
fn sizes_are_cut_to_the_room() {
    let session = Session::new(Probe::default());
    let mut guest = Guest::begun(&session);
    let mut check = |operation: Operation<'_>, room: usize, call: &str| {
        session.filesystem().take_calls();
        guest.sending.room = Some(room);
        guest.ask(NodeId(7), operation).body();
        assert_eq!(session.filesystem().take_calls(), [call]);
    };
    let name = XattrName::new(c"user.a").unwrap();
    let read = |size| ReadIn {
        size,
        ..Default::default()
    };
    let xattr = |size| GetxattrIn { size, padding: 0 };
    let getxattr = |size| Operation::GetXattr {
        args: xattr(size),
        name,
    };
    let ioctl = |out_size| Operation::Ioctl {
        args: IoctlIn {
            out_size,
            ..Default::default()
        },
        data: &[],
    };
    let huge = 64 << 20;
    check(Operation::Read(read(u32::MAX)), 5000, "read 5000");
    check(Operation::Read(read(4096)), 5000, "read 4096");
    check(Operation::Read(read(0)), 5000, "read 0");
    check(Operation::Read(read(u32::MAX)), huge, "read 16777216");
    check(Operation::ReadDir(read(u32::MAX)), 5000, "readdir 5000");
    check(Operation::ReadDir(read(u32::MAX)), huge, "readdir 65584");
    check(Operation::ReadDirPlus(read(300)), huge, "readdirplus 300");
    check(getxattr(u32::MAX), huge, "getxattr 65536");
    check(getxattr(u32::MAX), 100, "getxattr 100");
    check(getxattr(0), 100, "getxattr 0");
    check(
        Operation::ListXattr(xattr(u32::MAX)),
        huge,
        "listxattr 65536",
    );
    check(Operation::ReadLink, huge, "readlink 4096");
    check(Operation::ReadLink, 10, "readlink 10");
    check(ioctl(u32::MAX), huge, "ioctl 32768");
    check(ioctl(u32::MAX), 20, "ioctl 4");
    check(ioctl(7), huge, "ioctl 7");
}

#[test]
fn a_write_is_held_to_what_was_agreed_on() {
    let config = SessionConfig::new().max_write(8192);
    let session = Session::with_config(Probe::default(), config);
    let guest = Guest::begun(&session);
    let write = |offset, len: usize| {
        let args = WriteIn {
            offset,
            size: len as u32,
            ..Default::default()
        };
        guest.ask_with_data(NodeId(7), Operation::Write(args), &vec![0; len])
    };
    let out: WriteOut = write(0, 8192).structure();
    assert_eq!(out.size, 8192);
    assert_eq!(write(0, 8193).error(), Errno::EINVAL);
    let last = i64::MAX as u64;
    write(last - 10, 10).body();
    for (offset, len) in [(last - 10, 11), (last + 1, 0), (u64::MAX, 1), (u64::MAX, 0)] {
        assert_eq!(write(offset, len).error(), Errno::EFBIG);
    }
}

#[test]
fn offsets_and_flags_that_make_no_sense_do_not_reach_the_filesystem() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    session.filesystem().take_calls();
    let beyond = i64::MAX as u64 + 1;
    let name = Name::new(c"a").unwrap();
    let rename = |flags| Operation::Rename2 {
        args: Rename2In {
            newdir: NodeId(1),
            flags: RenameFlags::from_bits_retain(flags),
            padding: 0,
        },
        name,
        new_name: name,
    };
    let read = |offset| {
        Operation::Read(ReadIn {
            offset,
            size: 10,
            ..Default::default()
        })
    };
    let lseek = |offset, whence| {
        Operation::LSeek(LseekIn {
            offset,
            whence,
            ..Default::default()
        })
    };
    let fallocate = |offset, length| {
        Operation::FAllocate(FallocateIn {
            offset,
            length,
            ..Default::default()
        })
    };
    let copy = |off_in, off_out, len, flags| {
        Operation::CopyFileRange(CopyFileRangeIn {
            off_in,
            off_out,
            len,
            flags,
            ..Default::default()
        })
    };
    let setattr = |valid, size, nsec| {
        Operation::SetAttr(SetattrIn {
            valid,
            size,
            atimensec: nsec,
            mtimensec: nsec,
            ctimensec: nsec,
            ..Default::default()
        })
    };
    let open = |flags| {
        Operation::Open(OpenIn {
            flags,
            ..Default::default()
        })
    };
    let create_in = |flags| CreateIn {
        flags,
        ..Default::default()
    };
    let create = |flags| Operation::Create {
        args: create_in(flags),
        name,
    };
    let tmpfile = |flags| Operation::TmpFile(create_in(flags));
    let setxattr = |flags| Operation::SetXattr {
        args: SetxattrIn {
            flags,
            ..Default::default()
        },
        name: XattrName::new(c"user.a").unwrap(),
        value: &[],
    };
    let dot = |name| Operation::Lookup { name };
    for (operation, errno) in [
        (rename(8), Errno::EINVAL),
        (rename(1 << 31), Errno::EINVAL),
        (rename(3), Errno::EINVAL),
        (rename(6), Errno::EINVAL),
        (read(beyond), Errno::EINVAL),
        (read(beyond - 5), Errno::EINVAL),
        (read(u64::MAX), Errno::EINVAL),
        (lseek(beyond, 3), Errno::EINVAL),
        (lseek(0, 0), Errno::EINVAL),
        (lseek(0, 5), Errno::EINVAL),
        (fallocate(0, 0), Errno::EINVAL),
        (fallocate(1, beyond - 1), Errno::EFBIG),
        (fallocate(u64::MAX, u64::MAX), Errno::EFBIG),
        (copy(beyond, 0, 1, 0), Errno::EINVAL),
        (copy(0, beyond, 1, 0), Errno::EFBIG),
        (copy(0, 0, 1, 1), Errno::EINVAL),
        (setattr(SetattrValid::SIZE, beyond, 0), Errno::EINVAL),
        (
            setattr(SetattrValid::ATIME, 0, 1_000_000_000),
            Errno::EINVAL,
        ),
        (setattr(SetattrValid::MTIME, 0, u32::MAX), Errno::EINVAL),
        (setattr(SetattrValid::CTIME, 0, u32::MAX), Errno::EINVAL),
        (open(0o100), Errno::EINVAL),
        (open(0o20_200_000), Errno::EINVAL),
        (open(0o10_000_000), Errno::EINVAL),
        (create(0o10_000_000), Errno::EINVAL),
        (create(0o20_200_000), Errno::EINVAL),
        (tmpfile(0o30_200_000), Errno::EINVAL),
        (setxattr(4), Errno::EINVAL),
        (dot(LookupName::Current), Errno::EINVAL),
        (dot(LookupName::Parent), Errno::EINVAL),
    ] {
        let answer = guest.ask(NodeId(7), operation);
        assert_eq!(answer, Answer::Error(errno), "{operation:?}");
    }
    assert_eq!(session.filesystem().take_calls(), [""; 0]);

    let now = SetattrValid::ATIME | SetattrValid::ATIME_NOW;
    for operation in [
        rename(0),
        rename(1),
        rename(2),
        rename(5),
        setattr(now, 0, u32::MAX),
    ] {
        guest.ask(NodeId(7), operation).body();
    }
    assert_eq!(
        session.filesystem().take_calls(),
        ["rename 0", "rename 1", "rename 2", "rename 5", "setattr"]
    );
}

#[test]
fn dot_and_dot_dot_are_looked_up_where_that_was_agreed_on() {
    let probe = Probe {
        wanted: InitFlags::EXPORT_SUPPORT,
        ..Default::default()
    };
    let session = Session::new(probe);
    let guest = Guest::begun(&session);
    session.filesystem().take_calls();
    for name in [LookupName::Current, LookupName::Parent] {
        guest.ask(NodeId(7), Operation::Lookup { name }).body();
    }
    assert_eq!(
        session.filesystem().take_calls(),
        ["lookup_self", "lookup_parent"]
    );
}

#[test]
fn the_forms_that_were_agreed_on_are_understood() {
    let session = Session::new(Probe::default());
    let mut guest = Guest::begun(&session);
    let setxattr = Operation::SetXattr {
        args: SetxattrIn {
            setxattr_flags: fuse_fs::flags::SetxattrFlags::ACL_KILL_SGID,
            ..Default::default()
        },
        name: XattrName::new(c"user.a").unwrap(),
        value: &[],
    };
    session.filesystem().take_calls();
    assert!(guest.ask(NodeId(7), setxattr).is_empty_success());
    assert_eq!(session.filesystem().take_calls(), ["setxattr 1"]);
    guest.init(&offer(InitFlags::empty()));
    session.filesystem().take_calls();
    assert!(
        guest
            .ask(NodeId(7), operation(Opcode::SetXattr))
            .is_empty_success()
    );
    assert_eq!(session.filesystem().take_calls(), ["setxattr 0"]);
    let getattr = Operation::GetAttr(GetattrIn {
        getattr_flags: fuse_fs::flags::GetattrFlags::FH,
        fh: fuse_fs::Handle(9),
        dummy: 0,
    });
    guest.ask(NodeId(7), getattr).body();
    assert_eq!(
        session.filesystem().take_calls(),
        ["getattr Some(Handle(9))"]
    );
}

#[test]
fn the_root_is_never_forgotten() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    session.filesystem().take_calls();
    guest.forget(NodeId::ROOT, 5);
    guest.forget(NodeId(7), 0);
    let forgets = [NodeId::ROOT, NodeId(8)].map(|nodeid| ForgetOne { nodeid, nlookup: 1 });
    let batch = Operation::BatchForget(forgets.as_slice().into());
    assert_eq!(guest.ask(NodeId(0), batch), Answer::NoReply);
    assert_eq!(session.filesystem().take_calls(), ["forget 8 1"]);
}

#[test]
fn what_has_no_reply_needs_no_room() {
    let session = Session::new(Probe::default());
    let mut guest = Guest::begun(&session);
    session.filesystem().take_calls();
    guest.sending.room = None;
    for opcode in [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt] {
        let answer = guest.ask(NodeId(7), operation(opcode));
        assert_eq!(answer, Answer::NoReply);
    }
    assert_eq!(session.filesystem().take_calls().len(), 4);
    assert_eq!(session.stats().malformed, 0);
}

#[test]
fn what_would_block_is_served_again_or_is_a_fault() {
    let session = Session::new(Probe::new(Behaviour::WouldBlock));
    let mut guest = Guest::begun(&session);
    let before = session.stats();
    for &opcode in Opcode::ALL {
        if matches!(opcode, Opcode::Init | Opcode::Destroy) || !opcode.expects_reply() {
            continue;
        }
        if matches!(opcode, Opcode::SetupMapping | Opcode::RemoveMapping) {
            continue;
        }
        guest.sending.blocking = Blocking::Forbidden;
        let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
        let put_off = match opcode {
            Opcode::SetLkW => Answer::WouldWait,
            _ => Answer::WouldBlock,
        };
        assert_eq!(answer, put_off, "{opcode}");
        assert_eq!(session.stats(), before, "it counts when it is done");
    }
    session.filesystem().take_calls();
    session.cancel_waits();
    assert_eq!(session.filesystem().take_calls(), ["cancel waits"]);
    guest.sending.blocking = Blocking::Allowed;
    let answer = guest.ask(NodeId(7), Operation::StatFs);
    assert_eq!(answer.error(), Errno::EIO);
    assert_eq!(session.filesystem().take_calls().last().unwrap(), "statfs");
    let after = session.stats();
    assert_eq!(
        (after.served, after.faults),
        (before.served + 1, before.faults + 1)
    );
}

#[test]
fn a_filesystem_that_counts_wrong_does_not_get_through() {
    let session = Session::new(Probe::new(Behaviour::Exaggerate));
    let guest = Guest::begun(&session);
    for opcode in [
        Opcode::Read,
        Opcode::Write,
        Opcode::ReadLink,
        Opcode::Ioctl,
        Opcode::CopyFileRange,
        Opcode::CopyFileRange64,
    ] {
        let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
        assert_eq!(answer.error(), Errno::EIO, "{opcode}");
    }
    assert_eq!(session.stats().faults, 6);
    let answer = guest.ask(NodeId(7), operation(Opcode::GetXattr));
    assert_eq!(answer.error(), Errno::ERANGE, "it does not fit");
}

#[test]
fn an_error_is_passed_on() {
    let session = Session::new(Probe::new(Behaviour::Fail(Errno::EDQUOT)));
    let guest = Guest::begun(&session);
    for &opcode in Opcode::ALL {
        let before_the_filesystem = [
            Opcode::Init,
            Opcode::Destroy,
            Opcode::SetupMapping,
            Opcode::RemoveMapping,
        ];
        if opcode.expects_reply() && !before_the_filesystem.contains(&opcode) {
            let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
            assert_eq!(answer.error(), Errno::EDQUOT, "{opcode}");
        }
    }
}

#[test]
fn a_malformed_request_is_answered_as_far_as_it_can_be() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    session.filesystem().take_calls();
    let mut expected = 0;
    for &opcode in Opcode::ALL {
        let message = encode(
            NodeId(7),
            operation(opcode),
            data(opcode).len(),
            guest.agreed,
        );
        for len in 0..message.len() {
            let answer = guest.send(&message[..len], data(opcode));
            if len < 16 || !opcode.expects_reply() {
                assert_eq!(answer, Answer::NoReply, "{opcode} {len}");
            } else {
                assert_eq!(answer.error(), Errno::EINVAL, "{opcode} {len}");
            }
            expected += 1;
            assert_eq!(session.stats().malformed, expected);
        }
        let longer = [&message[..], &[0; 8]].concat();
        assert!(matches!(
            guest.send(&longer, data(opcode)),
            Answer::NoReply | Answer::Error(Errno::EINVAL)
        ));
        expected += 1;
    }
    assert_eq!(session.filesystem().take_calls(), [""; 0]);
    assert_eq!(session.stats().served, expected + 1);
}

#[test]
fn long_names_are_refused_but_not_malformed() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    let header = InHeader {
        len: 40 + 257,
        opcode: Opcode::Lookup.raw(),
        unique: UNIQUE,
        nodeid: NodeId::ROOT,
        ..Default::default()
    };
    let message = [header.as_bytes(), &[b'n'; 256], &[0]].concat();
    assert_eq!(guest.send(&message, &[]).error(), Errno::ENAMETOOLONG);
    assert_eq!(session.stats().malformed, 0);
}

#[test]
fn what_is_unknown_is_not_implemented() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        let header = InHeader {
            len: 40,
            opcode,
            unique: UNIQUE,
            ..Default::default()
        };
        let answer = guest.send(header.as_bytes(), &[]);
        assert_eq!(answer.error(), Errno::ENOSYS, "{opcode}");
    }
}

#[test]
fn a_guest_of_the_other_byte_order_is_refused() {
    let session = Session::new(Probe::default());
    let guest = Guest::new(&session);
    let mut message = encode(NodeId(0), operation(Opcode::Init), 0, InitFlags::empty());
    message[4..8].reverse();
    assert_eq!(guest.send(&message, &[]).error(), Errno::EPROTO);
}

#[test]
fn a_request_longer_than_any_is_refused() {
    let session = Session::new(Probe::default());
    let guest = Guest::begun(&session);
    let mut message = vec![0; MAX_ARGUMENTS];
    let header = InHeader {
        len: MAX_ARGUMENTS as u32 + 1,
        opcode: Opcode::SetXattr.raw(),
        unique: UNIQUE,
        ..Default::default()
    };
    message[..size_of::<InHeader>()].copy_from_slice(header.as_bytes());
    let answer = guest.send(&message, &[0]);
    assert!(matches!(answer, Answer::Error(_)));
    let value = vec![0; 65537];
    let args = SetxattrIn {
        size: 65537,
        ..Default::default()
    };
    let name = XattrName::new(c"user.a").unwrap();
    let operation = Operation::SetXattr {
        args,
        name,
        value: &value,
    };
    assert_eq!(guest.ask(NodeId(7), operation).error(), Errno::E2BIG);
}

#[test]
fn sessions_begin_and_end_while_others_are_served() {
    let session = Session::new(MemFs::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut guest = Guest::new(&session);
                guest.sending.room = Some(8192);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for opcode in [Opcode::MkDir, Opcode::Lookup, Opcode::StatFs, Opcode::RmDir] {
                        match guest.ask(NodeId::ROOT, operation(opcode)) {
                            Answer::Body(_) => {}
                            Answer::Error(Errno::ENOTCONN | Errno::EEXIST | Errno::ENOENT) => {}
                            other => panic!("{opcode}: {other:?}"),
                        }
                    }
                }
            });
        }
        let mut guest = Guest::new(&session);
        for _ in 0..200 {
            guest.init(&offer(InitFlags::all()));
            session.reset();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let guest = Guest::begun(&session);
    let _ = guest.rmdir(NodeId::ROOT, "name");
    session.reset();
    assert_eq!(session.filesystem().inode_count(), 1);
}
