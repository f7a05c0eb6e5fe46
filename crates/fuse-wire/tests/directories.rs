//! Entries of directories against golden bytes, written and read.

#![cfg(target_endian = "little")]

mod golden;

use fuse_wire::{
    DirEntry, DirEntryPlus, DirentError, DirentPlusWriter, DirentWriter, Dirents, DirentsPlus,
};
use golden::{bytes, replies};

/// Two entries: a name that needs 7 bytes of padding, and one that needs none.
fn readdir() -> Vec<u8> {
    bytes![
        u64 0x11, u64 0x12, u32 1, u32 4, s ".", z 7,
        u64 0x13, u64 0x14, u32 8, u32 8, s "filename",
    ]
}

fn entries() -> [DirEntry<'static>; 2] {
    [
        DirEntry {
            ino: 0x11,
            off: 0x12,
            dirent_type: 4,
            name: b".",
        },
        DirEntry {
            ino: 0x13,
            off: 0x14,
            dirent_type: 8,
            name: b"filename",
        },
    ]
}

fn readdirplus() -> Vec<u8> {
    let entry = replies::entry_bytes();
    bytes![
        z 128, u64 0x11, u64 0x12, u32 1, u32 4, s ".", z 7,
        s &entry, u64 0x13, u64 0x14, u32 8, u32 8, s "filename",
    ]
}

fn entries_plus() -> [DirEntryPlus<'static>; 2] {
    let [dot, file] = entries();
    [
        DirEntryPlus {
            entry_out: Default::default(),
            entry: dot,
        },
        DirEntryPlus {
            entry_out: replies::entry(),
            entry: file,
        },
    ]
}

#[test]
fn entries_are_written_as_long_as_they_fit() {
    let expected = readdir();
    for room in 0..expected.len() + 16 {
        let mut buffer = vec![0xa5; room];
        let mut writer = DirentWriter::new(&mut buffer);
        let fit = entries().map(|it| writer.push(it.ino, it.off, it.dirent_type, it.name));
        assert_eq!(fit, [room >= 32, room >= expected.len()], "in {room}");
        let len = writer.len();
        assert_eq!(writer.is_empty(), len == 0);
        assert_eq!(buffer[..len], expected[..len]);
        assert!(buffer[len..].iter().all(|byte| *byte == 0xa5), "in {room}");
    }
}

#[test]
fn entries_with_attributes_are_written_as_long_as_they_fit() {
    let expected = readdirplus();
    for room in 0..expected.len() + 16 {
        let mut buffer = vec![0xa5; room];
        let mut writer = DirentPlusWriter::new(&mut buffer);
        for DirEntryPlus { entry_out, entry } in entries_plus() {
            let fits = writer.fits(entry.name);
            let pushed = writer.push(
                entry_out,
                entry.ino,
                entry.off,
                entry.dirent_type,
                entry.name,
            );
            assert_eq!(pushed, fits);
        }
        let len = writer.len();
        let whole = [0, 160, expected.len()]
            .into_iter()
            .rfind(|whole| *whole <= room);
        assert_eq!(Some(len), whole, "in {room}");
        assert_eq!(buffer[..len], expected[..len]);
        assert!(buffer[len..].iter().all(|byte| *byte == 0xa5), "in {room}");
    }
}

#[test]
fn entries_are_read() {
    let read: Result<Vec<_>, _> = Dirents::new(&readdir()).map(|it| it.map(owned)).collect();
    assert_eq!(read, Ok(entries().map(owned).to_vec()));
    assert_eq!(Dirents::new(&[]).next(), None);

    let data = readdirplus();
    let read: Result<Vec<_>, _> = DirentsPlus::new(&data).collect();
    assert_eq!(read, Ok(entries_plus().to_vec()));
    assert_eq!(DirentsPlus::new(&[]).next(), None);
}

fn owned(entry: DirEntry<'_>) -> (u64, u64, u32, Vec<u8>) {
    (entry.ino, entry.off, entry.dirent_type, entry.name.to_vec())
}

#[test]
fn truncated_entries_are_errors_and_end_the_list() {
    let data = readdir();
    for cut in (1..data.len()).filter(|cut| *cut != 32) {
        let read: Vec<_> = Dirents::new(&data[..cut]).collect();
        assert_eq!(read.last(), Some(&Err(DirentError::Truncated)), "{cut}");
        assert_eq!(read.len(), if cut < 32 { 1 } else { 2 });
    }
    let data = readdirplus();
    for cut in (1..data.len()).filter(|cut| *cut != 160) {
        let read: Vec<_> = DirentsPlus::new(&data[..cut]).collect();
        assert_eq!(read.last(), Some(&Err(DirentError::Truncated)), "{cut}");
        assert_eq!(read.len(), if cut < 160 { 1 } else { 2 });
    }
}

#[test]
fn names_that_are_none_are_errors() {
    let with_name = |namelen: u32, name: &str| {
        let mut data = bytes![u64 1, u64 2, u32 namelen, u32 8, s name];
        data.resize(data.len().next_multiple_of(8), 0);
        data
    };
    let long = "x".repeat(256);
    for data in [
        with_name(0, ""),
        with_name(3, "a/b"),
        with_name(3, "a\0b"),
        with_name(256, &long),
        with_name(u32::MAX, "x"),
    ] {
        let read: Vec<_> = Dirents::new(&data).collect();
        assert_eq!(read, [Err(DirentError::Name)]);
    }
    assert!(Dirents::new(&with_name(255, &long[..255])).all(|entry| entry.is_ok()));
}
