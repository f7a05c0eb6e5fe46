//! The rules that a request can break, each broken on its own.

#![cfg(target_endian = "little")]

mod golden;

use fuse_wire::abi::{InHeader, MkdirIn};
use fuse_wire::flags::InitFlags;
use fuse_wire::{
    EncodeError, Errno, Extensions, NameError, Opcode, Operation, Request, RequestError,
    SecurityContext, SecurityContexts, argument_len_before_payload,
};
use golden::requests::{name, xattr_name};
use golden::{bytes, set_len};

const ALL: InitFlags = InitFlags::all();

/// A request with its length and opcode filled in.
fn request(opcode: Opcode, total_extlen: u16, body: &[u8]) -> Vec<u8> {
    let mut message = bytes![u32 0, u32 opcode.raw(), z 28, u16 total_extlen, u16 0, s body];
    let len = message.len();
    set_len(&mut message, len);
    message
}

/// Whether the message is a request.
fn check(message: &[u8], agreed: InitFlags) -> Result<(), RequestError> {
    Request::decode(message, 0, agreed).map(|_| ())
}

fn error(opcode: Opcode, body: &[u8]) -> RequestError {
    Request::decode(&request(opcode, 0, body), 0, InitFlags::empty()).unwrap_err()
}

/// The fixed part of each operation that takes names, how many of them, and whether the names are
/// those of entries.
fn named() -> Vec<(Opcode, usize, usize, bool)> {
    use Opcode::*;
    vec![
        (Lookup, 0, 1, true),
        (Symlink, 0, 1, true),
        (MkNod, 16, 1, true),
        (MkDir, 8, 1, true),
        (Unlink, 0, 1, true),
        (RmDir, 0, 1, true),
        (Rename, 8, 2, true),
        (Rename2, 16, 2, true),
        (Link, 8, 1, true),
        (Create, 16, 1, true),
        (GetXattr, 8, 1, false),
        (RemoveXattr, 0, 1, false),
        (SetXattr, 8, 1, false),
    ]
}

/// A request whose name number `place` of `names` is `name`.
fn with_name(opcode: Opcode, fixed: usize, names: usize, place: usize, name: &[u8]) -> Vec<u8> {
    let mut body = vec![0; fixed];
    for at in 0..names {
        body.extend_from_slice(if at == place { name } else { b"fine" });
        body.push(0);
    }
    if opcode == Opcode::Symlink {
        body.extend_from_slice(b"target\0");
    }
    request(opcode, 0, &body)
}

#[test]
fn each_operation_refuses_what_is_no_name_to_it() {
    let long = [b'n'; 256];
    for (opcode, fixed, names, entries) in named() {
        for place in 0..names {
            let decode = |name: &[u8]| {
                let message = with_name(opcode, fixed, names, place, name);
                check(&message, InitFlags::empty())
            };
            let refused = |error: NameError| Err(RequestError::Name(error));
            let expected_for_entries = |error| if entries { refused(error) } else { Ok(()) };
            let expected_for_dots = match opcode {
                Opcode::Lookup => Ok(()),
                _ => expected_for_entries(NameError::DotOrDotDot),
            };

            assert_eq!(decode(b""), refused(NameError::Empty), "{opcode}");
            assert_eq!(decode(&long), refused(NameError::TooLong), "{opcode}");
            assert_eq!(decode(&long[..255]), Ok(()), "{opcode}");
            assert_eq!(decode(b"."), expected_for_dots, "{opcode}");
            assert_eq!(decode(b".."), expected_for_dots, "{opcode}");
            for slash in [&b"/"[..], b"a/b", b"/etc/passwd", b"../x", b"x/"] {
                assert_eq!(
                    decode(slash),
                    expected_for_entries(NameError::Slash),
                    "{opcode}"
                );
            }
            assert_eq!(decode(b"\xff\xfe\x01 \n"), Ok(()), "{opcode}");
        }
    }
}

#[test]
fn a_name_ends_with_a_nul() {
    for (opcode, fixed, ..) in named() {
        let mut body = vec![0; fixed];
        body.extend_from_slice(b"no end");
        assert_eq!(
            error(opcode, &body),
            RequestError::UnterminatedName,
            "{opcode}"
        );
    }
}

#[test]
fn the_target_of_a_symbolic_link_is_bounded() {
    let decode = |target: &[u8]| {
        let message = request(Opcode::Symlink, 0, &bytes![s "l\0", s target, u8 0]);
        check(&message, InitFlags::empty())
    };
    assert_eq!(decode(b""), Err(NameError::Empty.into()));
    assert_eq!(decode(&[b't'; 4096]), Err(NameError::TooLong.into()));
    assert_eq!(decode(&[b't'; 4095]), Ok(()));
    assert_eq!(decode(b"/../../etc/passwd"), Ok(()));
}

#[test]
fn counts_and_sizes_that_lie_are_refused() {
    for size in [4, 6, 1 << 20, u32::MAX] {
        let set = bytes![u32 size, u32 0, s "user.x\0", s "value"];
        let ioctl = bytes![u64 0, u32 0, u32 0, u64 0, u32 size, u32 0, s "value"];
        for (opcode, body) in [(Opcode::SetXattr, set), (Opcode::Ioctl, ioctl)] {
            let expected = match size {
                4 => RequestError::TrailingBytes(1),
                _ => RequestError::Truncated,
            };
            assert_eq!(error(opcode, &body), expected, "{opcode} {size}");
        }
    }
    for count in [0, 2, 0x1000_0001, u32::MAX] {
        let forget = bytes![u32 count, u32 0, u64 1, u64 1];
        let remove = bytes![u32 count, u64 1, u64 1];
        for (opcode, body) in [
            (Opcode::BatchForget, forget),
            (Opcode::RemoveMapping, remove),
        ] {
            let expected = match count {
                0 => RequestError::TrailingBytes(16),
                _ => RequestError::Truncated,
            };
            assert_eq!(error(opcode, &body), expected, "{opcode} {count}");
        }
    }
}

#[test]
fn a_payload_is_where_the_arguments_end() {
    for opcode in Opcode::ALL {
        let expected = match opcode {
            Opcode::Write | Opcode::NotifyReply => Some(80),
            _ => None,
        };
        assert_eq!(argument_len_before_payload(opcode.raw()), expected);
    }
    assert_eq!(argument_len_before_payload(u32::MAX), None);
}

#[test]
fn headers_are_checked_first() {
    let good = request(Opcode::StatFs, 0, &[]);
    let empty = InitFlags::empty();

    let mut swapped = good.clone();
    swapped[4..8].copy_from_slice(&26u32.to_be_bytes());
    assert_eq!(
        Request::decode(&swapped, 0, empty),
        Err(RequestError::ByteOrder)
    );

    for unknown in [0, 7, 19, 54, 4096, u32::MAX] {
        let mut message = good.clone();
        message[4..8].copy_from_slice(&unknown.to_le_bytes());
        let error = Request::decode(&message, 0, empty).unwrap_err();
        assert_eq!(error, RequestError::UnknownOpcode(unknown));
        assert_eq!(error.errno(), Errno::ENOSYS);
        assert_eq!(InHeader::peek(&message).unwrap().opcode, unknown);
    }

    for header in [0, 39, 41, u32::MAX] {
        let mut message = good.clone();
        message[..4].copy_from_slice(&header.to_le_bytes());
        let expected = RequestError::Length { header, actual: 40 };
        assert_eq!(Request::decode(&message, 0, empty), Err(expected));
    }
    assert_eq!(
        Request::decode(&good[..39], 0, empty),
        Err(RequestError::TruncatedHeader(39))
    );
    assert_eq!(InHeader::peek(&good[..39]), None);

    let wide = usize::try_from(u32::MAX).unwrap() + 1;
    let expected = RequestError::Length {
        header: 40,
        actual: 40 + wide,
    };
    assert_eq!(Request::decode(&good, wide, empty), Err(expected));
}

#[test]
fn init_of_a_newer_peer_may_be_longer() {
    let decode = |major: u32, minor: u32| {
        let body = bytes![u32 major, u32 minor, u32 1, u32 1 << 30, u32 2, z 44, z 32];
        check(&request(Opcode::Init, 0, &body), InitFlags::empty())
    };
    assert_eq!(decode(7, 46), Ok(()));
    assert_eq!(decode(8, 0), Ok(()));
    assert_eq!(decode(7, 45), Err(RequestError::TrailingBytes(32)));
}

#[test]
fn init_that_announces_more_flags_has_them() {
    let body = bytes![u32 7, u32 38, u32 0, u32 1 << 30];
    assert_eq!(error(Opcode::Init, &body), RequestError::Truncated);
}

/// MKDIR of `d`, ending in `extensions` that the header announces.
fn mkdir_with(extensions: &[u8]) -> Vec<u8> {
    let units = u16::try_from(extensions.len() / 8).unwrap();
    request(
        Opcode::MkDir,
        units,
        &bytes![u32 0o700, u32 0, s "d\0", s extensions],
    )
}

#[test]
fn malformed_extensions_are_refused() {
    let context = bytes![u32 1, u32 0, s "a.b\0", s "v", z 3];
    let malformed = [
        // Sizes: none, less than the header, odd, more than there is.
        bytes![u32 0, u32 0],
        bytes![u32 4, u32 0],
        bytes![u32 12, u32 32, u32 0, u32 0],
        bytes![u32 16, u32 0],
        bytes![u32 u32::MAX - 7, u32 0],
        // Types that do not exist.
        bytes![u32 8, u32 33],
        bytes![u32 8, u32 u32::MAX],
        // Contexts: fewer or more than announced, a value longer than there is.
        bytes![u32 8, u32 1],
        bytes![u32 24, u32 2, s &context],
        bytes![u32 40, u32 1, s &context, s &context],
        bytes![u32 24, u32 0, s &context],
        bytes![u32 24, u32 1, u32 9, u32 0, s "a.b\0", s "v", z 3],
        bytes![u32 24, u32 1, u32 u32::MAX, u32 0, s "a.b\0", s "v", z 3],
        // Groups: no count, more than there are, room for one more.
        bytes![u32 8, u32 32],
        bytes![u32 16, u32 32, u32 2, u32 5],
        bytes![u32 16, u32 32, u32 u32::MAX, u32 5],
        bytes![u32 24, u32 32, u32 1, u32 5, u64 0],
    ];
    for extensions in malformed {
        let decoded = check(&mkdir_with(&extensions), ALL);
        assert_eq!(decoded, Err(RequestError::Extension), "{extensions:?}");
    }

    let unnamed = bytes![u32 24, u32 1, u32 1, u32 0, s "\0", s "v", z 6];
    let decoded = check(&mkdir_with(&unnamed), ALL);
    assert_eq!(decoded, Err(NameError::Empty.into()));
    let endless = bytes![u32 24, u32 1, u32 0, u32 0, s "security"];
    let decoded = check(&mkdir_with(&endless), ALL);
    assert_eq!(decoded, Err(RequestError::UnterminatedName));

    let none = bytes![u32 8, u32 0];
    let group = bytes![u32 16, u32 32, u32 1, u32 5];
    for twice in [[&none[..], &none], [&group, &group]] {
        let decoded = check(&mkdir_with(&twice.concat()), ALL);
        assert_eq!(decoded, Err(RequestError::RepeatedExtension));
    }
}

#[test]
fn extensions_come_in_any_order() {
    let context = bytes![u32 24, u32 1, u32 1, u32 0, s "a.b\0", s "v", z 3];
    let group = bytes![u32 16, u32 32, u32 1, u32 5];
    for order in [[&context[..], &group], [&group, &context]] {
        let message = mkdir_with(&order.concat());
        let extensions = Request::decode(&message, 0, ALL).unwrap().extensions;
        assert_eq!(extensions.supplementary_groups().collect::<Vec<_>>(), [5]);
        let contexts: Vec<_> = extensions.security_contexts().iter().collect();
        assert_eq!(
            contexts,
            [SecurityContext {
                name: xattr_name(c"a.b"),
                value: b"v"
            }]
        );
    }
}

#[test]
fn extensions_come_only_where_they_were_agreed_on_and_make_sense() {
    let group = bytes![u32 16, u32 32, u32 1, u32 5];
    let none = bytes![u32 8, u32 0];
    let with = |extensions: &[u8], agreed| check(&mkdir_with(extensions), agreed);
    assert_eq!(
        with(&group, InitFlags::empty()),
        Err(RequestError::TrailingBytes(16))
    );
    assert_eq!(
        with(&group, InitFlags::SECURITY_CTX),
        Err(RequestError::Extension)
    );
    assert_eq!(
        with(&none, InitFlags::CREATE_SUPP_GROUP),
        Err(RequestError::Extension)
    );
    assert_eq!(with(&group, InitFlags::CREATE_SUPP_GROUP), Ok(()));
    assert_eq!(with(&none, InitFlags::SECURITY_CTX), Ok(()));

    let unlink = request(Opcode::Unlink, 1, &bytes![s "d\0", s &none]);
    assert_eq!(
        Request::decode(&unlink, 0, ALL),
        Err(RequestError::TrailingBytes(8))
    );
    // What is announced cannot reach into the header.
    for units in [1, 6, u16::MAX] {
        let decoded = check(&request(Opcode::StatFs, units, &[]), ALL);
        assert_eq!(decoded, Err(RequestError::Extension));
    }
    // Nor may there be more than what is announced.
    let both = request(Opcode::MkDir, 1, &bytes![u64 0, s "d\0", s &none, s &none]);
    assert_eq!(
        Request::decode(&both, 0, ALL),
        Err(RequestError::TrailingBytes(8))
    );
    // What is not announced can only be security contexts.
    let unannounced = request(Opcode::MkDir, 0, &bytes![u64 0, s "d\0", s &group]);
    let decoded = Request::decode(&unannounced, 0, InitFlags::CREATE_SUPP_GROUP);
    assert_eq!(decoded, Err(RequestError::TrailingBytes(16)));
}

#[test]
fn extensions_that_the_peer_would_refuse_are_not_sent() {
    let mut room = [0; 64];
    let context = SecurityContext {
        name: xattr_name(c"a.b"),
        value: b"v",
    };
    let contexts = SecurityContexts::write(&[context], &mut room).unwrap();
    let mkdir = Operation::MkDir {
        args: MkdirIn::default(),
        name: name(c"d"),
    };
    let rmdir = Operation::RmDir { name: name(c"d") };
    for (operation, extensions, agreed) in [
        (
            mkdir,
            Extensions::new(contexts, &[]),
            InitFlags::CREATE_SUPP_GROUP,
        ),
        (
            mkdir,
            Extensions::new(SecurityContexts::default(), &[1]),
            InitFlags::SECURITY_CTX,
        ),
        (rmdir, Extensions::new(contexts, &[]), ALL),
        (
            rmdir,
            Extensions::new(SecurityContexts::default(), &[1]),
            ALL,
        ),
    ] {
        let request = Request {
            header: InHeader::default(),
            operation,
            extensions,
        };
        let encoded = request.encode(0, agreed, &mut [0; 256]);
        assert_eq!(encoded, Err(EncodeError::Request(RequestError::Extension)));
    }

    let contexts = [context; 32];
    assert!(SecurityContexts::write(&contexts[..31], &mut [0; 1024]).is_ok());
    assert_eq!(
        SecurityContexts::write(&contexts, &mut [0; 1024]),
        Err(EncodeError::Request(RequestError::Extension))
    );
    assert!(matches!(
        SecurityContexts::write(&contexts[..1], &mut [0; 15]),
        Err(EncodeError::TooLong(_))
    ));
}

#[test]
fn extensions_longer_than_can_be_announced_are_not_sent() {
    let groups = vec![7; 200_000];
    let request = Request {
        header: InHeader::default(),
        operation: Operation::MkDir {
            args: MkdirIn::default(),
            name: name(c"d"),
        },
        extensions: Extensions::new(SecurityContexts::default(), &groups),
    };
    let encoded = request.encode(0, ALL, &mut vec![0; 1 << 20]);
    assert!(
        matches!(encoded, Err(EncodeError::TooLong(_))),
        "{encoded:?}"
    );
}
