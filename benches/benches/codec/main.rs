//! How long messages take to decode and to encode, in CPU time alone.
//!
//! * `decode request`, `encode request`, `decode reply`, `encode reply`: fuse-wire, each message
//!   that its tests know.
//! * `serve`: a request as bytes to a reply as bytes, by a filesystem that does nothing, with
//!   fuse-wire and with fuse-backend-rs 0.14 ([`theirs`] says what of it). Both dispatch, and both
//!   write the same reply into memory.
//!
//! `serve/reader and writer` is what fuse-backend-rs pays for the two objects that each of its
//! messages needs: it is part of its other figures, as it is part of serving a message.
//!
//! READ, READDIR and READDIRPLUS are not compared: fuse-backend-rs answers them with a system call
//! of its own here. Nor is fuser: its parser is private to the session that reads `/dev/fuse`.

#![allow(missing_docs, reason = "criterion's macros write functions")]

#[path = "../../../crates/fuse-wire/tests/golden/mod.rs"]
mod golden;
mod ours;
mod theirs;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fuse_wire::{Reply, Request};
use golden::{replies, requests};

criterion_group! {
    name = codec;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = serve, request_messages, reply_messages
}
criterion_main!(codec);

/// What both can serve. The form of SETXATTR is the one that fuse-backend-rs knows.
const SERVED: &[&str] = &[
    "LOOKUP",
    "FORGET",
    "BATCH_FORGET",
    "GETATTR",
    "SETATTR",
    "READLINK",
    "SYMLINK",
    "MKNOD",
    "MKDIR",
    "UNLINK",
    "RMDIR",
    "RENAME",
    "RENAME2",
    "LINK",
    "OPEN",
    "CREATE",
    "WRITE",
    "STATFS",
    "RELEASE",
    "FSYNC",
    "FLUSH",
    "SETXATTR without SETXATTR_EXT",
    "GETXATTR",
    "LISTXATTR",
    "REMOVEXATTR",
    "OPENDIR",
    "RELEASEDIR",
    "FSYNCDIR",
    "ACCESS",
    "FALLOCATE",
    "LSEEK",
];

fn serve(criterion: &mut Criterion) {
    let golden = requests::all();
    let server = theirs::server();
    let mut group = criterion.benchmark_group("serve");
    for name in SERVED {
        let golden = golden.iter().find(|golden| golden.name == *name).unwrap();
        let mut message = golden.message.clone();
        let (mut our_reply, mut their_reply) = ([0; 4096], [0; 4096]);

        // Both do the same, or the comparison is none.
        let our_len = ours::serve(golden, &mut our_reply);
        let their_len = theirs::serve(&server, &mut message, &mut their_reply);
        assert_eq!(our_reply[..our_len], their_reply[..their_len], "{name}");

        group.bench_function(format!("{name}/fuse-wire"), |bencher| {
            bencher.iter(|| ours::serve(black_box(golden), black_box(&mut our_reply)));
        });
        group.bench_function(format!("{name}/fuse-backend-rs"), |bencher| {
            bencher.iter(|| {
                theirs::serve(
                    &server,
                    black_box(&mut message),
                    black_box(&mut their_reply),
                )
            });
        });
    }
    let (mut message, mut reply) = ([0; 64], [0; 4096]);
    group.bench_function("reader and writer/fuse-backend-rs", |bencher| {
        bencher.iter(|| drop(black_box(theirs::transport(&mut message, &mut reply))));
    });
    group.finish();
}

fn request_messages(criterion: &mut Criterion) {
    let golden = requests::all();
    let mut group = criterion.benchmark_group("decode request");
    for golden in &golden {
        group.bench_function(golden.name, |bencher| {
            bencher.iter(|| {
                let message = black_box(&golden.message[..]);
                Request::decode(message, golden.payload_len, golden.agreed).is_ok()
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode request");
    let mut buffer = [0; 1024];
    for golden in golden.iter().filter(|golden| golden.ours) {
        group.bench_function(golden.name, |bencher| {
            bencher.iter(|| {
                let request = black_box(&golden.request);
                request.encode(golden.payload_len, golden.agreed, black_box(&mut buffer))
            });
        });
    }
    group.finish();
}

fn reply_messages(criterion: &mut Criterion) {
    let golden = replies::all();
    let mut group = criterion.benchmark_group("decode reply");
    for golden in &golden {
        group.bench_function(golden.name, |bencher| {
            bencher.iter(|| Reply::decode(golden.form, black_box(&golden.message)).is_ok());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode reply");
    let mut buffer = [0; 1024];
    for golden in golden.iter().filter(|golden| golden.ours) {
        group.bench_function(golden.name, |bencher| {
            bencher.iter(|| black_box(&golden.reply).encode(1, black_box(&mut buffer)));
        });
    }
    group.finish();
}
