//! A filesystem that does nothing, behind fuse-wire.

use fuse_wire::abi::{EntryOut, GetxattrOut, Kstatfs, LseekOut, OpenOut, WriteOut};
use fuse_wire::{Operation, Reply, Request};

use crate::golden::requests::Golden;

/// Serves the request and returns the length of the reply, 0 where there is none.
pub(crate) fn serve(golden: &Golden, reply: &mut [u8]) -> usize {
    let request =
        Request::decode(&golden.message, golden.payload_len, golden.agreed).expect("a request");
    dispatch(&request.operation).map_or(0, |answer| {
        answer.encode(request.header.unique, reply).expect("room")
    })
}

fn dispatch(operation: &Operation<'_>) -> Option<Reply<'static>> {
    Some(match operation {
        Operation::Lookup { .. }
        | Operation::Symlink { .. }
        | Operation::MkNod { .. }
        | Operation::MkDir { .. }
        | Operation::Link { .. } => Reply::Entry(EntryOut::default()),
        Operation::GetAttr(_) | Operation::SetAttr(_) => Reply::Attr(Default::default()),
        Operation::ReadLink => Reply::Data(b"target"),
        Operation::Open(_) | Operation::OpenDir(_) => Reply::Open(OpenOut::default()),
        Operation::Create { .. } => Reply::Create(EntryOut::default(), OpenOut::default()),
        Operation::Write(args) => Reply::Write(WriteOut {
            size: args.size,
            padding: 0,
        }),
        Operation::StatFs => Reply::StatFs(Kstatfs {
            namelen: 255,
            bsize: 512,
            ..Default::default()
        }),
        Operation::GetXattr { .. } => Reply::Data(b"value"),
        Operation::ListXattr(_) => Reply::XattrSize(GetxattrOut {
            size: 5,
            padding: 0,
        }),
        Operation::LSeek(args) => Reply::LSeek(LseekOut {
            offset: args.offset,
        }),
        Operation::Forget(_) | Operation::BatchForget(_) => return None,
        _ => Reply::Empty,
    })
}
