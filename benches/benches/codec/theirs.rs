//! A filesystem that does nothing, behind fuse-backend-rs 0.14.
//!
//! `Server::handle_message` decodes, dispatches and encodes in one. It is driven through the
//! transport for `/dev/fuse`, whose reader takes a buffer; its writer is split at 0, as it then
//! collects the reply in memory and makes no system call. That is the cheapest of its transports:
//! the one for virtio also walks a descriptor chain.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{Attr, CreateIn, OpenOptions, SetattrValid, stat64};
use fuse_backend_rs::api::filesystem::{
    Context, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader,
};
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};

pub(crate) fn server() -> Server<Nothing> {
    Server::new(Nothing)
}

/// What each message needs.
pub(crate) fn transport<'a>(
    message: &'a mut [u8],
    reply: &'a mut [u8],
) -> (Reader<'a>, Writer<'a>) {
    let reader = Reader::from_fuse_buffer(FuseBuf::new(message)).expect("a reader");
    let mut writer = FuseDevWriter::new(-1, reply).expect("a writer");
    (reader, writer.split_at(0).expect("room").into())
}

/// Serves the request and returns the length of the reply, 0 where there is none.
pub(crate) fn serve(server: &Server<Nothing>, message: &mut [u8], reply: &mut [u8]) -> usize {
    let (reader, writer) = transport(message, reply);
    server
        .handle_message(reader, writer, None, None)
        .expect("a request")
}

pub(crate) struct Nothing;

fn attributes() -> (stat64, Duration) {
    (Attr::default().into(), Duration::ZERO)
}

type Ino = u64;

impl FileSystem for Nothing {
    type Inode = u64;
    type Handle = u64;

    fn lookup(&self, _: &Context, _: Ino, _: &CStr) -> io::Result<Entry> {
        Ok(Entry::default())
    }

    fn forget(&self, _: &Context, _: Ino, _: u64) {}

    fn batch_forget(&self, _: &Context, _: Vec<(Ino, u64)>) {}

    fn getattr(&self, _: &Context, _: Ino, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        Ok(attributes())
    }

    fn setattr(
        &self,
        _: &Context,
        _: Ino,
        _: stat64,
        _: Option<u64>,
        _: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        Ok(attributes())
    }

    fn readlink(&self, _: &Context, _: Ino) -> io::Result<Vec<u8>> {
        Ok(b"target".to_vec())
    }

    fn symlink(&self, _: &Context, _: &CStr, _: Ino, _: &CStr) -> io::Result<Entry> {
        Ok(Entry::default())
    }

    fn mknod(&self, _: &Context, _: Ino, _: &CStr, _: u32, _: u32, _: u32) -> io::Result<Entry> {
        Ok(Entry::default())
    }

    fn mkdir(&self, _: &Context, _: Ino, _: &CStr, _: u32, _: u32) -> io::Result<Entry> {
        Ok(Entry::default())
    }

    fn unlink(&self, _: &Context, _: Ino, _: &CStr) -> io::Result<()> {
        Ok(())
    }

    fn rmdir(&self, _: &Context, _: Ino, _: &CStr) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Context, _: Ino, _: &CStr, _: Ino, _: &CStr, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, _: &Context, _: Ino, _: Ino, _: &CStr) -> io::Result<Entry> {
        Ok(Entry::default())
    }

    fn create(
        &self,
        _: &Context,
        _: Ino,
        _: &CStr,
        _: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        Ok((Entry::default(), None, OpenOptions::empty(), None))
    }

    fn write(
        &self,
        _: &Context,
        _: Ino,
        _: u64,
        _: &mut dyn ZeroCopyReader,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        Ok(size as usize)
    }

    fn release(
        &self,
        _: &Context,
        _: Ino,
        _: u32,
        _: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn fsync(&self, _: &Context, _: Ino, _: bool, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn fsyncdir(&self, _: &Context, _: Ino, _: bool, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self, _: &Context, _: Ino, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn fallocate(&self, _: &Context, _: Ino, _: u64, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn setxattr(&self, _: &Context, _: Ino, _: &CStr, _: &[u8], _: u32) -> io::Result<()> {
        Ok(())
    }

    fn getxattr(&self, _: &Context, _: Ino, _: &CStr, _: u32) -> io::Result<GetxattrReply> {
        Ok(GetxattrReply::Value(b"value".to_vec()))
    }

    fn listxattr(&self, _: &Context, _: Ino, _: u32) -> io::Result<ListxattrReply> {
        Ok(ListxattrReply::Count(5))
    }

    fn removexattr(&self, _: &Context, _: Ino, _: &CStr) -> io::Result<()> {
        Ok(())
    }

    fn releasedir(&self, _: &Context, _: Ino, _: u32, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn access(&self, _: &Context, _: Ino, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn lseek(&self, _: &Context, _: Ino, _: u64, offset: u64, _: u32) -> io::Result<u64> {
        Ok(offset)
    }
}
