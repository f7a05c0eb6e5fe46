use std::ffi::CStr;
use std::fs;

use fuse_wire::abi::{CopyFileRangeIn, OpenOut, SetattrIn, StatxIn, WriteIn};
use fuse_wire::flags::{FsyncFlags, RenameFlags, SetattrValid, WriteFlags};
use fuse_wire::{Errno, Handle, NodeId, Operation};
use virtio_fs_guest::{Error as GuestError, Mount, Payload};

use crate::site::{Failure, Site};

/// Files in a directory that is listed.
const ENTRIES: u32 = 100;
/// Bytes asked for in a READDIRPLUS, as much as Linux asked for until 6.12.
const LISTING: u32 = 4096;
/// An ordinary user of the guest.
const USER: u32 = 1000;
/// `O_RDWR` of open(2).
const RDWR: u32 = 2;
/// `STATX_BASIC_STATS` and `STATX_BTIME` of statx(2).
const STATX_MASK: u32 = 0xfff;
/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;
const ROOT: NodeId = NodeId::ROOT;

/// An operation whose system calls are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) operation: fn(&mut Site) -> Result<(), Failure>,
    /// Most calls that our daemon may make, by default.
    pub(crate) at_most: Option<usize>,
}

/// All of them.
pub(crate) const ROWS: [Row; 50] = [
    row("LOOKUP, new", |site| {
        let name = site.name();
        fs::write(site.host(&name), b"")?;
        let node = site.during(|mount| mount.lookup(ROOT, &name))?.nodeid;
        Ok(site.mount.forget(node, 1)?)
    })
    .at_most(2),
    row("LOOKUP, known", |site| {
        let (name, _) = site.file(b"")?;
        site.during(|mount| mount.lookup(ROOT, &name)).map(drop)
    })
    .at_most(1),
    row("LOOKUP, absent", |site| {
        let name = site.name();
        look_for_absent(&mut site.mount, &name)?;
        site.during(|mount| look_for_absent(mount, &name))
    }),
    row("LOOKUP, absent, never asked for", |site| {
        let name = site.name();
        site.during(|mount| look_for_absent(mount, &name))
    }),
    row("GETATTR", |site| {
        let (_, node) = site.file(b"")?;
        site.during(|mount| mount.getattr(node, None)).map(drop)
    })
    .at_most(1),
    row("STATX", |site| {
        let (_, node) = site.file(b"")?;
        let args = StatxIn {
            sx_mask: STATX_MASK,
            ..StatxIn::default()
        };
        site.during(|mount| {
            let operation = Operation::Statx(args);
            mount.call(node, operation, Payload::None)?.result()?;
            Ok(())
        })
    })
    .at_most(1),
    row("OPEN", |site| {
        let (_, node) = site.file(b"")?;
        let opened = site.during(|mount| mount.open(node, RDWR))?;
        Ok(site.mount.release(node, opened.fh)?)
    })
    // One more, on a disk, to know whether the guest has to read it again.
    .at_most(2),
    row("FLUSH", |site| {
        with_open(site, |mount, node, file| mount.flush(node, file.fh, 1))
    }),
    row("RELEASE", |site| {
        let (_, node) = site.file(b"")?;
        let opened = site.mount.open(node, RDWR)?;
        site.during(|mount| mount.release(node, opened.fh))
    })
    .at_most(1),
    row("READ", |site| {
        with_open(site, |mount, node, file| {
            mount.read(node, file.fh, 0, &mut [0; 4096]).map(drop)
        })
    })
    .at_most(1),
    row("READ, at the end", |site| {
        with_open(site, |mount, node, file| {
            mount.read(node, file.fh, 4096, &mut [0; 8192]).map(drop)
        })
    }),
    row("READ, across the end", |site| {
        with_open(site, |mount, node, file| {
            mount.read(node, file.fh, 0, &mut [0; 8192]).map(drop)
        })
    }),
    row("WRITE", |site| {
        with_open(site, |mount, node, file| {
            mount.write(node, file.fh, 0, &[1; 4096]).map(drop)
        })
    })
    .at_most(1),
    row("WRITE that clears SUID", |site| {
        with_open(site, |mount, node, file| {
            let args = WriteIn {
                fh: file.fh,
                size: 4096,
                write_flags: WriteFlags::KILL_SUIDGID,
                ..WriteIn::default()
            };
            let payload = Payload::Copied(&[1; 4096]);
            mount
                .call(node, Operation::Write(args), payload)?
                .result()?;
            Ok(())
        })
    }),
    row("FSYNC", |site| {
        with_open(site, |mount, node, file| {
            mount.fsync(node, file.fh, FsyncFlags::empty())
        })
    }),
    row("LSEEK", |site| {
        with_open(site, |mount, node, file| {
            mount.lseek(node, file.fh, 0, SEEK_DATA).map(drop)
        })
    }),
    row("FALLOCATE by root", fallocate),
    row("FALLOCATE by another user", |site| as_user(site, fallocate)),
    row("COPY_FILE_RANGE by root", copy_file_range),
    row("COPY_FILE_RANGE by another user", |site| {
        as_user(site, copy_file_range)
    }),
    row("CREATE by root", create).at_most(3),
    row("CREATE by another user", |site| as_user(site, create)),
    row("TMPFILE", |site| {
        let (entry, opened) = site.during(|mount| mount.tmpfile(ROOT, RDWR, 0o644))?;
        site.mount.release(entry.nodeid, opened.fh)?;
        Ok(site.mount.forget(entry.nodeid, 1)?)
    }),
    row("MKDIR by root", mkdir).at_most(3),
    row("MKDIR by another user", |site| as_user(site, mkdir)),
    row("MKNOD", |site| {
        let name = site.name();
        site.during(|mount| mount.mknod(ROOT, &name, 0o010_644, 0))
            .map(drop)
    }),
    row("SYMLINK", |site| {
        let name = site.name();
        site.during(|mount| mount.symlink(ROOT, &name, c"target"))
            .map(drop)
    }),
    row("READLINK", |site| {
        let name = site.name();
        let node = site.mount.symlink(ROOT, &name, c"target")?.nodeid;
        site.during(|mount| mount.readlink(node)).map(drop)
    }),
    row("LINK", |site| {
        let (_, node) = site.file(b"")?;
        let name = site.name();
        site.during(|mount| mount.link(node, ROOT, &name)).map(drop)
    })
    .at_most(2),
    row("UNLINK", |site| {
        let (name, _) = site.file(b"")?;
        site.during(|mount| mount.unlink(ROOT, &name))
    })
    .at_most(1),
    row("RMDIR", |site| {
        let name = site.name();
        site.mount.mkdir(ROOT, &name, 0o755)?;
        site.during(|mount| mount.rmdir(ROOT, &name))
    }),
    row("RENAME", |site| {
        let (old, _) = site.file(b"")?;
        let new = site.name();
        let none = RenameFlags::empty();
        site.during(|mount| mount.rename((ROOT, &old), (ROOT, &new), none))
    })
    .at_most(1),
    row("RENAME over a file", |site| {
        let ((old, _), (new, _)) = (site.file(b"")?, site.file(b"")?);
        let none = RenameFlags::empty();
        site.during(|mount| mount.rename((ROOT, &old), (ROOT, &new), none))
    }),
    row("SETATTR, mode", |site| {
        setattr(
            site,
            SetattrIn {
                mode: 0o600,
                ..valid(SetattrValid::MODE)
            },
        )
    })
    .at_most(2),
    row("SETATTR, owner", |site| {
        setattr(
            site,
            SetattrIn {
                uid: USER,
                ..valid(SetattrValid::UID)
            },
        )
    }),
    row("SETATTR, times", |site| {
        setattr(site, valid(SetattrValid::ATIME | SetattrValid::MTIME))
    }),
    row("SETATTR, size", |site| {
        setattr(
            site,
            SetattrIn {
                size: 10,
                ..valid(SetattrValid::SIZE)
            },
        )
    }),
    row("SETATTR, size, with a handle", |site| {
        with_open(site, |mount, node, file| {
            let args = SetattrIn {
                fh: file.fh,
                size: 10,
                ..valid(SetattrValid::SIZE | SetattrValid::FH)
            };
            mount.setattr(node, args).map(drop)
        })
    }),
    row("SETXATTR", |site| {
        let (_, node) = site.file(b"")?;
        site.during(|mount| mount.setxattr(node, c"user.a", b"value", 0))
    })
    .at_most(2),
    row("GETXATTR", |site| {
        let node = with_xattr(site)?;
        site.during(|mount| mount.getxattr(node, c"user.a"))
            .map(drop)
    })
    .at_most(2),
    row("GETXATTR, none", |site| {
        let (_, node) = site.file(b"")?;
        site.during(|mount| match mount.getxattr(node, c"security.capability") {
            Err(GuestError::Errno(Errno::ENODATA)) => Ok(()),
            other => other.map(drop),
        })
    }),
    row("GETXATTR of a special file", |site| {
        let name = site.name();
        let node = site.mount.mknod(ROOT, &name, 0o010_644, 0)?.nodeid;
        site.during(|mount| match mount.getxattr(node, c"security.capability") {
            Err(GuestError::Errno(Errno::ENODATA)) => Ok(()),
            other => other.map(drop),
        })
    }),
    row("LISTXATTR", |site| {
        let node = with_xattr(site)?;
        site.during(|mount| mount.listxattr(node)).map(drop)
    }),
    row("REMOVEXATTR", |site| {
        let node = with_xattr(site)?;
        site.during(|mount| mount.removexattr(node, c"user.a"))
    }),
    row("OPENDIR", |site| {
        let opened = site.during(|mount| mount.opendir(ROOT))?;
        Ok(site.mount.releasedir(ROOT, opened.fh)?)
    }),
    row("READDIR of 100", |site| list_counted(site, Listing::Names)),
    row("READDIRPLUS of 100, all new", |site| {
        list_counted(site, Listing::New)
    })
    .at_most(202),
    row("READDIRPLUS of 100, all known", |site| {
        list_counted(site, Listing::Known)
    })
    .at_most(102),
    row("STATFS", |site| {
        site.during(|mount| mount.statfs(ROOT)).map(drop)
    }),
    row("ACCESS", |site| {
        let (_, node) = site.file(b"")?;
        site.during(|mount| mount.access(node, 4))
    }),
];

const fn row(name: &'static str, operation: fn(&mut Site) -> Result<(), Failure>) -> Row {
    Row {
        name,
        operation,
        at_most: None,
    }
}

impl Row {
    const fn at_most(mut self, calls: usize) -> Self {
        self.at_most = Some(calls);
        self
    }
}

fn look_for_absent(mount: &mut Mount, name: &CStr) -> Result<(), GuestError> {
    match mount.lookup(ROOT, name) {
        Err(GuestError::Errno(Errno::ENOENT)) => Ok(()),
        other => other.map(drop),
    }
}

/// Counts `part` on an open file of 4096 bytes.
fn with_open(
    site: &mut Site,
    part: impl FnOnce(&mut Mount, NodeId, OpenOut) -> Result<(), GuestError>,
) -> Result<(), Failure> {
    let (_, node) = site.file(&[1; 4096])?;
    let opened = site.mount.open(node, RDWR)?;
    site.during(|mount| part(mount, node, opened))?;
    Ok(site.mount.release(node, opened.fh)?)
}

fn fallocate(site: &mut Site) -> Result<(), Failure> {
    with_open(site, |mount, node, file| {
        mount.fallocate(node, file.fh, 0..100_000, 0)
    })
}

fn copy_file_range(site: &mut Site) -> Result<(), Failure> {
    let (_, to) = site.file(b"")?;
    let fh_out = site.mount.open(to, RDWR)?.fh;
    with_open(site, |mount, node, file| {
        let args = CopyFileRangeIn {
            fh_in: file.fh,
            off_in: 0,
            nodeid_out: to,
            fh_out,
            off_out: 0,
            len: 4096,
            flags: 0,
        };
        mount.copy_file_range(node, args).map(drop)
    })?;
    Ok(site.mount.release(to, fh_out)?)
}

fn create(site: &mut Site) -> Result<(), Failure> {
    let name = site.name();
    let (entry, opened) = site.during(|mount| mount.create(ROOT, &name, RDWR, 0o100_644))?;
    site.mount.release(entry.nodeid, opened.fh)?;
    Ok(site.mount.forget(entry.nodeid, 1)?)
}

fn mkdir(site: &mut Site) -> Result<(), Failure> {
    let name = site.name();
    let entry = site.during(|mount| mount.mkdir(ROOT, &name, 0o755))?;
    Ok(site.mount.forget(entry.nodeid, 1)?)
}

fn as_user(
    site: &mut Site,
    operation: fn(&mut Site) -> Result<(), Failure>,
) -> Result<(), Failure> {
    site.ask_as(USER);
    let result = operation(site);
    site.ask_as(0);
    result
}

fn setattr(site: &mut Site, args: SetattrIn) -> Result<(), Failure> {
    let (_, node) = site.file(b"")?;
    site.during(|mount| mount.setattr(node, args)).map(drop)
}

fn valid(valid: SetattrValid) -> SetattrIn {
    SetattrIn {
        valid,
        ..SetattrIn::default()
    }
}

fn with_xattr(site: &mut Site) -> Result<NodeId, Failure> {
    let (_, node) = site.file(b"")?;
    site.mount.setxattr(node, c"user.a", b"value", 0)?;
    Ok(node)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listing {
    Names,
    New,
    Known,
}

/// Counts a listing of a directory that is open, to its end.
fn list_counted(site: &mut Site, how: Listing) -> Result<(), Failure> {
    let name = site.name();
    let path = site.host(&name);
    fs::create_dir(&path)?;
    for n in 0..ENTRIES {
        fs::write(path.join(format!("file-{n:03}")), b"")?;
    }
    let node = site.mount.lookup(ROOT, &name)?.nodeid;
    if how == Listing::Known {
        let handle = site.mount.opendir(node)?.fh;
        list(&mut site.mount, (node, handle), how)?;
        site.mount.releasedir(node, handle)?;
    }
    let handle = site.mount.opendir(node)?.fh;
    site.during(|mount| list(mount, (node, handle), how))?;
    Ok(site.mount.releasedir(node, handle)?)
}

fn list(
    mount: &mut Mount,
    (node, handle): (NodeId, Handle),
    how: Listing,
) -> Result<(), GuestError> {
    let mut offset = 0;
    loop {
        let entries = match how {
            Listing::Names => mount.readdir(node, handle, offset, LISTING)?,
            Listing::New | Listing::Known => mount.readdirplus(node, handle, offset, LISTING)?,
        };
        match entries.last() {
            Some(last) => offset = last.off,
            None => return Ok(()),
        }
    }
}
