use std::ffi::CStr;
use std::io;
use std::path::Path;

use fuse_fs::abi::{LseekIn, OpenIn, ReleaseIn};
use fuse_fs::{Blocking, Context, Extensions, FileSystem, Handle, Name, NodeId};
use passthrough_fs::{Config, PassthroughFs};

use crate::rows::Subject;

/// `SEEK_DATA` of lseek(2).
const SEEK_DATA: u32 = 3;

/// passthrough-fs.
pub(crate) struct Here(PassthroughFs);

impl Here {
    pub(crate) fn new(shared: &Path) -> io::Result<Self> {
        PassthroughFs::new(Config::new(shared))
            .map(Self)
            .map_err(io::Error::other)
    }
}

impl Subject for Here {
    fn lookup(&self, name: &CStr) -> u64 {
        let name = done(Name::new(name));
        done(self.0.lookup(&context(), NodeId::ROOT, name)).node.0
    }

    fn getattr(&self, node: u64) {
        done(self.0.getattr(&context(), NodeId(node), None));
    }

    fn forget(&self, node: u64, lookups: u64) {
        self.0.forget(NodeId(node), lookups);
    }

    fn open(&self, node: u64) -> u64 {
        let opened = self.0.open(&context(), NodeId(node), &OpenIn::default());
        done(opened).handle.0
    }

    fn release(&self, node: u64, handle: u64) {
        let args = ReleaseIn {
            fh: Handle(handle),
            ..ReleaseIn::default()
        };
        done(self.0.release(&context(), NodeId(node), &args));
    }

    fn lseek(&self, node: u64, handle: u64) {
        let args = LseekIn {
            fh: Handle(handle),
            whence: SEEK_DATA,
            ..LseekIn::default()
        };
        done(self.0.lseek(&context(), NodeId(node), &args));
    }
}

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

#[track_caller]
fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("it can be done")
}
