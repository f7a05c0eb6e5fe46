//! Attributes that are read and set by ioctl(2).

mod common;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;

const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
const SETFLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;

const NODUMP: u32 = 0x40;
const APPEND: u32 = 0x20;
const XFLAG_NODUMP: u32 = 0x80;

type Target = (NodeId, Handle, IoctlFlags);

/// Returns the output, for which there is room for `room` bytes.
fn ioctl(
    share: &Share,
    cx: &Context<'_>,
    (node, fh, flags): Target,
    cmd: u32,
    data: &[u8],
    room: usize,
) -> Result<Vec<u8>> {
    let args = IoctlIn {
        fh,
        flags,
        cmd,
        arg: 0x7fff_0000,
        in_size: data.len().try_into().unwrap(),
        out_size: room.try_into().unwrap(),
    };
    let mut buffer = vec![0; room];
    let (out, len) = share.fs.ioctl(cx, node, &args, data, &mut buffer)?;
    assert_eq!((out.result, out.flags), (0, IoctlFlags::empty()));
    buffer.truncate(len);
    Ok(buffer)
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(bytes[..4].try_into().unwrap())
}

/// A file and a directory; none where the host's filesystem has no such attributes.
fn targets(share: &Share, test: &str) -> Vec<Target> {
    let (node, fh) = share.file("file", b"", RDONLY);
    let file = (node, fh, IoctlFlags::empty());
    let (node, fh) = share.opendir(share.mkdir(&me(), "dir", 0o755).unwrap().node);
    let directory = (node, fh, IoctlFlags::DIR);
    match ioctl(share, &me(), file, GETFLAGS[0], &[], 4) {
        Ok(_) => vec![file, directory],
        Err(error) => {
            eprintln!("{test}: skipped: no attributes on the host: {error}");
            Vec::new()
        }
    }
}

#[test]
fn flags_are_read_and_set() {
    let share = Share::new();
    for target in targets(&share, "flags_are_read_and_set") {
        for (get, set) in GETFLAGS.into_iter().zip(SETFLAGS) {
            let ask = |cmd, data: &[u8], room| ioctl(&share, &me(), target, cmd, data, room);
            let before = word(&ask(get, &[], 4).unwrap());
            assert_eq!(before & NODUMP, 0);
            let changed = (before | NODUMP).to_ne_bytes();
            assert_eq!(ask(set, &changed, 0).unwrap(), []);
            assert_eq!(ask(get, &[], 4).unwrap(), changed);
            ask(set, &before.to_ne_bytes(), 0).unwrap();
        }
    }
}

#[test]
fn extended_flags_are_read_and_set() {
    let share = Share::new();
    for target in targets(&share, "extended_flags_are_read_and_set") {
        let ask = |cmd, data: &[u8], room| ioctl(&share, &me(), target, cmd, data, room);
        let mut fsxattr = ask(FSGETXATTR, &[], 28).unwrap();
        let changed = word(&fsxattr) | XFLAG_NODUMP;
        fsxattr[..4].copy_from_slice(&changed.to_ne_bytes());
        ask(FSSETXATTR, &fsxattr, 0).unwrap();
        assert_eq!(ask(FSGETXATTR, &[], 28).unwrap(), fsxattr);
        assert_ne!(word(&ask(GETFLAGS[0], &[], 4).unwrap()) & NODUMP, 0);
    }
}

#[test]
fn only_root_changes_what_protects_a_file() {
    const TEST: &str = "only_root_changes_what_protects_a_file";
    if !is_root(TEST) {
        return;
    }
    let share = Share::new();
    let (root, user) = (root(), user(1000, 1000));
    for target in targets(&share, TEST) {
        let ask = |cx, cmd, data: &[u8], room| ioctl(&share, cx, target, cmd, data, room);
        let before = ask(&root, GETFLAGS[0], &[], 4).unwrap();
        let protected = (word(&before) | APPEND).to_ne_bytes();
        let refused = ask(&user, SETFLAGS[0], &protected, 0);
        assert_eq!(errno(refused), Errno::EPERM);
        let mut fsxattr = ask(&user, FSGETXATTR, &[], 28).unwrap();
        fsxattr[0] |= 0x10;
        assert_eq!(errno(ask(&user, FSSETXATTR, &fsxattr, 0)), Errno::EPERM);
        match ask(&root, SETFLAGS[0], &protected, 0) {
            Ok(_) => {
                assert_eq!(errno(ask(&user, SETFLAGS[0], &before, 0)), Errno::EPERM);
                ask(&user, SETFLAGS[0], &protected, 0).unwrap();
                ask(&root, SETFLAGS[0], &before, 0).unwrap();
            }
            Err(error) => assert_eq!(error, Errno::EPERM.into(), "no CAP_LINUX_IMMUTABLE"),
        }
    }
}

#[test]
fn sizes_handles_and_commands_are_checked() {
    let share = Share::new();
    let (node, fh) = share.file("file", b"", RDWR);
    let file = (node, fh, IoctlFlags::empty());
    let ask = |target, cmd, data: &[u8], room| ioctl(&share, &me(), target, cmd, data, room);
    for room in [0, 3, 5, 8, 28] {
        assert_eq!(errno(ask(file, GETFLAGS[0], &[], room)), Errno::EINVAL);
    }
    for len in [0, 3, 5, 8] {
        assert_eq!(
            errno(ask(file, SETFLAGS[0], &[0; 8][..len], 0)),
            Errno::EINVAL
        );
    }
    assert_eq!(errno(ask(file, FSSETXATTR, &[0; 27], 0)), Errno::EINVAL);
    assert_eq!(errno(ask(file, FSGETXATTR, &[], 29)), Errno::EINVAL);
    let fionread = 0x541b;
    let ficlone = 0x4004_9409;
    for cmd in [0, fionread, ficlone, u32::MAX] {
        assert_eq!(errno(ask(file, cmd, &[0; 4], 4)), Errno::ENOTTY);
    }
    let as_directory = (node, fh, IoctlFlags::DIR);
    assert_eq!(errno(ask(as_directory, GETFLAGS[0], &[], 4)), Errno::EBADF);
    let of_other = (NodeId::ROOT, fh, IoctlFlags::empty());
    assert_eq!(errno(ask(of_other, GETFLAGS[0], &[], 4)), Errno::EBADF);
}
