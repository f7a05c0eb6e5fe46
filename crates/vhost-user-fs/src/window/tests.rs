use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use fuse_fs::DaxWindow as _;
use proptest::prelude::*;

use super::*;

/// A window of 64 pages, and the front-end's end of its channel.
fn attached() -> (Arc<DaxWindow>, UnixStream, u64) {
    let page = rustix::param::page_size() as u64;
    let window = Arc::new(DaxWindow::new(64 * page).unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    window.attach(ours);
    (window, theirs, page)
}

/// Answers each message by what `answer` makes of its number, and returns all.
fn front_end(
    socket: UnixStream,
    answer: impl Fn(u32) -> Option<Vec<u8>> + Send + 'static,
) -> std::thread::JoinHandle<Vec<(u32, [u64; 5])>> {
    front_end_of(socket, move |request, _| answer(request))
}

/// As [`front_end`], with the range that a message is about.
fn front_end_of(
    mut socket: UnixStream,
    mut answer: impl FnMut(u32, [u64; 5]) -> Option<Vec<u8>> + Send + 'static,
) -> std::thread::JoinHandle<Vec<(u32, [u64; 5])>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut bytes = [0; 52];
        while socket.read_exact(&mut bytes).is_ok() {
            let request = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
            let flags = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
            let field = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
            let range = [12, 20, 28, 36, 44].map(field);
            all.push((request, range));
            match answer(request, range) {
                _ if flags & NEED_REPLY == 0 => {}
                Some(answer) => socket.write_all(&answer).unwrap(),
                None => break,
            }
        }
        all
    })
}

const NEED_REPLY: u32 = 1 << 3;

fn says(request: u32, value: u64) -> Vec<u8> {
    let header = [request, 1 | 1 << 2, 8].map(u32::to_ne_bytes).concat();
    [&header[..], &value.to_ne_bytes()].concat()
}

fn file() -> File {
    File::open("/proc/self/exe").unwrap()
}

fn mapping(offset: u64, len: u64, file_offset: u64) -> Mapping {
    Mapping {
        offset,
        len,
        file_offset,
        writable: false,
    }
}

#[test]
fn what_is_in_the_way_is_unmapped_and_what_stays_is_mapped_again() {
    let (window, theirs, page) = attached();
    let front_end = front_end(theirs, |request| Some(says(request, 0)));
    let map = |at, pages, from| {
        let mapping = mapping(at * page, pages * page, from * page);
        window.map(file().as_fd(), mapping).unwrap();
    };
    map(0, 8, 10);
    map(2, 2, 50);
    assert_eq!(window.mappings(), 3);
    window.unmap(7 * page, 20 * page).unwrap();
    window.clear();
    assert_eq!(window.mappings(), 0);
    window.detach();
    assert_eq!(fuse_fs::DaxWindow::size(&*window), 0);
    let pages = |(request, range): (u32, [u64; 5])| {
        let [region, from, at, len, flags] = range;
        assert_eq!((region, flags), (0, 0));
        (request, from / page, at / page, len / page)
    };
    let said: Vec<_> = front_end.join().unwrap().into_iter().map(pages).collect();
    let expected = [
        (9, 10, 0, 8),
        (10, 0, 0, 8),
        (9, 10, 0, 2),
        (9, 14, 4, 4),
        (9, 50, 2, 2),
        (10, 0, 4, 4),
        (9, 14, 4, 3),
        (10, 0, 0, 2),
        (10, 0, 2, 2),
        (10, 0, 4, 3),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_refusal_is_told_and_the_next_is_asked() {
    let (window, theirs, page) = attached();
    let front_end = front_end(theirs, |request| {
        Some(says(request, u64::from(request == 9)))
    });
    for _ in 0..2 {
        let error = window.map(file().as_fd(), mapping(0, page, 0)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
    assert_eq!(window.mappings(), 0);
    window.unmap(0, page).unwrap();
    window.detach();
    assert_eq!(front_end.join().unwrap().len(), 2);
}

#[test]
fn a_front_end_that_answers_otherwise_is_asked_no_more() {
    for answer in [
        says(10, 0),
        [9u32, 1, 8, 0, 0].map(u32::to_ne_bytes).concat(),
        [9u32, 1 | 1 << 2, 4, 0, 0].map(u32::to_ne_bytes).concat(),
        vec![0xff; 20],
    ] {
        let (window, theirs, page) = attached();
        let front_end = front_end(theirs, move |_| Some(answer.clone()));
        for _ in 0..2 {
            assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
        }
        assert_eq!(window.mappings(), 0);
        assert_eq!(front_end.join().unwrap().len(), 1);
    }
}

#[test]
fn who_waits_for_an_answer_waits_no_more_when_the_front_end_is_gone() {
    let (window, theirs, page) = attached();
    let waiting = Arc::clone(&window);
    let waiting = std::thread::spawn(move || waiting.map(file().as_fd(), mapping(0, page, 0)));
    std::thread::sleep(Duration::from_millis(20));
    window.detach();
    assert!(waiting.join().unwrap().is_err());
    assert_eq!(window.mappings(), 0);
    drop(theirs);
}

#[test]
fn a_front_end_that_does_not_answer_is_not_waited_for_long() {
    let (window, _theirs, page) = attached();
    assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
    assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
}

/// A front-end that waits for the answer to RESET_DEVICE need not look at the channel meanwhile.
#[test]
fn nobody_is_waited_for_when_nothing_is_to_be_mapped() {
    const MAPPINGS: u64 = 8000;
    let page = rustix::param::page_size() as u64;
    let window = DaxWindow::new(MAPPINGS * page).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    window.attach(ours);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 52];
            for _ in 0..MAPPINGS {
                theirs.read_exact(&mut bytes).unwrap();
                theirs.write_all(&says(9, 0)).unwrap();
            }
        });
        for at in 0..MAPPINGS {
            let mapping = mapping(at * page, page, 0);
            window.map(file().as_fd(), mapping).unwrap();
        }
    });
    window.clear();
    let mut front_end = theirs.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 52];
        while front_end.read_exact(&mut bytes).is_ok() {
            let request = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
            let flags = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
            if flags & NEED_REPLY != 0 {
                front_end.write_all(&says(request, 0)).unwrap();
            }
        }
    });
    // One that was waited for in vain would be asked for no mappings any more.
    window.map(file().as_fd(), mapping(0, page, 0)).unwrap();
}

#[test]
fn a_window_is_of_whole_pages() {
    for size in [0, 1, 4095, u64::MAX] {
        assert_eq!(DaxWindow::new(size).unwrap_err(), DaxWindowError(size));
    }
}

#[test]
fn there_are_only_so_many() {
    let page = rustix::param::page_size() as u64;
    let window = Arc::new(DaxWindow::new(10_000 * page).unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    window.attach(ours);
    let front_end = front_end(theirs, |request| Some(says(request, 0)));
    let file = file();
    let most = MAX_MAPPINGS as u64 - 1;
    for number in 0..most {
        window
            .map(file.as_fd(), mapping(number * page, page, 0))
            .unwrap();
    }
    let more = window.map(file.as_fd(), mapping(most * page, page, 0));
    assert_eq!(
        more.unwrap_err().raw_os_error(),
        Some(Errno::NOMEM.raw_os_error())
    );
    window.clear();
    window.map(file.as_fd(), mapping(0, page, 0)).unwrap();
    window.detach();
    front_end.join().unwrap();
}

/// To remove every other page makes two mappings of one, time and again.
#[test]
fn what_is_removed_makes_no_more_than_so_many() {
    let page = rustix::param::page_size() as u64;
    let pages = 4 * MAX_MAPPINGS as u64;
    let window = DaxWindow::new(pages * page).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    window.attach(ours);
    let front_end = front_end(theirs, |request| Some(says(request, 0)));
    let whole = mapping(0, pages * page, 0);
    window.map(file().as_fd(), whole).unwrap();
    let removed: Vec<_> = (1..pages - 1)
        .step_by(2)
        .map(|at| window.unmap(at * page, page))
        .collect();
    assert_eq!(window.mappings(), MAX_MAPPINGS);
    let refused = removed.last().unwrap().as_ref().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::NOMEM.raw_os_error()));
    // What makes no more is done, as is what makes room.
    window.unmap(0, page).unwrap();
    window.unmap(2 * page, page).unwrap();
    window.unmap((pages - 2) * page, page).unwrap();
    assert_eq!(window.mappings(), MAX_MAPPINGS - 1);
    window.detach();
    front_end.join().unwrap();
}

#[test]
fn only_so_many_files_are_open() {
    let page = rustix::param::page_size() as u64;
    let window = DaxWindow::new(64 * page).unwrap().limit_files(3);
    let (ours, theirs) = UnixStream::pair().unwrap();
    window.attach(ours);
    let front_end = front_end(theirs, |request| Some(says(request, 0)));
    let files: Vec<_> = (0..5).map(|_| tempfile::tempfile().unwrap()).collect();
    let map = |file: usize, at| {
        let mapping = mapping(at * page, page, 0);
        let error = |error: io::Error| error.raw_os_error().unwrap();
        window.map(files[file].as_fd(), mapping).map_err(error)
    };
    let is_full = Err(Errno::NOMEM.raw_os_error());
    for _ in 0..2 {
        // However many parts of them are mapped.
        for at in 0..30 {
            map(at as usize % 3, at).unwrap();
        }
        assert_eq!([map(3, 30), map(4, 0)], [is_full; 2]);
        assert_eq!(window.mappings(), 30, "nothing made room in vain");
        window.unmap(0, page).unwrap();
        assert_eq!(map(3, 30), is_full);
        for at in (3..30).step_by(3) {
            window.unmap(at * page, page).unwrap();
        }
        map(3, 30).unwrap();
        assert_eq!(map(4, 31), is_full);
        window.clear();
    }
    window.detach();
    front_end.join().unwrap();
}

const PAGES: u64 = 16;

/// What a guest asks for: pages of a file to be mapped, or to be mapped no more.
#[derive(Debug, Clone, Copy)]
struct Ask {
    /// First page in the window, and behind the last.
    pages: (u64, u64),
    /// First page in the file, and whether to be written to; `None` to remove what is there.
    file: Option<(u64, bool)>,
}

fn asks() -> impl Strategy<Value = Ask> {
    let pages = (0..PAGES, 1..=PAGES).prop_map(|(from, len)| (from, (from + len).min(PAGES)));
    let file = prop::option::of((0..100u64, any::<bool>()));
    (pages, file).prop_map(|(pages, file)| Ask { pages, file })
}

/// A front-end that takes what every front-end has to and nothing else: what is mapped and does not
/// overlap, what is unmapped and is a whole mapping. It refuses one ask of `every`, for no reason.
#[derive(Default)]
struct Strict {
    mapped: BTreeMap<u64, (u64, u64, bool)>,
    asked: usize,
    every: usize,
}

impl Strict {
    fn answer(&mut self, request: u32, [_, from, at, len, flags]: [u64; 5]) -> bool {
        self.asked += 1;
        if self.asked.is_multiple_of(self.every) {
            return false;
        }
        if request == 10 {
            let removed = self.mapped.remove(&at).map(|mapped| mapped.0);
            assert_eq!(removed, Some(len), "no whole mapping");
            return true;
        }
        let before = self.mapped.range(..at + len).next_back();
        assert!(
            before.is_none_or(|(&there, mapped)| there + mapped.0 <= at),
            "an overlap"
        );
        self.mapped.insert(at, (len, from, flags == 1));
        true
    }
}

/// By page of the window: the page of the file that is there, and whether to be written to.
fn there(window: &DaxWindow, page: u64) -> Vec<Option<(u64, bool)>> {
    let mut there = vec![None; PAGES as usize];
    for (offset, mapped) in &window.table().mapped {
        for at in 0..mapped.len / page {
            let entry = (mapped.file_offset / page + at, mapped.writable);
            there[(offset / page + at) as usize] = Some(entry);
        }
    }
    there
}

proptest! {
    /// Whatever a guest asks for and a front-end refuses, both ends know of the same mappings, and the
    /// guest finds what it asked for last, or nothing.
    #[test]
    fn both_ends_know_the_same(asks in prop::collection::vec(asks(), 1..40), every in 2usize..50) {
        let page = rustix::param::page_size() as u64;
        let window = DaxWindow::new(PAGES * page).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        window.attach(ours);
        let strict = Arc::new(Mutex::new(Strict { every, ..Strict::default() }));
        let shared = Arc::clone(&strict);
        let front_end = front_end_of(theirs, move |request, range| {
            let taken = shared.lock().unwrap().answer(request, range);
            Some(says(request, u64::from(!taken)))
        });
        let file = file();
        for Ask { pages: (from, to), file: part } in asks {
            let before = there(&window, page);
            let (offset, len) = (from * page, (to - from) * page);
            let done = match part {
                Some((first, writable)) => {
                    let file_offset = first * page;
                    window.map(file.as_fd(), Mapping { offset, len, file_offset, writable })
                }
                None => window.unmap(offset, len),
            };
            let after = there(&window, page);
            for at in 0..PAGES {
                let [before, after] = [&before, &after].map(|all| all[at as usize]);
                let asked = part.map(|(first, writable)| (first.wrapping_add(at).wrapping_sub(from), writable));
                match ((from..to).contains(&at), &done) {
                    (true, Ok(())) => prop_assert_eq!(after, asked),
                    (false, Ok(())) => prop_assert_eq!(after, before),
                    (_, Err(_)) => prop_assert!(after.is_none() || after == before),
                }
            }
            let ours: BTreeMap<_, _> = window.table().mapped.iter().map(|(&at, mapped)| {
                (at, (mapped.len, mapped.file_offset, mapped.writable))
            }).collect();
            prop_assert_eq!(&ours, &strict.lock().unwrap().mapped);
        }
        window.detach();
        front_end.join().unwrap();
    }
}
