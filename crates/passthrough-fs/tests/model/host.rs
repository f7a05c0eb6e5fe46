//! The host itself: system calls on descriptors that stand for the slots.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Timespec,
    Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::answer::{Answer, Facts, Listed, Outcome};
use crate::op::{self, DIRS, FILES, NAMES, NODES, Op, Place, Slot, TARGETS, When, XATTRS};

type Result<T> = rustix::io::Result<T>;

pub struct Host {
    nodes: [Option<OwnedFd>; NODES],
    files: [Option<File>; FILES],
    dirs: [Option<OwnedFd>; DIRS],
}

struct File {
    fd: OwnedFd,
    appends: bool,
}

/// What cannot be asked of an empty slot.
struct Empty;

impl Host {
    pub fn new(root: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).unwrap();
        let mut nodes = [const { None }; NODES];
        nodes[0] = Some(root);
        Self {
            nodes,
            files: [const { None }; FILES],
            dirs: [const { None }; DIRS],
        }
    }

    pub fn apply(&mut self, op: &Op) -> Answer {
        match self.run(op) {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(errno)) => Err(errno.raw_os_error()),
            Err(Empty) => Ok(Outcome::Skipped),
        }
    }

    /// Whether what is in a slot, and is no directory, has no name any more and is not open: then
    /// nothing but its descriptor holds it.
    pub fn is_lost(&self, slot: usize) -> bool {
        let id = |fd: BorrowedFd<'_>| {
            let stat = rustix::fs::fstat(fd).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        let Ok(node) = self.node(slot) else {
            return false;
        };
        let files = self.files.iter().flatten().map(|file| file.fd.as_fd());
        let dirs = self.dirs.iter().flatten().map(AsFd::as_fd);
        let is_open = files.chain(dirs).any(|open| id(open) == id(node));
        let is_directory = format(node) == FileType::Directory;
        rustix::fs::fstat(node).unwrap().st_nlink == 0 && !is_open && !is_directory
    }

    /// What is held and has no name any more.
    pub fn removed(&self) -> Vec<Slot> {
        let nodes = self.nodes.iter().map(|node| node.as_ref().map(AsFd::as_fd));
        let files = self.files.iter();
        let files = files.map(|file| file.as_ref().map(|file| file.fd.as_fd()));
        let dirs = self.dirs.iter().map(|dir| dir.as_ref().map(AsFd::as_fd));
        let slots = (0..NODES).map(Slot::Node).zip(nodes);
        let slots = slots.chain((0..FILES).map(Slot::File).zip(files));
        let slots = slots.chain((0..DIRS).map(Slot::Dir).zip(dirs));
        let is_removed = |fd| rustix::fs::fstat(fd).unwrap().st_nlink == 0;
        slots
            .filter(|(_, fd)| fd.is_some_and(is_removed))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Empties a slot.
    pub fn lose(&mut self, slot: Slot) {
        match slot {
            Slot::Node(slot) => self.nodes[slot] = None,
            Slot::File(slot) => self.files[slot] = None,
            Slot::Dir(slot) => self.dirs[slot] = None,
        }
    }

    fn run(&mut self, asked: &Op) -> std::result::Result<Result<Outcome>, Empty> {
        Ok(match *asked {
            Op::Hold { at, into } => {
                let found = self.hold(self.node(at.0)?, at.1);
                found.map(|(fd, outcome)| {
                    self.nodes[into] = Some(fd);
                    outcome
                })
            }
            Op::Drop { node } => {
                self.nodes[node] = None;
                Ok(Outcome::Done)
            }
            Op::GetAttr { node } => facts(self.node(node)?).map(Outcome::Attributes),
            Op::Create {
                at,
                flags,
                mode,
                into,
            } => {
                let dir = self.node(at.0)?;
                let flags = OFlags::from_bits_retain(flags) | OFlags::CREATE;
                // To open a FIFO or a device is none of the guest's business.
                if let Ok(stat) = rustix::fs::statat(dir, name(at), AtFlags::SYMLINK_NOFOLLOW)
                    && is_special(stat.st_mode)
                    && !flags.contains(OFlags::EXCL)
                {
                    return Ok(Ok(Outcome::Skipped));
                }
                let fd = rustix::fs::openat(
                    dir,
                    name(at),
                    flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::from_raw_mode(mode),
                );
                self.keep_open(fd, flags, into)
            }
            Op::TmpFile {
                node,
                flags,
                mode,
                into,
            } => {
                let flags = OFlags::from_bits_retain(flags) - OFlags::TRUNC;
                let fd = rustix::fs::openat(
                    self.directory(node)?,
                    c".",
                    flags | OFlags::TMPFILE | OFlags::CLOEXEC,
                    Mode::from_raw_mode(mode),
                );
                self.keep_open(fd, flags, into)
            }
            Op::Mkdir { at, mode } => {
                let dir = self.node(at.0)?;
                rustix::fs::mkdirat(dir, name(at), Mode::from_raw_mode(mode))
                    .and_then(|()| self.made(at))
            }
            Op::Mknod { at, mode } => {
                let kind = match mode & 0o170_000 {
                    0 => FileType::RegularFile,
                    format => FileType::from_raw_mode(format),
                };
                let device = rustix::fs::makedev(7, 0x1_2345);
                let dir = self.node(at.0)?;
                rustix::fs::mknodat(
                    dir,
                    name(at),
                    kind,
                    Mode::from_raw_mode(mode & 0o7777),
                    device,
                )
                .and_then(|()| self.made(at))
            }
            Op::Symlink { at, target } => {
                rustix::fs::symlinkat(TARGETS[target], self.node(at.0)?, name(at))
                    .and_then(|()| self.made(at))
            }
            Op::ReadLink { node } => {
                let node = self.node(node)?;
                if format(node) != FileType::Symlink {
                    return Err(Empty);
                }
                rustix::fs::readlinkat(node, c"", Vec::new())
                    .map(|target| Outcome::Bytes(target.into_bytes()))
            }
            Op::Unlink { at } => done(rustix::fs::unlinkat(
                self.node(at.0)?,
                name(at),
                AtFlags::empty(),
            )),
            Op::Rmdir { at } => done(rustix::fs::unlinkat(
                self.node(at.0)?,
                name(at),
                AtFlags::REMOVEDIR,
            )),
            Op::Rename { from, to, flags } => done(rustix::fs::renameat_with(
                self.directory(from.0)?,
                name(from),
                self.directory(to.0)?,
                name(to),
                RenameFlags::from_bits_retain(flags),
            )),
            Op::Link { node, to } => {
                let (node, dir) = (self.node(node)?, self.directory(to.0)?);
                rustix::fs::linkat(CWD, own(node), dir, name(to), AtFlags::SYMLINK_FOLLOW)
                    .and_then(|()| self.made(to))
            }
            Op::Open { node, flags, into } => {
                let node = self.node(node)?;
                if !matches!(format(node), FileType::RegularFile | FileType::Symlink) {
                    return Err(Empty);
                }
                let flags = OFlags::from_bits_retain(flags);
                let fd = rustix::fs::open(own(node), flags | OFlags::CLOEXEC, Mode::empty());
                self.keep_open(fd, flags, into)
            }
            Op::Close { file } => {
                self.files[file] = None;
                Ok(Outcome::Done)
            }
            Op::Read { file, offset, size } => {
                let mut buffer = vec![0; size];
                rustix::io::pread(self.file(file)?, &mut buffer, offset).map(|read| {
                    buffer.truncate(read);
                    Outcome::Bytes(buffer)
                })
            }
            Op::Write {
                file,
                offset,
                size,
                byte,
            } => number(rustix::io::pwrite(
                self.file(file)?,
                &vec![byte; size],
                offset,
            )),
            Op::Seek {
                file,
                offset,
                whence,
            } => {
                let to = match whence {
                    3 => SeekFrom::Data(offset),
                    _ => SeekFrom::Hole(offset),
                };
                rustix::fs::seek(self.file(file)?, to).map(Outcome::Number)
            }
            Op::Sync { file } => done(rustix::fs::fdatasync(self.file(file)?)),
            Op::Truncate { file, size } => done(rustix::fs::ftruncate(self.file(file)?, size)),
            Op::Resize { node, size } => {
                let node = self.node(node)?;
                if format(node) != FileType::RegularFile {
                    return Err(Empty);
                }
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                done(
                    rustix::fs::open(own(node), flags, Mode::empty())
                        .and_then(|fd| rustix::fs::ftruncate(fd, size)),
                )
            }
            Op::Allocate {
                file,
                mode,
                offset,
                length,
            } => {
                let mode = FallocateFlags::from_bits_retain(mode);
                done(rustix::fs::fallocate(
                    self.file(file)?,
                    mode,
                    offset,
                    length,
                ))
            }
            Op::Copy {
                from,
                to,
                mut off_in,
                mut off_out,
                len,
            } => {
                if self.files[to].as_ref().is_none_or(|file| file.appends) {
                    return Err(Empty);
                }
                number(rustix::fs::copy_file_range(
                    self.file(from)?,
                    Some(&mut off_in),
                    self.file(to)?,
                    Some(&mut off_out),
                    usize::try_from(len).unwrap(),
                ))
            }
            Op::Chmod { node, mode } => {
                let node = self.node(node)?;
                rustix::fs::chmodat(CWD, own(node), Mode::from_raw_mode(mode), AtFlags::empty())
                    .and_then(|()| facts(node).map(Outcome::Attributes))
            }
            Op::Chown { node, uid, gid } => {
                let node = self.node(node)?;
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                let changed = match (uid, gid) {
                    (None, None) => Ok(()),
                    _ => rustix::fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH),
                };
                changed.and_then(|()| facts(node).map(Outcome::Attributes))
            }
            Op::Times { node, atime, mtime } => {
                let node = self.node(node)?;
                let times = Timestamps {
                    last_access: timespec(atime),
                    last_modification: timespec(mtime),
                };
                rustix::fs::utimensat(node, c"", &times, AtFlags::EMPTY_PATH)
                    .and_then(|()| facts(node).map(Outcome::Attributes))
            }
            Op::OpenDir { node, into } => {
                let node = self.node(node)?;
                if format(node) != FileType::Directory {
                    return Err(Empty);
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(own(node), flags, Mode::empty()).map(|fd| {
                    self.dirs[into] = Some(fd);
                    Outcome::Done
                })
            }
            Op::CloseDir { dir } => {
                self.dirs[dir] = None;
                Ok(Outcome::Done)
            }
            Op::List { dir, plus, .. } => {
                list(self.dirs[dir].as_ref().ok_or(Empty)?, plus).map(Outcome::Listed)
            }
            Op::SetXattr {
                node,
                name,
                size,
                flags,
            } => done(rustix::fs::setxattr(
                own(self.node(node)?),
                XATTRS[name],
                &vec![b'v'; size],
                XattrFlags::from_bits_retain(flags),
            )),
            Op::SetAcl { node, default, acl } => done(rustix::fs::setxattr(
                own(self.acl_holder(node)?),
                op::acl_name(default),
                &op::acl_value(acl),
                XattrFlags::empty(),
            )),
            Op::GetAcl { node, default } => {
                let path = own(self.acl_holder(node)?);
                let mut buffer = vec![0; 4096];
                rustix::fs::getxattr(&path, op::acl_name(default), &mut buffer[..]).map(|len| {
                    buffer.truncate(len);
                    Outcome::Bytes(buffer)
                })
            }
            Op::GetXattr { node, name, room } => {
                let (path, name) = (own(self.node(node)?), XATTRS[name]);
                sized(
                    room,
                    || rustix::fs::getxattr_query(&path, name),
                    |buffer| rustix::fs::getxattr(&path, name, buffer),
                )
            }
            Op::ListXattr { node, room } => {
                let path = own(self.node(node)?);
                sized(
                    room,
                    || rustix::fs::listxattr_query(&path),
                    |buffer| rustix::fs::listxattr(&path, buffer),
                )
            }
            Op::RemoveXattr { node, name } => {
                done(rustix::fs::removexattr(own(self.node(node)?), XATTRS[name]))
            }
        })
    }

    fn node(&self, slot: usize) -> std::result::Result<BorrowedFd<'_>, Empty> {
        self.nodes[slot].as_ref().map(AsFd::as_fd).ok_or(Empty)
    }

    /// A directory, where the kernel of a guest finds out by itself: with several things wrong, the
    /// host may find another first.
    fn directory(&self, slot: usize) -> std::result::Result<BorrowedFd<'_>, Empty> {
        let node = self.node(slot)?;
        match format(node) {
            FileType::Directory => Ok(node),
            _ => Err(Empty),
        }
    }

    /// What can have an ACL: of symbolic links, the kernel of a guest knows that they cannot.
    fn acl_holder(&self, slot: usize) -> std::result::Result<BorrowedFd<'_>, Empty> {
        let node = self.node(slot)?;
        match format(node) {
            FileType::Symlink => Err(Empty),
            _ => Ok(node),
        }
    }

    fn file(&self, slot: usize) -> std::result::Result<BorrowedFd<'_>, Empty> {
        self.files[slot]
            .as_ref()
            .map(|file| file.fd.as_fd())
            .ok_or(Empty)
    }

    fn hold(&self, dir: BorrowedFd<'_>, name: usize) -> Result<(OwnedFd, Outcome)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, NAMES[name], flags, Mode::empty())?;
        let outcome = self.found(&fd)?;
        Ok((fd, outcome))
    }

    /// What is told of something that was just made.
    fn made(&self, at: Place) -> Result<Outcome> {
        let Ok(dir) = self.node(at.0) else {
            return Err(Errno::BADF);
        };
        self.hold(dir, at.1).map(|(_, outcome)| outcome)
    }

    fn found(&self, fd: &OwnedFd) -> Result<Outcome> {
        let id = |fd: &OwnedFd| {
            let stat = rustix::fs::fstat(fd).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        let own = id(fd);
        let same = |node: &Option<OwnedFd>| node.as_ref().is_some_and(|node| id(node) == own);
        Ok(Outcome::Found(
            facts(fd.as_fd())?,
            self.nodes.iter().position(same),
        ))
    }

    fn keep_open(&mut self, fd: Result<OwnedFd>, flags: OFlags, into: usize) -> Result<Outcome> {
        let fd = fd?;
        let outcome = self.found(&fd)?;
        let appends = flags.contains(OFlags::APPEND);
        self.files[into] = Some(File { fd, appends });
        Ok(outcome)
    }
}

fn name(at: Place) -> &'static OsStr {
    OsStr::from_bytes(NAMES[at.1])
}

/// The path of what a descriptor was opened on, symbolic links included (proc(5)).
fn own(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

fn facts(fd: BorrowedFd<'_>) -> Result<Facts> {
    rustix::fs::fstat(fd).map(|stat| Facts::from(&stat))
}

fn format(fd: BorrowedFd<'_>) -> FileType {
    FileType::from_raw_mode(rustix::fs::fstat(fd).unwrap().st_mode)
}

fn is_special(mode: u32) -> bool {
    !matches!(
        FileType::from_raw_mode(mode),
        FileType::RegularFile | FileType::Directory | FileType::Symlink
    )
}

fn timespec(when: When) -> Timespec {
    let (tv_sec, tv_nsec) = match when {
        When::Omit => (0, UTIME_OMIT),
        When::Now => (0, UTIME_NOW),
        When::At(seconds, nanoseconds) => (seconds, nanoseconds.into()),
    };
    Timespec { tv_sec, tv_nsec }
}

fn list(dir: &OwnedFd, plus: bool) -> Result<Vec<Listed>> {
    rustix::fs::seek(dir, SeekFrom::Start(0))?;
    let mut all = Vec::new();
    // One read(2) at a time: the crate's iterator takes a removed directory for an empty one.
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        let facts = if plus && !matches!(name.to_bytes(), b"." | b"..") {
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(Facts::from(&stat)),
                Err(_) => None,
            }
        } else {
            None
        };
        all.push(Listed {
            name: name.to_bytes().to_vec(),
            kind: entry.file_type().as_raw_mode() >> 12,
            facts,
        });
    }
    all.sort();
    Ok(all)
}

fn done(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Done)
}

fn number(result: Result<usize>) -> Result<Outcome> {
    result.map(|number| Outcome::Number(number as u64))
}

/// The bytes; without room for any, only their number.
fn sized(
    room: usize,
    query: impl FnOnce() -> Result<usize>,
    get: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<Outcome> {
    if room == 0 {
        return number(query());
    }
    let mut buffer = vec![0; room];
    get(&mut buffer).map(|len| {
        buffer.truncate(len);
        Outcome::Bytes(buffer)
    })
}
