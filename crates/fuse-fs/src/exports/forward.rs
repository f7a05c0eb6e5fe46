//! Methods that differ only in what is translated: whose they are, and what they have for arguments.

use fuse_wire::Handle;
use fuse_wire::abi::{
    FallocateIn, FlushIn, FsyncIn, IoctlIn, LkIn, LseekIn, PollIn, ReadIn, ReleaseIn,
    SetupmappingIn, WriteIn,
};

/// Methods that name an inode and nothing else that is translated.
macro_rules! of_node {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty, or $instead:ident;)*) => {$(
        fn $name(
            &self,
            cx: &Context<'_>,
            node: NodeId,
            $($argument: $type),*
        ) -> Result<$result> {
            let (fs, node) = self.target(node)?;
            unless_missing(fs.$name(cx, node, $($argument),*), Errno::$instead)
        }
    )*};
}

/// Methods that name an inode and, in `args.fh`, an open file.
macro_rules! of_open_file {
    ($($name:ident($args:ty $(, $argument:ident: $type:ty)*) -> $result:ty, or $instead:ident;)*) => {$(
        fn $name(
            &self,
            cx: &Context<'_>,
            node: NodeId,
            args: &$args,
            $($argument: $type),*
        ) -> Result<$result> {
            let (fs, node, fh) = self.open_target(node, args.fh)?;
            let args = <$args>::clone_with_handle(args, fh);
            unless_missing(fs.$name(cx, node, &args, $($argument),*), Errno::$instead)
        }
    )*};
}

/// As those, but there is nothing to do where they are not implemented.
macro_rules! of_open_file_if_any {
    ($($name:ident($args:ty);)*) => {$(
        fn $name(&self, cx: &Context<'_>, node: NodeId, args: &$args) -> Result<()> {
            let (fs, node, fh) = self.open_target(node, args.fh)?;
            let args = <$args>::clone_with_handle(args, fh);
            or_nothing(fs.$name(cx, node, &args))
        }
    )*};
}

/// Methods that make an entry of a directory.
macro_rules! creating {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $name(
            &self,
            cx: &Context<'_>,
            parent: NodeId,
            $($argument: $type),*
        ) -> Result<Entry> {
            let Inner { member, node } = self.inner(parent)?;
            self.check_nodes()?;
            let fs = self.filesystem(Inner { member, node });
            let made = fs.$name(cx, node, $($argument),*);
            self.told(member, unless_missing(made, Errno::EOPNOTSUPP)?)
        }
    )*};
}

pub(super) use {creating, of_node, of_open_file, of_open_file_if_any};

/// Arguments that name an open file.
pub(super) trait WithHandle: Copy {
    /// The same for another open file.
    fn clone_with_handle(&self, fh: Handle) -> Self;
}

macro_rules! with_handle {
    ($($type:ty)*) => {$(
        impl WithHandle for $type {
            fn clone_with_handle(&self, fh: Handle) -> Self {
                Self { fh, ..*self }
            }
        }
    )*};
}

with_handle! {
    ReadIn WriteIn FlushIn FsyncIn LseekIn FallocateIn LkIn IoctlIn PollIn ReleaseIn SetupmappingIn
}
