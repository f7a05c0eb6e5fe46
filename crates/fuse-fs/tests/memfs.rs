//! MemFs does what Linux filesystems do. Each test speaks to it by way of a session.

mod common;

use common::files::*;
use common::{Guest, c_string};
use fuse_fs::abi::{
    BmapIn, CopyFileRangeIn, Dirent, DirentPlus, FallocateIn, GetxattrIn, GetxattrOut, Kstatfs,
    LseekIn, LseekOut, MknodIn, ReadIn, SetattrIn, StatxIn, StatxOut, WriteIn, WriteOut,
};
use fuse_fs::flags::{RenameFlags, SetattrValid, WriteFlags};
use fuse_fs::{Errno, MemFs, Name, NodeId, Session};
use fuse_wire::{DirentsPlus, Operation};
use zerocopy::FromBytes;

const ROOT: NodeId = NodeId::ROOT;
const PLAIN: RenameFlags = RenameFlags::empty();

/// Runs `test` on an empty filesystem.
fn with_memfs(test: impl FnOnce(&Guest<'_>, &MemFs)) {
    let session = Session::new(MemFs::new());
    let guest = Guest::begun(&session);
    test(&guest, session.filesystem());
}

fn contents(guest: &Guest<'_>, node: NodeId) -> Vec<u8> {
    let file = guest.open(node, O_RDONLY).unwrap();
    let data = guest.read(file, 0, 1 << 20).unwrap();
    guest.release(file).unwrap();
    data
}

fn file_with(guest: &Guest<'_>, name: &str, data: &[u8]) -> NodeId {
    let file = guest.create(ROOT, name, O_RDWR).unwrap();
    assert_eq!(guest.write(file, 0, data), Ok(data.len() as u32));
    guest.release(file).unwrap();
    file.node
}

#[test]
fn a_file_holds_what_was_written() {
    with_memfs(|guest, _| {
        let file = guest.create(ROOT, "a", O_RDWR | O_EXCL).unwrap();
        assert_eq!(guest.write(file, 10, b"hello"), Ok(5));
        assert_eq!(
            guest.read(file, 0, 100).unwrap(),
            b"\0\0\0\0\0\0\0\0\0\0hello"
        );
        assert_eq!(guest.read(file, 12, 2).unwrap(), b"ll");
        assert_eq!(guest.read(file, 15, 2).unwrap(), b"");
        assert_eq!(guest.read(file, 1 << 40, 2).unwrap(), b"");
        assert_eq!(guest.getattr(file.node).unwrap().size, 15);
        assert_eq!(guest.create(ROOT, "a", O_EXCL), Err(Errno::EEXIST));
        assert_eq!(guest.create(ROOT, "a", O_RDONLY).unwrap().node, file.node);
    });
}

#[test]
fn flags_of_open_are_kept_to() {
    with_memfs(|guest, _| {
        let node = file_with(guest, "a", b"12345");
        let reader = guest.open(node, O_RDONLY).unwrap();
        assert_eq!(guest.write(reader, 0, b"x"), Err(Errno::EBADF));
        let writer = guest.open(node, O_WRONLY).unwrap();
        assert_eq!(guest.read(writer, 0, 1), Err(Errno::EBADF));
        let appender = guest.open(node, O_WRONLY | O_APPEND).unwrap();
        assert_eq!(guest.write(appender, 0, b"67"), Ok(2));
        assert_eq!(contents(guest, node), b"1234567");
        let from_the_cache = WriteIn {
            fh: appender.handle,
            size: 1,
            flags: O_APPEND,
            write_flags: WriteFlags::CACHE,
            ..Default::default()
        };
        guest
            .ask_with_data(node, Operation::Write(from_the_cache), b"x")
            .body();
        assert_eq!(
            contents(guest, node),
            b"x234567",
            "the kernel has placed it"
        );
        guest.open(node, O_WRONLY | O_TRUNC).unwrap();
        assert_eq!(contents(guest, node), b"");
    });
}

#[test]
fn handles_are_of_one_node_and_until_closed() {
    with_memfs(|guest, _| {
        let a = guest.create(ROOT, "a", O_RDWR).unwrap();
        let b = guest.create(ROOT, "b", O_RDWR).unwrap();
        let mixed = Open { node: a.node, ..b };
        assert_eq!(guest.read(mixed, 0, 1), Err(Errno::EBADF));
        guest.release(a).unwrap();
        assert_eq!(guest.release(a), Err(Errno::EBADF));
        assert_eq!(guest.read(a, 0, 1), Err(Errno::EBADF));
        assert_eq!(guest.open(ROOT, O_RDONLY), Err(Errno::EISDIR));
        assert_eq!(guest.opendir(a.node), Err(Errno::ENOTDIR));
    });
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed_and_forgotten() {
    with_memfs(|guest, fs| {
        let file = guest.create(ROOT, "a", O_RDWR).unwrap();
        guest.write(file, 0, b"still here").unwrap();
        guest.unlink(ROOT, "a").unwrap();
        assert_eq!(guest.lookup(ROOT, "a"), Err(Errno::ENOENT));
        assert_eq!(guest.read(file, 0, 100).unwrap(), b"still here");
        assert_eq!(guest.getattr(file.node).unwrap().nlink, 0);
        guest.forget(file.node, 1);
        assert_eq!(fs.inode_count(), 2, "the handle holds it");
        guest.release(file).unwrap();
        assert_eq!(fs.inode_count(), 1);
        assert_eq!(guest.getattr(file.node), Err(Errno::ESTALE));
    });
}

#[test]
fn lookups_are_counted_exactly() {
    with_memfs(|guest, fs| {
        let node = guest.create(ROOT, "a", O_RDWR).unwrap();
        guest.release(node).unwrap();
        let node = node.node;
        guest.lookup(ROOT, "a").unwrap();
        guest.link(node, ROOT, "b").unwrap();
        guest.unlink(ROOT, "a").unwrap();
        guest.unlink(ROOT, "b").unwrap();
        guest.forget(node, 2);
        assert_eq!(fs.inode_count(), 2, "created, looked up, linked: three");
        guest.forget(node, 1);
        assert_eq!(fs.inode_count(), 1);
        guest.forget(node, 1);
        guest.forget(ROOT, u64::MAX);
        guest.getattr(ROOT).unwrap();
    });
}

#[test]
fn hard_links_share_one_inode() {
    with_memfs(|guest, _| {
        let node = file_with(guest, "a", b"x");
        let linked = guest.link(node, ROOT, "b").unwrap();
        assert_eq!((linked.nodeid, linked.attr.nlink), (node, 2));
        assert_eq!(guest.link(node, ROOT, "b"), Err(Errno::EEXIST));
        guest.unlink(ROOT, "a").unwrap();
        assert_eq!(guest.getattr(node).unwrap().nlink, 1);
        guest.unlink(ROOT, "b").unwrap();
        assert_eq!(
            guest.link(node, ROOT, "c"),
            Err(Errno::ENOENT),
            "no way back"
        );
        let dir = guest.mkdir(ROOT, "d").unwrap();
        assert_eq!(guest.link(dir, ROOT, "e"), Err(Errno::EPERM));
    });
}

#[test]
fn a_file_without_a_name_can_get_one_unless_exclusive() {
    with_memfs(|guest, fs| {
        let file = guest.tmpfile(ROOT, O_RDWR).unwrap();
        guest.write(file, 0, b"data").unwrap();
        assert!(guest.names(ROOT).is_empty());
        assert_eq!(guest.link(file.node, ROOT, "a").unwrap().attr.nlink, 1);
        assert_eq!(contents(guest, file.node), b"data");

        let private = guest.tmpfile(ROOT, O_RDWR | O_EXCL).unwrap();
        assert_eq!(guest.link(private.node, ROOT, "b"), Err(Errno::ENOENT));
        guest.forget(private.node, 1);
        guest.release(private).unwrap();
        assert_eq!(fs.inode_count(), 2);
    });
}

#[test]
fn directories_count_links_and_refuse_to_go_while_full() {
    with_memfs(|guest, _| {
        let dir = guest.mkdir(ROOT, "d").unwrap();
        let sub = guest.mkdir(dir, "s").unwrap();
        assert_eq!(guest.getattr(ROOT).unwrap().nlink, 3);
        assert_eq!(guest.getattr(dir).unwrap().nlink, 3);
        assert_eq!(guest.rmdir(ROOT, "d"), Err(Errno::ENOTEMPTY));
        assert_eq!(guest.unlink(ROOT, "d"), Err(Errno::EISDIR));
        file_with(guest, "f", b"");
        assert_eq!(guest.rmdir(ROOT, "f"), Err(Errno::ENOTDIR));
        guest.rmdir(dir, "s").unwrap();
        assert_eq!(
            guest.mkdir(sub, "late"),
            Err(Errno::ENOENT),
            "it was removed"
        );
        assert_eq!(guest.getattr(sub).unwrap().nlink, 0);
        guest.rmdir(ROOT, "d").unwrap();
        assert_eq!(guest.getattr(ROOT).unwrap().nlink, 2);
    });
}

#[test]
fn a_rename_moves_replaces_or_leaves_alone() {
    with_memfs(|guest, _| {
        let dir = guest.mkdir(ROOT, "d").unwrap();
        let a = file_with(guest, "a", b"a");
        let b = file_with(guest, "b", b"b");
        guest.rename((ROOT, "a"), (dir, "a"), PLAIN).unwrap();
        assert_eq!(guest.names(ROOT), ["b", "d"]);
        guest.rename((ROOT, "b"), (dir, "a"), PLAIN).unwrap();
        assert_eq!(guest.lookup(dir, "a").unwrap().nodeid, b);
        assert_eq!(guest.getattr(a).unwrap().nlink, 0);
        guest.link(b, ROOT, "same").unwrap();
        guest.rename((dir, "a"), (ROOT, "same"), PLAIN).unwrap();
        assert_eq!(guest.names(dir), ["a"], "two names of one file both stay");
        assert_eq!(
            guest.rename((ROOT, "none"), (ROOT, "x"), PLAIN),
            Err(Errno::ENOENT)
        );
    });
}

#[test]
fn a_rename_of_directories_keeps_the_tree_a_tree() {
    with_memfs(|guest, _| {
        let a = guest.mkdir(ROOT, "a").unwrap();
        let b = guest.mkdir(a, "b").unwrap();
        let c = guest.mkdir(ROOT, "c").unwrap();
        let file = (ROOT, "file");
        file_with(guest, "file", b"");
        for to in [(a, "x"), (b, "x")] {
            assert_eq!(guest.rename((ROOT, "a"), to, PLAIN), Err(Errno::EINVAL));
        }
        assert_eq!(guest.rename((ROOT, "c"), file, PLAIN), Err(Errno::ENOTDIR));
        assert_eq!(guest.rename(file, (ROOT, "c"), PLAIN), Err(Errno::EISDIR));
        assert_eq!(
            guest.rename((ROOT, "c"), (ROOT, "a"), PLAIN),
            Err(Errno::ENOTEMPTY)
        );
        let exchange = RenameFlags::EXCHANGE;
        assert_eq!(
            guest.rename((a, "b"), (ROOT, "a"), exchange),
            Err(Errno::EINVAL)
        );

        guest.rename((ROOT, "a"), (c, "a"), PLAIN).unwrap();
        assert_eq!(guest.lookup(a, "..").unwrap().nodeid, c);
        assert_eq!(guest.getattr(ROOT).unwrap().nlink, 3);
        assert_eq!(guest.getattr(c).unwrap().nlink, 3);
        assert_eq!(guest.getattr(a).unwrap().nlink, 3, "it still has one below");
        let e = guest.mkdir(ROOT, "e").unwrap();
        guest.rename((c, "a"), (ROOT, "e"), PLAIN).unwrap();
        assert_eq!(
            guest.getattr(e).unwrap().nlink,
            0,
            "the empty one is replaced"
        );
        assert_eq!(guest.lookup(ROOT, "e").unwrap().nodeid, a);
    });
}

#[test]
fn flags_of_rename_do_as_they_say() {
    with_memfs(|guest, _| {
        let a = file_with(guest, "a", b"a");
        let dir = guest.mkdir(ROOT, "d").unwrap();
        let sub = guest.mkdir(dir, "s").unwrap();
        let rename = |to, flags| guest.rename((ROOT, "a"), to, flags);
        assert_eq!(
            rename((dir, "s"), RenameFlags::NOREPLACE),
            Err(Errno::EEXIST)
        );
        assert_eq!(
            rename((dir, "n"), RenameFlags::EXCHANGE),
            Err(Errno::ENOENT)
        );
        assert_eq!(
            rename((dir, "n"), RenameFlags::WHITEOUT),
            Err(Errno::EINVAL)
        );
        rename((dir, "s"), RenameFlags::EXCHANGE).unwrap();
        assert_eq!(guest.lookup(ROOT, "a").unwrap().nodeid, sub);
        assert_eq!(guest.lookup(dir, "s").unwrap().nodeid, a);
        assert_eq!(guest.lookup(sub, "..").unwrap().nodeid, ROOT);
        assert_eq!(guest.getattr(ROOT).unwrap().nlink, 4);
        assert_eq!(guest.getattr(dir).unwrap().nlink, 2);
        rename((dir, "new"), RenameFlags::NOREPLACE).unwrap();
        assert_eq!(guest.names(dir), ["new", "s"]);
    });
}

#[test]
fn a_listing_goes_on_while_entries_come_and_go() {
    with_memfs(|guest, _| {
        for n in 0..50 {
            file_with(guest, &format!("file{n:02}"), b"");
        }
        let dir = guest.opendir(ROOT).unwrap();
        let (mut seen, mut cookie) = (Vec::new(), 0);
        loop {
            let some = guest.readdir(dir, cookie, 200).unwrap();
            let Some((_, last)) = some.last() else { break };
            if cookie == 0 {
                guest.unlink(ROOT, "file45").unwrap();
                file_with(guest, "new", b"");
            }
            cookie = *last;
            for (name, _) in some.iter().filter(|(name, _)| !name.starts_with('.')) {
                guest.unlink(ROOT, name).unwrap();
            }
            seen.extend(some.into_iter().map(|(name, _)| name));
        }
        let mut expected = vec![".".to_owned(), "..".to_owned()];
        expected.extend((0..50).map(|n| format!("file{n:02}")));
        expected.retain(|name| name != "file45");
        expected.push("new".to_owned());
        assert_eq!(seen, expected);
        assert!(guest.names(ROOT).is_empty());
        assert_eq!(
            guest.readdir(dir, 0, 20),
            Err(Errno::EINVAL),
            "not even one fits"
        );
        assert_eq!(guest.readdir(dir, u64::MAX, 4096), Ok(vec![]));
    });
}

#[test]
fn readdirplus_counts_what_it_tells_and_shares_cookies() {
    with_memfs(|guest, fs| {
        for name in ["a", "b", "c"] {
            let node = file_with(guest, name, b"");
            guest.forget(node, 1);
        }
        let dir = guest.opendir(ROOT).unwrap();
        let plus = |offset, size| {
            let args = ReadIn {
                fh: dir.handle,
                offset,
                size,
                ..Default::default()
            };
            guest.ask(ROOT, Operation::ReadDirPlus(args)).ok()
        };
        let one = (size_of::<DirentPlus>() + 8) as u32;
        let body = plus(0, 4 * one).unwrap();
        let entries: Vec<_> = DirentsPlus::new(&body)
            .map(|entry| entry.unwrap())
            .collect();
        let names: Vec<_> = entries.iter().map(|plus| plus.entry.name).collect();
        assert_eq!(names, [b".".as_slice(), b"..", b"a", b"b"]);
        assert_eq!(entries[0].entry_out.nodeid, NodeId(0));
        assert_eq!(entries[1].entry_out.nodeid, NodeId(0));
        let rest = guest.readdir(dir, entries[3].entry.off, 4096).unwrap();
        assert_eq!(rest[0].0, "c");

        for name in ["a", "b", "c"] {
            guest.unlink(ROOT, name).unwrap();
        }
        assert_eq!(fs.inode_count(), 3, "a and b were looked up, c was not");
        guest.forget(entries[2].entry_out.nodeid, 1);
        guest.forget(entries[3].entry_out.nodeid, 1);
        assert_eq!(fs.inode_count(), 1);
        assert_eq!(plus(0, size_of::<Dirent>() as u32), Err(Errno::EINVAL));
    });
}

#[test]
fn symbolic_links_and_special_files() {
    with_memfs(|guest, _| {
        let link = guest.symlink(ROOT, "l", "../else where").unwrap();
        assert_eq!(
            guest.ask(link, Operation::ReadLink).ok().unwrap(),
            b"../else where"
        );
        assert_eq!(guest.ask(ROOT, Operation::ReadLink).error(), Errno::EINVAL);
        assert_eq!(guest.open(link, O_RDONLY), Err(Errno::ELOOP));
        assert_eq!(guest.getattr(link).unwrap().mode, 0o120_777);

        let mknod = |name: &str, mode, rdev| {
            let name = c_string(name);
            let args = MknodIn {
                mode,
                rdev,
                ..Default::default()
            };
            let name = Name::new(&name).unwrap();
            guest.ask(ROOT, Operation::MkNod { args, name }).entry()
        };
        let device = mknod("device", 0o020_600, 0x0103).unwrap();
        assert_eq!((device.attr.mode, device.attr.rdev), (0o020_600, 0x0103));
        assert_eq!(guest.open(device.nodeid, O_RDONLY), Err(Errno::ENXIO));
        assert_eq!(mknod("fifo", 0o010_600, 5).unwrap().attr.rdev, 0);
        assert_eq!(mknod("plain", 0o100_640, 0).unwrap().attr.mode, 0o100_640);
        for no_such_node in [0o040_755, 0o120_777, 0, 0o170_000] {
            assert_eq!(mknod("x", no_such_node, 0), Err(Errno::EINVAL));
        }
    });
}

#[test]
fn attributes_change_as_asked() {
    with_memfs(|guest, _| {
        let node = file_with(guest, "a", b"12345");
        let setattr = |args: SetattrIn| guest.ask(node, Operation::SetAttr(args));
        setattr(SetattrIn {
            valid: SetattrValid::MODE | SetattrValid::UID | SetattrValid::MTIME,
            mode: 0o104_711,
            uid: 7,
            gid: 8,
            mtime: (-5_i64) as u64,
            mtimensec: 999_999_999,
            ..Default::default()
        });
        let attr = guest.getattr(node).unwrap();
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o104_711, 7, 1000));
        assert_eq!((attr.mtime as i64, attr.mtimensec), (-5, 999_999_999));
        setattr(SetattrIn {
            valid: SetattrValid::SIZE,
            size: 3,
            ..Default::default()
        });
        assert_eq!(contents(guest, node), b"123");
        assert!(guest.getattr(node).unwrap().mtime as i64 > 0);

        let out: StatxOut = guest
            .ask(node, Operation::Statx(StatxIn::default()))
            .structure();
        assert_eq!((out.stat.size, out.stat.ino), (3, node.0));
        assert!(out.stat.btime.sec > 0);
    });
}

#[test]
fn a_directory_with_sgid_hands_its_group_down() {
    with_memfs(|guest, _| {
        let dir = guest.mkdir(ROOT, "d").unwrap();
        let args = SetattrIn {
            valid: SetattrValid::MODE | SetattrValid::GID,
            mode: 0o2775,
            gid: 50,
            ..Default::default()
        };
        guest.ask(dir, Operation::SetAttr(args)).body();
        let file = guest.create(dir, "f", O_RDWR).unwrap();
        assert_eq!(guest.getattr(file.node).unwrap().gid, 50);
        let sub = guest.getattr(guest.mkdir(dir, "s").unwrap()).unwrap();
        assert_eq!((sub.gid, sub.mode), (50, 0o042_755));
    });
}

#[test]
fn extended_attributes() {
    with_memfs(|guest, _| {
        let node = file_with(guest, "a", b"");
        assert_eq!(guest.getxattr(node, "user.a", 10).error(), Errno::ENODATA);
        guest.setxattr(node, "user.a", b"value").unwrap();
        guest.setxattr(node, "user.b", b"").unwrap();
        let size: GetxattrOut = guest.getxattr(node, "user.a", 0).structure();
        assert_eq!(size.size, 5);
        assert_eq!(guest.getxattr(node, "user.a", 5).body(), b"value");
        assert_eq!(guest.getxattr(node, "user.a", 4).error(), Errno::ERANGE);
        assert_eq!(guest.getxattr(node, "user.b", 4).body(), b"");
        let list = |size| guest.ask(node, Operation::ListXattr(GetxattrIn { size, padding: 0 }));
        assert_eq!(list(100).body(), b"user.a\0user.b\0");
        assert_eq!(list(3).error(), Errno::ERANGE);
        let acl = "system.posix_acl_access";
        assert_eq!(guest.setxattr(node, acl, b"x"), Err(Errno::EOPNOTSUPP));
    });
}

#[test]
fn ranges_are_allocated_punched_zeroed_and_found() {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    const COLLAPSE_RANGE: u32 = 8;
    const ZERO_RANGE: u32 = 16;
    with_memfs(|guest, _| {
        let file = guest.create(ROOT, "a", O_RDWR).unwrap();
        let fallocate = |mode, offset, length| {
            let fh = file.handle;
            let args = FallocateIn {
                fh,
                offset,
                length,
                mode,
                padding: 0,
            };
            guest.ask(file.node, Operation::FAllocate(args)).done()
        };
        let seek = |offset, whence| {
            let args = LseekIn {
                fh: file.handle,
                offset,
                whence,
                padding: 0,
            };
            let body = guest.ask(file.node, Operation::LSeek(args)).ok()?;
            Ok(LseekOut::read_from_bytes(&body).unwrap().offset)
        };
        let size = || guest.getattr(file.node).unwrap().size;
        fallocate(KEEP_SIZE, 0, 3 * 4096).unwrap();
        assert_eq!((size(), guest.getattr(file.node).unwrap().blocks), (0, 24));
        fallocate(0, 0, 3 * 4096).unwrap();
        assert_eq!(size(), 3 * 4096);
        guest.write(file, 0, &[1; 3 * 4096]).unwrap();
        fallocate(KEEP_SIZE | PUNCH_HOLE, 4000, 4192).unwrap();
        assert_eq!(guest.read(file, 3999, 3).unwrap(), [1, 0, 0]);
        assert_eq!(seek(0, 4), Ok(4096));
        assert_eq!(seek(4096, 3), Ok(8192));
        assert_eq!(seek(4096, 4), Ok(4096));
        assert_eq!(seek(3 * 4096, 3), Err(Errno::ENXIO));
        fallocate(ZERO_RANGE, 8192, 8192).unwrap();
        assert_eq!(size(), 4 * 4096);
        assert_eq!(guest.read(file, 8192, 1).unwrap(), [0]);
        assert_eq!(fallocate(COLLAPSE_RANGE, 0, 4096), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate(PUNCH_HOLE, 0, 4096), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate(0, 0, i64::MAX as u64), Err(Errno::ENOSPC));
    });
}

#[test]
fn data_is_copied_between_files() {
    with_memfs(|guest, _| {
        let from = guest.create(ROOT, "a", O_RDWR).unwrap();
        let to = guest.create(ROOT, "b", O_RDWR).unwrap();
        guest.write(from, 0, b"0123456789").unwrap();
        let copy = |to: Open, off_in, off_out, len| {
            let args = CopyFileRangeIn {
                fh_in: from.handle,
                off_in,
                nodeid_out: to.node,
                fh_out: to.handle,
                off_out,
                len,
                flags: 0,
            };
            let body = guest.ask(from.node, Operation::CopyFileRange(args)).ok()?;
            Ok(WriteOut::read_from_bytes(&body).unwrap().size)
        };
        assert_eq!(copy(to, 2, 1, 3), Ok(3));
        assert_eq!(guest.read(to, 0, 10).unwrap(), b"\x00234");
        assert_eq!(copy(to, 8, 0, 1 << 40), Ok(2), "to the end of the file");
        assert_eq!(copy(to, 10, 0, 5), Ok(0));
        assert_eq!(copy(from, 0, 3, 5), Err(Errno::EINVAL), "they overlap");
        assert_eq!(copy(from, 0, 5, 5), Ok(5));
        assert_eq!(guest.read(from, 0, 20).unwrap(), b"0123401234");
    });
}

#[test]
fn a_guest_cannot_take_more_memory_than_it_is_given() {
    let session = Session::new(MemFs::with_limit(256 << 10));
    let guest = Guest::begun(&session);
    let file = guest.create(ROOT, "a", O_RDWR).unwrap();
    let mut offset = 0;
    while guest.write(file, offset, &[1; 4096]).is_ok() {
        offset += 4096;
    }
    assert!(offset <= 256 << 10);
    assert_eq!(guest.write(file, offset, &[1; 4096]), Err(Errno::ENOSPC));
    assert_eq!(guest.getattr(file.node).unwrap().size, offset);
    guest.open(file.node, O_WRONLY | O_TRUNC).unwrap();

    let made = (0..1_000_000)
        .take_while(|n| guest.mkdir(ROOT, &n.to_string()).is_ok())
        .count();
    assert!((100..1000).contains(&made), "{made}");
    let links = (0..1000)
        .take_while(|n| guest.link(file.node, ROOT, &format!("link {n}")).is_ok())
        .count();
    assert!(links < 10, "{links}");
    let statfs: Kstatfs = guest.ask(ROOT, Operation::StatFs).structure();
    assert_eq!((statfs.blocks, statfs.bfree), (64, 0));
    assert_eq!(
        guest.setxattr(file.node, "user.a", &[0; 4096]),
        Err(Errno::ENOSPC)
    );

    for n in 0..made {
        guest.rmdir(ROOT, &n.to_string()).unwrap();
    }
    // What the guest has looked up stays, though it has no name.
    let kept = (0..1_000_000)
        .take_while(|_| guest.mkdir(ROOT, "x").is_ok() && guest.rmdir(ROOT, "x").is_ok())
        .count();
    assert!(kept < 1000, "{kept}");
}

#[test]
fn what_is_given_back_can_be_used_again() {
    let fs = MemFs::with_limit(64 << 10);
    let session = Session::new(fs);
    let guest = Guest::begun(&session);
    let free = || -> Kstatfs { guest.ask(ROOT, Operation::StatFs).structure() };
    let before = free();
    for _ in 0..100 {
        let dir = guest.mkdir(ROOT, "dir").unwrap();
        let file = guest.create(dir, "file", O_RDWR).unwrap();
        guest.write(file, 100, &[1; 30 << 10]).unwrap();
        guest.setxattr(file.node, "user.a", &[1; 1000]).unwrap();
        guest
            .rename((dir, "file"), (ROOT, "a longer name"), PLAIN)
            .unwrap();
        guest.unlink(ROOT, "a longer name").unwrap();
        guest.rmdir(ROOT, "dir").unwrap();
        guest.release(file).unwrap();
        guest.forget(file.node, 1);
        guest.forget(dir, 1);
    }
    assert_eq!(free(), before);
}

#[test]
fn what_it_cannot_do_is_not_implemented() {
    with_memfs(|guest, _| {
        let answer = guest.ask(ROOT, Operation::BMap(BmapIn::default()));
        assert_eq!(answer.error(), Errno::ENOSYS);
    });
}
