//! A guest that sends whatever it likes: the session answers each request in order, and nothing
//! outside of the share is touched.

mod common;

use std::os::unix::fs::MetadataExt;

use common::is_root;
use fuse_fs::*;
use passthrough_fs::{Config, Feature, PassthroughFs, Xattr};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;

const INIT: u32 = 26;

/// A request, as a guest could build it.
#[derive(Debug, Clone)]
struct Request {
    opcode: u32,
    node: u64,
    /// Of the caller.
    ids: (u32, u32),
    /// The arguments, as far as they are numbers.
    words: Vec<u64>,
    /// What follows them: names, with or without their NUL.
    tail: Vec<u8>,
    /// Bytes that are there to be written.
    payload: usize,
    /// Bytes that there is room for in the reply.
    room: usize,
    blocking: bool,
}

const WRITE: u32 = 16;
const FALLOCATE: u32 = 43;
const COPY_FILE_RANGE: u32 = 47;
const COPY_FILE_RANGE_64: u32 = 53;
/// The numbers, in words, that the arguments of each operation are, and how many strings follow.
const FORMS: [(u32, usize, usize); 37] = [
    (1, 0, 1),
    (2, 1, 0),
    (3, 2, 0),
    (4, 11, 0),
    (5, 0, 0),
    (6, 0, 2),
    (8, 2, 1),
    (9, 1, 1),
    (10, 0, 1),
    (11, 0, 1),
    (12, 1, 2),
    (13, 1, 1),
    (14, 1, 0),
    (15, 5, 0),
    (WRITE, 5, 0),
    (17, 0, 0),
    (18, 3, 0),
    (20, 2, 0),
    (21, 2, 1),
    (22, 1, 1),
    (23, 1, 0),
    (24, 0, 1),
    (25, 3, 0),
    (27, 1, 0),
    (28, 5, 0),
    (29, 3, 0),
    (30, 2, 0),
    (31, 6, 0),
    (34, 1, 0),
    (35, 2, 1),
    (39, 4, 0),
    (FALLOCATE, 4, 0),
    (44, 5, 0),
    (45, 2, 2),
    (46, 3, 0),
    (COPY_FILE_RANGE, 7, 0),
    (51, 2, 0),
];

/// Most are well-formed, so that they reach the filesystem.
fn request() -> impl Strategy<Value = Request> {
    let well_formed = select(FORMS.to_vec());
    let any_form = (any::<u32>(), 0..14_usize, 0..3_usize);
    let form = prop_oneof![9 => well_formed, 1 => any_form];
    let node = prop_oneof![8 => 0..8_u64, 1 => any::<u64>()];
    let id = || select(vec![0, 0, 0, 1000, u32::MAX]);
    // Two numbers of 32 bits: flags and a mode.
    let pair = (0..0o10_u64, 0..0o200_000_u64).prop_map(|(low, high)| low | high << 32);
    let word = prop_oneof![
        8 => select(vec![0, 1, 2, 3, 4, 7, 512, 4096, 65_536, 1 << 63, u64::MAX]),
        2 => 0..0o200_000_u64,
        2 => pair,
        1 => any::<u64>(),
    ];
    let string = select(vec![
        &b"a\0"[..],
        b"b\0",
        b"c\0",
        b"d\0",
        b"..\0",
        b".\0",
        b"../secret\0",
        b"/etc/passwd\0",
        b"user.x\0value",
        b"security.capability\0",
        b"system.posix_acl_access\0",
        b"no end",
        b"\0",
    ]);
    let sizes = (0..70_000_usize, select(vec![0, 15, 16, 100, 4096, 70_000]));
    (
        form,
        node,
        (id(), id()),
        vec(word, 14),
        vec(string, 2),
        sizes,
        any::<bool>(),
    )
        .prop_map(
            |((opcode, words, strings), node, ids, all, tail, (payload, room), blocking)| Request {
                opcode,
                node,
                ids,
                words: harmless(opcode, &all[..words], payload),
                tail: tail[..strings.min(2)].concat(),
                payload: if opcode == WRITE { payload } else { 0 },
                room,
                blocking,
            },
        )
}

/// Takes back what would fill the disk, which a guest may. A WRITE says how much it carries.
fn harmless(opcode: u32, words: &[u64], payload: usize) -> Vec<u64> {
    let mut words = words.to_vec();
    let length = match opcode {
        FALLOCATE => words.get_mut(2),
        COPY_FILE_RANGE | COPY_FILE_RANGE_64 => words.get_mut(5),
        _ => None,
    };
    if let Some(length) = length {
        *length &= 1 << 63 | 0xffff;
    }
    if opcode == WRITE
        && let Some(size) = words.get_mut(2)
    {
        *size = *size >> 32 << 32 | payload as u64;
    }
    words
}

fn message(request: &Request) -> Vec<u8> {
    let mut message = vec![0; 40];
    message.extend(request.words.iter().flat_map(|word| word.to_ne_bytes()));
    message.extend(&request.tail);
    let len = u32::try_from(message.len() + request.payload).unwrap();
    message[0..4].copy_from_slice(&len.to_ne_bytes());
    message[4..8].copy_from_slice(&request.opcode.to_ne_bytes());
    message[8..16].copy_from_slice(&7_u64.to_ne_bytes());
    message[16..24].copy_from_slice(&request.node.to_ne_bytes());
    message[24..28].copy_from_slice(&request.ids.0.to_ne_bytes());
    message[28..32].copy_from_slice(&request.ids.1.to_ne_bytes());
    message
}

/// Sends a request and checks the form of what comes back.
fn ask(session: &dyn Serve, request: &Request) {
    let message = message(request);
    let payload = vec![b'p'; request.payload];
    for blocking in [Blocking::Forbidden, Blocking::Allowed] {
        if request.blocking && blocking == Blocking::Forbidden {
            continue;
        }
        let mut reply = vec![0; REPLY_BUFFER];
        let mut room = vec![0; request.room];
        let outcome = session.serve(
            &message,
            &mut BufferSource::new(&payload),
            Some(&mut BufferSink::new(&mut room)),
            &mut reply,
            blocking,
        );
        match outcome {
            Outcome::Reply { head, .. } => {
                assert!((16..=REPLY_BUFFER).contains(&head), "{request:?}");
                let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
                assert!((-511..=0).contains(&error), "{error} to {request:?}");
                assert_eq!(reply[8..16], 7_u64.to_ne_bytes());
                return;
            }
            Outcome::WouldBlock if blocking == Blocking::Allowed => {
                panic!("what may wait says that it may not: {request:?}")
            }
            Outcome::WouldBlock => {}
            _ => return,
        }
    }
}

fn begin(session: &dyn Serve) {
    let words = [
        7 | 45 << 32,
        1 << 20 | u64::from(u32::MAX) << 32,
        u32::MAX.into(),
    ];
    let mut words = words.to_vec();
    words.resize(8, 0);
    ask(
        session,
        &Request {
            opcode: INIT,
            node: 0,
            ids: (0, 0),
            words,
            tail: Vec::new(),
            payload: 0,
            room: 4096,
            blocking: true,
        },
    );
}

fn check(configure: fn(Config) -> Config, requests: &[Request]) {
    let outer = TempDir::new().unwrap();
    let (share, secret) = (outer.path().join("share"), outer.path().join("secret"));
    std::fs::create_dir(&share).unwrap();
    std::fs::write(&secret, "secret").unwrap();
    std::fs::write(share.join("a"), "content").unwrap();
    std::fs::create_dir(share.join("b")).unwrap();
    std::os::unix::fs::symlink("../secret", share.join("c")).unwrap();
    let before = std::fs::metadata(&secret).unwrap();
    // A thread of its own: the share changes those that call it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let config = configure(Config::new(&share).xattr(Xattr::On));
            let session = Session::new(PassthroughFs::new(config).unwrap());
            begin(&session);
            requests.iter().for_each(|request| ask(&session, request));
        });
    });
    let after = std::fs::metadata(&secret).unwrap();
    let facts = |of: &std::fs::Metadata| {
        let times = (of.mtime_nsec(), of.ctime(), of.ctime_nsec());
        (of.ino(), of.mode(), of.uid(), of.nlink(), of.size(), times)
    };
    assert_eq!(facts(&before), facts(&after));
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn whatever_a_guest_sends_is_answered(requests in vec(request(), 1..100)) {
        check(|config| config, &requests);
    }

    #[test]
    fn whatever_a_guest_sends_is_answered_with_few_descriptors(requests in vec(request(), 1..100)) {
        check(|config| config.max_open_inodes(1).max_descriptors(4), &requests);
    }

    #[test]
    fn whatever_a_guest_sends_is_answered_with_acls(requests in vec(request(), 1..100)) {
        check(|config| config.posix_acl(Feature::Always), &requests);
    }
}

#[test]
fn ids_that_are_none_create_nothing() {
    if !is_root("ids_that_are_none_create_nothing") {
        return;
    }
    let share = TempDir::new().unwrap();
    let session = Session::new(PassthroughFs::new(Config::new(share.path())).unwrap());
    begin(&session);
    let mkdir = Request {
        opcode: 9,
        node: 1,
        ids: (u32::MAX, 0),
        words: vec![0o755],
        tail: b"dir\0".to_vec(),
        payload: 0,
        room: 4096,
        blocking: true,
    };
    ask(&session, &mkdir);
    assert_eq!(std::fs::read_dir(share.path()).unwrap().count(), 0);
}
