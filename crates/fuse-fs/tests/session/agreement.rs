//! When a session begins and ends, and what is agreed on.

use crate::common::every::{data, operation};
use crate::common::probe::{Behaviour, Probe};
use crate::common::{Answer, Guest, offer};
use fuse_fs::abi::*;
use fuse_fs::flags::InitFlags;
use fuse_fs::{Blocking, Errno, MemFs, Negotiation, NodeId, Serve, Session, SessionConfig};
use fuse_wire::{Opcode, Operation};

#[test]
fn outside_a_session_only_init_is_served() {
    for &opcode in Opcode::ALL.iter().filter(|&&opcode| opcode != Opcode::Init) {
        let session = Session::new(Probe::default());
        let guest = Guest::new(&session);
        let answer = guest.ask_with_data(NodeId(7), operation(opcode), data(opcode));
        if opcode.expects_reply() {
            assert_eq!(answer.error(), Errno::ENOTCONN, "{opcode}");
        } else {
            assert_eq!(answer, Answer::NoReply, "{opcode}");
        }
        assert!(session.filesystem().take_calls().is_empty(), "{opcode}");
    }
}

#[test]
fn a_session_ends_with_destroy_init_or_reset() {
    let session = Session::new(Probe::default());
    let calls = || session.filesystem().take_calls();
    session.reset();
    assert!(calls().is_empty(), "there was none to end");
    let mut guest = Guest::begun(&session);
    assert_eq!(calls(), ["init"]);

    guest.init(&offer(InitFlags::empty()));
    assert_eq!(calls(), ["destroy", "init"]);
    assert_eq!(session.agreed(), Some(InitFlags::empty()));

    assert!(guest.ask(NodeId(0), Operation::Destroy).is_empty_success());
    assert_eq!(calls(), ["destroy"]);
    assert_eq!(session.agreed(), None);
    assert_eq!(
        guest.ask(NodeId(0), Operation::Destroy).error(),
        Errno::ENOTCONN
    );
    assert_eq!(
        guest.ask(NodeId(1), Operation::StatFs).error(),
        Errno::ENOTCONN
    );
    session.reset();
    assert!(calls().is_empty());

    guest.init(&offer(InitFlags::empty()));
    session.reset();
    assert_eq!(calls(), ["init", "destroy"]);
    assert_eq!(
        guest.ask(NodeId(1), Operation::StatFs).error(),
        Errno::ENOTCONN
    );
}

#[test]
fn the_ends_of_a_session_are_served_where_waiting_is_allowed() {
    let session = Session::new(Probe::default());
    let mut guest = Guest::begun(&session);
    session.filesystem().take_calls();
    guest.sending.blocking = Blocking::Forbidden;
    for opcode in [Opcode::Init, Opcode::Destroy] {
        assert_eq!(guest.ask(NodeId(0), operation(opcode)), Answer::WouldBlock);
    }
    assert!(session.filesystem().take_calls().is_empty());
    guest.ask(NodeId(1), Operation::StatFs).body();
}

#[test]
fn versions_are_compared() {
    let session = Session::new(Probe::default());
    let ask = |major, minor| {
        let init = InitIn {
            major,
            minor,
            ..offer(InitFlags::empty())
        };
        Guest::new(&session).ask(NodeId(0), Operation::Init(init))
    };
    for (major, minor) in [(6, 45), (0, 0), (7, 26), (7, 0)] {
        assert_eq!(ask(major, minor).error(), Errno::EPROTO, "{major}.{minor}");
        assert_eq!(session.agreed(), None);
    }
    let out: InitOut = ask(8, 0).structure();
    assert_eq!((out.major, out.minor, out.max_write), (7, 45, 0));
    assert_eq!(session.agreed(), None, "another INIT is to come");
    assert!(session.filesystem().take_calls().is_empty());
    for minor in [27, 31, 36, 45, 99] {
        let out: InitOut = ask(7, minor).structure();
        assert_eq!((out.major, out.minor), (7, 45));
        assert!(session.agreed().is_some());
    }
}

#[test]
fn what_is_agreed_on_was_offered_and_can_be_carried() {
    let everything = Probe {
        wanted: InitFlags::all(),
        wanted_max_write: Some(u32::MAX),
        ..Default::default()
    };
    let session = Session::new(everything);
    let mut guest = Guest::new(&session);
    let never = InitFlags::FILE_OPS
        | InitFlags::SPLICE_READ
        | InitFlags::SPLICE_WRITE
        | InitFlags::SPLICE_MOVE
        | InitFlags::ABORT_ERROR
        | InitFlags::MAP_ALIGNMENT
        | InitFlags::INIT_RESERVED
        | InitFlags::HAS_INODE_DAX
        | InitFlags::PASSTHROUGH
        | InitFlags::HAS_RESEND
        | InitFlags::OVER_IO_URING
        | InitFlags::REQUEST_TIMEOUT
        | InitFlags::from_bits_retain(!0 << 43);
    for bit in (0..64).map(|n| InitFlags::from_bits_retain(1 << n)) {
        let offered = bit | InitFlags::INIT_EXT;
        let out = guest.init(&offer(offered));
        assert_eq!(out.agreed(), offered.difference(never), "{bit:?}");
        assert_eq!(session.agreed(), Some(out.agreed()));
    }
    let without_ext = InitFlags::all().difference(InitFlags::INIT_EXT);
    let out = guest.init(&offer(without_ext));
    assert_eq!(out.flags2, 0);
    assert_eq!(out.max_write, Negotiation::MAX_WRITE);
    assert_eq!(out.max_pages, 256);
    assert_eq!(out.max_readahead, 128 << 10, "no more than was offered");
    assert_eq!(out.time_gran, 1);
    assert_eq!(out.congestion_threshold, out.max_background);
}

#[test]
fn by_itself_a_session_agrees_on_what_it_handles() {
    let session = Session::new(Probe::default());
    let out = Guest::new(&session).init(&offer(InitFlags::all()));
    let expected = InitFlags::ASYNC_READ
        | InitFlags::BIG_WRITES
        | InitFlags::AUTO_INVAL_DATA
        | InitFlags::ASYNC_DIO
        | InitFlags::PARALLEL_DIROPS
        | InitFlags::MAX_PAGES
        | InitFlags::SETXATTR_EXT
        | InitFlags::INIT_EXT;
    assert_eq!(out.agreed(), expected);
}

#[test]
fn max_write_follows_configuration_filesystem_and_guest() {
    let max_write = |config: u32, wanted, offered| {
        let probe = Probe {
            wanted_max_write: wanted,
            ..Default::default()
        };
        let config = SessionConfig::new().max_write(config);
        let session = Session::with_config(probe, config);
        let init = InitIn {
            max_readahead: u32::MAX,
            ..offer(offered)
        };
        let out = Guest::new(&session).init(&init);
        assert!(out.max_readahead <= out.max_write);
        (out.max_write, out.max_pages)
    };
    let all = InitFlags::all();
    assert_eq!(max_write(1 << 20, None, all), (1 << 20, 256));
    assert_eq!(max_write(u32::MAX, None, all), (1 << 20, 256));
    assert_eq!(max_write(300_000, None, all), (73 * 4096, 73));
    assert_eq!(max_write(0, None, all), (4096, 1));
    assert_eq!(max_write(1 << 20, Some(0), all), (4096, 1));
    assert_eq!(max_write(65536, Some(1 << 20), all), (65536, 16));
    let no_pages = all.difference(InitFlags::MAX_PAGES);
    assert_eq!(max_write(1 << 20, None, no_pages), (32 * 4096, 0));
    let small = no_pages.difference(InitFlags::BIG_WRITES);
    assert_eq!(max_write(1 << 20, None, small), (4096, 0));
}

#[test]
fn a_filesystem_can_refuse_a_session() {
    let session = Session::new(Probe::new(Behaviour::Fail(Errno::EACCES)));
    let guest = Guest::new(&session);
    let answer = guest.ask(NodeId(0), operation(Opcode::Init));
    assert_eq!(answer.error(), Errno::EACCES);
    assert_eq!(session.agreed(), None);
    session.reset();
    assert_eq!(session.filesystem().take_calls(), ["init"]);
}

#[test]
fn sessions_begin_and_end_while_others_are_served() {
    let session = Session::new(MemFs::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut guest = Guest::new(&session);
                guest.sending.room = Some(8192);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for opcode in [Opcode::MkDir, Opcode::Lookup, Opcode::StatFs, Opcode::RmDir] {
                        match guest.ask(NodeId::ROOT, operation(opcode)) {
                            Answer::Body(_) => {}
                            Answer::Error(Errno::ENOTCONN | Errno::EEXIST | Errno::ENOENT) => {}
                            other => panic!("{opcode}: {other:?}"),
                        }
                    }
                }
            });
        }
        let mut guest = Guest::new(&session);
        for _ in 0..200 {
            guest.init(&offer(InitFlags::all()));
            session.reset();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let guest = Guest::begun(&session);
    let _ = guest.rmdir(NodeId::ROOT, "name");
    session.reset();
    assert_eq!(session.filesystem().inode_count(), 1);
}
