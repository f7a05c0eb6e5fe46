//! Each message against its golden bytes: read, written, cut short and made too long.

#![cfg(target_endian = "little")]

mod golden;

use std::collections::BTreeSet;

use fuse_wire::abi::OutHeader;
use fuse_wire::{Answer, EncodeError, MessageTooLong, Notification, NotifyCode, Opcode, Reply};
use fuse_wire::{ReplyError, Request, RequestError};
use golden::{bytes, notifications, replies, requests, set_len};

#[test]
fn there_is_a_golden_message_of_each_kind() {
    let opcodes: BTreeSet<_> = requests::all()
        .iter()
        .map(|golden| golden.request.operation.opcode())
        .collect();
    assert_eq!(opcodes, Opcode::ALL.iter().copied().collect());

    // A reply's form is that of some request, and each is among the golden replies.
    let forms: BTreeSet<_> = requests::all()
        .iter()
        .filter_map(|golden| golden.request.operation.reply_form())
        .map(kind)
        .collect();
    assert_eq!(
        forms,
        replies::all()
            .iter()
            .map(|golden| kind(golden.form))
            .collect()
    );

    let codes: BTreeSet<_> = notifications::all()
        .iter()
        .map(|golden| golden.notification.code())
        .collect();
    assert_eq!(codes, NotifyCode::ALL.iter().copied().collect());
}

fn kind(form: fuse_wire::ReplyForm) -> String {
    format!("{form:?}").split(' ').next().unwrap().to_owned()
}

#[test]
fn requests_decode() {
    for golden in requests::all() {
        let decoded = Request::decode(&golden.message, golden.payload_len, golden.agreed);
        assert_eq!(decoded, Ok(golden.request), "{}", golden.name);
    }
}

#[test]
fn requests_encode_over_whatever_was_there() {
    for golden in requests::all().into_iter().filter(|golden| golden.ours) {
        let mut request = golden.request;
        // Not for the caller to fill in.
        request.header.len = 0xdead;
        request.header.opcode = 0xdead;
        request.header.total_extlen = 0xdead;
        let buffer = encode_over_dirt(golden.message.len(), |buffer| {
            request
                .encode(golden.payload_len, golden.agreed, buffer)
                .unwrap()
        });
        assert_eq!(buffer, golden.message, "{}", golden.name);
    }
}

/// What `encode` writes into a buffer that is not clean, having checked that it wrote no more than
/// it says.
fn encode_over_dirt(room: usize, encode: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut buffer = vec![0xa5; room + 24];
    let len = encode(&mut buffer);
    assert!(buffer[len..].iter().all(|byte| *byte == 0xa5));
    buffer.truncate(len);
    buffer
}

#[test]
fn requests_do_not_encode_where_there_is_no_room() {
    for golden in requests::all().into_iter().filter(|golden| golden.ours) {
        let needed = golden.message.len();
        for room in 0..needed {
            let encoded =
                golden
                    .request
                    .encode(golden.payload_len, golden.agreed, &mut vec![0; room]);
            let expected = EncodeError::TooLong(MessageTooLong { needed, room });
            assert_eq!(encoded, Err(expected), "{}", golden.name);
        }
    }
}

#[test]
fn no_truncated_request_decodes() {
    for golden in requests::all() {
        for cut in 0..golden.message.len() {
            let mut message = golden.message[..cut].to_vec();
            let as_it_is = Request::decode(&message, golden.payload_len, golden.agreed);
            assert!(as_it_is.is_err(), "{} cut to {cut}", golden.name);

            set_len(&mut message, cut + golden.payload_len);
            let with_its_length = Request::decode(&message, golden.payload_len, golden.agreed);
            assert_eq!(
                with_its_length.is_ok(),
                golden.also_valid_at.contains(&cut),
                "{} cut to {cut}: {with_its_length:?}",
                golden.name
            );
        }
    }
}

#[test]
fn no_request_with_trailing_bytes_decodes() {
    for golden in requests::all() {
        for more in 1..=64 {
            for fill in [0, 1, 0xff] {
                let mut message = golden.message.clone();
                message.resize(golden.message.len() + more, fill);
                let decoded = Request::decode(&message, golden.payload_len, golden.agreed);
                assert!(decoded.is_err(), "{} and {more}", golden.name);

                let len = message.len() + golden.payload_len;
                set_len(&mut message, len);
                let decoded = Request::decode(&message, golden.payload_len, golden.agreed);
                assert_eq!(
                    decoded.is_ok(),
                    golden.also_valid_at.contains(&message.len()),
                    "{} and {more}: {decoded:?}",
                    golden.name
                );
            }
        }
    }
}

#[test]
fn only_operations_with_a_payload_have_one() {
    for golden in requests::all() {
        for payload_len in [0, 1, golden.payload_len + 1, 1 << 20] {
            if payload_len == golden.payload_len {
                continue;
            }
            let mut message = golden.message.clone();
            set_len(&mut message, golden.message.len() + payload_len);
            let error = Request::decode(&message, payload_len, golden.agreed).unwrap_err();
            assert!(
                matches!(
                    error,
                    RequestError::PayloadLength { .. } | RequestError::UnexpectedPayload(_)
                ),
                "{}: {error}",
                golden.name
            );
            let mut buffer = [0; 1024];
            let encoded = golden
                .request
                .encode(payload_len, golden.agreed, &mut buffer);
            assert_eq!(encoded, Err(error.into()), "{}", golden.name);
        }
    }
}

#[test]
fn replies_decode() {
    for golden in replies::all() {
        let decoded = Reply::decode(golden.form, &golden.message);
        let expected = Answer {
            unique: replies::UNIQUE,
            result: Ok(golden.reply),
        };
        assert_eq!(decoded, Ok(expected), "{}", golden.name);
    }
    for (errno, message) in replies::errors() {
        for golden in replies::all() {
            let expected = Answer {
                unique: replies::UNIQUE,
                result: Err(errno),
            };
            assert_eq!(Reply::decode(golden.form, &message), Ok(expected));
        }
    }
}

#[test]
fn replies_encode_over_whatever_was_there() {
    for golden in replies::all().into_iter().filter(|golden| golden.ours) {
        let buffer = encode_over_dirt(golden.message.len(), |buffer| {
            golden.reply.encode(replies::UNIQUE, buffer).unwrap()
        });
        assert_eq!(buffer, golden.message, "{}", golden.name);

        let needed = golden.message.len();
        for room in 0..needed {
            let encoded = golden.reply.encode(replies::UNIQUE, &mut vec![0; room]);
            assert_eq!(
                encoded,
                Err(MessageTooLong { needed, room }),
                "{}",
                golden.name
            );
        }
    }
    for (errno, message) in replies::errors() {
        let header = OutHeader::failure(replies::UNIQUE, errno);
        assert_eq!(zerocopy::IntoBytes::as_bytes(&header), message);
    }
}

#[test]
fn no_truncated_reply_decodes() {
    for golden in replies::all() {
        for cut in 0..golden.message.len() {
            let mut message = golden.message[..cut].to_vec();
            assert!(Reply::decode(golden.form, &message).is_err());

            set_len(&mut message, cut);
            let decoded = Reply::decode(golden.form, &message);
            assert_eq!(
                decoded.is_ok(),
                golden.also_valid_at.contains(&cut),
                "{} cut to {cut}: {decoded:?}",
                golden.name
            );
        }
    }
}

#[test]
fn no_reply_with_trailing_bytes_decodes() {
    for golden in replies::all() {
        // INIT's reply has three lengths, of which one is 16 bytes beyond another.
        let lens = [1, 7, 8, 17, 64].map(|more| golden.message.len() + more);
        for len in lens {
            let mut message = golden.message.clone();
            message.resize(len, 0);
            assert!(Reply::decode(golden.form, &message).is_err());
            set_len(&mut message, len);
            let decoded = Reply::decode(golden.form, &message);
            assert!(decoded.is_err(), "{} of {len}: {decoded:?}", golden.name);
        }
    }
}

#[test]
fn a_reply_cannot_report_what_is_no_error() {
    for error in [1, 2, 511, -512, -4095, i32::MIN, i32::MAX] {
        let message = bytes![u32 16, i32 error, u64 1];
        for golden in replies::all() {
            assert_eq!(
                Reply::decode(golden.form, &message),
                Err(ReplyError::Error(error))
            );
        }
    }
}

#[test]
fn an_error_has_no_body() {
    for golden in replies::all() {
        let mut message = golden.message.clone();
        message[4..8].copy_from_slice(&(-5i32).to_le_bytes());
        let decoded = Reply::decode(golden.form, &message);
        match message.len() - 16 {
            0 => assert!(decoded.unwrap().result.is_err()),
            body => assert_eq!(decoded, Err(ReplyError::BodyAfterError(body))),
        }
    }
}

#[test]
fn a_header_is_checked_without_its_body() {
    let header = bytes![u32 4112, i32 0, u64 9];
    assert!(OutHeader::decode(&header, 4112).unwrap().result().is_ok());
    assert_eq!(
        OutHeader::decode(&header, 4096),
        Err(ReplyError::Length {
            header: 4112,
            actual: 4096
        })
    );
    assert_eq!(
        OutHeader::decode(&header[..15], 15),
        Err(ReplyError::TruncatedHeader(15))
    );
}

#[test]
fn notifications_decode_and_encode() {
    for golden in notifications::all() {
        let decoded = Notification::decode(&golden.message);
        assert_eq!(decoded, Ok(golden.notification), "{}", golden.name);

        let buffer = encode_over_dirt(golden.message.len(), |buffer| {
            golden.notification.encode(buffer).unwrap()
        });
        assert_eq!(buffer, golden.message, "{}", golden.name);
    }
}

#[test]
fn no_notification_of_another_length_decodes() {
    for golden in notifications::all() {
        for len in (0..golden.message.len()).chain(golden.message.len() + 1..=80) {
            let mut message = golden.message.clone();
            message.resize(len, 0);
            assert!(
                Notification::decode(&message).is_err(),
                "{} of {len}",
                golden.name
            );
            set_len(&mut message, len);
            let decoded = Notification::decode(&message);
            assert!(decoded.is_err(), "{} of {len}: {decoded:?}", golden.name);
        }
        for room in 0..golden.message.len() {
            let encoded = golden.notification.encode(&mut vec![0; room]);
            assert_eq!(
                encoded,
                Err(MessageTooLong {
                    needed: golden.message.len(),
                    room
                })
            );
        }
    }
}
