//! A session that is saved in one process and goes on in another.

mod common;

use std::io;
use std::sync::Mutex;

use common::probe::{Behaviour, Probe};
use common::{Guest, offer};
use fuse_fs::flags::InitFlags;
use fuse_fs::{Errno, MemFs, NodeId, ReadOnly, Serve, Session, SessionConfig};
use fuse_wire::Operation;

fn probe(wanted: InitFlags) -> Probe {
    Probe {
        wanted,
        kept: Some(Mutex::new(b"what the guest holds".to_vec())),
        ..Probe::default()
    }
}

fn save(session: &dyn Serve) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.state().unwrap().save(&mut bytes).unwrap();
    bytes
}

fn load(session: &dyn Serve, bytes: &[u8]) -> io::Result<()> {
    session.state().unwrap().load(&mut &*bytes)
}

#[test]
fn a_session_goes_on_with_what_was_agreed() {
    let wanted = InitFlags::POSIX_LOCKS | InitFlags::SECURITY_CTX;
    let here = Session::new(probe(wanted));
    let guest = Guest::begun(&here);
    let bytes = save(&here);
    assert_eq!(here.agreed(), Some(guest.agreed), "it goes on here, too");

    let there = Session::new(probe(wanted | InitFlags::WRITEBACK_CACHE));
    *there.filesystem().kept.as_ref().unwrap().lock().unwrap() = Vec::new();
    load(&there, &bytes).unwrap();
    assert_eq!(there.filesystem().take_calls(), ["init", "load"]);
    assert_eq!(there.agreed(), Some(guest.agreed), "and no more than that");
    let kept = there.filesystem().kept.as_ref().unwrap();
    assert_eq!(*kept.lock().unwrap(), b"what the guest holds");
    let guest = Guest {
        server: &there,
        ..guest
    };
    guest.ask(NodeId(1), Operation::StatFs).body();
    assert_eq!(save(&there), bytes);
}

#[test]
fn where_no_session_was_on_none_is() {
    let here = Session::new(probe(InitFlags::empty()));
    let bytes = save(&here);
    let there = Session::new(probe(InitFlags::empty()));
    Guest::begun(&there);
    load(&there, &bytes).unwrap();
    assert_eq!(there.agreed(), None);
    assert_eq!(there.filesystem().take_calls(), ["init", "destroy"]);
    let error = load(&there, &[&bytes[..], b"?"].concat()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn what_the_guest_counts_on_must_be_done() {
    let here = Session::new(probe(InitFlags::POSIX_LOCKS));
    Guest::begun(&here);
    let bytes = save(&here);
    let refused = |there: Session<Probe>| {
        let error = load(&there, &bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(there.agreed(), None);
        assert_eq!(there.filesystem().take_calls(), ["init", "destroy"]);
        error.to_string()
    };
    let error = refused(Session::new(probe(InitFlags::empty())));
    assert!(error.contains("POSIX_LOCKS"), "{error}");
    let config = SessionConfig::new().max_write(64 << 10);
    let error = refused(Session::with_config(probe(InitFlags::POSIX_LOCKS), config));
    assert!(error.contains("65536"), "{error}");
}

#[test]
fn what_cannot_be_loaded_leaves_no_session() {
    let here = Session::new(probe(InitFlags::empty()));
    Guest::begun(&here);
    let bytes = save(&here);
    let there = Session::new(probe(InitFlags::empty()));
    let filesystem_state = b"what the guest holds".len();
    // All of this filesystem's states are good but none at all.
    for len in 0..=bytes.len() - filesystem_state {
        let guest = Guest::begun(&there);
        let error = load(&there, &bytes[..len]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len}");
        let answer = guest.ask(NodeId(1), Operation::StatFs);
        assert_eq!(answer.error(), Errno::ENOTCONN);
        let calls = there.filesystem().take_calls();
        let count = |call| calls.iter().filter(|&it| it == call).count();
        assert_eq!(count("init"), count("destroy"), "{calls:?}");
    }
    let mut other = bytes.clone();
    other[0] ^= 1;
    assert!(
        load(&there, &other)
            .unwrap_err()
            .to_string()
            .contains("FUSE ses")
    );
    let refusing = Session::new(Probe {
        behaviour: Behaviour::Fail(Errno::EACCES),
        ..probe(InitFlags::empty())
    });
    assert!(
        load(&refusing, &bytes)
            .unwrap_err()
            .to_string()
            .contains("refuses")
    );
    load(&there, &bytes).unwrap();
}

#[test]
fn any_bytes_are_a_state_or_not() {
    let here = Session::new(probe(InitFlags::all()));
    Guest::begun(&here);
    let bytes = save(&here);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut mutated = bytes.clone();
            mutated[at] = value;
            let there = Session::new(probe(InitFlags::all()));
            let loaded = load(&there, &mutated);
            assert_eq!(loaded.is_ok(), there.agreed().is_some());
        }
    }
}

#[test]
fn a_filesystem_without_a_state_has_no_session_with_one() {
    let session = Session::new(MemFs::new());
    assert!(session.state().is_none());
    Guest::new(&session).init(&offer(InitFlags::empty()));
    let session = Session::new(ReadOnly::new(probe(InitFlags::empty())));
    assert!(
        session.state().is_some(),
        "it has that of what is read-only"
    );
}
