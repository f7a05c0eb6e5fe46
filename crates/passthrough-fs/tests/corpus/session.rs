//! Through a session, in bytes, as a guest's kernel sends it.

use passthrough_fs::{Config, PassthroughFs};

use super::*;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const RENAME: u32 = 12;
const LINK: u32 = 13;
const INIT: u32 = 26;
const CREATE: u32 = 35;

/// Sends a request for the root and returns the error number of the reply.
fn ask(session: &dyn Serve, opcode: u32, arguments: &[u8]) -> i32 {
    let len = u32::try_from(40 + arguments.len()).unwrap();
    let mut message = Vec::new();
    for word in [len, opcode, 1, 0, 1, 0, 0, 0, 0, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(arguments);
    let mut reply = vec![0; REPLY_BUFFER];
    let mut room = vec![0; REPLY_BUFFER];
    let outcome = session.serve(
        &message,
        &mut BufferSource::new(&[]),
        Some(&mut BufferSink::new(&mut room)),
        &mut reply,
        Blocking::Allowed,
    );
    match outcome {
        Outcome::Reply { .. } => i32::from_ne_bytes(reply[4..8].try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn begin(config: Config) -> Session<PassthroughFs> {
    let session = Session::new(PassthroughFs::new(config).unwrap());
    let init = [7_u32, 45, 1 << 20, u32::MAX, u32::MAX];
    let mut init: Vec<u8> = init.iter().flat_map(|word| word.to_ne_bytes()).collect();
    init.resize(64, 0);
    assert_eq!(ask(&session, INIT, &init), 0);
    session
}

#[test]
fn operations_of_kernels_to_come_are_not_there_yet() {
    let share = tempfile::TempDir::new().unwrap();
    let session = begin(Config::new(share.path()));
    for opcode in [0, 7, 19, 200, 1000, 4096, 1 << 31, u32::MAX] {
        for arguments in [0, 8, 64, 4000] {
            let answer = ask(&session, opcode, &vec![0; arguments]);
            assert_eq!(answer, -Errno::ENOSYS.raw(), "{opcode}");
        }
        assert_eq!(ask(&session, GETATTR, &[0; 16]), 0);
    }
}

#[test]
fn names_that_are_too_long_or_lead_elsewhere() {
    let outer = tempfile::TempDir::new().unwrap();
    let share = outer.path().join("share");
    std::fs::create_dir(&share).unwrap();
    std::fs::write(outer.path().join("secret"), "").unwrap();
    let session = begin(Config::new(&share));
    let words = |count: usize| vec![0; count * 4];
    for (opcode, head, tail) in [
        (LOOKUP, words(0), &b""[..]),
        (SYMLINK, words(0), b"target\0"),
        (MKNOD, words(4), b""),
        (MKDIR, words(2), b""),
        (UNLINK, words(0), b""),
        (RMDIR, words(0), b""),
        (RENAME, 1_u64.to_ne_bytes().to_vec(), b"new\0"),
        (LINK, 1_u64.to_ne_bytes().to_vec(), b""),
        (CREATE, words(4), b""),
    ] {
        let with = |name: &[u8]| [&head, name, b"\0", tail].concat();
        let long = ask(&session, opcode, &with(&[b'x'; 256]));
        assert_eq!(long, -Errno::ENAMETOOLONG.raw(), "{opcode}");
        for name in [&b"../secret"[..], b"a/b", b"/etc/passwd", b""] {
            assert_ne!(ask(&session, opcode, &with(name)), 0, "{opcode} {name:?}");
        }
        if opcode != LOOKUP {
            for name in [&b".."[..], b"."] {
                assert_ne!(ask(&session, opcode, &with(name)), 0, "{opcode} {name:?}");
            }
        }
    }
    let target = [b"link\0".as_slice(), &[b'x'; 4096], b"\0"].concat();
    let answer = ask(&session, SYMLINK, &target);
    assert_eq!(answer, -Errno::ENAMETOOLONG.raw());
    assert_eq!(std::fs::read_dir(&share).unwrap().count(), 0);
    assert!(outer.path().join("secret").exists());
}
