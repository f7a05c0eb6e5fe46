use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use fuse_fs::abi::*;
use fuse_fs::flags::{RenameFlags, SetattrValid, SetxattrFlags};
use fuse_fs::*;
use libc::c_long;

use crate::common::*;
use crate::sys::Watch;

/// Files in a directory that is listed.
const ENTRIES: usize = 100;
/// Bytes of a reply that lists them.
const LISTING: usize = 4096;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;
/// `O_TRUNC` of open(2).
const TRUNC: u32 = libc::O_TRUNC.unsigned_abs();
const ROOT: NodeId = NodeId::ROOT;

/// An operation, which makes sure of its result, too.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) operation: fn(&mut Site<'_>),
    /// Most calls that it may take.
    pub(crate) calls: usize,
    /// The same before Linux 6.13.
    pub(crate) calls_of_old: usize,
}

const fn row(name: &'static str, calls: usize, operation: fn(&mut Site<'_>)) -> Row {
    Row {
        name,
        operation,
        calls,
        calls_of_old: calls,
    }
}

impl Row {
    const fn of_old(mut self, calls: usize) -> Self {
        self.calls_of_old = calls;
        self
    }
}

/// A share, and the thread that uses it.
pub(crate) struct Site<'a> {
    share: Share,
    watch: &'a Watch,
    counted: Vec<c_long>,
    serial: u32,
}

impl<'a> Site<'a> {
    pub(crate) fn new(share: Share, watch: &'a Watch) -> Self {
        Self {
            share,
            watch,
            counted: Vec::new(),
            serial: 0,
        }
    }

    /// The calls of the part that was counted last.
    pub(crate) fn take(&mut self) -> Vec<c_long> {
        std::mem::take(&mut self.counted)
    }

    fn during<T>(&mut self, part: impl FnOnce(&Share) -> T) -> T {
        self.watch.take();
        let result = part(&self.share);
        self.counted = self.watch.take();
        result
    }

    fn name(&mut self) -> String {
        self.serial += 1;
        format!("name-{}", self.serial)
    }

    /// A file that was looked up.
    fn file(&mut self) -> (String, NodeId) {
        let name = self.name();
        fs::write(self.share.host(&name), "content").unwrap();
        let node = self.share.node(&name);
        (name, node)
    }

    fn open_file(&mut self) -> (NodeId, Handle) {
        let (_, node) = self.file();
        (node, self.share.open_node(node, RDWR).unwrap())
    }

    fn with_xattr(&mut self) -> NodeId {
        let (_, node) = self.file();
        set_xattr(&self.share, node, c"user.a", b"value").unwrap();
        node
    }

    fn listed(&mut self) -> (String, NodeId) {
        let name = self.name();
        fs::create_dir(self.share.host(&name)).unwrap();
        for number in 0..ENTRIES {
            fs::write(self.share.host(&format!("{name}/{number}")), "").unwrap();
        }
        let node = self.share.node(&name);
        (name, node)
    }
}

pub(crate) const ROWS: [Row; 41] = [
    row("LOOKUP of what is new", 2, |site| {
        let name = site.name();
        fs::write(site.share.host(&name), "").unwrap();
        site.during(|share| share.lookup(&name)).unwrap();
    }),
    row("LOOKUP of what is known", 1, |site| {
        let (name, _) = site.file();
        site.during(|share| share.lookup(&name)).unwrap();
    }),
    row("LOOKUP of what is absent", 1, |site| {
        let name = site.name();
        assert_eq!(
            errno(site.during(|share| share.lookup(&name))),
            Errno::ENOENT
        );
    }),
    row("FORGET", 1, |site| {
        let (_, node) = site.file();
        site.during(|share| share.fs.forget(node, 1));
    }),
    row("GETATTR", 1, |site| {
        let (_, node) = site.file();
        assert_eq!(site.during(|share| share.attr(node)).size, 7);
    }),
    row("STATX", 1, |site| {
        let (_, node) = site.file();
        let args = StatxIn::default();
        site.during(|share| share.fs.statx(&me(), node, &args))
            .unwrap();
    }),
    row("STATFS", 1, |site| {
        site.during(|share| share.fs.statfs(&me(), ROOT)).unwrap();
    }),
    // Each that reads, one to know whether the guest has to read it again.
    row("OPEN", 2, |site| {
        let (_, node) = site.file();
        site.during(|share| share.open_node(node, RDWR)).unwrap();
    }),
    row("OPEN for the second time", 3, |site| {
        let (node, _) = site.open_file();
        site.during(|share| share.open_node(node, RDWR)).unwrap();
    }),
    row("OPEN for the third time", 2, |site| {
        let (node, _) = site.open_file();
        site.share.open_node(node, RDWR).unwrap();
        let fh = site.during(|share| share.open_node(node, RDWR)).unwrap();
        assert_eq!(site.share.read((node, fh), 0, 64).unwrap(), b"content");
    }),
    row("OPEN for the third time, truncating", 1, |site| {
        let (node, _) = site.open_file();
        site.share.open_node(node, RDWR).unwrap();
        site.during(|share| share.open_node(node, RDWR | TRUNC))
            .unwrap();
        assert_eq!(site.share.attr(node).size, 0);
    }),
    row("FLUSH", 0, |site| {
        let (node, fh) = site.open_file();
        let args = FlushIn {
            fh,
            ..Default::default()
        };
        site.during(|share| share.fs.flush(&me(), node, &args))
            .unwrap();
    }),
    row("RELEASE", 1, |site| {
        let file = site.open_file();
        site.during(|share| share.release(file)).unwrap();
    }),
    row("READ", 1, |site| {
        let file = site.open_file();
        let read = site.during(|share| share.read(file, 0, 7));
        assert_eq!(read.unwrap(), b"content");
    }),
    row("READ across the end", 2, |site| {
        let file = site.open_file();
        let read = site.during(|share| share.read(file, 0, 64));
        assert_eq!(read.unwrap(), b"content");
    }),
    row("WRITE", 1, |site| {
        let file = site.open_file();
        site.during(|share| share.write(file, 0, b"data")).unwrap();
    }),
    row("FSYNC", 1, |site| {
        let (node, fh) = site.open_file();
        let args = FsyncIn {
            fh,
            ..Default::default()
        };
        site.during(|share| share.fs.fsync(&me(), node, &args))
            .unwrap();
    }),
    row("LSEEK", 1, |site| {
        let (node, fh) = site.open_file();
        let args = LseekIn {
            fh,
            whence: SEEK_DATA,
            ..Default::default()
        };
        site.during(|share| share.fs.lseek(&me(), node, &args))
            .unwrap();
    }),
    row("FALLOCATE", 1, |site| {
        let (node, fh) = site.open_file();
        let args = FallocateIn {
            fh,
            length: 8192,
            ..Default::default()
        };
        site.during(|share| share.fs.fallocate(&me(), node, &args))
            .unwrap();
    }),
    row("COPY_FILE_RANGE", 1, |site| {
        let (from, to) = (site.open_file(), site.open_file());
        let args = CopyFileRangeIn {
            fh_in: from.1,
            nodeid_out: to.0,
            fh_out: to.1,
            len: 7,
            ..Default::default()
        };
        site.during(|share| share.fs.copy_file_range(&me(), from.0, &args))
            .unwrap();
    }),
    row("CREATE", 3, |site| {
        let name = site.name();
        let args = CreateIn {
            flags: RDWR,
            mode: 0o644,
            ..Default::default()
        };
        site.during(|share| share.create(&me(), &name, args))
            .unwrap();
    }),
    row("MKDIR", 3, |site| {
        let name = site.name();
        site.during(|share| share.mkdir(&me(), &name, 0o755))
            .unwrap();
    }),
    row("SYMLINK", 3, |site| {
        let name = cstr(&site.name());
        let target = SymlinkTarget::new(c"target").unwrap();
        site.during(|share| {
            share
                .fs
                .symlink(&me(), ROOT, Name::new(&name).unwrap(), target)
        })
        .unwrap();
    }),
    row("LINK", 2, |site| {
        let (_, node) = site.file();
        let name = cstr(&site.name());
        let linked =
            site.during(|share| share.fs.link(&me(), node, ROOT, Name::new(&name).unwrap()));
        assert_eq!(linked.unwrap().attr.nlink, 2);
    }),
    row("UNLINK", 1, |site| {
        let (name, _) = site.file();
        let name = cstr(&name);
        site.during(|share| share.fs.unlink(&me(), ROOT, Name::new(&name).unwrap()))
            .unwrap();
    }),
    row("RMDIR", 1, |site| {
        let name = site.name();
        site.share.mkdir(&me(), &name, 0o755).unwrap();
        let name = cstr(&name);
        site.during(|share| share.fs.rmdir(&me(), ROOT, Name::new(&name).unwrap()))
            .unwrap();
    }),
    row("RENAME", 1, |site| {
        let (old, _) = site.file();
        let names: [CString; 2] = [cstr(&old), cstr(&site.name())];
        let [old, new] = names.each_ref().map(|name| Name::new(name).unwrap());
        let none = RenameFlags::empty();
        site.during(|share| share.fs.rename(&me(), ROOT, old, ROOT, new, none))
            .unwrap();
    }),
    row("SETATTR of the mode", 2, |site| {
        let (name, node) = site.file();
        let args = SetattrIn {
            mode: 0o600,
            ..set(SetattrValid::MODE)
        };
        site.during(|share| share.setattr(node, args)).unwrap();
        let metadata = fs::metadata(site.share.host(&name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    }),
    row("SETATTR of times", 2, |site| {
        let (name, node) = site.file();
        let args = SetattrIn {
            mtime: 1,
            ..set(SetattrValid::MTIME)
        };
        site.during(|share| share.setattr(node, args)).unwrap();
        assert_eq!(fs::metadata(site.share.host(&name)).unwrap().mtime(), 1);
    }),
    row("SETATTR of the size", 4, |site| {
        let (_, node) = site.file();
        let args = SetattrIn {
            size: 3,
            ..set(SetattrValid::SIZE)
        };
        let attr = site.during(|share| share.setattr(node, args)).unwrap();
        assert_eq!(attr.size, 3);
    }),
    row("SETATTR of the size to nothing", 3, |site| {
        let (_, node) = site.file();
        let args = set(SetattrValid::SIZE);
        let attr = site.during(|share| share.setattr(node, args)).unwrap();
        assert_eq!(attr.size, 0);
    }),
    row("SETATTR of the size, with a handle", 2, |site| {
        let (node, fh) = site.open_file();
        let args = SetattrIn {
            fh,
            ..set(SetattrValid::SIZE | SetattrValid::FH)
        };
        let attr = site.during(|share| share.setattr(node, args)).unwrap();
        assert_eq!(attr.size, 0);
    }),
    row("SETXATTR", 1, |site| {
        let (_, node) = site.file();
        site.during(|share| set_xattr(share, node, c"user.a", b"value"))
            .unwrap();
        assert_eq!(get_xattr(&site.share, node, c"user.a").unwrap(), b"value");
    })
    .of_old(2),
    row("GETXATTR", 1, |site| {
        let node = site.with_xattr();
        let name = XattrName::new(c"user.a").unwrap();
        let mut buffer = [0; 16];
        let got = site.during(|share| share.fs.getxattr(&me(), node, name, &mut buffer));
        assert_eq!(&buffer[..got.unwrap()], b"value");
    })
    .of_old(2),
    row("GETXATTR of a directory", 1, |site| {
        let name = XattrName::new(c"user.a").unwrap();
        let got = site.during(|share| share.fs.getxattr(&me(), ROOT, name, &mut [0; 16]));
        assert_eq!(errno(got), Errno::ENODATA);
    })
    .of_old(2),
    row("LISTXATTR", 1, |site| {
        let node = site.with_xattr();
        let mut buffer = [0; 16];
        let got = site.during(|share| share.fs.listxattr(&me(), node, &mut buffer));
        assert_eq!(&buffer[..got.unwrap()], b"user.a\0");
    })
    .of_old(2),
    row("REMOVEXATTR", 1, |site| {
        let node = site.with_xattr();
        let name = XattrName::new(c"user.a").unwrap();
        site.during(|share| share.fs.removexattr(&me(), node, name))
            .unwrap();
        let how = SetxattrFlags::empty();
        let replaced = site.share.fs.setxattr(&me(), node, name, b"", 2, how);
        assert_eq!(errno(replaced), Errno::ENODATA, "XATTR_REPLACE");
    })
    .of_old(2),
    row("OPENDIR", 1, |site| {
        site.during(|share| share.opendir(ROOT));
    }),
    row("READDIR of 100", 2, |site| {
        let (_, node) = site.listed();
        let dir = site.share.opendir(node);
        let all = site.during(|share| share.list(dir, LISTING, false));
        assert_eq!(all.len(), ENTRIES + 2);
    }),
    row("READDIRPLUS of 100, all new", 202, |site| {
        let (_, node) = site.listed();
        let dir = site.share.opendir(node);
        let all = site.during(|share| share.list(dir, LISTING, true));
        assert_eq!(all.len(), ENTRIES + 2);
    }),
    row("READDIRPLUS of 100, all known", 102, |site| {
        let (_, node) = site.listed();
        let dir = site.share.opendir(node);
        site.share.list(dir, LISTING, true);
        let dir = site.share.opendir(node);
        let all = site.during(|share| share.list(dir, LISTING, true));
        assert_eq!(all.len(), ENTRIES + 2);
    }),
];
