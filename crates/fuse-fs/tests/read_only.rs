//! What a read-only wrapper refuses, and what it lets through.

mod common;

use common::every::{data, operation};
use common::probe::Probe;
use common::{Answer, Guest};
use fuse_fs::abi::{AccessIn, IoctlIn, OpenIn};
use fuse_fs::{Access, Errno, MemFs, NodeId, ReadOnly, Session, SessionConfig};
use fuse_wire::{Opcode, Operation};

/// Sends `operation` to a session that is read-only, and to one of a filesystem that is.
fn ask_both(operation: Operation<'_>, data: &[u8]) -> [(Answer, Vec<String>); 2] {
    let config = SessionConfig::new().access(Access::ReadOnly);
    let by_session = Session::with_config(Probe::default(), config);
    let by_wrapper = Session::new(ReadOnly::new(Probe::default()));
    let guests = [Guest::begun(&by_session), Guest::begun(&by_wrapper)];
    let probes = [by_session.filesystem(), by_wrapper.filesystem().inner()];
    [0, 1].map(|index| {
        probes[index].take_calls();
        let answer = guests[index].ask_with_data(NodeId(7), operation, data);
        (answer, probes[index].take_calls())
    })
}

#[test]
fn same_is_refused_as_by_a_read_only_session() {
    let mut refused = 0;
    for &opcode in Opcode::ALL {
        let [session, wrapper] = ask_both(operation(opcode), data(opcode));
        assert_eq!(wrapper, session, "{opcode}");
        if session.0 == Answer::Error(Errno::EROFS) {
            assert_eq!(session.1, [""; 0], "{opcode}");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn arguments_can_make_a_change_of_what_is_none() {
    let open = |flags| {
        let open_flags = Default::default();
        [
            Operation::Open(OpenIn { flags, open_flags }),
            Operation::OpenDir(OpenIn { flags, open_flags }),
        ]
    };
    let access = |mask| Operation::Access(AccessIn { mask, padding: 0 });
    let ioctl = |cmd| {
        let args = IoctlIn {
            cmd,
            ..Default::default()
        };
        Operation::Ioctl { args, data: &[] }
    };
    let [read, read_dir] = open(0);
    let [write, write_dir] = open(1);
    let [truncate, truncate_dir] = open(0o1000);
    for (operation, is_refused) in [
        (read, false),
        (read_dir, false),
        (write, true),
        (write_dir, true),
        (truncate, true),
        (truncate_dir, true),
        (access(4), false),
        (access(2), true),
        (ioctl(0x8008_6601), false),
        (ioctl(0x4008_6602), true),
    ] {
        let [session, wrapper] = ask_both(operation, &[]);
        assert_eq!(wrapper, session, "{operation:?}");
        let refused = wrapper.0 == Answer::Error(Errno::EROFS);
        assert_eq!(refused, is_refused, "{operation:?}");
    }
}

#[test]
fn filesystem_is_seen_as_it_is() {
    let session = Session::new(ReadOnly::new(MemFs::new()));
    let guest = Guest::begun(&session);
    assert_eq!(guest.names(NodeId::ROOT), [""; 0]);
    assert_eq!(guest.mkdir(NodeId::ROOT, "new"), Err(Errno::EROFS));
}
