//! A share in a temporary directory, and short ways to ask for things.
#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, PassthroughFs};
use tempfile::TempDir;

pub const RDONLY: u32 = 0;
pub const WRONLY: u32 = 1;
pub const RDWR: u32 = 2;

/// A context that may wait, of root.
pub fn root() -> Context<'static> {
    user(0, 0)
}

pub fn user(uid: u32, gid: u32) -> Context<'static> {
    Context {
        unique: 1,
        uid,
        gid,
        pid: 1,
        extensions: Extensions::default(),
        blocking: Blocking::Allowed,
    }
}

/// As this process, so that tests pass for any user.
pub fn me() -> Context<'static> {
    user(
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

pub fn hasty() -> Context<'static> {
    Context {
        blocking: Blocking::Forbidden,
        ..me()
    }
}

pub fn is_root(test: &str) -> bool {
    let is = rustix::process::geteuid().is_root();
    if !is {
        eprintln!("{test}: skipped: needs root");
    }
    is
}

pub fn cstr(name: &str) -> CString {
    CString::new(name).unwrap()
}

/// Begins a session with a guest that knows `offered`, and returns what was agreed on.
pub fn begin(fs: &PassthroughFs, offered: InitFlags) -> Result<InitFlags> {
    let offered = offered | InitFlags::INIT_EXT;
    let (flags, flags2) = offered.halves();
    let init = InitIn {
        flags,
        flags2,
        ..InitIn::default()
    };
    let mut negotiation = Negotiation::new(&init, InitFlags::empty());
    fs.init(&mut negotiation)?;
    Ok(negotiation.enabled)
}

pub fn set_xattr(share: &Share, node: NodeId, name: &CStr, value: &[u8]) -> Result<()> {
    let name = XattrName::new(name).unwrap();
    let how = SetxattrFlags::empty();
    share.fs.setxattr(&me(), node, name, value, 0, how)
}

pub fn get_xattr(share: &Share, node: NodeId, name: &CStr) -> Result<Vec<u8>> {
    let name = XattrName::new(name).unwrap();
    let mut buffer = [0; 1000];
    let len = share.fs.getxattr(&me(), node, name, &mut buffer)?;
    assert_eq!(share.fs.getxattr(&me(), node, name, &mut []), Ok(len));
    Ok(buffer[..len].to_vec())
}

/// The attribute as the host has it, if it has it.
pub fn host_xattr(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    let mut buffer = [0; 1000];
    let len = rustix::fs::lgetxattr(path, name, &mut buffer).ok()?;
    Some(buffer[..len].to_vec())
}

/// Extended attributes of the guest's names, each with a NUL.
pub fn list_xattrs(share: &Share, node: NodeId) -> Vec<u8> {
    let len = share.fs.listxattr(&me(), node, &mut []).unwrap();
    let mut buffer = vec![0; len];
    if len > 0 {
        assert_eq!(share.fs.listxattr(&me(), node, &mut buffer), Ok(len));
    }
    buffer
}

/// The error number of what must fail.
#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    match result {
        Err(Error::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

pub struct Share {
    pub fs: PassthroughFs,
    pub path: PathBuf,
    pub outer: TempDir,
}

impl Share {
    pub fn new() -> Self {
        Self::with(|config| config)
    }

    pub fn with(configure: impl FnOnce(Config) -> Config) -> Self {
        Self::in_dir(TempDir::new().unwrap(), configure)
    }

    /// A share on tmpfs.
    pub fn in_memory() -> Self {
        Self::in_dir(TempDir::new_in("/dev/shm").unwrap(), |config| config)
    }

    /// The share is a directory in another, which holds what the guest must not reach.
    pub fn in_dir(outer: TempDir, configure: impl FnOnce(Config) -> Config) -> Self {
        let path = outer.path().join("share");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        let fs = PassthroughFs::new(configure(Config::new(&path))).unwrap();
        Self { fs, path, outer }
    }

    pub fn host(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn outside(&self) -> &Path {
        self.path.parent().unwrap()
    }

    /// What is absent is ENOENT, whether or not the guest may remember it.
    pub fn lookup_in(&self, parent: NodeId, name: &str) -> Result<Entry> {
        let name = cstr(name);
        match self.fs.lookup(&me(), parent, Name::new(&name).unwrap()) {
            Ok(entry) if entry.node == NodeId::NEGATIVE => Err(Errno::ENOENT.into()),
            result => result,
        }
    }

    pub fn lookup(&self, name: &str) -> Result<Entry> {
        self.lookup_in(NodeId::ROOT, name)
    }

    #[track_caller]
    pub fn node(&self, name: &str) -> NodeId {
        self.lookup(name).unwrap().node
    }

    pub fn open_node(&self, node: NodeId, flags: u32) -> Result<Handle> {
        self.open(node, flags).map(|opened| opened.handle)
    }

    pub fn open(&self, node: NodeId, flags: u32) -> Result<Opened> {
        let args = OpenIn {
            flags,
            ..Default::default()
        };
        self.fs.open(&me(), node, &args)
    }

    /// Begins a session with a guest that offers `offered`, and tells what the share asks for.
    pub fn init(&self, offered: InitFlags) -> InitFlags {
        let mut negotiation = Negotiation::new(&InitIn::default(), InitFlags::empty());
        negotiation.offered = offered;
        self.fs.init(&mut negotiation).unwrap();
        negotiation.enabled
    }

    /// A file with this content, looked up and open.
    #[track_caller]
    pub fn file(&self, name: &str, content: &[u8], flags: u32) -> (NodeId, Handle) {
        std::fs::write(self.host(name), content).unwrap();
        let node = self.node(name);
        (node, self.open_node(node, flags).unwrap())
    }

    pub fn create(&self, cx: &Context<'_>, name: &str, args: CreateIn) -> Result<(Entry, Opened)> {
        let name = cstr(name);
        self.fs
            .create(cx, NodeId::ROOT, Name::new(&name).unwrap(), &args)
    }

    pub fn mkdir(&self, cx: &Context<'_>, name: &str, mode: u32) -> Result<Entry> {
        let name = cstr(name);
        let args = MkdirIn { mode, umask: 0 };
        self.fs
            .mkdir(cx, NodeId::ROOT, Name::new(&name).unwrap(), &args)
    }

    pub fn read_as(
        &self,
        cx: &Context<'_>,
        (node, fh): (NodeId, Handle),
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>> {
        let args = ReadIn {
            fh,
            offset,
            size: size.try_into().unwrap(),
            ..Default::default()
        };
        let mut buffer = vec![0; size];
        let read = self
            .fs
            .read(cx, node, &args, &mut BufferSink::new(&mut buffer))?;
        buffer.truncate(read);
        Ok(buffer)
    }

    pub fn read(&self, file: (NodeId, Handle), offset: u64, size: usize) -> Result<Vec<u8>> {
        self.read_as(&me(), file, offset, size)
    }

    pub fn write_with(
        &self,
        cx: &Context<'_>,
        (node, fh): (NodeId, Handle),
        args: WriteIn,
        data: &[u8],
    ) -> Result<usize> {
        let args = WriteIn {
            fh,
            size: data.len().try_into().unwrap(),
            ..args
        };
        self.fs.write(cx, node, &args, &mut BufferSource::new(data))
    }

    pub fn write(&self, file: (NodeId, Handle), offset: u64, data: &[u8]) -> Result<usize> {
        let args = WriteIn {
            offset,
            ..Default::default()
        };
        self.write_with(&me(), file, args, data)
    }

    pub fn attr(&self, node: NodeId) -> Attr {
        self.fs.getattr(&me(), node, None).unwrap().attr
    }

    pub fn setattr(&self, node: NodeId, args: SetattrIn) -> Result<Attr> {
        self.fs
            .setattr(&me(), node, &args)
            .map(|attributes| attributes.attr)
    }

    pub fn release(&self, (node, fh): (NodeId, Handle)) -> Result<()> {
        let args = ReleaseIn {
            fh,
            ..Default::default()
        };
        self.fs.release(&me(), node, &args)
    }

    #[track_caller]
    pub fn opendir(&self, node: NodeId) -> (NodeId, Handle) {
        let opened = self.fs.opendir(&me(), node, &OpenIn::default()).unwrap();
        (node, opened.handle)
    }

    pub fn readdir(
        &self,
        (node, fh): (NodeId, Handle),
        offset: u64,
        size: usize,
    ) -> Result<Vec<Listed>> {
        let args = ReadIn {
            fh,
            offset,
            size: size.try_into().unwrap(),
            ..Default::default()
        };
        let mut buffer = vec![0; size];
        let mut writer = DirentWriter::new(&mut buffer);
        self.fs.readdir(&me(), node, &args, &mut writer)?;
        let len = writer.len();
        Ok(listed(&buffer[..len], false))
    }

    pub fn readdirplus(
        &self,
        cx: &Context<'_>,
        (node, fh): (NodeId, Handle),
        offset: u64,
        size: usize,
    ) -> Result<Vec<Listed>> {
        let args = ReadIn {
            fh,
            offset,
            size: size.try_into().unwrap(),
            ..Default::default()
        };
        let mut buffer = vec![0; size];
        let mut writer = DirentPlusWriter::new(&mut buffer);
        self.fs.readdirplus(cx, node, &args, &mut writer)?;
        let len = writer.len();
        Ok(listed(&buffer[..len], true))
    }

    /// All names of a directory, by READDIR or READDIRPLUS, in replies of `size` bytes.
    pub fn list(&self, dir: (NodeId, Handle), size: usize, plus: bool) -> Vec<Listed> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |last| last.cookie);
            let part = if plus {
                self.readdirplus(&me(), dir, offset, size)
            } else {
                self.readdir(dir, offset, size)
            };
            match part.unwrap() {
                part if part.is_empty() => return all,
                part => all.extend(part),
            }
        }
    }
}

/// An entry of a READDIR or READDIRPLUS reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub node: u64,
    pub ino: u64,
    pub cookie: u64,
    pub kind: u32,
    pub name: String,
}

fn listed(bytes: &[u8], plus: bool) -> Vec<Listed> {
    dirents(bytes, plus)
        .into_iter()
        .map(|entry| Listed {
            node: entry.node,
            ino: entry.ino,
            cookie: entry.cookie,
            kind: entry.kind,
            name: String::from_utf8(entry.name).unwrap(),
        })
        .collect()
}

/// As [`Listed`], with any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirent {
    pub node: u64,
    pub ino: u64,
    pub cookie: u64,
    pub kind: u32,
    pub name: Vec<u8>,
}

/// The entries of a READDIR or, with `plus`, a READDIRPLUS reply.
pub fn dirents(mut bytes: &[u8], plus: bool) -> Vec<Dirent> {
    let word = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let half = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let head = if plus { 128 } else { 0 };
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let node = if plus { word(bytes, 0) } else { 0 };
        let dirent = &bytes[head..];
        let len = half(dirent, 16) as usize;
        all.push(Dirent {
            node,
            ino: word(dirent, 0),
            cookie: word(dirent, 8),
            kind: half(dirent, 20),
            name: dirent[24..24 + len].to_vec(),
        });
        bytes = &bytes[(head + 24 + len).next_multiple_of(8)..];
    }
    all
}

pub fn set(valid: SetattrValid) -> SetattrIn {
    SetattrIn {
        valid,
        ..Default::default()
    }
}

pub fn names(entries: &[Listed]) -> Vec<&str> {
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names
}
