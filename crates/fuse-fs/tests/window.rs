//! A session with a DAX window.

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use common::probe::{Behaviour, Probe};
use common::{Answer, Guest};
use fuse_fs::abi::{RemovemappingOne, SetupmappingIn};
use fuse_fs::flags::{InitFlags, MappingFlags};
use fuse_fs::{Blocking, DaxWindow, Errno, Handle, Mapping, NodeId, Serve, Session};
use fuse_wire::Operation;

/// A multiple of every host's page.
const PAGE: u64 = 64 << 10;

/// Notes what it is asked.
#[derive(Debug, Default)]
struct Notes {
    size: u64,
    asked: Mutex<Vec<String>>,
}

impl Notes {
    fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            size,
            ..Self::default()
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn note(&self, asked: String) {
        self.asked.lock().unwrap().push(asked);
    }
}

impl DaxWindow for Notes {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&self, _: BorrowedFd<'_>, mapping: Mapping) -> io::Result<()> {
        self.note(format!("map {mapping:?}"));
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.note(format!("unmap {offset} {len}"));
        match offset {
            0 => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn clear(&self) {
        self.note("clear".to_owned());
    }
}

fn probe() -> Probe {
    Probe {
        wanted: InitFlags::all(),
        ..Probe::new(Behaviour::Succeed)
    }
}

fn setup() -> Operation<'static> {
    Operation::SetupMapping(SetupmappingIn {
        fh: Handle::NONE,
        foffset: 0,
        len: PAGE,
        flags: MappingFlags::READ,
        moffset: 0,
    })
}

fn remove(ranges: &[RemovemappingOne]) -> Operation<'_> {
    Operation::RemoveMapping(ranges.into())
}

const fn range(moffset: u64) -> RemovemappingOne {
    RemovemappingOne { moffset, len: PAGE }
}

#[test]
fn it_is_agreed_on_where_there_is_one() {
    let with = Notes::new(PAGE);
    let session = Session::new(probe()).with_window(with.clone());
    let guest = Guest::begun(&session);
    assert!(guest.agreed.contains(InitFlags::MAP_ALIGNMENT));

    // One that is not there now, none, and a filesystem that does not want it.
    let gone = Session::new(probe()).with_window(Notes::new(0));
    let none = Session::new(probe());
    let unwanted = Session::new(Probe::default()).with_window(Notes::new(PAGE));
    for session in [gone, none, unwanted] {
        let guest = Guest::begun(&session);
        assert!(!guest.agreed.contains(InitFlags::MAP_ALIGNMENT));
        assert_eq!(guest.ask(NodeId(7), setup()).error(), Errno::ENOSYS);
        let answer = guest.ask(NodeId(0), remove(&[range(0)]));
        assert_eq!(answer.error(), Errno::ENOSYS);
    }
}

/// Whoever ends a session while it has something mapped could leave that to the next one, which knows
/// nothing of it; and so to the next driver.
#[test]
fn nothing_is_left_to_the_next_session() {
    let window = Notes::new(PAGE);
    let session = Session::new(probe()).with_window(window.clone());
    let guest = Guest::begun(&session);
    window.take();
    assert!(guest.ask(NodeId(0), Operation::Destroy).is_empty_success());
    assert_eq!(window.take(), ["clear"]);
    // A request that had begun before may come to an end only now.
    session.reset();
    assert_eq!(window.take(), ["clear"]);
    let _next = Guest::begun(&session);
    assert_eq!(window.take(), ["clear"]);
}

#[test]
fn the_guest_is_told_to_map_whole_pages() {
    let session = Session::new(probe()).with_window(Notes::new(PAGE));
    let mut guest = Guest::new(&session);
    let out = guest.init(&common::offer(InitFlags::all()));
    assert_eq!(1 << out.map_alignment, rustix::param::page_size());
}

#[test]
fn nobody_waits_for_a_window_who_may_not() {
    let window = Notes::new(PAGE);
    let session = Session::new(probe()).with_window(window.clone());
    let mut guest = Guest::begun(&session);
    window.take();
    guest.sending.blocking = Blocking::Forbidden;
    assert_eq!(guest.ask(NodeId(7), setup()), Answer::WouldBlock);
    let removing = guest.ask(NodeId(0), remove(&[range(0)]));
    assert_eq!(removing, Answer::WouldBlock);
    assert!(window.take().is_empty());
}

#[test]
fn what_is_removed_is_all_in_the_window() {
    let window = Notes::new(2 * PAGE);
    let session = Session::new(probe()).with_window(window.clone());
    let guest = Guest::begun(&session);
    window.take();
    let ask = |ranges: &[RemovemappingOne]| guest.ask(NodeId(0), remove(ranges));
    for beyond in [2 * PAGE, 1, !(PAGE - 1)] {
        assert_eq!(ask(&[range(0), range(beyond)]).error(), Errno::EINVAL);
    }
    assert!(window.take().is_empty());
    assert!(ask(&[range(0)]).is_empty_success());
    assert!(ask(&[]).is_empty_success());
    // What cannot be removed.
    assert_eq!(ask(&[range(PAGE)]).error(), Errno::EIO);
    assert_eq!(window.take().len(), 2);
}
