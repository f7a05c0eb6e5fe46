use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;

use fuse_fs::PayloadSink;
use fuse_wire::Opcode;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::*;
use crate::WriteLog;
use crate::common::*;
use crate::payload::GuestSink;
use crate::segment::{self, Segment};
use crate::write_log::Log;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn file_of(data: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(data, 0).unwrap();
    file
}

fn guest() -> GuestMemoryMmap {
    let regions = [(GuestAddress(0), 2 * MIB), (GuestAddress(2 << 20), 2 * MIB)];
    GuestMemoryMmap::from_ranges(&regions).unwrap()
}

fn segments<'m>(
    guest: &'m GuestMemoryMmap,
    ranges: &[(u64, usize)],
) -> Vec<Segment<'m, GuestRegionMmap>> {
    let mut found = Vec::new();
    for &(address, len) in ranges {
        let address = GuestAddress(address);
        segment::find(guest, &mut None, segment::Range { address, len }, |piece| {
            found.push(piece);
            Some(())
        })
        .unwrap();
    }
    found
}

/// Where and how much was written.
#[derive(Default)]
struct Written(Mutex<Vec<(u64, usize)>>);

impl WriteLog for Written {
    fn wrote(&self, address: GuestAddress, len: usize) {
        self.0.lock().unwrap().push((address.0, len));
    }
}

/// Reads from `offset` on as a filesystem does, until `ranges` are full or the file ends.
fn read_all(
    pool: &Pool,
    file: &File,
    offset: usize,
    ranges: &[(u64, usize)],
) -> io::Result<Vec<u8>> {
    let guest = guest();
    let segments = segments(&guest, ranges);
    let (together, written) = (Arc::default(), Arc::<Written>::default());
    let log = Log::new(Arc::clone(&written) as Arc<dyn WriteLog>);
    let readers = Readers {
        pool,
        together: &together,
    };
    let mut sink = GuestSink::new(Cursor::new(&segments), Some(&log), Some(readers));
    loop {
        let offset = (offset + sink.written()) as u64;
        let len = sink.remaining();
        let read = sink.write_from_file(file.as_fd(), offset, len, IoFlags::empty())?;
        if read == 0 {
            break;
        }
    }
    let mut data = Vec::new();
    for &(address, len) in ranges {
        let start = data.len();
        data.resize(start + len, 0);
        let address = GuestAddress(address);
        guest.read_slice(&mut data[start..], address).unwrap();
    }
    let rest = data.split_off(sink.written());
    assert!(rest.iter().all(|byte| *byte == 0));
    let logged: usize = written.0.lock().unwrap().iter().map(|(_, len)| len).sum();
    assert_eq!(logged, data.len());
    Ok(data)
}

/// Those of a READ of `len` bytes that goes to one place.
fn whole(len: usize) -> [(u64, usize); 1] {
    [(0, len)]
}

#[test]
fn others_read_along_where_there_is_much_to_read_and_a_processor_left() {
    let file = file_of(&pattern(MIB));
    for (processors, len, threads) in [(2, MIB, 1), (2, LARGE, 1), (2, LARGE - 1, 0), (1, MIB, 0)] {
        let pool = Pool::on(processors, 1);
        let data = read_all(&pool, &file, 0, &whole(len)).unwrap();
        assert!(data == pattern(len));
        assert_eq!(pool.threads(), threads, "{processors} {len}");
    }
}

#[test]
fn nobody_is_called_where_the_first_part_is_the_last() {
    let pool = Pool::on(2, 1);
    let file = file_of(&pattern(PART - 1));
    let data = read_all(&pool, &file, 0, &whole(MIB)).unwrap();
    assert!(data == pattern(PART - 1));
    let nothing = read_all(&pool, &file, PART, &whole(MIB)).unwrap();
    assert_eq!(nothing, []);
    let folder = File::open("/").unwrap();
    let error = read_all(&pool, &folder, 0, &whole(MIB)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
    assert_eq!(pool.threads(), 0);
}

#[test]
fn queues_that_have_much_to_read_share_the_processors_alone() {
    let file = file_of(&pattern(MIB));
    let pool = Pool::on(2, 1);
    let other = pool.begin_large();
    read_all(&pool, &file, 0, &whole(MIB)).unwrap();
    assert_eq!(pool.threads(), 0);
    drop(other);
    let helper = pool.help().unwrap();
    read_all(&pool, &file, 0, &whole(MIB)).unwrap();
    assert_eq!(pool.threads(), 0);
    drop(helper);
    read_all(&pool, &file, 0, &whole(MIB)).unwrap();
    assert_eq!(pool.threads(), 1);
}

#[test]
fn a_pool_without_threads_reads_nothing() {
    let file = file_of(&pattern(MIB));
    let data = read_all(&Pool::on(2, 0), &file, 0, &whole(MIB)).unwrap();
    assert!(data == pattern(MIB));
}

#[test]
fn the_end_of_the_file_may_be_anywhere() {
    let pool = Pool::on(2, 1);
    for part in 0..=16 {
        for end in [part * PART, part * PART + 1, part * PART + PART - 1] {
            let end = end.min(MIB);
            let data = read_all(&pool, &file_of(&pattern(end)), 0, &whole(MIB)).unwrap();
            assert!(data == pattern(end));
        }
    }
}

/// A file that the kernel makes up as it is read, and whose size it does not tell.
#[test]
fn a_file_that_is_made_up_is_read_as_by_one() {
    let Ok(file) = File::open("/proc/kallsyms") else {
        return;
    };
    let mut expected = vec![0; MIB];
    let mut len = 0;
    while let Ok(more @ 1..) = file.read_at(&mut expected[len..], len as u64) {
        len += more;
    }
    let data = read_all(&Pool::on(2, 1), &file, 0, &whole(MIB)).unwrap();
    assert!(data == expected[..len]);
}

fn done(split: &Split, outcomes: &[io::Result<usize>]) {
    for outcome in outcomes {
        split.do_next(|_, _| match outcome {
            Ok(read) => Ok(*read),
            Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap())),
        });
    }
}

#[test]
fn what_counts_ends_at_the_first_part_that_is_not_whole() {
    let error = || Err(io::Error::from_raw_os_error(libc::EAGAIN));
    let split = Split::new(MIB);
    done(&split, &[Ok(PART), Ok(PART), error()]);
    assert!(!split.do_next(|_, _| panic!("there is no more to do")));
    assert_eq!(split.result().unwrap(), 2 * PART);

    let split = Split::new(MIB);
    done(&split, &[error()]);
    let failed = split.result().unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::WouldBlock);

    let split = Split::new(MIB);
    done(&split, &[Ok(0)]);
    assert_eq!(split.result().unwrap(), 0);
}

/// The one behind the end was begun with before it was known to be that, and then the file grew.
#[test]
fn what_was_written_behind_the_end_is_known() {
    let split = Split::new(MIB);
    split.do_next(|_, _| Ok(PART));
    split.do_next(|_, _| {
        split.do_next(|_, _| Ok(PART));
        Ok(7)
    });
    assert_eq!(split.result().unwrap(), PART + 7);
    let written: Vec<_> = split.written().filter(|part| !part.is_empty()).collect();
    assert_eq!(written, [0..PART, PART..PART + 7, 2 * PART..3 * PART]);
}

#[test]
fn parts_are_bounded_in_number_and_cover_all() {
    for len in [
        LARGE,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB + 77,
        1 << 32,
        usize::MAX,
    ] {
        let parts: Vec<_> = Split::new(len).parts().collect();
        assert!(parts.len() <= MAX_PARTS);
        assert_eq!((parts[0].start, parts.last().unwrap().end), (0, len));
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_read_is_what_the_file_has(
        offset in 0..MIB,
        end in MIB / 2..2 * MIB,
        first in 0..4096_u64,
        pieces in prop::collection::vec(1..2 * PART, 1..60),
    ) {
        let mut ranges = Vec::new();
        let mut at = first;
        for len in pieces {
            if at as usize + len > 4 * MIB {
                break;
            }
            ranges.push((at, len));
            at += len as u64 + 3;
        }
        let room: usize = ranges.iter().map(|(_, len)| len).sum();
        let data = pattern(end);
        let expected = data.get(offset..).unwrap_or_default();
        let expected = &expected[..room.min(expected.len())];
        let read = read_all(&Pool::on(2, 1), &file_of(&data), offset, &ranges).unwrap();
        prop_assert!(read == expected);
    }
}

#[test]
fn a_queue_that_was_stopped_during_a_read_writes_no_more() {
    const LEN: usize = 512 * KIB;
    let data = file_of(&pattern(LEN));
    for _ in 0..50 {
        let file = data.try_clone().unwrap();
        let (enter, entered) = channel();
        let serve = double(move |mut call: Call<'_>| {
            enter.send(()).unwrap();
            let sink = call.sink.take().unwrap();
            let none = IoFlags::empty();
            let len = sink.write_from_file(file.as_fd(), 0, LEN, none).unwrap();
            call.done_with(len)
        });
        let mut rig = Rig::new(Arc::new(memory()), config(8), serve, Pool::on(2, 1));
        let mut sent = request(1, b"");
        sent[4..8].copy_from_slice(&(Opcode::Read as u32).to_le_bytes());
        rig.put(REQUEST, &sent);
        let room = writable(BORDER - 16, 16 + LEN);
        rig.offer_chain(0, &[readable(REQUEST, sent.len()), room]);
        let queue = Arc::clone(&rig.queue);
        let drainer = thread::spawn(move || queue.drain());
        entered.recv().unwrap();
        rig.queue.stop();
        assert!(rig.get(BORDER, LEN) == pattern(LEN));
        rig.put(BORDER, &[0; LEN]);
        drainer.join().unwrap();
        assert!(rig.get(BORDER, LEN) == [0; LEN]);
        assert_eq!(rig.used(), [(0, 16 + LEN as u32)]);
    }
}
