//! What does not reach the filesystem as it came: what there is no room for, or makes no sense.

use crate::common::every::{data, operation};
use crate::common::probe::Probe;
use crate::common::{Answer, Guest, Sending};
use fuse_fs::abi::*;
use fuse_fs::flags::{InitFlags, RenameFlags, SetattrValid};
use fuse_fs::{Errno, Name, NodeId, Session, SessionConfig, XattrName};
use fuse_wire::{LookupName, Opcode, Operation};

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
