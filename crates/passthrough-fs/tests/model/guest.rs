//! The share, asked as the kernel of a guest asks: nodes are looked up, held while they are in use
//! and forgotten after.

use std::collections::HashMap;
use std::ffi::CString;

use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::PassthroughFs;
use rustix::fs::OFlags;

use crate::answer::{Answer, Facts, Listed, Outcome};
use crate::common;
use crate::op::{self, DIRS, FILES, NAMES, NODES, Op, Place, Slot, TARGETS, When, XATTRS};

pub struct Guest {
    fs: PassthroughFs,
    nodes: [Option<NodeId>; NODES],
    files: [Option<File>; FILES],
    dirs: [Option<(NodeId, Handle)>; DIRS],
    known: HashMap<NodeId, Known>,
}

#[derive(Clone, Copy)]
struct File {
    node: NodeId,
    fh: Handle,
    flags: u32,
}

/// What the guest's kernel knows of a node: it is forgotten when nothing uses it any more. A kernel
/// also knows the directories above what it uses; here, all that it ever saw.
#[derive(Default)]
struct Known {
    lookups: u64,
    users: usize,
    is_directory: bool,
}

/// Why an operation was not done.
enum Not {
    Empty,
    Failed(i32),
}

impl Guest {
    pub fn new(fs: PassthroughFs) -> Self {
        let mut nodes = [None; NODES];
        nodes[0] = Some(NodeId::ROOT);
        Self {
            fs,
            nodes,
            files: [None; FILES],
            dirs: [None; DIRS],
            known: HashMap::new(),
        }
    }

    /// Goes on with another share.
    pub fn move_to(&mut self, fs: PassthroughFs) {
        let mut bytes = Vec::new();
        self.fs.state().unwrap().save(&mut bytes).unwrap();
        fs.state().unwrap().load(&mut &*bytes).unwrap();
        self.fs = fs;
    }

    /// Empties a slot. What it held was lost when the guest was moved.
    pub fn lose(&mut self, slot: Slot) {
        let node = match slot {
            Slot::Node(slot) => self.nodes[slot].take(),
            Slot::File(slot) => self.files[slot].take().map(|file| file.node),
            Slot::Dir(slot) => self.dirs[slot].take().map(|(node, _)| node),
        };
        let attributes = self.fs.getattr(&common::me(), node.unwrap(), None);
        assert_eq!(common::errno(attributes), Errno::ESTALE);
        self.exchange(node, None);
    }

    pub fn apply(&mut self, op: &Op) -> Answer {
        match self.run(op) {
            Ok(outcome) => Ok(outcome),
            Err(Not::Failed(errno)) => Err(errno),
            Err(Not::Empty) => Ok(Outcome::Skipped),
        }
    }

    fn run(&mut self, asked: &Op) -> std::result::Result<Outcome, Not> {
        let fs = &self.fs;
        match *asked {
            Op::Hold { at, into } => {
                let dir = self.node(at.0)?;
                let entry = self.ask(|cx| with_name(at, |name| fs.lookup(cx, dir, name)))?;
                if entry.node == NodeId::NEGATIVE {
                    return Err(Not::Failed(Errno::ENOENT.raw()));
                }
                // That there is none may be remembered.
                if entry.node == NodeId::NEGATIVE {
                    return Err(Not::Failed(Errno::ENOENT.raw()));
                }
                let outcome = self.learn(&entry);
                self.replace_node(into, Some(entry.node));
                self.tidy(entry.node);
                Ok(outcome)
            }
            Op::Drop { node } => {
                self.replace_node(node, None);
                Ok(Outcome::Done)
            }
            Op::GetAttr { node } => self.facts(self.node(node)?).map(Outcome::Attributes),
            Op::Create {
                at,
                flags,
                mode,
                into,
            } => {
                let dir = self.node(at.0)?;
                let args = create_args(flags, mode);
                let made = self.ask(|cx| with_name(at, |name| fs.create(cx, dir, name, &args)));
                match made {
                    // It was there, and is special. The guest's kernel opens it by itself.
                    Err(Not::Failed(errno)) if errno == Errno::ENXIO.raw() => Err(Not::Empty),
                    made => self.keep_open(made?, flags, into),
                }
            }
            Op::TmpFile {
                node,
                flags,
                mode,
                into,
            } => {
                let dir = self.directory(node)?;
                let args = create_args(flags & !OFlags::TRUNC.bits(), mode);
                let made = self.ask(|cx| fs.tmpfile(cx, dir, &args))?;
                self.keep_open(made, flags, into)
            }
            Op::Mkdir { at, mode } => {
                let args = MkdirIn { mode, umask: 0 };
                self.make(at, |fs, cx, dir, name| fs.mkdir(cx, dir, name, &args))
            }
            Op::Mknod { at, mode } => {
                let args = MknodIn {
                    mode,
                    rdev: 0x1_2345 & 0xff | 7 << 8 | (0x1_2345 & !0xff) << 12,
                    ..Default::default()
                };
                self.make(at, |fs, cx, dir, name| fs.mknod(cx, dir, name, &args))
            }
            Op::Symlink { at, target } => {
                let target = CString::new(TARGETS[target]).unwrap();
                let target = SymlinkTarget::new(&target).unwrap();
                self.make(at, |fs, cx, dir, name| fs.symlink(cx, dir, name, target))
            }
            Op::ReadLink { node } => {
                let node = self.node(node)?;
                if self.format(node)? != 0o120_000 {
                    return Err(Not::Empty);
                }
                let mut buffer = vec![0; 4096];
                let len = self.ask_mut(|cx| fs.readlink(cx, node, &mut buffer))?;
                buffer.truncate(len);
                Ok(Outcome::Bytes(buffer))
            }
            Op::Unlink { at } => {
                let dir = self.node(at.0)?;
                self.done(|cx| with_name(at, |name| fs.unlink(cx, dir, name)))
            }
            Op::Rmdir { at } => {
                let dir = self.node(at.0)?;
                self.done(|cx| with_name(at, |name| fs.rmdir(cx, dir, name)))
            }
            Op::Rename { from, to, flags } => {
                let (dir, new_dir) = (self.directory(from.0)?, self.directory(to.0)?);
                let flags = RenameFlags::from_bits_retain(flags);
                self.done(|cx| {
                    with_name(from, |name| {
                        with_name(to, |new_name| {
                            fs.rename(cx, dir, name, new_dir, new_name, flags)
                        })
                    })
                })
            }
            Op::Link { node, to } => {
                let node = self.node(node)?;
                self.directory(to.0)?;
                self.make(to, |fs, cx, dir, name| fs.link(cx, node, dir, name))
            }
            Op::Open { node, flags, into } => {
                let node = self.node(node)?;
                if !matches!(self.format(node)?, 0o100_000 | 0o120_000) {
                    return Err(Not::Empty);
                }
                let args = OpenIn {
                    flags,
                    ..Default::default()
                };
                let opened = self.ask(|cx| fs.open(cx, node, &args))?;
                let outcome = Outcome::Found(self.facts(node)?, self.first_slot(node));
                self.replace_file(into, Some((node, opened.handle, flags)));
                Ok(outcome)
            }
            Op::Close { file } => {
                self.replace_file(file, None);
                Ok(Outcome::Done)
            }
            Op::Read { file, offset, size } => {
                let File { node, fh, .. } = self.file(file)?;
                let args = ReadIn {
                    fh,
                    offset,
                    size: u32::try_from(size).unwrap(),
                    ..Default::default()
                };
                let mut buffer = vec![0; size];
                let read =
                    self.ask_mut(|cx| fs.read(cx, node, &args, &mut BufferSink::new(&mut buffer)))?;
                buffer.truncate(read);
                Ok(Outcome::Bytes(buffer))
            }
            Op::Write {
                file,
                offset,
                size,
                byte,
            } => {
                let File { node, fh, flags } = self.file(file)?;
                let args = WriteIn {
                    fh,
                    offset,
                    size: u32::try_from(size).unwrap(),
                    flags,
                    ..Default::default()
                };
                let data = vec![byte; size];
                self.ask(|cx| fs.write(cx, node, &args, &mut BufferSource::new(&data)))
                    .map(|written| Outcome::Number(written as u64))
            }
            Op::Seek {
                file,
                offset,
                whence,
            } => {
                let File { node, fh, .. } = self.file(file)?;
                let args = LseekIn {
                    fh,
                    offset,
                    whence,
                    ..Default::default()
                };
                self.ask(|cx| fs.lseek(cx, node, &args))
                    .map(Outcome::Number)
            }
            Op::Sync { file } => {
                let File { node, fh, .. } = self.file(file)?;
                let args = FsyncIn {
                    fh,
                    fsync_flags: FsyncFlags::FDATASYNC,
                    ..Default::default()
                };
                self.done(|cx| fs.fsync(cx, node, &args))
            }
            Op::Truncate { file, size } => {
                let File { node, fh, .. } = self.file(file)?;
                let args = SetattrIn {
                    fh,
                    size,
                    ..common::set(SetattrValid::SIZE | SetattrValid::FH)
                };
                self.done(|cx| fs.setattr(cx, node, &args).map(drop))
            }
            Op::Resize { node, size } => {
                let node = self.node(node)?;
                if self.format(node)? != 0o100_000 {
                    return Err(Not::Empty);
                }
                let args = SetattrIn {
                    size,
                    ..common::set(SetattrValid::SIZE)
                };
                self.done(|cx| fs.setattr(cx, node, &args).map(drop))
            }
            Op::Allocate {
                file,
                mode,
                offset,
                length,
            } => {
                let File { node, fh, .. } = self.file(file)?;
                let args = FallocateIn {
                    fh,
                    mode,
                    offset,
                    length,
                    ..Default::default()
                };
                self.done(|cx| fs.fallocate(cx, node, &args))
            }
            Op::Copy {
                from,
                to,
                off_in,
                off_out,
                len,
            } => {
                let to = self.file(to)?;
                if to.flags & OFlags::APPEND.bits() != 0 {
                    return Err(Not::Empty);
                }
                let from = self.file(from)?;
                let args = CopyFileRangeIn {
                    fh_in: from.fh,
                    off_in,
                    nodeid_out: to.node,
                    fh_out: to.fh,
                    off_out,
                    len,
                    flags: 0,
                };
                self.ask(|cx| fs.copy_file_range(cx, from.node, &args))
                    .map(Outcome::Number)
            }
            Op::Chmod { node, mode } => self.set(
                node,
                &SetattrIn {
                    mode,
                    ..common::set(SetattrValid::MODE)
                },
            ),
            Op::Chown { node, uid, gid } => {
                let mut args = SetattrIn::default();
                if let Some(uid) = uid {
                    (args.uid, args.valid) = (uid, args.valid | SetattrValid::UID);
                }
                if let Some(gid) = gid {
                    (args.gid, args.valid) = (gid, args.valid | SetattrValid::GID);
                }
                self.set(node, &args)
            }
            Op::Times { node, atime, mtime } => {
                let mut args = SetattrIn::default();
                match atime {
                    When::Omit => {}
                    When::Now => args.valid |= SetattrValid::ATIME | SetattrValid::ATIME_NOW,
                    When::At(seconds, nanoseconds) => {
                        args.valid |= SetattrValid::ATIME;
                        (args.atime, args.atimensec) = (seconds.cast_unsigned(), nanoseconds);
                    }
                }
                match mtime {
                    When::Omit => {}
                    When::Now => args.valid |= SetattrValid::MTIME | SetattrValid::MTIME_NOW,
                    When::At(seconds, nanoseconds) => {
                        args.valid |= SetattrValid::MTIME;
                        (args.mtime, args.mtimensec) = (seconds.cast_unsigned(), nanoseconds);
                    }
                }
                self.set(node, &args)
            }
            Op::OpenDir { node, into } => {
                let node = self.node(node)?;
                if self.format(node)? != 0o040_000 {
                    return Err(Not::Empty);
                }
                let opened = self.ask(|cx| fs.opendir(cx, node, &OpenIn::default()))?;
                self.replace_dir(into, Some((node, opened.handle)));
                Ok(Outcome::Done)
            }
            Op::CloseDir { dir } => {
                self.replace_dir(dir, None);
                Ok(Outcome::Done)
            }
            Op::List { dir, size, plus } => self.list(dir, size, plus),
            Op::SetXattr {
                node,
                name,
                size,
                flags,
            } => {
                let node = self.node(node)?;
                let value = vec![b'v'; size];
                let how = SetxattrFlags::empty();
                self.done(|cx| {
                    with_xattr(name, |name| fs.setxattr(cx, node, name, &value, flags, how))
                })
            }
            Op::SetAcl { node, default, acl } => {
                let node = self.acl_holder(node)?;
                let (name, value) = (common::cstr(op::acl_name(default)), op::acl_value(acl));
                let name = XattrName::new(&name).unwrap();
                let how = SetxattrFlags::empty();
                self.done(|cx| fs.setxattr(cx, node, name, &value, 0, how))
            }
            Op::GetAcl { node, default } => {
                let node = self.acl_holder(node)?;
                let name = common::cstr(op::acl_name(default));
                let name = XattrName::new(&name).unwrap();
                let mut buffer = vec![0; 4096];
                let len = self.ask_mut(|cx| fs.getxattr(cx, node, name, &mut buffer));
                sized(len?, buffer)
            }
            Op::GetXattr { node, name, room } => {
                let node = self.node(node)?;
                let mut buffer = vec![0; room];
                let len = self.ask_mut(|cx| {
                    with_xattr(name, |name| fs.getxattr(cx, node, name, &mut buffer))
                });
                sized(len?, buffer)
            }
            Op::ListXattr { node, room } => {
                let node = self.node(node)?;
                let mut buffer = vec![0; room];
                let len = self.ask_mut(|cx| fs.listxattr(cx, node, &mut buffer));
                sized(len?, buffer)
            }
            Op::RemoveXattr { node, name } => {
                let node = self.node(node)?;
                self.done(|cx| with_xattr(name, |name| fs.removexattr(cx, node, name)))
            }
        }
    }

    /// Asks as the queue's worker does: first that it be done without waiting; where it would wait,
    /// which must have changed nothing, once more.
    fn ask_mut<T>(
        &self,
        mut operation: impl FnMut(&Context<'_>) -> Result<T>,
    ) -> std::result::Result<T, Not> {
        let result = match operation(&common::hasty()) {
            Err(Error::WouldBlock) => operation(&common::me()),
            result => result,
        };
        result.map_err(|error| match error {
            Error::Errno(errno) => Not::Failed(errno.raw()),
            Error::WouldBlock => panic!("what may wait says that it may not"),
        })
    }

    fn ask<T>(&self, operation: impl Fn(&Context<'_>) -> Result<T>) -> std::result::Result<T, Not> {
        self.ask_mut(operation)
    }

    fn done(
        &self,
        operation: impl Fn(&Context<'_>) -> Result<()>,
    ) -> std::result::Result<Outcome, Not> {
        self.ask(operation).map(|()| Outcome::Done)
    }

    fn set(&self, node: usize, args: &SetattrIn) -> std::result::Result<Outcome, Not> {
        let node = self.node(node)?;
        let attributes = self.ask(|cx| self.fs.setattr(cx, node, args))?;
        Ok(Outcome::Attributes(Facts::from(&attributes.attr)))
    }

    fn make(
        &mut self,
        at: Place,
        make: impl Fn(&PassthroughFs, &Context<'_>, NodeId, Name<'_>) -> Result<Entry>,
    ) -> std::result::Result<Outcome, Not> {
        let dir = self.node(at.0)?;
        let entry = self.ask(|cx| with_name(at, |name| make(&self.fs, cx, dir, name)))?;
        let outcome = self.learn(&entry);
        self.tidy(entry.node);
        Ok(outcome)
    }

    fn keep_open(
        &mut self,
        (entry, opened): (Entry, Opened),
        flags: u32,
        into: usize,
    ) -> std::result::Result<Outcome, Not> {
        let mut outcome = self.learn(&entry);
        // Opening has truncated what was there, after it was looked up.
        if let Outcome::Found(facts, _) = &mut outcome {
            *facts = self.facts(entry.node)?;
        }
        self.replace_file(into, Some((entry.node, opened.handle, flags)));
        Ok(outcome)
    }

    fn list(&mut self, dir: usize, size: usize, plus: bool) -> std::result::Result<Outcome, Not> {
        let (node, fh) = self.dirs[dir].ok_or(Not::Empty)?;
        let fs = &self.fs;
        let mut args = ReadIn {
            fh,
            size: u32::try_from(size).unwrap(),
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let mut buffer = vec![0; size];
            let len = self.ask_mut(|cx| {
                if plus {
                    let mut writer = DirentPlusWriter::new(&mut buffer);
                    fs.readdirplus(cx, node, &args, &mut writer)?;
                    Ok(writer.len())
                } else {
                    let mut writer = DirentWriter::new(&mut buffer);
                    fs.readdir(cx, node, &args, &mut writer)?;
                    Ok(writer.len())
                }
            })?;
            if len == 0 {
                break;
            }
            for entry in common::dirents(&buffer[..len], plus) {
                args.offset = entry.cookie;
                let facts = match entry.node {
                    0 => None,
                    found => {
                        let facts = self.facts(NodeId(found));
                        self.fs.forget(NodeId(found), 1);
                        Some(facts?)
                    }
                };
                all.push(Listed {
                    name: entry.name,
                    kind: entry.kind,
                    facts,
                });
            }
        }
        all.sort();
        Ok(Outcome::Listed(all))
    }

    fn facts(&self, node: NodeId) -> std::result::Result<Facts, Not> {
        let attributes = self.ask(|cx| self.fs.getattr(cx, node, None))?;
        Ok(Facts::from(&attributes.attr))
    }

    fn format(&self, node: NodeId) -> std::result::Result<u32, Not> {
        self.facts(node).map(|facts| facts.mode & 0o170_000)
    }

    fn node(&self, slot: usize) -> std::result::Result<NodeId, Not> {
        self.nodes[slot].ok_or(Not::Empty)
    }

    fn directory(&self, slot: usize) -> std::result::Result<NodeId, Not> {
        let node = self.node(slot)?;
        match self.format(node)? {
            0o040_000 => Ok(node),
            _ => Err(Not::Empty),
        }
    }

    fn acl_holder(&self, slot: usize) -> std::result::Result<NodeId, Not> {
        let node = self.node(slot)?;
        match self.format(node)? {
            0o120_000 => Err(Not::Empty),
            _ => Ok(node),
        }
    }

    fn file(&self, slot: usize) -> std::result::Result<File, Not> {
        self.files[slot].ok_or(Not::Empty)
    }

    fn first_slot(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|held| *held == Some(node))
    }

    fn learn(&mut self, entry: &Entry) -> Outcome {
        let known = self.known.entry(entry.node).or_default();
        known.lookups += 1;
        known.is_directory = entry.attr.mode & 0o170_000 == 0o040_000;
        Outcome::Found(Facts::from(&entry.attr), self.first_slot(entry.node))
    }

    fn replace_node(&mut self, slot: usize, new: Option<NodeId>) {
        let old = std::mem::replace(&mut self.nodes[slot], new);
        self.exchange(old, new);
    }

    fn replace_file(&mut self, slot: usize, new: Option<(NodeId, Handle, u32)>) {
        let file = new.map(|(node, fh, flags)| File { node, fh, flags });
        let old = std::mem::replace(&mut self.files[slot], file);
        if let Some(File { node, fh, .. }) = old {
            let args = ReleaseIn {
                fh,
                ..Default::default()
            };
            self.fs.release(&common::me(), node, &args).unwrap();
        }
        self.exchange(old.map(|file| file.node), file.map(|file| file.node));
    }

    fn replace_dir(&mut self, slot: usize, new: Option<(NodeId, Handle)>) {
        let old = std::mem::replace(&mut self.dirs[slot], new);
        if let Some((node, fh)) = old {
            let args = ReleaseIn {
                fh,
                ..Default::default()
            };
            self.fs.releasedir(&common::me(), node, &args).unwrap();
        }
        self.exchange(old.map(|(node, _)| node), new.map(|(node, _)| node));
    }

    fn exchange(&mut self, old: Option<NodeId>, new: Option<NodeId>) {
        if let Some(new) = new {
            self.known.entry(new).or_default().users += 1;
        }
        if let Some(old) = old {
            self.known.entry(old).or_default().users -= 1;
            self.tidy(old);
        }
    }

    /// Forgets `node` if nothing uses it.
    fn tidy(&mut self, node: NodeId) {
        if let Some(&Known {
            lookups,
            users: 0,
            is_directory: false,
        }) = self.known.get(&node)
        {
            self.known.remove(&node);
            self.fs.forget(node, lookups);
        }
    }
}

fn create_args(flags: u32, mode: u32) -> CreateIn {
    CreateIn {
        flags,
        mode: 0o100_000 | mode,
        ..Default::default()
    }
}

fn with_name<T>(at: Place, call: impl FnOnce(Name<'_>) -> T) -> T {
    let name = CString::new(NAMES[at.1]).unwrap();
    call(Name::new(&name).unwrap())
}

fn with_xattr<T>(name: usize, call: impl FnOnce(XattrName<'_>) -> T) -> T {
    let name = common::cstr(XATTRS[name]);
    call(XattrName::new(&name).unwrap())
}

fn sized(len: usize, mut buffer: Vec<u8>) -> std::result::Result<Outcome, Not> {
    Ok(if buffer.is_empty() {
        Outcome::Number(len as u64)
    } else {
        buffer.truncate(len);
        Outcome::Bytes(buffer)
    })
}
