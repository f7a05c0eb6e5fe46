//! Every operation, one at a time, against our own back-end and both of our filesystems.

mod support;

use fuse_wire::abi::{CopyFileRangeIn, EntryOut, FileLock, OpenOut, SetattrIn};
use fuse_wire::flags::{FsyncFlags, RenameFlags, SetattrValid};
use fuse_wire::{Errno, NodeId};
use support::Device;
use virtio_fs_guest::{Error, Mount, Options};

const ROOT: NodeId = NodeId::ROOT;
const RDWR: u32 = 2;
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFIFO: u32 = 0o010_000;

/// Does `test` with fresh filesystems, one in memory and one that is passed through.
fn mounted(test: impl Fn(&mut Mount)) {
    for device in [Device::start(), Device::start_passthrough()] {
        let mut mount = device.mount(&Options::default());
        test(&mut mount);
        mount.destroy().unwrap();
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    let error = result.unwrap_err();
    error.errno().unwrap_or_else(|| panic!("{error}"))
}

fn file_type(entry: &EntryOut) -> u32 {
    entry.attr.mode & S_IFMT
}

/// A file in the root, open, with `content`.
fn file(mount: &mut Mount, name: &std::ffi::CStr, content: &[u8]) -> (NodeId, OpenOut) {
    let (entry, opened) = mount.create(ROOT, name, RDWR, S_IFREG | 0o644).unwrap();
    let mut offset = 0;
    while offset < content.len() {
        offset += mount
            .write(entry.nodeid, opened.fh, offset as u64, &content[offset..])
            .unwrap();
    }
    (entry.nodeid, opened)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn the_root_is_a_directory_and_what_is_not_there_is_enoent() {
    mounted(|mount| {
        let attr = mount.getattr(ROOT, None).unwrap().attr;
        assert_eq!(attr.mode & S_IFMT, S_IFDIR);
        assert_eq!(errno(mount.lookup(ROOT, c"nothing")), Errno::ENOENT);
        assert_eq!(errno(mount.unlink(ROOT, c"nothing")), Errno::ENOENT);
    });
}

#[test]
fn a_file_keeps_what_is_written() {
    mounted(|mount| {
        // Beyond one request, and not in whole pages.
        let content = pattern(3_000_001);
        let (node, opened) = file(mount, c"file", &content);
        assert_eq!(
            mount.getattr(node, Some(opened.fh)).unwrap().attr.size,
            content.len() as u64
        );
        mount.flush(node, opened.fh, 1).unwrap();
        mount.fsync(node, opened.fh, FsyncFlags::FDATASYNC).unwrap();
        mount.release(node, opened.fh).unwrap();

        let opened = mount.open(node, 0).unwrap();
        let mut back = vec![0; content.len() + 10];
        let mut offset = 0;
        loop {
            let read = mount
                .read(node, opened.fh, offset as u64, &mut back[offset..])
                .unwrap();
            if read == 0 {
                break;
            }
            offset += read;
        }
        assert_eq!(offset, content.len());
        assert!(back[..offset] == content[..]);
        mount.release(node, opened.fh).unwrap();
        mount.forget(node, 1).unwrap();
    });
}

#[test]
fn a_read_stops_at_the_end_of_the_file() {
    mounted(|mount| {
        let (node, opened) = file(mount, c"file", b"hello");
        let mut buffer = [0xaa; 64];
        let read = mount.read(node, opened.fh, 2, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"llo");
        assert!(buffer[read..].iter().all(|&byte| byte == 0xaa));
        assert_eq!(mount.read(node, opened.fh, 5, &mut buffer).unwrap(), 0);
        assert_eq!(
            mount.read(node, opened.fh, 1 << 40, &mut buffer).unwrap(),
            0
        );
    });
}

#[test]
fn attributes_can_be_set() {
    mounted(|mount| {
        let (node, opened) = file(mount, c"file", b"hello");
        let set = SetattrIn {
            valid: SetattrValid::SIZE | SetattrValid::MODE | SetattrValid::MTIME,
            size: 3,
            mode: 0o600,
            mtime: 1_000_000,
            mtimensec: 500,
            ..SetattrIn::default()
        };
        let attr = mount.setattr(node, set).unwrap().attr;
        assert_eq!((attr.size, attr.mode & 0o777), (3, 0o600));
        assert_eq!((attr.mtime, attr.mtimensec), (1_000_000, 500));
        assert_eq!(mount.getattr(node, None).unwrap().attr.mtime, 1_000_000);
        mount.release(node, opened.fh).unwrap();
    });
}

#[test]
fn names_come_and_go() {
    mounted(|mount| {
        let dir = mount.mkdir(ROOT, c"dir", 0o755).unwrap();
        assert_eq!(file_type(&dir), S_IFDIR);
        let fifo = mount.mknod(ROOT, c"fifo", S_IFIFO | 0o600, 0).unwrap();
        assert_eq!(file_type(&fifo), S_IFIFO);
        let plain = mount.mknod(ROOT, c"plain", S_IFREG | 0o600, 0).unwrap();
        assert_eq!(file_type(&plain), S_IFREG);
        let link = mount.symlink(ROOT, c"link", c"dir/target").unwrap();
        assert_eq!(file_type(&link), S_IFLNK);
        assert_eq!(mount.readlink(link.nodeid).unwrap(), b"dir/target");

        let other = mount.link(plain.nodeid, dir.nodeid, c"other").unwrap();
        assert_eq!(other.nodeid, plain.nodeid);
        assert_eq!(other.attr.nlink, 2);
        assert_eq!(errno(mount.mkdir(ROOT, c"plain", 0o755)), Errno::EEXIST);
        assert_eq!(errno(mount.rmdir(ROOT, c"dir")), Errno::ENOTEMPTY);
        assert_eq!(errno(mount.rmdir(ROOT, c"plain")), Errno::ENOTDIR);

        mount.unlink(dir.nodeid, c"other").unwrap();
        mount.rmdir(ROOT, c"dir").unwrap();
        for name in [c"fifo", c"plain", c"link"] {
            mount.unlink(ROOT, name).unwrap();
        }
        assert_eq!(errno(mount.lookup(ROOT, c"plain")), Errno::ENOENT);
    });
}

#[test]
fn entries_are_renamed() {
    mounted(|mount| {
        let dir = mount.mkdir(ROOT, c"dir", 0o755).unwrap().nodeid;
        let (node, opened) = file(mount, c"a", b"a");
        mount.release(node, opened.fh).unwrap();
        file(mount, c"b", b"bb");
        let none = RenameFlags::empty();
        mount.rename((ROOT, c"a"), (dir, c"moved"), none).unwrap();
        assert_eq!(mount.lookup(dir, c"moved").unwrap().nodeid, node);
        let refused = mount.rename((dir, c"moved"), (ROOT, c"b"), RenameFlags::NOREPLACE);
        assert_eq!(errno(refused), Errno::EEXIST);
        mount
            .rename((dir, c"moved"), (ROOT, c"b"), RenameFlags::EXCHANGE)
            .unwrap();
        assert_eq!(mount.lookup(ROOT, c"b").unwrap().nodeid, node);
        assert_eq!(mount.lookup(dir, c"moved").unwrap().attr.size, 2);
        mount.rename((dir, c"moved"), (ROOT, c"b"), none).unwrap();
        assert_eq!(mount.lookup(ROOT, c"b").unwrap().attr.size, 2);
    });
}

#[test]
fn a_directory_is_listed_in_pieces() {
    const FILES: usize = 150;
    mounted(|mount| {
        let dir = mount.mkdir(ROOT, c"dir", 0o755).unwrap().nodeid;
        let mut expected = vec![String::from("."), String::from("..")];
        for n in 0..FILES {
            let name = format!("file-{n}");
            let c_name = std::ffi::CString::new(name.as_str()).unwrap();
            mount.mknod(dir, &c_name, S_IFREG | 0o600, 0).unwrap();
            expected.push(name);
        }
        expected.sort();
        let opened = mount.opendir(dir).unwrap();
        for plus in [false, true] {
            let mut names = Vec::new();
            let mut offset = 0;
            loop {
                let entries = match plus {
                    true => mount.readdirplus(dir, opened.fh, offset, 4096),
                    false => mount.readdir(dir, opened.fh, offset, 512),
                };
                let entries = entries.unwrap();
                let Some(last) = entries.last() else { break };
                offset = last.off;
                for entry in &entries {
                    let looked_up = plus && !matches!(&entry.name[..], b"." | b"..");
                    assert_eq!(entry.entry.is_some(), looked_up, "{entry:?}");
                }
                names.extend(
                    entries
                        .into_iter()
                        .map(|entry| String::from_utf8(entry.name).unwrap()),
                );
            }
            names.sort();
            assert_eq!(names, expected);
        }
        mount.fsyncdir(dir, opened.fh, FsyncFlags::empty()).unwrap();
        mount.releasedir(dir, opened.fh).unwrap();
    });
}

#[test]
fn extended_attributes_are_kept_up_to_64_kib() {
    mounted(|mount| {
        let (node, _) = file(mount, c"file", b"");
        assert_eq!(errno(mount.getxattr(node, c"user.a")), Errno::ENODATA);
        mount.setxattr(node, c"user.a", b"value", 0).unwrap();
        let long = pattern(60_000);
        match mount.setxattr(node, c"user.long", &long, 0) {
            Ok(()) => assert_eq!(mount.getxattr(node, c"user.long").unwrap(), long),
            // The host's filesystem may hold less.
            Err(e) => assert!(
                matches!(e.errno(), Some(Errno::ENOSPC | Errno::E2BIG)),
                "{e}"
            ),
        }
        assert_eq!(mount.getxattr(node, c"user.a").unwrap(), b"value");
        assert_eq!(mount.getxattr_size(node, c"user.a").unwrap(), 5);
        let names = mount.listxattr(node).unwrap();
        assert!(names.split(|&b| b == 0).any(|name| name == b"user.a"));
        mount.removexattr(node, c"user.a").unwrap();
        assert_eq!(errno(mount.getxattr(node, c"user.a")), Errno::ENODATA);
    });
}

#[test]
fn holes_are_made_and_found() {
    const SEEK_DATA: u32 = 3;
    const SEEK_HOLE: u32 = 4;
    const PUNCH_KEEP_SIZE: u32 = 3;
    mounted(|mount| {
        let (node, opened) = file(mount, c"file", &pattern(1 << 20));
        let hole = 65536..131_072;
        mount
            .fallocate(node, opened.fh, hole.clone(), PUNCH_KEEP_SIZE)
            .unwrap();
        let found = mount.lseek(node, opened.fh, 0, SEEK_HOLE).unwrap();
        assert_eq!(found, hole.start);
        let found = mount.lseek(node, opened.fh, found, SEEK_DATA).unwrap();
        assert_eq!(found, hole.end);
        let end = mount.lseek(node, opened.fh, 1 << 30, SEEK_DATA);
        assert_eq!(errno(end), Errno::ENXIO);
        mount.fallocate(node, opened.fh, 0..2 << 20, 0).unwrap();
        assert_eq!(mount.getattr(node, None).unwrap().attr.size, 2 << 20);
    });
}

#[test]
fn a_range_is_copied_by_the_server() {
    mounted(|mount| {
        let content = pattern(100_000);
        let (from, from_open) = file(mount, c"from", &content);
        let (to, to_open) = file(mount, c"to", b"");
        let copied = mount
            .copy_file_range(
                from,
                CopyFileRangeIn {
                    fh_in: from_open.fh,
                    off_in: 1000,
                    nodeid_out: to,
                    fh_out: to_open.fh,
                    off_out: 10,
                    len: 50_000,
                    flags: 0,
                },
            )
            .unwrap() as usize;
        assert!(copied > 0);
        let mut back = vec![0; copied];
        assert_eq!(mount.read(to, to_open.fh, 10, &mut back).unwrap(), copied);
        assert!(back == content[1000..1000 + copied]);
    });
}

#[test]
fn the_filesystem_tells_its_space_and_can_be_synced() {
    mounted(|mount| {
        let space = mount.statfs(ROOT).unwrap();
        assert!(space.bsize > 0 && space.namelen >= 255);
        mount.syncfs(ROOT).unwrap();
        match mount.access(ROOT, 4) {
            Ok(()) => {}
            Err(e) => assert_eq!(e.errno(), Some(Errno::ENOSYS)),
        }
    });
}

#[test]
fn a_handle_outlives_its_name() {
    mounted(|mount| {
        let (node, opened) = file(mount, c"file", b"still here");
        mount.unlink(ROOT, c"file").unwrap();
        let mut buffer = [0; 32];
        let read = mount.read(node, opened.fh, 0, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"still here");
        assert_eq!(mount.getattr(node, Some(opened.fh)).unwrap().attr.nlink, 0);
        mount.release(node, opened.fh).unwrap();
        mount.forget(node, 1).unwrap();
    });
}

#[test]
fn locks_are_answered() {
    const F_WRLCK: u32 = 1;
    mounted(|mount| {
        let (node, opened) = file(mount, c"file", b"");
        let lock = FileLock {
            start: 0,
            end: 9,
            lock_type: F_WRLCK,
            pid: 1,
        };
        // A server need not have locks: the guest keeps its own then.
        match mount.setlk(node, opened.fh, 1, lock) {
            Ok(()) => {
                let second = mount.setlk(node, opened.fh, 2, lock);
                assert_eq!(errno(second), Errno::EAGAIN);
                mount.flush(node, opened.fh, 1).unwrap();
                mount.setlk(node, opened.fh, 2, lock).unwrap();
            }
            Err(e) => {
                assert!(matches!(e.errno(), Some(Errno::ENOSYS)), "{e}");
                assert_eq!(errno(mount.getlk(node, opened.fh, 1, lock)), Errno::ENOSYS);
            }
        }
    });
}
