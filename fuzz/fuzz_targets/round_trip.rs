//! What decodes can be encoded, and decodes to the same again.

#![no_main]

use fuse_wire::abi::{InHeader, OutHeader};
use fuse_wire::{Notification, Reply, Request};
use fuzz::{ReplyInput, RequestInput};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // What is written may be longer than what was read: by the padding of INIT, and of a header of
    // extensions that were agreed on and did not come.
    let mut buffer = vec![0xa5; data.len() + 64];
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => RequestInput::new(data)
            .iter()
            .for_each(|input| request(input, &mut buffer)),
        1 => ReplyInput::new(data)
            .iter()
            .for_each(|input| reply(input, &mut buffer)),
        _ => notification(data, &mut buffer),
    }
});

fn request(input: &RequestInput, buffer: &mut [u8]) {
    let Ok(request) = Request::decode(&input.message, input.payload_len, input.agreed) else {
        return;
    };
    let len = request
        .encode(input.payload_len, input.agreed, buffer)
        .unwrap();
    let again = Request::decode(&buffer[..len], input.payload_len, input.agreed).unwrap();
    assert_eq!(again.operation, request.operation);
    assert_eq!(again.extensions, request.extensions);
    let but_for_lengths = InHeader {
        len: again.header.len,
        total_extlen: again.header.total_extlen,
        ..request.header
    };
    assert_eq!(again.header, but_for_lengths);
}

fn reply(input: &ReplyInput, buffer: &mut [u8]) {
    let Ok(answer) = Reply::decode(input.form, &input.message) else {
        return;
    };
    let len = match answer.result {
        Ok(reply) => reply.encode(answer.unique, buffer).unwrap(),
        Err(errno) => {
            let header = OutHeader::failure(answer.unique, errno);
            let bytes = zerocopy::IntoBytes::as_bytes(&header);
            assert_eq!(bytes, input.message);
            return;
        }
    };
    assert_eq!(Reply::decode(input.form, &buffer[..len]), Ok(answer));
}

fn notification(data: &[u8], buffer: &mut [u8]) {
    let Ok(notification) = Notification::decode(data) else {
        return;
    };
    let len = notification.encode(buffer).unwrap();
    assert_eq!(Notification::decode(&buffer[..len]), Ok(notification));
}
