//! Its passthrough filesystem behind our device: every operation, seen from the guest and from the
//! host.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use fuse_wire::abi::{FileLock, SetattrIn};
use fuse_wire::flags::{FsyncFlags, InitFlags, RenameFlags, SetattrValid};
use fuse_wire::{Errno, Handle, NodeId};
use support::{Guest, O_RDWR, ROOT, config, errno, passthrough, pattern};
use tempfile::TempDir;

const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

fn shared() -> (TempDir, Guest) {
    let root = TempDir::new().unwrap();
    let guest = Guest::start(passthrough(config(root.path())));
    (root, guest)
}

#[test]
fn a_file_keeps_what_is_written() {
    let (root, mut guest) = shared();
    // Beyond one request, and not in whole pages.
    let content = pattern(3_000_001);
    let (entry, opened) = guest.create(ROOT, c"file");
    let node = entry.nodeid;
    assert_eq!(entry.attr.mode, 0o100_640);
    guest.write_all(node, opened.fh, &content);
    guest.mount.flush(node, opened.fh, 1).unwrap();
    let data_only = FsyncFlags::FDATASYNC;
    guest.mount.fsync(node, opened.fh, data_only).unwrap();
    guest.mount.release(node, opened.fh).unwrap();

    assert!(fs::read(root.path().join("file")).unwrap() == content);
    assert!(guest.content(&[c"file"]) == content);
    let size = guest.mount.getattr(node, None).unwrap().attr.size;
    assert_eq!(size, content.len() as u64);
}

#[test]
fn a_read_stops_at_the_end_and_a_bad_handle_is_ebadf() {
    let (root, mut guest) = shared();
    fs::write(root.path().join("file"), "hello").unwrap();
    let node = guest.walk(&[c"file"]).unwrap();
    let handle = guest.open(node, 0);
    let mut buffer = [0xaa; 64];
    let read = guest.mount.read(node, handle, 2, &mut buffer).unwrap();
    assert_eq!(&buffer[..read], b"llo");
    assert!(buffer[read..].iter().all(|&byte| byte == 0xaa));
    assert_eq!(guest.mount.read(node, handle, 5, &mut buffer).unwrap(), 0);
    let unknown = Handle(u64::MAX);
    let read = guest.mount.read(node, unknown, 0, &mut buffer);
    assert_eq!(errno(read), Errno::EBADF);
    // What is open for reading only cannot be written to.
    let written = guest.mount.write(node, handle, 0, b"x");
    assert_eq!(errno(written), Errno::EBADF);
}

#[test]
fn attributes_can_be_set() {
    let (root, mut guest) = shared();
    let (entry, opened) = guest.create(ROOT, c"file");
    guest.write_all(entry.nodeid, opened.fh, b"hello");
    let mut set = SetattrIn {
        valid: SetattrValid::SIZE | SetattrValid::MODE | SetattrValid::MTIME,
        size: 3,
        mode: 0o100_600,
        mtime: (-5_i64).cast_unsigned(),
        mtimensec: 123_456_789,
        ..Default::default()
    };
    let attr = guest.mount.setattr(entry.nodeid, set).unwrap().attr;
    assert_eq!((attr.size, attr.mode), (3, 0o100_600));
    assert_eq!(
        (attr.mtime.cast_signed(), attr.mtimensec),
        (-5, 123_456_789)
    );
    let host = fs::metadata(root.path().join("file")).unwrap();
    assert_eq!((host.mtime(), host.mtime_nsec()), (-5, 123_456_789));

    // By way of a handle, which has to be known.
    set.valid = SetattrValid::SIZE | SetattrValid::FH;
    (set.size, set.fh) = (7, opened.fh);
    assert_eq!(guest.mount.setattr(entry.nodeid, set).unwrap().attr.size, 7);
    set.fh = Handle(u64::MAX);
    assert_eq!(errno(guest.mount.setattr(entry.nodeid, set)), Errno::EBADF);
}

#[test]
fn names_come_and_go() {
    let (root, mut guest) = shared();
    let directory = guest.mount.mkdir(ROOT, c"directory", 0o755).unwrap().nodeid;
    let (entry, opened) = guest.create(directory, c"old");
    let mount = &mut guest.mount;
    mount
        .rename((directory, c"old"), (ROOT, c"new"), RenameFlags::NOREPLACE)
        .unwrap();
    mount.mkdir(ROOT, c"other", 0o700).unwrap();
    let (file, other) = ((ROOT, c"new"), (ROOT, c"other"));
    let refused = mount.rename(file, other, RenameFlags::NOREPLACE);
    assert_eq!(errno(refused), Errno::EEXIST);
    mount.rename(file, other, RenameFlags::EXCHANGE).unwrap();
    assert!(root.path().join("new").is_dir());

    mount.symlink(ROOT, c"link", c"other/than it").unwrap();
    let link = mount.lookup(ROOT, c"link").unwrap().nodeid;
    assert_eq!(mount.readlink(link).unwrap(), b"other/than it");
    mount.mknod(ROOT, c"pipe", 0o010_644, 0).unwrap();
    let pipe = fs::symlink_metadata(root.path().join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo());

    mount.unlink(ROOT, c"other").unwrap();
    assert_eq!(errno(mount.lookup(ROOT, c"other")), Errno::ENOENT);
    assert_eq!(errno(mount.unlink(ROOT, c"directory")), Errno::EISDIR);
    mount.rmdir(ROOT, c"directory").unwrap();
    assert_eq!(errno(mount.rmdir(ROOT, c"directory")), Errno::ENOENT);
    // What is open is there without a name.
    guest.write_all(entry.nodeid, opened.fh, b"still here");
    let content = guest.read_all(entry.nodeid, opened.fh);
    assert_eq!(content, b"still here");
    assert_eq!(guest.names(ROOT), ["link", "new", "pipe"]);
}

#[test]
fn a_hard_link_is_the_same_file() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (_root, mut guest) = shared();
    let (entry, _) = guest.create(ROOT, c"one");
    let linked = guest.mount.link(entry.nodeid, ROOT, c"two").unwrap();
    assert_eq!(linked.nodeid, entry.nodeid);
    assert_eq!(linked.attr.nlink, 2);
}

#[test]
fn device_numbers_are_packed_as_the_kernel_packs_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (root, mut guest) = shared();
    let (major, minor) = (0x123, 0xabcde);
    let packed = (minor & 0xff) | major << 8 | (minor & !0xff) << 12;
    let made = guest.mount.mknod(ROOT, c"node", 0o020_600, packed).unwrap();
    assert_eq!(made.attr.rdev, packed);
    let host = fs::metadata(root.path().join("node")).unwrap().rdev();
    assert_eq!(rustix::fs::major(host), major);
    assert_eq!(rustix::fs::minor(host), minor);
}

#[test]
fn extended_attributes_and_their_sizes() {
    let (_root, mut guest) = shared();
    let (entry, _) = guest.create(ROOT, c"file");
    let (mount, node) = (&mut guest.mount, entry.nodeid);
    let name = c"user.test";
    match mount.setxattr(node, name, b"value", 0) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
            eprintln!("skipped: needs a filesystem with user.* attributes");
            return;
        }
        result => result.unwrap(),
    }
    assert_eq!(mount.getxattr(node, name).unwrap(), b"value");
    assert_eq!(mount.getxattr_size(node, name).unwrap(), 5);
    assert_eq!(mount.listxattr(node).unwrap(), b"user.test\0");
    mount.removexattr(node, name).unwrap();
    assert_eq!(errno(mount.getxattr(node, name)), Errno::ENODATA);
    assert_eq!(errno(mount.getxattr_size(node, name)), Errno::ENODATA);
}

#[test]
fn a_directory_is_listed_in_parts_and_each_entry_counts_one_lookup() {
    let (root, mut guest) = shared();
    let expected: Vec<_> = (0..50).map(|n| format!("file {n:02}")).collect();
    for name in &expected {
        fs::write(root.path().join(name), name).unwrap();
    }
    assert_eq!(guest.names(ROOT), expected);
    // Listed again: what did not fit was looked up and given back meanwhile.
    for found in guest.list(ROOT) {
        let entry = found.entry.unwrap();
        assert_eq!(entry.attr.size, 7);
        assert_eq!(entry.attr.ino, found.ino);
        // Twice for the two listings, and once more would be too much.
        guest.mount.forget(entry.nodeid, 1).unwrap();
        guest.mount.getattr(entry.nodeid, None).unwrap();
        guest.mount.forget(entry.nodeid, 1).unwrap();
        let gone = guest.mount.getattr(entry.nodeid, None);
        assert_eq!(errno(gone), Errno::EBADF);
    }
}

#[test]
fn listings_that_cannot_be_are_refused() {
    let (root, mut guest) = shared();
    fs::write(root.path().join("f".repeat(200)), "").unwrap();
    let mount = &mut guest.mount;
    let handle = mount.opendir(ROOT).unwrap().fh;
    // Nothing fits, which must not look like the end.
    for size in [1, 64, 200] {
        let listed = mount.readdirplus(ROOT, handle, 0, size);
        assert_eq!(errno(listed), Errno::EINVAL, "{size}");
    }
    for offset in [u64::MAX, 1 << 63] {
        let listed = mount.readdir(ROOT, handle, offset, 4096);
        assert_eq!(errno(listed), Errno::EINVAL);
    }
    assert_eq!(mount.readdir(ROOT, handle, 0, 4096).unwrap().len(), 1);
    mount.fsyncdir(ROOT, handle, FsyncFlags::empty()).unwrap();
    mount.releasedir(ROOT, handle).unwrap();
}

#[test]
fn holes_are_made_and_found() {
    let (_root, mut guest) = shared();
    let (entry, opened) = guest.create(ROOT, c"file");
    let (mount, node, handle) = (&mut guest.mount, entry.nodeid, opened.fh);
    mount.fallocate(node, handle, 0..4096, 0).unwrap();
    assert_eq!(mount.getattr(node, None).unwrap().attr.size, 4096);
    mount.write(node, handle, 1 << 32, b"far away").unwrap();
    let end = (1 << 32) + 8;
    assert_eq!(mount.lseek(node, handle, 1 << 32, SEEK_HOLE).unwrap(), end);
    let beyond = mount.lseek(node, handle, end, SEEK_DATA);
    assert_eq!(errno(beyond), Errno::ENXIO);
}

#[test]
fn what_it_lacks_is_told_so_that_the_guest_does_without() {
    let (_root, mut guest) = shared();
    let (entry, opened) = guest.create(ROOT, c"file");
    let (mount, node) = (&mut guest.mount, entry.nodeid);
    let lock = FileLock {
        end: 1,
        ..Default::default()
    };
    let locked = mount.setlk(node, opened.fh, 1, lock);
    assert_eq!(errno(locked), Errno::ENOSYS);
    assert_eq!(errno(mount.tmpfile(ROOT, O_RDWR, 0o600)), Errno::ENOSYS);
    assert_eq!(errno(mount.syncfs(ROOT)), Errno::ENOSYS);
    assert!(mount.statfs(ROOT).unwrap().blocks > 0);
    mount.access(node, 4).unwrap();
}

#[test]
fn only_what_it_asked_for_is_agreed_on_and_a_new_session_starts_afresh() {
    let (_root, mut guest) = shared();
    let agreed = guest.mount.limits().agreed;
    assert!(agreed.contains(InitFlags::DO_READDIRPLUS | InitFlags::MAX_PAGES));
    assert!(!agreed.intersects(InitFlags::AUTO_INVAL_DATA | InitFlags::SETXATTR_EXT));
    assert!(!agreed.intersects(InitFlags::WRITEBACK_CACHE | InitFlags::HAS_INODE_DAX));

    let (entry, opened) = guest.create(ROOT, c"file");
    guest.mount.remount(&Default::default()).unwrap();
    let stale = guest.mount.getattr(entry.nodeid, Some(opened.fh));
    assert_eq!(errno(stale), Errno::EBADF);
    assert_eq!(guest.names(ROOT), ["file"]);
    assert_eq!(errno(guest.mount.getattr(NodeId(0), None)), Errno::EBADF);
}

#[test]
fn a_create_does_not_open_what_a_link_points_to() {
    const O_PATH: u32 = 0o10_000_000;

    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let (root, mut guest) = shared();
    std::os::unix::fs::symlink(&secret, root.path().join("link")).unwrap();
    for flags in [O_PATH, O_PATH | O_RDWR] {
        let created = guest.mount.create(ROOT, c"link", flags, 0o100_600);
        assert_eq!(errno(created), Errno::EINVAL, "{flags:o}");
    }
}
