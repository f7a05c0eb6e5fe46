//! No bytes make the decoders of what a server sends panic.

#![no_main]

use fuse_wire::{Dirents, DirentsPlus, Notification, Reply};
use fuzz::ReplyInput;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(input) = ReplyInput::new(data) else {
        return;
    };
    match Reply::decode(input.form, &input.message) {
        Ok(answer) => {
            if let Ok(Reply::Data(data)) = answer.result {
                for entry in Dirents::new(data).flatten() {
                    assert!((1..=255).contains(&entry.name.len()));
                }
                for entry in DirentsPlus::new(data).flatten() {
                    assert!((1..=255).contains(&entry.entry.name.len()));
                }
            }
        }
        Err(error) => drop(error.to_string()),
    }
    match Notification::decode(&input.message) {
        Ok(notification) => drop(format!("{notification:?}")),
        Err(error) => drop(error.to_string()),
    }
});
