use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use fuse_fs::abi::{CreateIn, LseekIn, MkdirIn, OpenIn, ReadIn, ReleaseIn, SetattrIn, WriteIn};
use fuse_fs::flags::{SetattrValid, SetxattrFlags};
use fuse_fs::{
    Blocking, BufferSink, BufferSource, Context, Extensions, FileSystem, Handle, Name, NodeId,
    XattrName,
};
use passthrough_fs::{Config, PassthroughFs, Xattr};
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, StatxFlags, Timestamps, XattrFlags};
use tempfile::TempDir;

const ROOT: NodeId = NodeId::ROOT;
const FILE: &CStr = c"file";
const NEW: &CStr = c"new";
const ATTRIBUTE: &CStr = c"user.attribute";
const BLOCK: usize = 4096;
/// `O_RDWR` of open(2).
const RDWR: u32 = 2;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;

/// An operation, and the least that has the host do the same.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) ours: fn(&Site),
    pub(crate) direct: fn(&Site),
}

const fn row(name: &'static str, ours: fn(&Site), direct: fn(&Site)) -> Row {
    Row { name, ours, direct }
}

/// A share with a file in it, which is known and open.
pub(crate) struct Site {
    fs: PassthroughFs,
    file: NodeId,
    handle: Handle,
    /// The directory and the file on the host.
    dir: OwnedFd,
    open: OwnedFd,
    _outer: TempDir,
}

impl Site {
    pub(crate) fn new(place: &Path) -> std::io::Result<Self> {
        let outer = TempDir::with_prefix_in("passthrough-", place)?;
        std::fs::write(outer.path().join("file"), [1; BLOCK])?;
        let config = Config::new(outer.path()).xattr(Xattr::On);
        let fs = PassthroughFs::new(config).expect("the directory can be shared");
        let found = fs.lookup(&context(), ROOT, name(FILE));
        let file = found.expect("the file is there").node;
        let args = OpenIn {
            flags: RDWR,
            ..OpenIn::default()
        };
        let opened = fs.open(&context(), file, &args);
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(outer.path(), dir, Mode::empty())?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&dir, FILE, flags, Mode::empty())?;
        rustix::fs::fsetxattr(&open, ATTRIBUTE, b"value", XattrFlags::empty())?;
        Ok(Self {
            fs,
            file,
            handle: opened.expect("it can be opened").handle,
            dir,
            open,
            _outer: outer,
        })
    }

    fn setattr(&self, args: SetattrIn) {
        done(self.fs.setattr(&context(), self.file, &args));
    }

    fn release(&self, node: NodeId, fh: Handle) {
        let args = ReleaseIn {
            fh,
            ..ReleaseIn::default()
        };
        done(self.fs.release(&context(), node, &args));
    }

    fn stat(&self, path: &CStr) -> rustix::io::Result<rustix::fs::Statx> {
        let mask = StatxFlags::BASIC_STATS;
        let (fd, flags) = match path.is_empty() {
            true => (&self.open, AtFlags::EMPTY_PATH),
            false => (&self.dir, AtFlags::SYMLINK_NOFOLLOW),
        };
        rustix::fs::statx(fd, path, flags, mask)
    }

    fn open_directly(&self, path: &CStr, flags: OFlags) -> OwnedFd {
        let mode = Mode::from_raw_mode(0o644);
        done(rustix::fs::openat(
            &self.dir,
            path,
            flags | OFlags::CLOEXEC,
            mode,
        ))
    }
}

pub(crate) const ROWS: [Row; 17] = [
    row(
        "LOOKUP, known",
        |site| {
            done(site.fs.lookup(&context(), ROOT, name(FILE)));
        },
        |site| {
            done(site.stat(FILE));
        },
    ),
    row(
        "LOOKUP, absent",
        |site| {
            let _ = site.fs.lookup(&context(), ROOT, name(NEW));
        },
        |site| {
            let _ = site.stat(NEW);
        },
    ),
    row(
        "GETATTR",
        |site| {
            done(site.fs.getattr(&context(), site.file, None));
        },
        |site| {
            done(site.stat(c""));
        },
    ),
    row(
        "SETATTR, mode",
        |site| {
            site.setattr(SetattrIn {
                valid: SetattrValid::MODE,
                mode: 0o600,
                ..SetattrIn::default()
            });
        },
        |site| {
            done(rustix::fs::fchmod(&site.open, Mode::from_raw_mode(0o600)));
            done(site.stat(c""));
        },
    ),
    row(
        "SETATTR, times",
        |site| {
            site.setattr(SetattrIn {
                valid: SetattrValid::ATIME | SetattrValid::MTIME,
                ..SetattrIn::default()
            });
        },
        |site| {
            let time = rustix::fs::Timespec::default();
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            done(rustix::fs::futimens(&site.open, &times));
            done(site.stat(c""));
        },
    ),
    row(
        "SETATTR, size",
        |site| {
            site.setattr(SetattrIn {
                valid: SetattrValid::SIZE,
                size: BLOCK as u64,
                ..SetattrIn::default()
            });
        },
        |site| {
            let file = site.open_directly(FILE, OFlags::WRONLY);
            done(rustix::fs::ftruncate(&file, BLOCK as u64));
            done(site.stat(c""));
        },
    ),
    row(
        "OPEN, RELEASE",
        |site| {
            let args = OpenIn {
                flags: RDWR,
                ..OpenIn::default()
            };
            let opened = done(site.fs.open(&context(), site.file, &args));
            site.release(site.file, opened.handle);
        },
        |site| drop(site.open_directly(FILE, OFlags::RDWR)),
    ),
    row(
        "OPENDIR, RELEASEDIR",
        |site| {
            let opened = done(site.fs.opendir(&context(), ROOT, &OpenIn::default()));
            let args = ReleaseIn {
                fh: opened.handle,
                ..ReleaseIn::default()
            };
            done(site.fs.releasedir(&context(), ROOT, &args));
        },
        |site| drop(site.open_directly(c".", OFlags::DIRECTORY)),
    ),
    row(
        "CREATE, RELEASE, UNLINK, FORGET",
        |site| {
            let args = CreateIn {
                flags: RDWR,
                mode: 0o644,
                ..CreateIn::default()
            };
            let (entry, opened) = done(site.fs.create(&context(), ROOT, name(NEW), &args));
            site.release(entry.node, opened.handle);
            done(site.fs.unlink(&context(), ROOT, name(NEW)));
            site.fs.forget(entry.node, 1);
        },
        |site| {
            let file = site.open_directly(NEW, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
            done(site.stat(c""));
            drop(file);
            done(rustix::fs::unlinkat(&site.dir, NEW, AtFlags::empty()));
        },
    ),
    row(
        "MKDIR, RMDIR, FORGET",
        |site| {
            let args = MkdirIn {
                mode: 0o755,
                umask: 0,
            };
            let entry = done(site.fs.mkdir(&context(), ROOT, name(NEW), &args));
            done(site.fs.rmdir(&context(), ROOT, name(NEW)));
            site.fs.forget(entry.node, 1);
        },
        |site| {
            let mode = Mode::from_raw_mode(0o755);
            done(rustix::fs::mkdirat(&site.dir, NEW, mode));
            done(site.stat(NEW));
            done(rustix::fs::unlinkat(&site.dir, NEW, AtFlags::REMOVEDIR));
        },
    ),
    row(
        "LINK, UNLINK",
        |site| {
            done(site.fs.link(&context(), site.file, ROOT, name(NEW)));
            done(site.fs.unlink(&context(), ROOT, name(NEW)));
            site.fs.forget(site.file, 1);
        },
        |site| {
            let none = AtFlags::empty();
            done(rustix::fs::linkat(&site.dir, FILE, &site.dir, NEW, none));
            done(site.stat(NEW));
            done(rustix::fs::unlinkat(&site.dir, NEW, none));
        },
    ),
    row(
        "GETXATTR",
        |site| {
            let attribute = done(XattrName::new(ATTRIBUTE));
            let mut value = [0; 64];
            done(
                site.fs
                    .getxattr(&context(), site.file, attribute, &mut value),
            );
        },
        |site| {
            let mut value = [0; 64];
            done(rustix::fs::fgetxattr(&site.open, ATTRIBUTE, &mut value));
        },
    ),
    row(
        "SETXATTR",
        |site| {
            let attribute = done(XattrName::new(ATTRIBUTE));
            let how = SetxattrFlags::empty();
            let set = site
                .fs
                .setxattr(&context(), site.file, attribute, b"value", 0, how);
            done(set);
        },
        |site| {
            let none = XattrFlags::empty();
            done(rustix::fs::fsetxattr(&site.open, ATTRIBUTE, b"value", none));
        },
    ),
    row(
        "STATFS",
        |site| {
            done(site.fs.statfs(&context(), ROOT));
        },
        |site| {
            done(rustix::fs::fstatfs(&site.dir));
        },
    ),
    row(
        "LSEEK",
        |site| {
            let args = LseekIn {
                fh: site.handle,
                whence: SEEK_DATA,
                ..LseekIn::default()
            };
            done(site.fs.lseek(&context(), site.file, &args));
        },
        |site| {
            done(rustix::fs::seek(&site.open, SeekFrom::Data(0)));
        },
    ),
    row(
        "READ of 4 KiB",
        |site| {
            let args = ReadIn {
                fh: site.handle,
                size: BLOCK as u32,
                ..ReadIn::default()
            };
            let mut block = [0; BLOCK];
            let mut sink = BufferSink::new(&mut block);
            done(site.fs.read(&context(), site.file, &args, &mut sink));
        },
        |site| {
            let mut block = [0; BLOCK];
            done(rustix::io::pread(&site.open, &mut block, 0));
        },
    ),
    row(
        "WRITE of 4 KiB",
        |site| {
            let args = WriteIn {
                fh: site.handle,
                size: BLOCK as u32,
                ..WriteIn::default()
            };
            let mut source = BufferSource::new(&[1; BLOCK]);
            done(site.fs.write(&context(), site.file, &args, &mut source));
        },
        |site| {
            done(rustix::io::pwrite(&site.open, &[1; BLOCK], 0));
        },
    ),
];

fn context() -> Context<'static> {
    Context {
        unique: 1,
        uid: 0,
        gid: 0,
        pid: 1,
        extensions: Extensions::default(),
        blocking: Blocking::Allowed,
    }
}

fn name(name: &CStr) -> Name<'_> {
    done(Name::new(name))
}

#[track_caller]
fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("it can be done")
}
