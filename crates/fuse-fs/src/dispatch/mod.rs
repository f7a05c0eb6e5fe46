//! From a decoded operation to a call of the filesystem, and from its result to the reply.
//!
//! A number of the guest's is checked or clamped here before a filesystem sees it; what is a
//! matter of one filesystem is left to that.

mod data;
mod dir;
mod failure;
mod mapping;
mod node;
mod open;
mod room;

pub(crate) use failure::Failure;
pub(crate) use room::Room;

use fuse_wire::abi::{
    AttrOut, BmapOut, CopyFileRangeOut, EntryOut, GetxattrOut, InitOut, IoctlOut, Kstatfs, LkOut,
    LseekOut, OpenOut, PollOut, StatxOut, WriteOut,
};
use fuse_wire::{Errno, Operation, Reply, ReplyForm};

use crate::session::Agreement;
use crate::{Context, DaxWindow, Entry, FileSystem, NodeId, Outcome, PayloadSource, Result};

/// A reply that lies ready, or why there is none.
pub(crate) type Answer = std::result::Result<Outcome, Failure>;

/// One request on its way to the filesystem.
pub(crate) struct Call<'a, F> {
    pub(crate) fs: &'a F,
    pub(crate) cx: Context<'a>,
    /// The inode to act on.
    pub(crate) node: NodeId,
    pub(crate) agreement: Agreement,
    /// Where files can be mapped, if anywhere.
    pub(crate) window: Option<&'a dyn DaxWindow>,
}

/// Least bytes of body that a reply of `form` has. Where the guest leaves less room, the filesystem
/// is not called: whatever it did or counted could not be told.
pub(crate) const fn least_body(form: ReplyForm) -> usize {
    match form {
        ReplyForm::Empty => 0,
        ReplyForm::Entry => size_of::<EntryOut>(),
        ReplyForm::Attr => size_of::<AttrOut>(),
        // No data at all is the end of the file or the list, and no room asks for the size of an
        // extended attribute: neither may come of a lack of room.
        ReplyForm::Data { max } => (max > 0) as usize,
        ReplyForm::XattrSize => size_of::<GetxattrOut>(),
        ReplyForm::Open => size_of::<OpenOut>(),
        ReplyForm::Create => size_of::<EntryOut>().saturating_add(size_of::<OpenOut>()),
        ReplyForm::Write => size_of::<WriteOut>(),
        ReplyForm::StatFs => size_of::<Kstatfs>(),
        ReplyForm::Init => size_of::<InitOut>(),
        ReplyForm::Lk => size_of::<LkOut>(),
        ReplyForm::BMap => size_of::<BmapOut>(),
        ReplyForm::Ioctl { .. } => size_of::<IoctlOut>(),
        ReplyForm::Poll => size_of::<PollOut>(),
        ReplyForm::LSeek => size_of::<LseekOut>(),
        ReplyForm::Statx => size_of::<StatxOut>(),
        ReplyForm::CopyFileRange64 => size_of::<CopyFileRangeOut>(),
    }
}

/// Calls the filesystem for an operation that is part of a session and has a reply.
pub(crate) fn dispatch<F: FileSystem>(
    call: &Call<'_, F>,
    operation: &Operation<'_>,
    source: &mut dyn PayloadSource,
    room: &mut Room<'_>,
) -> Answer {
    let &Call {
        fs, ref cx, node, ..
    } = call;
    match operation {
        Operation::Lookup { name } => node::lookup(call, *name, room),
        Operation::GetAttr(args) => node::getattr(call, args, room),
        Operation::SetAttr(args) => node::setattr(call, args, room),
        Operation::Statx(args) => room.reply(&Reply::Statx(fs.statx(cx, node, args)?.into())),
        Operation::ReadLink => node::readlink(call, room),
        Operation::Symlink { name, target } => {
            entry(fs, fs.symlink(cx, node, *name, *target)?, room)
        }
        Operation::MkNod { args, name } => entry(fs, fs.mknod(cx, node, *name, args)?, room),
        Operation::MkDir { args, name } => entry(fs, fs.mkdir(cx, node, *name, args)?, room),
        Operation::Link { args, name } => {
            entry(fs, fs.link(cx, args.oldnodeid, node, *name)?, room)
        }
        Operation::Unlink { name } => done(fs.unlink(cx, node, *name), room),
        Operation::RmDir { name } => done(fs.rmdir(cx, node, *name), room),
        Operation::Rename {
            args,
            name,
            new_name,
        } => {
            let names = [*name, *new_name];
            dir::rename(call, names, args.newdir, Default::default(), room)
        }
        Operation::Rename2 {
            args,
            name,
            new_name,
        } => dir::rename(call, [*name, *new_name], args.newdir, args.flags, room),
        Operation::ReadDir(args) => dir::readdir(call, args, room),
        Operation::ReadDirPlus(args) => dir::readdirplus(call, args, room),

        Operation::Open(args) => open::open(call, args, room),
        Operation::OpenDir(args) => open::opendir(call, args, room),
        Operation::Create { args, name } => open::create(call, args, *name, room),
        Operation::TmpFile(args) => open::tmpfile(call, args, room),
        Operation::Flush(args) => done(fs.flush(cx, node, args), room),
        Operation::Release(args) => done(fs.release(cx, node, args), room),
        Operation::ReleaseDir(args) => done(fs.releasedir(cx, node, args), room),
        Operation::FSync(args) => done(fs.fsync(cx, node, args), room),
        Operation::FSyncDir(args) => done(fs.fsyncdir(cx, node, args), room),

        Operation::Read(args) => data::read(call, args, room),
        Operation::Write(args) => data::write(call, args, source, room),
        Operation::LSeek(args) => data::lseek(call, args, room),
        Operation::FAllocate(args) => data::fallocate(call, args, room),
        Operation::CopyFileRange(args) => data::copy_file_range(call, args, room),
        Operation::CopyFileRange64(args) => data::copy_file_range_64(call, args, room),
        Operation::BMap(args) => {
            let block = fs.bmap(cx, node, args.block, args.blocksize)?;
            room.reply(&Reply::BMap(BmapOut { block }))
        }
        Operation::Ioctl { args, data } => data::ioctl(call, args, data, room),
        Operation::Poll(args) => data::poll(call, args, room),
        Operation::GetLk(args) => {
            let lk = fs.getlk(cx, node, args)?;
            room.reply(&Reply::Lk(LkOut { lk }))
        }
        Operation::SetLk(args) => done(fs.setlk(cx, node, args, false), room),
        Operation::SetLkW(args) => done(fs.setlk(cx, node, args, true), room),

        Operation::StatFs => room.reply(&Reply::StatFs(fs.statfs(cx, node)?)),
        Operation::SyncFs(_) => done(fs.syncfs(cx, node), room),
        Operation::Access(args) => done(fs.access(cx, node, args), room),
        Operation::SetXattr { args, name, value } => node::setxattr(call, args, *name, value, room),
        Operation::GetXattr { args, name } => node::getxattr(call, args, *name, room),
        Operation::ListXattr(args) => node::listxattr(call, args, room),
        Operation::RemoveXattr { name } => done(fs.removexattr(cx, node, *name), room),

        Operation::SetupMapping(args) => mapping::setup(call, args, room),
        Operation::RemoveMapping(ranges) => mapping::remove(call, *ranges, room),
        // The session deals with these itself.
        Operation::Init(_)
        | Operation::Destroy
        | Operation::Forget(_)
        | Operation::BatchForget(_)
        | Operation::Interrupt(_)
        | Operation::NotifyReply(_) => Err(Errno::EINVAL.into()),
    }
}

/// Answers with nothing but success.
fn done(result: Result<()>, room: &mut Room<'_>) -> Answer {
    result?;
    room.reply(&Reply::Empty)
}

/// Answers with an entry, whose lookup is given back where the guest does not learn of it.
fn entry<F: FileSystem>(fs: &F, entry: Entry, room: &mut Room<'_>) -> Answer {
    let outcome = room.reply(&Reply::Entry(entry.into()));
    if outcome.is_err() && entry.node != NodeId::NEGATIVE {
        fs.forget(entry.node, 1);
    }
    outcome
}

/// Checks that the range from `offset` on is one that a file can have.
fn check_range(offset: u64, len: u64, otherwise: Errno) -> std::result::Result<(), Failure> {
    match offset.checked_add(len) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(otherwise.into()),
    }
}

/// A size of the guest's as a length, at most `max`.
fn clamp(size: u32, max: usize) -> usize {
    usize::try_from(size).map_or(max, |size| size.min(max))
}

/// A length as a size that travels. It was clamped to less than 4 GiB.
fn size_of_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
