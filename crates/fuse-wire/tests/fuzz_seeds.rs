//! Writes the golden messages to `fuzz/corpus`, for the fuzzers to start from.
//!
//! `cargo test -p fuse-wire --test fuzz_seeds -- --ignored`

#![cfg(target_endian = "little")]

#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, dead_code, reason = "a crate of its own")]
mod fuzz;
mod golden;

use std::fs;
use std::path::Path;

use fuzz::{ReplyInput, RequestInput};
use golden::{notifications, replies, requests};

#[test]
#[ignore = "writes to fuzz/corpus; run it before fuzzing"]
fn seeds() {
    for golden in requests::all() {
        let seed = RequestInput::seed(&golden.message, golden.payload_len, golden.agreed);
        write("decode_request", golden.name, &seed);
        write("round_trip", golden.name, &[&[0], &seed[..]].concat());
    }
    for golden in replies::all() {
        let seed = ReplyInput::seed(&golden.message, golden.form);
        write("decode_reply", golden.name, &seed);
        write("round_trip", golden.name, &[&[1], &seed[..]].concat());
    }
    for golden in notifications::all() {
        let notify = format!("notify {}", golden.name);
        write(
            "decode_reply",
            &notify,
            &[&[0], &golden.message[..]].concat(),
        );
        write("round_trip", &notify, &[&[2], &golden.message[..]].concat());
    }
}

#[test]
fn seeds_are_read_as_what_they_are() {
    for golden in requests::all() {
        let seed = RequestInput::seed(&golden.message, golden.payload_len, golden.agreed);
        let input = RequestInput::new(&seed).unwrap();
        assert_eq!(input.message, golden.message);
        assert_eq!(input.payload_len, golden.payload_len);
        assert_eq!(input.agreed, golden.agreed);
    }
    for golden in replies::all() {
        let input = ReplyInput::new(&ReplyInput::seed(&golden.message, golden.form)).unwrap();
        assert_eq!(input.message, golden.message);
        assert!(fuse_wire::Reply::decode(input.form, &input.message).is_ok());
    }
}

fn write(target: &str, name: &str, seed: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    fs::create_dir_all(&dir).unwrap();
    let file: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    fs::write(dir.join(file), seed).unwrap();
}
