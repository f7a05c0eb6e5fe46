//! Through a session: what INIT agrees on, and what requests carry besides their arguments.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::*;
use fuse_fs::*;
use passthrough_fs::{Config, PassthroughFs};

const INIT: u32 = 26;
const CREATE: u32 = 35;
const INIT_EXT: u64 = 1 << 30;
const SUBMOUNTS: u64 = 1 << 27;
const KILLPRIV_V2: u64 = 1 << 28;
const CREATE_SUPP_GROUP: u64 = 1 << 34;
const EXT_GROUPS: u32 = 32;

/// Sends a request of root's and returns the reply.
fn ask(
    session: &dyn Serve,
    opcode: u32,
    ids: (u32, u32),
    arguments: &[u8],
    extension: &[u8],
) -> Vec<u8> {
    let len = u32::try_from(40 + arguments.len() + extension.len()).unwrap();
    let mut message = Vec::new();
    for word in [len, opcode, 1, 0, 1, 0, ids.0, ids.1, 0] {
        message.extend(word.to_ne_bytes());
    }
    let extension_units = u16::try_from(extension.len() / 8).unwrap();
    message.extend(extension_units.to_ne_bytes());
    message.extend([0; 2]);
    message.extend(arguments);
    message.extend(extension);
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
        Outcome::Reply { head, .. } => reply[..head].to_vec(),
        other => panic!("{other:?}"),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Begins a session with a guest that offers everything, and returns what was agreed on.
fn begin(session: &dyn Serve) -> u64 {
    let mut init = words(&[7, 45, 1 << 20, u32::MAX, u32::MAX]);
    init.resize(64, 0);
    let reply = ask(session, INIT, (0, 0), &init, &[]);
    assert_eq!(word(&reply, 4), 0, "no error");
    u64::from(word(&reply, 28)) | u64::from(word(&reply, 16 + 32)) << 32
}

#[test]
fn a_session_agrees_on_what_the_share_can_do() {
    let outer = tempfile::TempDir::new().unwrap();
    for (xattr, kills) in [
        (passthrough_fs::Xattr::Off, 0),
        (passthrough_fs::Xattr::On, KILLPRIV_V2),
    ] {
        let config = Config::new(outer.path()).xattr(xattr);
        let session = Session::new(PassthroughFs::new(config).unwrap());
        let agreed = begin(&session);
        assert_eq!(agreed & (SUBMOUNTS | INIT_EXT), SUBMOUNTS | INIT_EXT);
        assert_eq!(agreed & CREATE_SUPP_GROUP, CREATE_SUPP_GROUP);
        assert_eq!(agreed & KILLPRIV_V2, kills);
    }
}

#[test]
fn the_group_that_comes_with_a_request_counts_for_sgid() {
    if !is_root("the_group_that_comes_with_a_request_counts_for_sgid") {
        return;
    }
    let outer = tempfile::TempDir::new().unwrap();
    chown(outer.path(), None, Some(77)).unwrap();
    let sgid = std::fs::Permissions::from_mode(0o2777);
    std::fs::set_permissions(outer.path(), sgid).unwrap();
    let session = Session::new(PassthroughFs::new(Config::new(outer.path())).unwrap());
    begin(&session);
    let group = |gid| words(&[16, EXT_GROUPS, 1, gid]);
    for (name, extension, kept) in [
        ("with", group(77), 0o2000),
        ("wrong", group(78), 0),
        ("none", vec![], 0),
        ("odd", group(u32::MAX), 0),
        ("again", group(77), 0o2000),
    ] {
        let mut arguments = words(&[RDWR, 0o102_755, 0, 0]);
        arguments.extend(name.bytes());
        arguments.push(0);
        let reply = ask(&session, CREATE, (1234, 2345), &arguments, &extension);
        if name == "odd" {
            assert_eq!(word(&reply, 4).cast_signed(), -Errno::EINVAL.raw());
            continue;
        }
        assert_eq!(word(&reply, 4), 0, "{name}");
        let host = std::fs::metadata(outer.path().join(name)).unwrap();
        assert_eq!((host.uid(), host.gid()), (1234, 77));
        assert_eq!(host.mode() & 0o2000, kept, "{name}");
    }
    assert!(rustix::process::getgroups().unwrap().is_empty());
}
