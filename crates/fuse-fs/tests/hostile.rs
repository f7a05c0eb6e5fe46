//! Whatever a guest sends, the session answers by the rules and MemFs stays sound.

mod common;

use common::every::{data, operation};
use common::files::O_RDWR;
use common::{Answer, Guest, encode};
use fuse_fs::abi::InHeader;
use fuse_fs::{MemFs, NodeId, Serve, Session};
use fuse_wire::Opcode;
use proptest::prelude::*;
use proptest::sample::Index;

/// The request of [`operation`], with some of its words replaced.
#[derive(Debug, Clone)]
struct Noise {
    opcode: Opcode,
    node: u64,
    /// Where, in words of four bytes, and by what.
    changes: Vec<(Index, Vec<u8>)>,
    room: Option<usize>,
}

/// Values as they occur in arguments: small numbers are nodes, handles and flags that exist.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..10_u64).prop_map(|value| value.to_ne_bytes().to_vec()),
        4 => (0..4_u32).prop_map(|value| value.to_ne_bytes().to_vec()),
        2 => (0..20_000_u64).prop_map(|value| value.to_ne_bytes().to_vec()),
        1 => prop::sample::select(vec![u64::MAX, 1 << 63, i64::MAX as u64, 1 << 32])
            .prop_map(|value| value.to_ne_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
    ]
}

fn noise() -> impl Strategy<Value = Noise> {
    let changes = prop::collection::vec((any::<Index>(), value()), 0..4);
    let room = prop_oneof![
        20 => Just(Some(8192)),
        1 => (0..200_usize).prop_map(Some),
        1 => Just(None),
    ];
    let opcode = prop::sample::select(Opcode::ALL).prop_filter("ends what is to be tested", |op| {
        !matches!(op, Opcode::Init | Opcode::Destroy)
    });
    (opcode, 1..6_u64, changes, room).prop_map(|(opcode, node, changes, room)| Noise {
        opcode,
        node,
        changes,
        room,
    })
}

/// Two open files, an open root, and a directory. What they got is in [`handle_of`].
fn set_up(guest: &Guest<'_>) {
    let root = guest.opendir(NodeId::ROOT).unwrap();
    let one = guest.create(NodeId::ROOT, "name", O_RDWR).unwrap();
    let other = guest.create(NodeId::ROOT, "new name", O_RDWR).unwrap();
    guest.mkdir(NodeId::ROOT, "c").unwrap();
    for open in [root, one, other] {
        assert_eq!(handle_of(open.node.0), open.handle.0);
    }
}

/// The handle that was opened of `node`, if one was.
fn handle_of(node: u64) -> u64 {
    if node <= 3 { node } else { 0 }
}

/// Whether the arguments start with a handle.
fn starts_with_handle(opcode: Opcode) -> bool {
    use Opcode::*;
    matches!(
        opcode,
        Read | Write
            | Release
            | FSync
            | Flush
            | ReadDir
            | ReadDirPlus
            | ReleaseDir
            | FSyncDir
            | LSeek
            | FAllocate
            | CopyFileRange
            | CopyFileRange64
            | Ioctl
            | Poll
    )
}

fn send(guest: &mut Guest<'_>, noise: &Noise) -> Answer {
    let payload = data(noise.opcode);
    let node = NodeId(noise.node);
    let mut message = encode(node, operation(noise.opcode), payload.len(), guest.agreed);
    let arguments = &mut message[size_of::<InHeader>()..];
    let handle = handle_of(noise.node).to_ne_bytes();
    if starts_with_handle(noise.opcode) {
        arguments[..8].copy_from_slice(&handle);
    }
    if matches!(
        noise.opcode,
        Opcode::CopyFileRange | Opcode::CopyFileRange64
    ) {
        arguments[16..24].copy_from_slice(&noise.node.to_ne_bytes());
        arguments[24..32].copy_from_slice(&handle);
    }
    for (at, value) in &noise.changes {
        if !arguments.is_empty() {
            let start = at.index(arguments.len()) / 4 * 4;
            let places = arguments[start..].iter_mut();
            places.zip(value).for_each(|(place, byte)| *place = *byte);
        }
    }
    guest.sending.room = noise.room;
    guest.send(&message, payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn noise_is_answered_by_the_rules(all in prop::collection::vec(noise(), 1..200)) {
        let session = Session::new(MemFs::with_limit(1 << 20));
        let mut guest = Guest::begun(&session);
        set_up(&guest);
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
        guest.names(NodeId::ROOT);
        guest.getattr(NodeId::ROOT).unwrap();
    }
}
