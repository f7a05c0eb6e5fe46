//! The session by raw messages: when it begins and ends, what it lets through and what it answers.

mod agreement;
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod limits;
mod read_only;

use common::every::{data, operation};
use common::probe::Probe;
use common::{Answer, Guest};
use fuse_fs::abi::*;
use fuse_fs::{Errno, NodeId, Session, SessionConfig};
use fuse_wire::Opcode;
use zerocopy::FromBytes;

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
