//! What is answered: to what was agreed on, to what cannot be done, and to what is malformed.

use crate::common::every::{data, operation};
use crate::common::probe::{Behaviour, Probe};
use crate::common::{Answer, Guest, UNIQUE, encode, offer};
use fuse_fs::abi::*;
use fuse_fs::flags::InitFlags;
use fuse_fs::{Blocking, Errno, NodeId, Serve, Session, XattrName};
use fuse_wire::{MAX_ARGUMENTS, Opcode, Operation};
use zerocopy::IntoBytes;

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
