//! What programs do with files, said to a filesystem.

use fuse_fs::abi::{
    Attr, AttrOut, CreateIn, EntryOut, GetattrIn, GetxattrIn, LinkIn, MkdirIn, OpenIn, OpenOut,
    ReadIn, ReleaseIn, Rename2In, WriteIn, WriteOut,
};
use fuse_fs::flags::RenameFlags;
use fuse_fs::{Errno, Handle, Name, NodeId};
use fuse_wire::{Dirents, LookupName, Operation, SymlinkTarget};
use zerocopy::FromBytes;

use super::{Answer, Guest, c_string};

pub(crate) const O_RDONLY: u32 = 0;
pub(crate) const O_WRONLY: u32 = 1;
pub(crate) const O_RDWR: u32 = 2;
pub(crate) const O_EXCL: u32 = 0o200;
pub(crate) const O_TRUNC: u32 = 0o1000;
pub(crate) const O_APPEND: u32 = 0o2000;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) node: NodeId,
    pub(crate) handle: Handle,
    pub(crate) flags: u32,
}

impl Answer {
    pub(crate) fn ok(self) -> Result<Vec<u8>> {
        match self {
            Self::Body(body) => Ok(body),
            Self::Error(errno) => Err(errno),
            other => panic!("no answer: {other:?}"),
        }
    }

    pub(crate) fn done(self) -> Result<()> {
        self.ok().map(|body| assert!(body.is_empty()))
    }

    pub(crate) fn entry(self) -> Result<EntryOut> {
        self.ok()
            .map(|body| EntryOut::read_from_bytes(&body).unwrap())
    }
}

impl Guest<'_> {
    pub(crate) fn lookup(&self, parent: NodeId, name: &str) -> Result<EntryOut> {
        let name = c_string(name);
        let name = LookupName::new(&name).unwrap();
        self.ask(parent, Operation::Lookup { name }).entry()
    }

    pub(crate) fn getattr(&self, node: NodeId) -> Result<Attr> {
        let answer = self.ask(node, Operation::GetAttr(GetattrIn::default()));
        let out = AttrOut::read_from_bytes(&answer.ok()?).unwrap();
        Ok(out.attr)
    }

    pub(crate) fn mkdir(&self, parent: NodeId, name: &str) -> Result<NodeId> {
        let name = c_string(name);
        let operation = Operation::MkDir {
            args: MkdirIn {
                mode: 0o755,
                umask: 0,
            },
            name: Name::new(&name).unwrap(),
        };
        Ok(self.ask(parent, operation).entry()?.nodeid)
    }

    pub(crate) fn symlink(&self, parent: NodeId, name: &str, target: &str) -> Result<NodeId> {
        let (name, target) = (c_string(name), c_string(target));
        let operation = Operation::Symlink {
            name: Name::new(&name).unwrap(),
            target: SymlinkTarget::new(&target).unwrap(),
        };
        Ok(self.ask(parent, operation).entry()?.nodeid)
    }

    pub(crate) fn link(&self, node: NodeId, parent: NodeId, name: &str) -> Result<EntryOut> {
        let name = c_string(name);
        let operation = Operation::Link {
            args: LinkIn { oldnodeid: node },
            name: Name::new(&name).unwrap(),
        };
        self.ask(parent, operation).entry()
    }

    pub(crate) fn unlink(&self, parent: NodeId, name: &str) -> Result<()> {
        let name = c_string(name);
        let name = Name::new(&name).unwrap();
        self.ask(parent, Operation::Unlink { name }).done()
    }

    pub(crate) fn rmdir(&self, parent: NodeId, name: &str) -> Result<()> {
        let name = c_string(name);
        let name = Name::new(&name).unwrap();
        self.ask(parent, Operation::RmDir { name }).done()
    }

    pub(crate) fn rename(
        &self,
        (parent, name): (NodeId, &str),
        (new_parent, new_name): (NodeId, &str),
        flags: RenameFlags,
    ) -> Result<()> {
        let (name, new_name) = (c_string(name), c_string(new_name));
        let operation = Operation::Rename2 {
            args: Rename2In {
                newdir: new_parent,
                flags,
                padding: 0,
            },
            name: Name::new(&name).unwrap(),
            new_name: Name::new(&new_name).unwrap(),
        };
        self.ask(parent, operation).done()
    }

    pub(crate) fn create(&self, parent: NodeId, name: &str, flags: u32) -> Result<Open> {
        let name = c_string(name);
        let operation = Operation::Create {
            args: CreateIn {
                flags,
                mode: 0o100_644,
                ..Default::default()
            },
            name: Name::new(&name).unwrap(),
        };
        created(self.ask(parent, operation), flags)
    }

    pub(crate) fn tmpfile(&self, parent: NodeId, flags: u32) -> Result<Open> {
        let args = CreateIn {
            flags,
            mode: 0o100_600,
            ..Default::default()
        };
        created(self.ask(parent, Operation::TmpFile(args)), flags)
    }

    pub(crate) fn open(&self, node: NodeId, flags: u32) -> Result<Open> {
        let args = OpenIn {
            flags,
            ..Default::default()
        };
        opened(self.ask(node, Operation::Open(args)), node, flags)
    }

    pub(crate) fn opendir(&self, node: NodeId) -> Result<Open> {
        let operation = Operation::OpenDir(OpenIn::default());
        opened(self.ask(node, operation), node, 0)
    }

    pub(crate) fn release(&self, file: Open) -> Result<()> {
        let args = ReleaseIn {
            fh: file.handle,
            ..Default::default()
        };
        self.ask(file.node, Operation::Release(args)).done()
    }

    pub(crate) fn read(&self, file: Open, offset: u64, size: u32) -> Result<Vec<u8>> {
        let args = ReadIn {
            fh: file.handle,
            offset,
            size,
            ..Default::default()
        };
        self.ask(file.node, Operation::Read(args)).ok()
    }

    pub(crate) fn write(&self, file: Open, offset: u64, data: &[u8]) -> Result<u32> {
        let args = WriteIn {
            fh: file.handle,
            offset,
            size: data.len().try_into().unwrap(),
            flags: file.flags,
            ..Default::default()
        };
        let answer = self.ask_with_data(file.node, Operation::Write(args), data);
        let out = WriteOut::read_from_bytes(&answer.ok()?).unwrap();
        Ok(out.size)
    }

    /// One READDIR: names and their cookies.
    pub(crate) fn readdir(&self, dir: Open, cookie: u64, size: u32) -> Result<Vec<(String, u64)>> {
        let args = ReadIn {
            fh: dir.handle,
            offset: cookie,
            size,
            ..Default::default()
        };
        let body = self.ask(dir.node, Operation::ReadDir(args)).ok()?;
        let entries = Dirents::new(&body).map(|entry| {
            let entry = entry.unwrap();
            let name = String::from_utf8_lossy(entry.name).into_owned();
            (name, entry.off)
        });
        Ok(entries.collect())
    }

    /// All names in a directory, sorted, without `.` and `..`.
    pub(crate) fn names(&self, node: NodeId) -> Vec<String> {
        let dir = self.opendir(node).unwrap();
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let some = self.readdir(dir, cookie, 4096).unwrap();
            let Some(last) = some.last() else { break };
            cookie = last.1;
            names.extend(some.into_iter().map(|(name, _)| name));
        }
        self.release(dir).unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    pub(crate) fn getxattr(&self, node: NodeId, name: &str, size: u32) -> Answer {
        let name = c_string(name);
        let operation = Operation::GetXattr {
            args: GetxattrIn { size, padding: 0 },
            name: fuse_fs::XattrName::new(&name).unwrap(),
        };
        self.ask(node, operation)
    }

    pub(crate) fn setxattr(&self, node: NodeId, name: &str, value: &[u8]) -> Result<()> {
        let name = c_string(name);
        let operation = Operation::SetXattr {
            args: fuse_fs::abi::SetxattrIn {
                size: value.len().try_into().unwrap(),
                ..Default::default()
            },
            name: fuse_fs::XattrName::new(&name).unwrap(),
            value,
        };
        self.ask(node, operation).done()
    }

    pub(crate) fn forget(&self, node: NodeId, nlookup: u64) {
        let operation = Operation::Forget(fuse_fs::abi::ForgetIn { nlookup });
        assert_eq!(self.ask(node, operation), Answer::NoReply);
    }
}

fn created(answer: Answer, flags: u32) -> Result<Open> {
    let body = answer.ok()?;
    let (entry, rest) = EntryOut::read_from_prefix(&body).unwrap();
    let open = OpenOut::read_from_bytes(rest).unwrap();
    Ok(Open {
        node: entry.nodeid,
        handle: open.fh,
        flags,
    })
}

fn opened(answer: Answer, node: NodeId, flags: u32) -> Result<Open> {
    let open = OpenOut::read_from_bytes(&answer.ok()?).unwrap();
    Ok(Open {
        node,
        handle: open.fh,
        flags,
    })
}
