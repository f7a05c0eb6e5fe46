//! No bytes make the decoder of requests panic, nor the use of what it returns.

#![no_main]

use fuse_wire::{Operation, Request};
use fuzz::RequestInput;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(input) = RequestInput::new(data) else {
        return;
    };
    let request = match Request::decode(&input.message, input.payload_len, input.agreed) {
        Ok(request) => request,
        Err(error) => {
            let _ = (error.errno(), error.to_string());
            return;
        }
    };
    let _ = format!("{request:?}");
    let _ = request.operation.reply_form();
    assert_eq!(request.operation.opcode().raw(), request.header.opcode);
    let contexts = request.extensions.security_contexts();
    assert_eq!(contexts.iter().count(), contexts.len());
    match request.operation {
        Operation::BatchForget(list) => assert_eq!(list.iter().count(), list.len()),
        Operation::RemoveMapping(list) => assert_eq!(list.iter().count(), list.len()),
        Operation::SetXattr { args, value, .. } => assert_eq!(args.size as usize, value.len()),
        Operation::Ioctl { args, data } => assert_eq!(args.in_size as usize, data.len()),
        Operation::Write(args) => assert_eq!(args.size as usize, input.payload_len),
        _ => {}
    }
});
