//! Serving a request does not touch the heap.

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::time::Duration;

use common::every::{data, operation};
use common::{Guest, encode};
use fuse_fs::abi::*;
use fuse_fs::flags::InitFlags;
use fuse_fs::*;
use fuse_wire::Opcode;
use sys::allocations;

/// Answers with constants.
struct Quiet;

impl FileSystem for Quiet {
    fn lookup(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<Entry> {
        Ok(Entry::negative(Duration::ZERO))
    }

    fn getattr(&self, _: &Context<'_>, _: NodeId, _: Option<Handle>) -> Result<Attributes> {
        Ok(Attributes {
            attr: Attr::default(),
            valid: Duration::ZERO,
        })
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }

    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        Ok(sink.write(b"hello"))
    }

    fn write(
        &self,
        _: &Context<'_>,
        _: NodeId,
        args: &WriteIn,
        source: &mut dyn PayloadSource,
    ) -> Result<usize> {
        let mut buffer = [0; 16];
        assert_eq!(source.read(&mut buffer), args.size as usize);
        Ok(args.size as usize)
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        entries: &mut DirentWriter<'_>,
    ) -> Result<()> {
        assert!(entries.push(1, 1, 4, b"."));
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs::default())
    }
}

#[test]
fn no_request_allocates() {
    let session = Session::new(Quiet);
    let mut guest = Guest::begun(&session);
    assert_ne!(allocations(), 0, "the test itself does allocate");
    let mut reply = vec![0; REPLY_BUFFER];
    let mut payload = vec![0; 4096];
    for &opcode in Opcode::ALL {
        if opcode == Opcode::Destroy {
            continue;
        }
        let whole = encode(
            NodeId(7),
            operation(opcode),
            data(opcode).len(),
            guest.agreed,
        );
        for message in [&whole[..], &whole[..whole.len() - 1]] {
            let before = allocations();
            let _ = session.serve(
                message,
                &mut BufferSource::new(data(opcode)),
                Some(&mut BufferSink::new(&mut payload)),
                &mut reply,
                Blocking::Allowed,
            );
            assert_eq!(allocations() - before, 0, "{opcode}");
        }
        guest.agreed = session.agreed().unwrap_or(InitFlags::empty());
    }
    assert_eq!(session.stats().malformed, Opcode::ALL.len() as u64 - 1);
}
