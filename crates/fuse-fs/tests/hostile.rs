//! Whatever a guest sends, the session answers by the rules and MemFs stays sound.

mod common;

use common::{Answer, Guest, UNIQUE, encode};
use fuse_fs::abi::InHeader;
use fuse_fs::{MemFs, NodeId, Serve, Session};
use fuse_wire::{MAX_ARGUMENTS, Opcode, argument_len_before_payload};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// A request whose header is right and whose arguments are noise, or nearly right.
#[derive(Debug, Clone)]
struct Noise {
    opcode: Opcode,
    node: u64,
    arguments: Vec<u8>,
    room: Option<usize>,
}

/// Words as they occur in arguments: small numbers name nodes, handles and flags that exist.
fn word() -> impl Strategy<Value = [u8; 8]> {
    prop_oneof![
        4 => (0..8_u64).prop_map(u64::to_ne_bytes),
        2 => (0..20_000_u64).prop_map(u64::to_ne_bytes),
        1 => prop_oneof![Just(u64::MAX), Just(1 << 63), Just(i64::MAX as u64), Just(1 << 32)]
            .prop_map(u64::to_ne_bytes),
        1 => any::<[u8; 8]>(),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", ".", "..", "user.a"])
            .prop_map(|name| [name.as_bytes(), b"\0"].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn noise() -> impl Strategy<Value = Noise> {
    let words = prop::collection::vec(word(), 0..12).prop_map(|words| words.concat());
    let names = prop::collection::vec(name(), 0..3).prop_map(|names| names.concat());
    let room = prop_oneof![
        4 => Just(Some(8192)),
        1 => (0..200_usize).prop_map(Some),
        1 => Just(None),
    ];
    (
        prop::sample::select(Opcode::ALL),
        0..8_u64,
        words,
        names,
        room,
    )
        .prop_map(|(opcode, node, words, names, room)| Noise {
            opcode,
            node,
            arguments: [words, names].concat(),
            room,
        })
}

fn send(guest: &mut Guest<'_>, noise: &Noise) -> Answer {
    let header = InHeader {
        len: (size_of::<InHeader>() + noise.arguments.len()) as u32,
        opcode: noise.opcode.raw(),
        unique: UNIQUE,
        nodeid: NodeId(noise.node),
        ..Default::default()
    };
    let request = [header.as_bytes(), &noise.arguments].concat();
    let at = argument_len_before_payload(noise.opcode.raw()).unwrap_or(MAX_ARGUMENTS);
    let (message, payload) = request.split_at(at.min(request.len()));
    guest.sending.room = noise.room;
    guest.send(message, payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn noise_is_answered_by_the_rules(all in prop::collection::vec(noise(), 1..80)) {
        let session = Session::new(MemFs::with_limit(1 << 20));
        let mut guest = Guest::begun(&session);
        for opcode in [Opcode::MkDir, Opcode::Create, Opcode::Symlink, Opcode::Open] {
            let message = encode(NodeId::ROOT, common::every::operation(opcode), 0, guest.agreed);
            guest.send(&message, &[]);
        }
        for noise in &all {
            let answer = send(&mut guest, noise);
            if noise.room.is_none() || !noise.opcode.expects_reply() {
                prop_assert_eq!(answer, Answer::NoReply);
            } else {
                prop_assert!(matches!(answer, Answer::Body(_) | Answer::Error(_)));
            }
        }
        prop_assert_eq!(session.stats().faults, 0);
        prop_assert_eq!(session.stats().served, all.len() as u64 + 5);

        // The filesystem still works, and nothing is held once the session ends.
        session.reset();
        let guest = Guest::begun(&session);
        let inodes = session.filesystem().inode_count();
        let _ = guest.unlink(NodeId::ROOT, "still works");
        guest.create(NodeId::ROOT, "still works", 2).map(drop).or_else(|errno| {
            // Unless the guest has used up all there is.
            if errno == fuse_fs::Errno::ENOSPC { Ok(()) } else { Err(errno) }
        }).unwrap();
        prop_assert!(session.filesystem().inode_count() >= inodes);
    }
}
