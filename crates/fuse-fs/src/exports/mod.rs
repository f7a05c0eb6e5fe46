//! Several filesystems as one.

mod agree;
mod filesystem;
mod forward;
mod handles;
mod nodes;
mod root;
mod saved;
mod statx;

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse_wire::flags::AttrFlags;
use fuse_wire::{Errno, Handle, Name, NameError, NodeId};

use self::handles::{Handles, Open};
use self::nodes::{Inner, Nodes};
use self::root::{Root, VALID};
use crate::{Attributes, Context, Entry, Error, FileSystem, Opened, ReadOnly, Result};

/// Several filesystems as one: each is a directory of the root, under a name of its own.
///
/// ```
/// use fuse_fs::{Exports, MemFs, ReadOnly, Session};
///
/// let exports = Exports::new()
///     .add(c"scratch", MemFs::new())?
///     .add(c"images", ReadOnly::new(MemFs::new()))?;
/// let session = Session::new(exports);
/// # Ok::<(), fuse_fs::ExportError>(())
/// ```
///
/// # The root
/// It holds these names and no others, and cannot be changed: EROFS. STATFS tells of no space there;
/// SYNCFS of the root is one of every export.
///
/// # What is kept apart
/// The filesystems know nothing of each other, and their node ids and handles may be any: the guest
/// sees others, given out in order and never twice, which a table translates. An entry lives as long
/// as the guest holds a lookup, or has the file open. A rename or a link from one export to another is
/// EXDEV, as between any two filesystems, and so is COPY_FILE_RANGE.
///
/// Inode numbers are those of the filesystems. Where the guest knows SUBMOUNTS, each export is a
/// mount with a device number of its own; where it does not, two exports may have equal numbers.
///
/// # INIT
/// All exports agree on the same: what one does not want, no other gets. To that end each may see
/// [`init`](FileSystem::init) and [`destroy`](FileSystem::destroy) several times, in turns. What one
/// of them does not implement (ENOSYS) is answered so that the guest does not stop asking the others:
/// EOPNOTSUPP, or success where ENOSYS means that there is nothing to be done.
///
/// NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT and EXPORT_SUPPORT are not offered.
pub struct Exports {
    root: ReadOnly<Root>,
    members: Vec<Box<dyn FileSystem>>,
    nodes: Nodes,
    handles: Handles,
    /// Whether exports are marked as mounts.
    submounts: AtomicBool,
}

/// Why a filesystem cannot be exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// What it shall be called is no name of a directory entry.
    #[error("{name:?} is no name for an export: {source}")]
    Name {
        /// What it shall be called.
        name: CString,
        /// What is wrong with it.
        source: NameError,
    },
    /// Another export is called so.
    #[error("two exports are called {0:?}: give each a name of its own")]
    Twice(CString),
}

/// Node ids above those that exports can have as their roots.
const FIRST_NODE: u64 = 1 << 32;

/// What the root directory is in the tables; the exports follow.
const ROOT: Inner = Inner {
    member: 0,
    node: NodeId::ROOT,
};

impl Exports {
    /// Most inodes that the guest may hold lookups of, unless set otherwise: about 400 MB of
    /// tables.
    pub const DEFAULT_MAX_NODES: usize = 1 << 22;
    /// Most files and directories that may be open at once.
    const MAX_HANDLES: usize = 1 << 20;

    /// Nothing is exported.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: ReadOnly::default(),
            members: Vec::new(),
            nodes: Nodes::new(FIRST_NODE, Self::DEFAULT_MAX_NODES),
            handles: Handles::new(Self::MAX_HANDLES),
            submounts: AtomicBool::new(false),
        }
    }

    /// Sets how many inodes the guest may hold lookups of. What exceeds it is ENFILE.
    #[must_use]
    pub fn max_nodes(mut self, limit: usize) -> Self {
        self.nodes = Nodes::new(FIRST_NODE, limit);
        self
    }

    /// Exports `filesystem` as the directory `name`.
    ///
    /// # Errors
    /// Where `name` is no name, or is taken.
    pub fn add(
        mut self,
        name: impl Into<CString>,
        filesystem: impl FileSystem + 'static,
    ) -> std::result::Result<Self, ExportError> {
        let name = name.into();
        let checked = match Name::new(&name) {
            Ok(checked) => checked,
            Err(source) => return Err(ExportError::Name { name, source }),
        };
        if self.root.inner().position(checked.as_bytes()).is_some() {
            return Err(ExportError::Twice(name));
        }
        self.root.inner_mut().push(checked.as_bytes());
        self.members.push(Box::new(filesystem));
        Ok(self)
    }

    fn members(&self) -> Vec<&dyn FileSystem> {
        self.members.iter().map(|member| &**member).collect()
    }

    /// What `node` means.
    ///
    /// # Errors
    /// ESTALE where the guest cannot know it.
    fn inner(&self, node: NodeId) -> Result<Inner> {
        if node == NodeId::ROOT {
            return Ok(ROOT);
        }
        if let Some(member) = self.member_of_root(node) {
            let node = NodeId::ROOT;
            return Ok(Inner { member, node });
        }
        Ok(self.nodes.get(node).ok_or(Errno::ESTALE)?)
    }

    /// Whose root `node` is: those follow the node id of the whole's.
    fn member_of_root(&self, node: NodeId) -> Option<usize> {
        let member = node.0.checked_sub(NodeId::ROOT.0)?;
        let member = usize::try_from(member).ok()?;
        (1..=self.members.len()).contains(&member).then_some(member)
    }

    /// The filesystem of `inner`.
    fn filesystem(&self, inner: Inner) -> &dyn FileSystem {
        let member = inner.member.checked_sub(1);
        match member.and_then(|member| self.members.get(member)) {
            Some(member) => &**member,
            None => &self.root,
        }
    }

    /// The filesystem of `node`, and what that calls it.
    fn target(&self, node: NodeId) -> Result<(&dyn FileSystem, NodeId)> {
        let inner = self.inner(node)?;
        Ok((self.filesystem(inner), inner.node))
    }

    /// The filesystem of `node`, what that calls it, and what it calls the open file `handle`.
    fn open_target(
        &self,
        node: NodeId,
        handle: Handle,
    ) -> Result<(&dyn FileSystem, NodeId, Handle)> {
        let inner = self.inner(node)?;
        let handle = self.handle_of(inner, handle)?;
        Ok((self.filesystem(inner), inner.node, handle))
    }

    /// What the filesystem of `inner` calls the open file `handle`.
    ///
    /// # Errors
    /// EBADF where that is open in none, or in another.
    fn handle_of(&self, inner: Inner, handle: Handle) -> Result<Handle> {
        match self.handles.get(handle) {
            Some(open) if open.inner.member == inner.member => Ok(open.handle),
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// The root of the export `name`, as LOOKUP finds it.
    fn export(&self, cx: &Context<'_>, name: &[u8]) -> Result<Entry> {
        let position = self.root.inner().position(name).ok_or(Errno::ENOENT)?;
        let member = self.members.get(position).ok_or(Errno::ENOENT)?;
        let Attributes { mut attr, valid } =
            unless_missing(member.getattr(cx, NodeId::ROOT, None), Errno::EOPNOTSUPP)?;
        if self.submounts.load(Ordering::Relaxed) {
            attr.flags |= AttrFlags::SUBMOUNT;
        }
        // The first export comes after the root.
        let place = u64::try_from(position).unwrap_or(u64::MAX);
        Ok(Entry {
            node: NodeId(place.saturating_add(NodeId::ROOT.0).saturating_add(1)),
            generation: 0,
            attr,
            attr_valid: valid,
            entry_valid: VALID,
        })
    }

    /// `entry` of the filesystem `member` as the guest is told it. A lookup that the guest is not
    /// told of is given back.
    fn told(&self, member: usize, mut entry: Entry) -> Result<Entry> {
        if entry.node == NodeId::NEGATIVE {
            return Ok(entry);
        }
        let node = entry.node;
        let inner = Inner { member, node };
        entry.node = self.nodes.count(inner).map_err(|nodes::Full| {
            self.filesystem(inner).forget(node, 1);
            Errno::ENFILE
        })?;
        Ok(entry)
    }

    /// `opened` of `inner` as the guest is told it.
    fn told_opened(&self, inner: Inner, mut opened: Opened) -> Opened {
        let handle = opened.handle;
        opened.handle = self.handles.insert(Open { inner, handle });
        opened
    }

    /// Makes sure that the guest can be told of what is created next.
    fn check_nodes(&self) -> Result<()> {
        match self.nodes.has_room() {
            true => Ok(()),
            false => Err(Errno::ENFILE.into()),
        }
    }

    /// Makes sure that the guest can be told of what is opened next.
    fn check_handles(&self) -> Result<()> {
        match self.handles.has_room() {
            true => Ok(()),
            false => Err(Errno::ENFILE.into()),
        }
    }
}

impl Default for Exports {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exports")
            .field("root", &self.root)
            .field("nodes", &self.nodes)
            .field("handles", &self.handles)
            .finish_non_exhaustive()
    }
}

/// `result`, with `instead` for ENOSYS, which would make the guest ask none of the others either.
fn unless_missing<T>(result: Result<T>, instead: Errno) -> Result<T> {
    match result {
        Err(Error::Errno(Errno::ENOSYS)) => Err(instead.into()),
        other => other,
    }
}

/// `result`, with success for ENOSYS: nothing is to be done where it is not implemented.
fn or_nothing(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Errno(Errno::ENOSYS)) => Ok(()),
        other => other,
    }
}
