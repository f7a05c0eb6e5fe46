//! No bytes as the state of a session make a share panic, and none leads out of the shared
//! directory. What could be loaded can be saved, and loaded again.

#![no_main]

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fuse_fs::abi::{FileLock, InitIn, LkIn, OpenIn};
use fuse_fs::flags::{InitFlags, LkFlags};
use fuse_fs::{Blocking, Context, Extensions, FileSystem, Handle, Name, Negotiation, NodeId};
use libfuzzer_sys::fuzz_target;
use passthrough_fs::{Config, Extras, InodeFileHandles, Migration, MigrationErrors, PassthroughFs};
use tempfile::TempDir;

/// Bytes of the record behind everything else.
const END: usize = 1;

struct Target {
    path: PathBuf,
    /// Inode numbers of all that is shared.
    inside: HashSet<u64>,
    /// For each of [`HANDLES`].
    good: [Good; 2],
    _outer: TempDir,
}

/// A state that can be loaded.
struct Good {
    /// Up to where what the guest holds begins.
    start: Vec<u8>,
    /// What it holds.
    rest: Vec<u8>,
}

/// How inodes are opened again.
const HANDLES: [InodeFileHandles; 2] = [InodeFileHandles::Prefer, InodeFileHandles::Never];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let outer = TempDir::new().unwrap();
    let path = outer.path().join("share");
    std::fs::create_dir_all(path.join("dir")).unwrap();
    std::fs::write(path.join("file"), "content").unwrap();
    std::fs::write(path.join("dir/file"), "content").unwrap();
    symlink("..", path.join("link")).unwrap();
    std::fs::write(outer.path().join("secret"), "secret").unwrap();
    let names = ["", "dir", "file", "dir/file", "link"];
    let ino = |name| std::fs::symlink_metadata(path.join(name)).unwrap().ino();
    Target {
        inside: names.map(ino).into(),
        good: HANDLES.map(|handles| Good::of(&share(&path, handles))),
        path,
        _outer: outer,
    }
});

/// With no more in its tables than a state in question puts there.
fn share(path: &Path, handles: InodeFileHandles) -> PassthroughFs {
    let config = Config::new(path)
        .migration(Migration::new().on_error(MigrationErrors::GuestError))
        .extras(Extras::POSIX_LOCK | Extras::FLOCK)
        .inode_file_handles(handles);
    let share = PassthroughFs::new(config).unwrap();
    let mut negotiation = Negotiation::new(&InitIn::default(), InitFlags::empty());
    negotiation.offered = InitFlags::all();
    share.init(&mut negotiation).unwrap();
    share
}

impl Good {
    /// What there is to hold of `share`.
    fn of(share: &PassthroughFs) -> Self {
        let mut start = saved(share);
        start.truncate(start.len() - END);
        for name in [c"dir", c"file", c"link"] {
            let name = Name::new(name).unwrap();
            let node = share.lookup(&context(), NodeId::ROOT, name).unwrap().node;
            let _ = share.opendir(&context(), node, &OpenIn::default());
            let Ok(opened) = share.open(&context(), node, &OpenIn::default()) else {
                continue;
            };
            for flags in [LkFlags::empty(), LkFlags::FLOCK] {
                let lock = read_lock(opened.handle, flags);
                let _ = share.setlk(&context(), node, &lock, false);
            }
        }
        Self {
            rest: saved(share).split_off(start.len()),
            start,
        }
    }
}

/// Of the whole file.
fn read_lock(fh: Handle, lk_flags: LkFlags) -> LkIn {
    LkIn {
        fh,
        owner: 1,
        lk: FileLock {
            end: u64::MAX >> 1,
            ..FileLock::default()
        },
        lk_flags,
        ..LkIn::default()
    }
}

fn saved(share: &PassthroughFs) -> Vec<u8> {
    let mut bytes = Vec::new();
    share.state().unwrap().save(&mut bytes).unwrap();
    bytes
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

// The first two bytes say which share, and how much of a good state goes before the others.
fuzz_target!(|data: &[u8]| {
    let Some((&[which, kept], data)) = data.split_first_chunk() else {
        return;
    };
    let target = &*TARGET;
    let which = usize::from(which) % HANDLES.len();
    let Good { start, rest } = &target.good[which];
    let kept = (usize::from(kept) * 2).min(rest.len());
    let state = [start, &rest[..kept], data].concat();
    let share = share(&target.path, HANDLES[which]);
    let loaded = share.state().unwrap().load(&mut &*state);
    for node in (1..32).map(NodeId) {
        if let Ok(attributes) = share.getattr(&context(), node, None) {
            assert!(target.inside.contains(&attributes.attr.ino));
        }
    }
    if loaded.is_ok() {
        let again = saved(&share);
        share.state().unwrap().load(&mut &*again).unwrap();
    }
});
