//! What is done, to both sides alike.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use rustix::fs::OFlags;

/// Inodes that a sequence holds at once. The first is the root, always.
pub const NODES: usize = 6;
/// Files that a sequence has open at once.
pub const FILES: usize = 4;
/// Directories that a sequence has open at once.
pub const DIRS: usize = 2;

/// What a sequence holds something in.
#[derive(Debug, Clone, Copy)]
pub enum Slot {
    Node(usize),
    File(usize),
    Dir(usize),
}

/// A name in a directory that is held: its slot, and an index of [`NAMES`].
pub type Place = (usize, usize);

/// Names of entries. They are bytes, and up to 255.
pub const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"\xff\xfe\n", &[0xc3; 255]];
/// Targets of symbolic links.
pub const TARGETS: [&[u8]; 4] = [b"a", b"../..//b/", b"\xff", &[b'/'; 4095]];
/// Names of extended attributes.
pub const XATTRS: [&str; 6] = [
    "user.a",
    "user.b",
    "user.",
    "trusted.t",
    "security.s",
    "nonsense",
];

/// ACLs of files and directories (`POSIX_ACL_XATTR_VERSION` 2), the last of which is none: as entries
/// of tag, permissions and id.
pub const ACLS: [&[(u16, u16, u32)]; 4] = [
    &[(1, 7, NONE), (4, 5, NONE), (32, 0, NONE)],
    &[
        (1, 6, NONE),
        (2, 7, 1000),
        (4, 4, NONE),
        (16, 6, NONE),
        (32, 4, NONE),
    ],
    &[
        (1, 7, NONE),
        (4, 7, NONE),
        (8, 2, 65534),
        (16, 5, NONE),
        (32, 0, NONE),
    ],
    &[(4, 7, NONE)],
];
const NONE: u32 = u32::MAX;

/// One operation. Slots are indices: of inodes held (`node`), of open files (`file`), of open
/// directories (`dir`). What needs a slot that is empty does nothing.
#[derive(Debug, Clone)]
pub enum Op {
    Hold {
        at: Place,
        into: usize,
    },
    Drop {
        node: usize,
    },
    GetAttr {
        node: usize,
    },
    Create {
        at: Place,
        flags: u32,
        mode: u32,
        into: usize,
    },
    TmpFile {
        node: usize,
        flags: u32,
        mode: u32,
        into: usize,
    },
    Mkdir {
        at: Place,
        mode: u32,
    },
    Mknod {
        at: Place,
        mode: u32,
    },
    Symlink {
        at: Place,
        target: usize,
    },
    ReadLink {
        node: usize,
    },
    Unlink {
        at: Place,
    },
    Rmdir {
        at: Place,
    },
    Rename {
        from: Place,
        to: Place,
        flags: u32,
    },
    Link {
        node: usize,
        to: Place,
    },
    Open {
        node: usize,
        flags: u32,
        into: usize,
    },
    Close {
        file: usize,
    },
    Read {
        file: usize,
        offset: u64,
        size: usize,
    },
    Write {
        file: usize,
        offset: u64,
        size: usize,
        byte: u8,
    },
    Seek {
        file: usize,
        offset: u64,
        whence: u32,
    },
    Sync {
        file: usize,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Resize {
        node: usize,
        size: u64,
    },
    Allocate {
        file: usize,
        mode: u32,
        offset: u64,
        length: u64,
    },
    Copy {
        from: usize,
        to: usize,
        off_in: u64,
        off_out: u64,
        len: u64,
    },
    Chmod {
        node: usize,
        mode: u32,
    },
    Chown {
        node: usize,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Times {
        node: usize,
        atime: When,
        mtime: When,
    },
    OpenDir {
        node: usize,
        into: usize,
    },
    CloseDir {
        dir: usize,
    },
    List {
        dir: usize,
        size: usize,
        plus: bool,
    },
    SetXattr {
        node: usize,
        name: usize,
        size: usize,
        flags: u32,
    },
    SetAcl {
        node: usize,
        default: bool,
        acl: usize,
    },
    GetAcl {
        node: usize,
        default: bool,
    },
    GetXattr {
        node: usize,
        name: usize,
        room: usize,
    },
    ListXattr {
        node: usize,
        room: usize,
    },
    RemoveXattr {
        node: usize,
        name: usize,
    },
}

impl Op {
    /// The slots of inodes that it starts from.
    pub fn nodes(&self) -> Vec<usize> {
        use Op::*;
        match *self {
            Hold { at, .. }
            | Create { at, .. }
            | Mkdir { at, .. }
            | Mknod { at, .. }
            | Symlink { at, .. }
            | Unlink { at }
            | Rmdir { at } => vec![at.0],
            Rename { from, to, .. } => vec![from.0, to.0],
            Link { node, to } => vec![node, to.0],
            GetAttr { node }
            | TmpFile { node, .. }
            | ReadLink { node }
            | Open { node, .. }
            | Resize { node, .. }
            | Chmod { node, .. }
            | Chown { node, .. }
            | Times { node, .. }
            | OpenDir { node, .. }
            | SetXattr { node, .. }
            | SetAcl { node, .. }
            | GetAcl { node, .. }
            | GetXattr { node, .. }
            | ListXattr { node, .. }
            | RemoveXattr { node, .. } => vec![node],
            Drop { .. }
            | Close { .. }
            | Read { .. }
            | Write { .. }
            | Seek { .. }
            | Sync { .. }
            | Truncate { .. }
            | Allocate { .. }
            | Copy { .. }
            | CloseDir { .. }
            | List { .. } => Vec::new(),
        }
    }

    /// Leaves the owner of a directory the right to use it.
    pub fn keep_searchable(&mut self) {
        if let Self::Mkdir { mode, .. } | Self::Chmod { mode, .. } = self {
            *mode |= 0o700;
        }
    }

    /// What empties the slots that it may have filled.
    pub fn undo(&self) -> Option<Op> {
        match *self {
            Op::Hold { into, .. } => Some(Op::Drop { node: into }),
            Op::Create { into, .. } | Op::TmpFile { into, .. } | Op::Open { into, .. } => {
                Some(Op::Close { file: into })
            }
            Op::OpenDir { into, .. } => Some(Op::CloseDir { dir: into }),
            _ => None,
        }
    }
}

/// Whether POSIX ACLs are among the extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acls {
    Hidden,
    Shared,
}

/// What a time is set to.
#[derive(Debug, Clone, Copy)]
pub enum When {
    Omit,
    Now,
    /// Seconds since 1970, and nanoseconds.
    At(i64, u32),
}

/// What each sequence begins with, so that most slots hold something: two directories, one in the
/// other, a file in the root and one in a directory, a symbolic link.
pub fn prelude() -> Vec<Op> {
    use Op::*;
    let file = |at, into| Create {
        at,
        flags: OFlags::RDWR.bits(),
        mode: 0o644,
        into,
    };
    let flags = OFlags::RDONLY.bits();
    vec![
        Mkdir {
            at: (0, 0),
            mode: 0o755,
        },
        Hold {
            at: (0, 0),
            into: 1,
        },
        Mkdir {
            at: (1, 1),
            mode: 0o755,
        },
        Hold {
            at: (1, 1),
            into: 2,
        },
        file((0, 1), 0),
        Hold {
            at: (0, 1),
            into: 3,
        },
        file((1, 0), 1),
        Hold {
            at: (1, 0),
            into: 4,
        },
        Symlink {
            at: (0, 2),
            target: 0,
        },
        Hold {
            at: (0, 2),
            into: 5,
        },
        Open {
            node: 3,
            flags,
            into: 2,
        },
        OpenDir { node: 0, into: 0 },
        OpenDir { node: 1, into: 1 },
    ]
}

/// The name of the attribute that is an ACL.
pub fn acl_name(default: bool) -> &'static str {
    if default {
        "system.posix_acl_default"
    } else {
        "system.posix_acl_access"
    }
}

/// The value of an attribute that is an ACL.
pub fn acl_value(acl: usize) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in ACLS[acl] {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// A sequence of up to `len` operations.
pub fn ops(len: usize, acls: Acls) -> impl Strategy<Value = Vec<Op>> {
    let acl = match acls {
        Acls::Hidden => xattrs().boxed(),
        Acls::Shared => acl_ops().boxed(),
    };
    vec(
        prop_oneof![12 => names(), 10 => data(), 7 => attributes(), 3 => directories(), 3 => xattrs(), 3 => acl],
        1..len,
    )
}

fn node() -> impl Strategy<Value = usize> {
    0..NODES
}

/// The root is the directory of most.
fn place() -> impl Strategy<Value = Place> {
    (prop_oneof![2 => Just(0), 3 => node()], 0..NAMES.len())
}

fn mode() -> impl Strategy<Value = u32> {
    select(vec![0o644, 0o444, 0o000, 0o777, 0o4755, 0o2755, 0o600])
}

fn open_flags() -> impl Strategy<Value = u32> {
    let access = select(vec![
        OFlags::RDONLY,
        OFlags::WRONLY,
        OFlags::RDWR,
        OFlags::RDWR,
    ]);
    let more = select(vec![
        OFlags::empty(),
        OFlags::empty(),
        OFlags::TRUNC,
        OFlags::APPEND,
        OFlags::SYNC,
    ]);
    (access, more).prop_map(|(access, more)| (access | more).bits())
}

/// Offsets and sizes: near the start, at the edge of blocks, and beyond 4 GiB.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..20_000_u64,
        3 => (0..16_u64).prop_map(|block| block * 4096),
        1 => (0..9000_u64).prop_map(|more| (4 << 30) + more),
    ]
}

fn names() -> impl Strategy<Value = Op> {
    use Op::*;
    // No sticky directories that all may write: there, the host heeds protected_regular.
    let dir_mode = select(vec![
        0o755, 0o755, 0o755, 0o700, 0o2775, 0o1755, 0o500, 0o000,
    ]);
    let kind = select(vec![
        0o100_000, 0, 0o010_000, 0o140_000, 0o020_000, 0o060_000,
    ]);
    let exclusive = select(vec![0, 0, 0, OFlags::EXCL.bits()]);
    let rename_flags = select(vec![0, 0, 0, 1, 2, 2, 4]);
    prop_oneof![
        6 => (place(), 1..NODES).prop_map(|(at, into)| Hold { at, into }),
        1 => (1..NODES).prop_map(|node| Drop { node }),
        6 => (place(), open_flags(), exclusive, mode(), 0..FILES).prop_map(
            |(at, flags, exclusive, mode, into)| Create { at, flags: flags | exclusive, mode, into }
        ),
        1 => (node(), open_flags(), mode(), 0..FILES)
            .prop_map(|(node, flags, mode, into)| TmpFile { node, flags, mode, into }),
        4 => (place(), dir_mode).prop_map(|(at, mode)| Mkdir { at, mode }),
        1 => (place(), mode(), kind).prop_map(|(at, mode, kind)| Mknod { at, mode: kind | mode }),
        2 => (place(), 0..TARGETS.len()).prop_map(|(at, target)| Symlink { at, target }),
        1 => node().prop_map(|node| ReadLink { node }),
        3 => place().prop_map(|at| Unlink { at }),
        2 => place().prop_map(|at| Rmdir { at }),
        5 => (place(), place(), rename_flags)
            .prop_map(|(from, to, flags)| Rename { from, to, flags }),
        3 => (node(), place()).prop_map(|(node, to)| Link { node, to }),
    ]
}

fn data() -> impl Strategy<Value = Op> {
    use Op::*;
    let file = || 0..FILES;
    let allocation = select(vec![0, 1, 2, 3, 3, 0x10, 0x11]);
    prop_oneof![
        3 => (node(), open_flags(), file())
            .prop_map(|(node, flags, into)| Open { node, flags, into }),
        1 => file().prop_map(|file| Close { file }),
        3 => (file(), offset(), 1..9000_usize)
            .prop_map(|(file, offset, size)| Read { file, offset, size }),
        6 => (file(), offset(), 1..9000_usize, any::<u8>())
            .prop_map(|(file, offset, size, byte)| Write { file, offset, size, byte }),
        2 => (file(), offset(), 3..5_u32)
            .prop_map(|(file, offset, whence)| Seek { file, offset, whence }),
        1 => file().prop_map(|file| Sync { file }),
        2 => (file(), offset()).prop_map(|(file, size)| Truncate { file, size }),
        2 => (node(), offset()).prop_map(|(node, size)| Resize { node, size }),
        2 => (file(), allocation, offset(), 0..70_000_u64)
            .prop_map(|(file, mode, offset, length)| Allocate { file, mode, offset, length }),
        2 => (file(), file(), offset(), offset(), 0..20_000_u64).prop_map(
            |(from, to, off_in, off_out, len)| Copy { from, to, off_in, off_out, len }
        ),
    ]
}

fn attributes() -> impl Strategy<Value = Op> {
    use Op::*;
    let id = || select(vec![None, Some(0), Some(1000), Some(65534)]);
    let when = || {
        prop_oneof![
            Just(When::Omit),
            Just(When::Now),
            (
                select(vec![-1_000_000_000, -1, 0, 1, 5_000_000_000]),
                0..1_000_000_000_u32
            )
                .prop_map(|(seconds, nanoseconds)| When::At(seconds, nanoseconds)),
        ]
    };
    prop_oneof![
        3 => node().prop_map(|node| GetAttr { node }),
        2 => (1..NODES, prop_oneof![mode(), Just(0o755)])
            .prop_map(|(node, mode)| Chmod { node, mode }),
        1 => (1..NODES, id(), id()).prop_map(|(node, uid, gid)| Chown { node, uid, gid }),
        2 => (node(), when(), when())
            .prop_map(|(node, atime, mtime)| Times { node, atime, mtime }),
    ]
}

fn directories() -> impl Strategy<Value = Op> {
    use Op::*;
    prop_oneof![
        2 => (node(), 0..DIRS).prop_map(|(node, into)| OpenDir { node, into }),
        1 => (0..DIRS).prop_map(|dir| CloseDir { dir }),
        3 => (0..DIRS, select(vec![512, 600, 4096]), any::<bool>())
            .prop_map(|(dir, size, plus)| List { dir, size, plus }),
    ]
}

fn acl_ops() -> impl Strategy<Value = Op> {
    use Op::*;
    prop_oneof![
        (node(), any::<bool>(), 0..ACLS.len()).prop_map(|(node, default, acl)| SetAcl {
            node,
            default,
            acl
        }),
        (node(), any::<bool>()).prop_map(|(node, default)| GetAcl { node, default }),
    ]
}

fn xattrs() -> impl Strategy<Value = Op> {
    use Op::*;
    let room = || select(vec![0_usize, 3, 4096]);
    let name = || prop_oneof![Just(0), 0..XATTRS.len()];
    let size = select(vec![0_usize, 3, 10, 10, 5000, 70_000]);
    let flags = select(vec![0, 0, 0, 1, 2]);
    prop_oneof![
        3 => (node(), name(), size, flags)
            .prop_map(|(node, name, size, flags)| SetXattr { node, name, size, flags }),
        2 => (node(), name(), room()).prop_map(|(node, name, room)| GetXattr { node, name, room }),
        1 => (node(), room()).prop_map(|(node, room)| ListXattr { node, room }),
        1 => (node(), name()).prop_map(|(node, name)| RemoveXattr { node, name }),
    ]
}
