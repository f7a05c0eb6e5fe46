use fuse_wire::abi::{AttrOut, ForgetIn, GetattrIn, GetxattrIn, InHeader, ReadIn, WriteIn};
use fuse_wire::{Errno, Opcode, Reply, XattrName};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::memory::PAGE;
use crate::ring::RingFeatures;
use crate::testing::{FEATURES, Rig, Taken, message, rig};

const NODE: NodeId = NodeId(7);
const GETATTR: Operation<'static> = Operation::GetAttr(GetattrIn {
    getattr_flags: fuse_wire::flags::GetattrFlags::empty(),
    dummy: 0,
    fh: fuse_wire::Handle(0),
});
const ATTR_OUT: usize = size_of::<AttrOut>();

fn read(size: usize) -> Operation<'static> {
    Operation::Read(ReadIn {
        size: size as u32,
        ..ReadIn::default()
    })
}

fn lens(segments: &[crate::memory::Segment]) -> Vec<usize> {
    segments.iter().map(|segment| segment.len).collect()
}

/// Submits and has the device take it.
fn post(rig: &mut Rig, operation: Operation<'_>, payload: Payload<'_>) -> (Token, Taken) {
    let token = rig.queue.submit(NODE, operation, payload).unwrap();
    (token, rig.device.take().unwrap())
}

fn attr_reply(unique: u64) -> Vec<u8> {
    let len = (16 + ATTR_OUT) as u32;
    message(unique, 0, len, AttrOut::default().as_bytes())
}

#[test]
fn a_request_is_laid_out_as_linux_does() {
    let mut rig = rig(64, 64, FEATURES);
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    assert!(taken.indirect);
    assert_eq!(lens(&taken.readable), [40, 16]);
    assert_eq!(lens(&taken.writable), [16, ATTR_OUT]);
    let request = rig.device.request(&taken);
    let header = InHeader::peek(&request).unwrap();
    assert_eq!(header.len, 56);
    assert_eq!(header.opcode, Opcode::GetAttr.raw());
    assert_eq!((header.unique, header.nodeid), (token.unique(), NODE));

    let (_, taken) = post(&mut rig, read(2 * PAGE + 5), Payload::None);
    assert_eq!(lens(&taken.readable), [40, 40]);
    assert_eq!(lens(&taken.writable), [16, PAGE, PAGE, 5]);
}

#[test]
fn data_of_a_write_follows_its_arguments_in_pages() {
    let mut rig = rig(64, 64, FEATURES);
    let data: Vec<u8> = (0..PAGE + 9).map(|n| n as u8).collect();
    let args = WriteIn {
        size: data.len() as u32,
        ..WriteIn::default()
    };
    let (_, taken) = post(&mut rig, Operation::Write(args), Payload::Copied(&data));
    assert_eq!(lens(&taken.readable), [40, 40, PAGE, 9]);
    assert_eq!(lens(&taken.writable), [16, 8]);
    assert_eq!(rig.device.request(&taken)[80..], data);
}

#[test]
fn a_forget_is_one_buffer_and_completes_without_a_reply() {
    let mut rig = rig(64, 64, FEATURES);
    let forget = Operation::Forget(ForgetIn { nlookup: 1 });
    let (token, taken) = post(&mut rig, forget, Payload::None);
    assert!(!taken.indirect);
    assert_eq!(lens(&taken.readable), [48]);
    assert_eq!(lens(&taken.writable), [0; 0]);
    rig.device.reply(&taken, &[]);
    let mut completion = rig.queue.wait().unwrap();
    assert_eq!(completion.token(), token);
    assert_eq!(completion.reply().unwrap(), Reply::Empty);
}

#[test]
fn without_indirect_a_chain_is_in_the_table_itself() {
    let features = RingFeatures {
        indirect: false,
        ..FEATURES
    };
    let mut rig = rig(4, 8, features);
    let (_, taken) = post(&mut rig, GETATTR, Payload::None);
    assert!(!taken.indirect);
    assert_eq!(lens(&taken.readable), [40, 16]);
    assert!(matches!(
        rig.queue.submit(NODE, GETATTR, Payload::None),
        Err(Error::QueueFull)
    ));
    rig.queue.reset();
    // As long as the ring, it takes neighbours together.
    let args = WriteIn {
        size: PAGE as u32,
        ..WriteIn::default()
    };
    let payload = Payload::Stale(PAGE);
    rig.queue
        .submit(NODE, Operation::Write(args), payload)
        .unwrap();
}

#[test]
fn a_reply_is_decoded_and_its_data_can_be_taken_from_where_it_lies() {
    let mut rig = rig(64, 64, FEATURES);
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device.reply(&taken, &attr_reply(token.unique()));
    let mut completion = rig.queue.wait().unwrap();
    assert_eq!(completion.reply().unwrap(), Reply::Attr(AttrOut::default()));
    drop(completion);

    let data: Vec<u8> = (0..PAGE + 100).map(|n| (n % 251) as u8).collect();
    let (token, taken) = post(&mut rig, read(3 * PAGE), Payload::None);
    let len = 16 + data.len() as u32;
    rig.device
        .reply(&taken, &message(token.unique(), 0, len, &data));
    let completion = rig.queue.wait().unwrap();
    assert_eq!(completion.result().unwrap(), data.len());
    let mut tail = vec![0; 2 * PAGE];
    let copied = completion.copy_to(PAGE - 50, &mut tail);
    assert_eq!(tail[..copied], data[PAGE - 50..]);
    let lens: Vec<usize> = completion.slices().map(|slice| slice.len()).collect();
    assert_eq!(lens, [PAGE, 100]);
}

#[test]
fn an_error_is_the_filesystems_answer() {
    let mut rig = rig(64, 64, FEATURES);
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device
        .reply(&taken, &message(token.unique(), -2, 16, &[]));
    let completion = rig.queue.wait().unwrap();
    assert_eq!(
        completion.result().unwrap_err().errno(),
        Some(Errno::ENOENT)
    );
}

/// The rule that a device broke which answers GETATTR so.
fn rule_broken_by(answer: impl FnOnce(&mut Rig, &Taken, u64)) -> ProtocolError {
    let mut rig = rig(64, 64, FEATURES);
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    answer(&mut rig, &taken, token.unique());
    let result = match rig.queue.wait() {
        Ok(completion) => completion.result().map(|_| ()),
        Err(e) => Err(e),
    };
    match result {
        Err(Error::Protocol(rule)) => rule,
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_reply_that_linux_would_refuse_is_refused() {
    use fuse_wire::ReplyError;

    let body = AttrOut::default();
    let body = body.as_bytes();
    let whole = (16 + ATTR_OUT) as u32;
    let reply = |message: fn(u64, &[u8]) -> Vec<u8>| {
        rule_broken_by(|rig, taken, unique| rig.device.reply(taken, &message(unique, body)))
    };
    assert_eq!(
        reply(|_, _| Vec::new()),
        ProtocolError::Reply(ReplyError::TruncatedHeader(0))
    );
    assert_eq!(
        reply(|unique, _| message(unique, 0, 16, &[])),
        ProtocolError::Reply(ReplyError::Truncated)
    );
    assert_eq!(
        reply(|unique, body| message(unique, 0, 16, body)),
        ProtocolError::Reply(ReplyError::Length {
            header: 16,
            actual: 16 + ATTR_OUT
        })
    );
    assert_eq!(
        reply(|unique, body| message(unique, -2, 16 + body.len() as u32, body)),
        ProtocolError::Reply(ReplyError::BodyAfterError(ATTR_OUT))
    );
    for error in [1, 2, -512, i32::MIN] {
        let rule = rule_broken_by(|rig, taken, unique| {
            rig.device.reply(taken, &message(unique, error, 16, &[]));
        });
        assert_eq!(rule, ProtocolError::Reply(ReplyError::Error(error)));
    }
    let rule = rule_broken_by(|rig, taken, unique| {
        rig.device
            .reply(taken, &message(unique + 2, 0, whole, body));
    });
    assert!(matches!(rule, ProtocolError::Unique { .. }));
    let rule = rule_broken_by(|rig, taken, _| {
        rig.device.put_used(u32::from(taken.head), whole + 1);
        rig.device.interrupt();
    });
    assert_eq!(
        rule,
        ProtocolError::UsedLength {
            used: whole + 1,
            room: whole
        }
    );
}

#[test]
fn a_bad_reply_costs_its_own_request_only() {
    let mut rig = rig(64, 64, FEATURES);
    let (_, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device.reply(&taken, &message(1, 0, 3, &[]));
    assert!(rig.queue.wait().unwrap().result().is_err());
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device.reply(&taken, &attr_reply(token.unique()));
    assert!(rig.queue.wait().unwrap().result().is_ok());
}

#[test]
fn a_wrong_used_ring_breaks_the_queue_until_it_is_reset() {
    let mut rig = rig(64, 64, FEATURES);
    let (_, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device.put_used(u32::from(taken.head) + 1, 16);
    rig.device.interrupt();
    let broken = |e: Error| matches!(e, Error::Protocol(ProtocolError::UsedId(_)));
    assert!(broken(rig.queue.wait().unwrap_err()));
    assert!(broken(
        rig.queue.submit(NODE, GETATTR, Payload::None).unwrap_err()
    ));
    rig.queue.reset();
    assert!(rig.queue.submit(NODE, GETATTR, Payload::None).is_ok());
}

#[test]
fn a_chain_used_twice_is_caught() {
    let mut rig = rig(64, 64, FEATURES);
    let (token, taken) = post(&mut rig, GETATTR, Payload::None);
    rig.device.reply(&taken, &attr_reply(token.unique()));
    rig.device.reply(&taken, &attr_reply(token.unique()));
    assert!(rig.queue.wait().is_ok());
    assert!(matches!(
        rig.queue.wait(),
        Err(Error::Protocol(ProtocolError::UsedId(_)))
    ));
}

#[test]
fn the_device_decides_about_kicks() {
    let mut rig = rig(64, 64, FEATURES);
    post(&mut rig, GETATTR, Payload::None);
    assert!(rig.device.kicked());
    // Its wish is for the first entry still.
    post(&mut rig, GETATTR, Payload::None);
    assert!(!rig.device.kicked());
    rig.device.set_avail_event(2);
    post(&mut rig, GETATTR, Payload::None);
    assert!(rig.device.kicked());

    let features = RingFeatures {
        event_idx: false,
        ..FEATURES
    };
    let mut rig = self::rig(64, 64, features);
    rig.device.set_used_flags(1);
    post(&mut rig, GETATTR, Payload::None);
    assert!(!rig.device.kicked());
    rig.device.set_used_flags(0);
    post(&mut rig, GETATTR, Payload::None);
    assert!(rig.device.kicked());
}

#[test]
fn an_interrupt_is_asked_for_where_the_ring_was_drained() {
    let mut rig = rig(64, 64, FEATURES);
    for drained in 0..3 {
        assert_eq!(rig.device.used_event(), drained);
        let (token, taken) = post(&mut rig, GETATTR, Payload::None);
        rig.device.reply(&taken, &attr_reply(token.unique()));
        assert!(rig.queue.wait().is_ok());
        assert!(rig.queue.poll().unwrap().is_none());
    }
}

#[test]
fn notifications_are_counted() {
    let mut rig = rig(64, 64, FEATURES);
    // The device wants to know of the first and of no other.
    let chains = [(); 3].map(|()| post(&mut rig, GETATTR, Payload::None));
    for (token, taken) in &chains {
        rig.device.reply(taken, &attr_reply(token.unique()));
    }
    assert!(rig.queue.wait().is_ok());
    let seen = rig.queue.notifications();
    assert_eq!(seen, Notifications { kicks: 1, calls: 3 });
    while rig.queue.poll().unwrap().is_some() {}
    assert_eq!(rig.queue.notifications(), seen);
}

#[test]
fn waits_end() {
    let mut rig = rig(64, 64, FEATURES);
    rig.queue.set_timeout(Duration::from_millis(1));
    let (_, taken) = post(&mut rig, GETATTR, Payload::None);
    assert!(matches!(rig.queue.wait(), Err(Error::Timeout { .. })));
    rig.device.put_used(u32::from(taken.head), 0);
    assert!(matches!(
        rig.queue.wait(),
        Err(Error::Protocol(ProtocolError::MissingInterrupt))
    ));
    rig.queue.set_timeout(Duration::from_secs(60));
    let Rig { mut queue, device } = rig;
    drop(device);
    assert!(matches!(queue.wait(), Err(Error::Disconnected)));
}

#[test]
fn pages_come_back_whatever_becomes_of_a_request() {
    let mut rig = rig(64, 8, FEATURES);
    for round in 0..20 {
        let (token, taken) = post(&mut rig, read(6 * PAGE), Payload::None);
        // Two pages are left: not enough, and none may be lost.
        assert!(matches!(
            rig.queue.submit(NODE, read(3 * PAGE), Payload::None),
            Err(Error::QueueFull)
        ));
        let unique = token.unique() + round % 2;
        rig.device.reply(&taken, &message(unique, -5, 16, &[]));
        assert!(rig.queue.wait().unwrap().result().is_err());
    }
    assert!(
        rig.queue
            .submit(NODE, read(8 * PAGE), Payload::None)
            .is_ok()
    );
}

#[test]
fn long_arguments_and_long_replies_go_to_pages() {
    let mut rig = rig(64, 64, FEATURES);
    let name = XattrName::new(c"user.a").unwrap();
    let args = GetxattrIn {
        size: 2 * PAGE as u32,
        padding: 0,
    };
    let (_, taken) = post(&mut rig, Operation::GetXattr { args, name }, Payload::None);
    assert_eq!(lens(&taken.writable), [16, PAGE, PAGE]);

    let value = vec![3; 2 * PAGE];
    let args = fuse_wire::abi::SetxattrIn {
        size: value.len() as u32,
        ..FromZeros::new_zeroed()
    };
    let operation = Operation::SetXattr {
        args,
        name,
        value: &value,
    };
    let (_, taken) = post(&mut rig, operation, Payload::None);
    assert_eq!(lens(&taken.readable), [40, PAGE, PAGE, 8 + 7]);
    assert_eq!(rig.device.request(&taken)[40 + 8 + 7..], value);
}

#[test]
fn hundreds_in_flight_complete_in_any_order() {
    let mut rig = rig(256, 16, FEATURES);
    let mut taken: Vec<(Token, Taken)> = (0..256)
        .map(|_| post(&mut rig, GETATTR, Payload::None))
        .collect();
    assert!(matches!(
        rig.queue.submit(NODE, GETATTR, Payload::None),
        Err(Error::QueueFull)
    ));
    taken.reverse();
    taken.rotate_left(100);
    for (token, taken) in &taken {
        rig.device.reply(taken, &attr_reply(token.unique()));
    }
    for (token, _) in &taken {
        let completion = rig.queue.wait().unwrap();
        assert_eq!(completion.token(), *token);
        completion.result().unwrap();
    }
    assert_eq!(rig.queue.in_flight(), 0);
}

#[test]
fn call_wants_the_queue_for_itself() {
    let mut rig = rig(64, 64, FEATURES);
    post(&mut rig, GETATTR, Payload::None);
    assert!(matches!(
        rig.queue.call(NODE, GETATTR, Payload::None),
        Err(Error::Busy)
    ));
}
