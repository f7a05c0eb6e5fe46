//! What a guest holds, saved from one filesystem and loaded into another.

mod common;

use std::ffi::CStr;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{
    Config, Extras, InodeFileHandles, Migration, MigrationErrors, MigrationMode, PassthroughFs,
};
use proptest::prelude::{Just, ProptestConfig, any, prop_assert, prop_oneof};
use tempfile::TempDir;

fn save(fs: &PassthroughFs) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs.state().unwrap().save(&mut bytes).unwrap();
    bytes
}

fn load(fs: &PassthroughFs, bytes: &[u8]) -> io::Result<()> {
    fs.state().unwrap().load(&mut &*bytes)
}

impl Share {
    /// The same directory, shared anew.
    fn again(&self, configure: impl FnOnce(Config) -> Config) -> Share {
        self.at(&self.path, configure)
    }

    fn at(&self, path: &Path, configure: impl FnOnce(Config) -> Config) -> Share {
        Share {
            fs: PassthroughFs::new(configure(Config::new(path))).unwrap(),
            path: path.to_owned(),
            outer: TempDir::new().unwrap(),
        }
    }

    /// The same directory, shared anew with what the guest holds here.
    #[track_caller]
    fn moved(&self, configure: impl FnOnce(Config) -> Config) -> Share {
        let there = self.again(configure);
        load(&there.fs, &save(&self.fs)).unwrap();
        there
    }
}

fn losing(config: Config) -> Config {
    config.migration(Migration::new().on_error(MigrationErrors::GuestError))
}

fn by_name(config: Config) -> Config {
    config
        .inode_file_handles(InodeFileHandles::Never)
        .max_open_inodes(2)
}

#[test]
fn what_is_held_is_held_still() {
    for configure in [
        |config| config,
        by_name,
        |config: Config| config.max_open_inodes(2),
    ] {
        let here = Share::with(configure);
        let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
        std::fs::write(here.host("dir/inner"), "inner").unwrap();
        symlink("dir", here.host("link")).unwrap();
        let inner = here.lookup_in(dir, "inner").unwrap().node;
        assert_eq!(here.lookup_in(dir, "inner").unwrap().node, inner);
        let link = here.node("link");
        let file = here.file("file", b"content", RDWR);
        let second = (file.0, here.open_node(file.0, RDONLY).unwrap());
        let gone = here.file("gone", b"", RDONLY);
        here.release(gone).unwrap();
        here.fs.forget(gone.0, 1);
        let listing = here.opendir(dir);

        let there = here.moved(configure);
        for node in [NodeId::ROOT, dir, inner, link, file.0] {
            assert_eq!(there.attr(node), here.attr(node));
        }
        assert_eq!(there.lookup_in(dir, "inner").unwrap().node, inner);
        assert_eq!(errno(there.fs.getattr(&me(), gone.0, None)), Errno::ESTALE);
        there.write(file, 0, b"CON").unwrap();
        assert_eq!(there.read(second, 0, 100).unwrap(), b"CONtent");
        assert_eq!(errno(there.write(second, 0, b"?")), Errno::EBADF);
        assert_eq!(
            names(&there.list(listing, 4096, false)),
            [".", "..", "inner"]
        );
        // Lookups are counted as they were.
        there.fs.forget(inner, 2);
        there.attr(inner);
        there.fs.forget(inner, 1);
        assert_eq!(errno(there.fs.getattr(&me(), inner, None)), Errno::ESTALE);
        // No id comes back.
        std::fs::write(there.host("new"), "").unwrap();
        let (node, fh) = there.file("new", b"", RDONLY);
        assert!(![dir, inner, link, file.0, gone.0].contains(&node));
        assert!(![file.1, second.1, gone.1].contains(&fh));
        there.release(file).unwrap();
        there.release(second).unwrap();
    }
}

#[test]
fn what_is_loaded_can_be_saved_and_loaded_again() {
    let here = Share::new();
    here.file("file", b"content", RDWR);
    here.opendir(NodeId::ROOT);
    let bytes = save(&here.fs);
    assert_eq!(save(&here.fs), bytes, "it goes on here, too");
    let there = here.moved(|config| config);
    assert_eq!(save(&there.fs), bytes);
    // Into one that has served another guest.
    let other = here.again(|config| config);
    for n in 0..10 {
        other.file(&format!("other {n}"), b"", RDONLY);
    }
    load(&other.fs, &bytes).unwrap();
    let there = other.moved(|config| config);
    assert_eq!(
        there.read((NodeId(2), Handle(1)), 0, 100).unwrap(),
        b"content"
    );
}

#[test]
fn what_was_removed_while_open_is_lost_or_stops_it() {
    let here = Share::new();
    let (file, kept) = (
        here.file("file", b"", RDWR),
        here.file("kept", b"kept", RDWR),
    );
    std::fs::remove_file(here.host("file")).unwrap();
    let bytes = save(&here.fs);
    let there = here.again(|config| config);
    let error = load(&there.fs, &bytes).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("guest-error"), "{error}");
    assert_eq!(errno(there.fs.getattr(&me(), kept.0, None)), Errno::ESTALE);

    let there = here.moved(losing);
    assert_eq!(errno(there.fs.getattr(&me(), file.0, None)), Errno::ESTALE);
    assert_eq!(errno(there.read(file, 0, 1)), Errno::ESTALE);
    assert_eq!(there.read(kept, 0, 9).unwrap(), b"kept");
    let (node, fh) = there.file("file", b"", RDWR);
    assert!(node != file.0 && fh != file.1);
}

/// A program that is told EBADF takes it for its own mistake.
#[test]
fn what_was_lost_is_told_from_what_never_was() {
    let here = Share::new();
    let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
    let (file, dir) = (here.file("file", b"", RDWR), here.opendir(dir));
    std::fs::remove_file(here.host("file")).unwrap();
    std::fs::remove_dir(here.host("dir")).unwrap();
    let there = here.moved(losing);
    let flush = FlushIn {
        fh: file.1,
        ..FlushIn::default()
    };
    for _ in 0..2 {
        assert_eq!(
            errno(there.fs.flush(&me(), file.0, &flush)),
            Errno::ESTALE,
            "as close(2) does"
        );
        assert_eq!(errno(there.release(file)), Errno::ESTALE);
        assert_eq!(errno(there.readdir(dir, 0, 4096)), Errno::ESTALE);
        let release = ReleaseIn {
            fh: dir.1,
            ..ReleaseIn::default()
        };
        assert_eq!(
            errno(there.fs.releasedir(&me(), dir.0, &release)),
            Errno::ESTALE
        );
    }
    let other = |handle: Handle| Handle(handle.0 + (1 << 32));
    assert_eq!(
        errno(there.read((file.0, other(file.1)), 0, 1)),
        Errno::EBADF
    );
    assert_eq!(
        errno(there.readdir((dir.0, other(dir.1)), 0, 4096)),
        Errno::EBADF
    );
    there.fs.destroy();
    assert_eq!(errno(there.read(file, 0, 1)), Errno::EBADF);
    assert_eq!(errno(there.readdir(dir, 0, 4096)), Errno::EBADF);
}

#[test]
fn what_the_host_put_in_the_place_of_a_file_is_not_taken_for_it() {
    for dir in [std::env::temp_dir(), "/dev/shm".into()] {
        for configure in [|config| config, by_name] {
            let here = Share::in_dir(TempDir::new_in(&dir).unwrap(), configure);
            let file = here.file("file", b"mine", RDWR);
            let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
            let bytes = save(&here.fs);
            std::fs::write(here.host("other"), "other").unwrap();
            std::fs::rename(here.host("other"), here.host("file")).unwrap();
            std::fs::remove_dir(here.host("dir")).unwrap();
            symlink("..", here.host("dir")).unwrap();
            let there = here.again(|config| losing(configure(config)));
            load(&there.fs, &bytes).unwrap();
            for node in [file.0, dir] {
                assert_eq!(errno(there.fs.getattr(&me(), node, None)), Errno::ESTALE);
            }
            assert_eq!(errno(there.read(file, 0, 9)), Errno::ESTALE);
            assert_eq!(errno(there.write(file, 0, b"oops")), Errno::ESTALE);
        }
    }
}

#[test]
fn what_the_host_renamed_is_found_by_its_handle() {
    if !is_root("what_the_host_renamed_is_found_by_its_handle") {
        return;
    }
    let here = Share::in_memory();
    let file = here.file("file", b"mine", RDWR);
    let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
    let out = here.file("out", b"outside soon", RDWR);
    let bytes = save(&here.fs);
    std::fs::rename(here.host("file"), here.host("dir/renamed")).unwrap();
    std::fs::rename(here.host("dir"), here.host("directory")).unwrap();
    std::fs::rename(here.host("out"), here.outside().join("out")).unwrap();
    let there = here.again(losing);
    load(&there.fs, &bytes).unwrap();
    assert_eq!(there.read(file, 0, 9).unwrap(), b"mine");
    assert_eq!(there.lookup_in(dir, "renamed").unwrap().node, file.0);
    // It is in the share no more, and a state can say what it likes.
    assert_eq!(errno(there.fs.getattr(&me(), out.0, None)), Errno::ESTALE);
    assert_eq!(errno(there.read(out, 0, 9)), Errno::ESTALE);
}

#[test]
fn a_copy_of_the_directory_is_as_good_by_paths() {
    let here = Share::new();
    let file = here.file("file", b"mine", RDONLY);
    let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
    let bytes = save(&here.fs);
    let copy = TempDir::new().unwrap();
    std::fs::create_dir(copy.path().join("dir")).unwrap();
    std::fs::write(copy.path().join("file"), "copy").unwrap();
    let there = here.at(copy.path(), |config| config);
    load(&there.fs, &bytes).unwrap();
    assert_eq!(there.read(file, 0, 9).unwrap(), b"copy");
    there.attr(dir);

    let strict = Migration::new().verify_handles(true);
    let there = here.at(copy.path(), |config| config.migration(strict));
    let error = load(&there.fs, &bytes).unwrap_err().to_string();
    assert!(error.contains("--migration-verify-handles"), "{error}");
    load(&here.again(|config| config.migration(strict)).fs, &bytes).unwrap();
    // What has another type is another file in any case.
    std::fs::remove_dir(copy.path().join("dir")).unwrap();
    std::fs::write(copy.path().join("dir"), "").unwrap();
    let there = here.at(copy.path(), |config| config);
    let error = load(&there.fs, &bytes).unwrap_err().to_string();
    assert!(error.contains("\"dir\""), "{error}");
}

#[test]
fn by_handle_even_what_was_removed_is_found() {
    if !is_root("by_handle_even_what_was_removed_is_found") {
        return;
    }
    let by_handle =
        |config: Config| config.migration(Migration::new().mode(MigrationMode::FileHandles));
    let here = Share::in_dir(TempDir::new_in("/dev/shm").unwrap(), by_handle);
    let file = here.file("file", b"mine", RDWR);
    let removed = here.file("removed", b"removed", RDONLY);
    std::fs::rename(here.host("file"), here.host("renamed")).unwrap();
    std::fs::remove_file(here.host("removed")).unwrap();
    let there = here.moved(by_handle);
    assert_eq!(there.read(file, 0, 9).unwrap(), b"mine");
    assert_eq!(there.read(removed, 0, 9).unwrap(), b"removed");
    // Who does not trust the state finds no path in it.
    let error = load(&here.again(|config| config).fs, &save(&here.fs)).unwrap_err();
    assert!(error.to_string().contains("no path"), "{error}");
    // Who could open no handle says so at once.
    let none = here.again(|config| by_handle(config).inode_file_handles(InodeFileHandles::Never));
    let error = load(&none.fs, &save(&here.fs)).unwrap_err().to_string();
    assert!(error.contains("--migration-mode=file-handles"), "{error}");
}

#[test]
fn a_file_is_open_as_it_was_whatever_its_mode_is_now() {
    if !is_root("a_file_is_open_as_it_was_whatever_its_mode_is_now") {
        return;
    }
    let here = Share::new();
    let file = here.file("file", b"mine", RDWR);
    here.setattr(
        file.0,
        SetattrIn {
            mode: 0,
            ..set(SetattrValid::MODE)
        },
    )
    .unwrap();
    let there = here.moved(|config| config);
    there.write(file, 0, b"M").unwrap();
    assert_eq!(std::fs::read(here.host("file")).unwrap(), b"Mine");
}

#[test]
fn a_file_is_not_truncated_again() {
    let here = Share::new();
    let file = here.file("file", b"old", RDWR | 0o1000);
    here.write(file, 0, b"new").unwrap();
    let there = here.moved(|config| config);
    assert_eq!(there.read(file, 0, 9).unwrap(), b"new");
}

/// Its descriptor leads to the name that was removed.
#[test]
fn a_file_is_found_by_another_of_its_names() {
    for configure in [|config| config, by_name] {
        let here = Share::with(configure);
        let file = here.file("first", b"mine", RDWR);
        let other = here.file("other", b"other", RDWR);
        std::fs::create_dir_all(here.host("a/b")).unwrap();
        std::fs::hard_link(here.host("first"), here.host("a/b/second")).unwrap();
        here.node("a");
        let (a, b) = (
            here.node("a"),
            here.lookup_in(here.node("a"), "b").unwrap().node,
        );
        assert_eq!(here.lookup_in(b, "second").unwrap().node, file.0);
        std::fs::remove_file(here.host("first")).unwrap();
        let there = here.moved(configure);
        assert_eq!(there.read(file, 0, 9).unwrap(), b"mine");
        assert_eq!(there.read(other, 0, 9).unwrap(), b"other");
        for node in [a, b] {
            there.attr(node);
        }
    }
}

fn lock(
    fs: &PassthroughFs,
    file: (NodeId, Handle),
    owner: u64,
    kind: u32,
    flock: bool,
) -> Result<()> {
    let args = LkIn {
        fh: file.1,
        owner,
        lk: FileLock {
            start: 0,
            end: if flock { u64::MAX >> 1 } else { 9 },
            lock_type: kind,
            pid: 7,
        },
        lk_flags: match flock {
            true => LkFlags::FLOCK,
            false => LkFlags::empty(),
        },
        ..Default::default()
    };
    fs.setlk(&me(), file.0, &args, false)
}

#[test]
fn locks_are_taken_again() {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    let locking = |config: Config| config.extras(Extras::POSIX_LOCK | Extras::FLOCK);
    for flock in [false, true] {
        let here = Share::with(locking);
        here.init(InitFlags::all());
        let file = here.file("file", b"content", RDWR);
        let other = (file.0, here.open_node(file.0, RDWR).unwrap());
        lock(&here.fs, file, 1, WRITE, flock).unwrap();
        let bytes = save(&here.fs);

        let there = here.again(locking);
        there.init(InitFlags::all());
        let error = load(&there.fs, &bytes).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::InvalidData,
            "it is locked here"
        );
        // As when the other process ended.
        here.fs.destroy();
        load(&there.fs, &bytes).unwrap();
        assert_eq!(save(&there.fs), bytes);
        assert_eq!(errno(lock(&there.fs, other, 2, READ, flock)), Errno::EAGAIN);
        lock(&there.fs, file, 1, READ, flock).unwrap();
        lock(&there.fs, other, 2, READ, flock).unwrap();
        // Whoever does not lock on the host has not agreed to.
        let there = here.again(|config| config);
        there.init(InitFlags::all());
        assert!(load(&there.fs, &bytes).is_err());
    }
}

/// It was given up to ask for the other one (flock(2)).
#[test]
fn a_lock_that_was_lost_for_another_one_is_not_taken_again() {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    let locking = |config: Config| config.extras(Extras::FLOCK);
    let here = Share::with(locking);
    here.init(InitFlags::all());
    let file = here.file("file", b"content", RDWR);
    let host = std::fs::File::open(here.host("file")).unwrap();
    let unlocked = save(&here.fs);
    lock(&here.fs, file, 1, READ, true).unwrap();
    assert_ne!(save(&here.fs), unlocked);
    host.lock_shared().unwrap();
    assert_eq!(errno(lock(&here.fs, file, 1, WRITE, true)), Errno::EAGAIN);
    host.try_lock().unwrap();
    assert_eq!(save(&here.fs), unlocked);

    let there = here.again(locking);
    there.init(InitFlags::all());
    load(&there.fs, &save(&here.fs)).unwrap();
}

/// Two directories as one.
fn exports(names: [&CStr; 2], shares: [&Share; 2]) -> Session<Exports> {
    let share = |share: &Share| share.again(|config| config).fs;
    let exports = Exports::new().add(names[0], share(shares[0])).unwrap();
    Session::new(exports.add(names[1], share(shares[1])).unwrap())
}

#[test]
fn several_directories_go_on_as_one() {
    let shares = [Share::new(), Share::in_memory()];
    for (share, content) in shares.iter().zip(["first", "second"]) {
        std::fs::write(share.host("file"), content).unwrap();
    }
    let both = [&shares[0], &shares[1]];
    let here = exports([c"a", c"b"], both);
    let (flags, flags2) = InitFlags::all().halves();
    let mut negotiation = Negotiation::new(
        &InitIn {
            flags,
            flags2,
            ..InitIn::default()
        },
        InitFlags::empty(),
    );
    here.filesystem().init(&mut negotiation).unwrap();
    let open = |name: &CStr| {
        let fs = here.filesystem();
        let top = fs.lookup(&me(), NodeId::ROOT, Name::new(name).unwrap());
        let file = fs.lookup(&me(), top.unwrap().node, Name::new(c"file").unwrap());
        let file = file.unwrap().node;
        (
            file,
            fs.open(&me(), file, &OpenIn::default()).unwrap().handle,
        )
    };
    let files = [open(c"a"), open(c"b")];
    let mut bytes = Vec::new();
    here.filesystem().state().unwrap().save(&mut bytes).unwrap();

    let there = exports([c"a", c"b"], both);
    there.filesystem().init(&mut negotiation).unwrap();
    let state = there.filesystem().state().unwrap();
    state.load(&mut &*bytes).unwrap();
    for ((node, fh), content) in files.into_iter().zip(["first", "second"]) {
        let mut buffer = [0; 9];
        let args = ReadIn {
            fh,
            size: 9,
            ..Default::default()
        };
        let fs = there.filesystem();
        let read = fs.read(&me(), node, &args, &mut BufferSink::new(&mut buffer));
        assert_eq!(&buffer[..read.unwrap()], content.as_bytes());
        fs.forget(node, 1);
        assert_eq!(errno(fs.getattr(&me(), node, None)), Errno::ESTALE);
    }
    for len in 0..bytes.len() {
        assert!(state.load(&mut &bytes[..len]).is_err(), "{len}");
    }
    let other = exports([c"a", c"other"], both);
    other.filesystem().init(&mut negotiation).unwrap();
    let error = other.filesystem().state().unwrap().load(&mut &*bytes);
    assert!(error.unwrap_err().to_string().contains("\"other\""));
}

/// Replaces each `from` by `to`, which is as long.
fn forge(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut forged = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        forged[at..at + to.len()].copy_from_slice(to);
    }
    forged
}

#[test]
fn no_path_leads_out() {
    for configure in [losing, |config| losing(by_name(config))] {
        let here = Share::with(configure);
        here.mkdir(&me(), "aa", 0o755).unwrap();
        std::fs::write(here.host("aa/secret"), "harmless").unwrap();
        let file = here.lookup_in(here.node("aa"), "secret").unwrap().node;
        here.fs.forget(here.node("aa"), 3);
        let file = (file, here.open_node(file, RDONLY).unwrap());
        let bytes = save(&here.fs);
        // Another directory, so that nothing but the path tells.
        let copy = TempDir::new().unwrap();
        std::fs::write(copy.path().join("secret"), "secret").unwrap();
        std::fs::create_dir_all(copy.path().join("share")).unwrap();
        symlink("..", copy.path().join("share/bb")).unwrap();
        symlink("../secret", copy.path().join("share/direct.lk")).unwrap();
        let path = copy.path().join("share");
        for forged in [
            &b"../secret"[..],
            b"/../ecret",
            b"aa//ecret",
            b"./secret.",
            b"secret/..",
            b"aa/\0ecret",
            b"aa/secre/",
        ] {
            let there = here.at(&path, configure);
            let error = load(&there.fs, &forge(&bytes, b"aa/secret", forged)).unwrap_err();
            assert!(error.to_string().contains("no path"), "{error}");
        }
        for forged in [&b"bb/secret"[..], b"direct.lk"] {
            let there = here.at(&path, configure);
            load(&there.fs, &forge(&bytes, b"aa/secret", forged)).unwrap();
            assert_eq!(errno(there.read(file, 0, 9)), Errno::ESTALE);
            assert_eq!(errno(there.fs.getattr(&me(), file.0, None)), Errno::ESTALE);
        }
    }
}

/// A share in which a guest holds something of every kind.
fn busy(configure: fn(Config) -> Config) -> Share {
    let here = Share::with(configure);
    here.init(InitFlags::all());
    let dir = here.mkdir(&me(), "dir", 0o755).unwrap().node;
    std::fs::write(here.host("dir/inner"), "").unwrap();
    here.lookup_in(dir, "inner").unwrap();
    symlink("dir", here.host("link")).unwrap();
    here.node("link");
    let gone = here.file("gone", b"", RDONLY);
    let file = here.file("file", b"content", RDWR);
    here.release(gone).unwrap();
    here.fs.forget(gone.0, 1);
    lock(&here.fs, file, 1, 0, false).unwrap();
    lock(&here.fs, file, 1, 0, true).unwrap();
    here.opendir(dir);
    here
}

#[test]
fn any_bytes_lead_to_nothing_but_what_is_in_the_share() {
    use std::os::unix::fs::MetadataExt;

    for configure in [
        |config: Config| losing(config).extras(Extras::POSIX_LOCK | Extras::FLOCK),
        |config: Config| losing(by_name(config)).extras(Extras::POSIX_LOCK | Extras::FLOCK),
    ] {
        let here = busy(configure);
        let bytes = save(&here.fs);
        let there = here.again(configure);
        there.init(InitFlags::all());
        let ino = |name: &str| std::fs::symlink_metadata(here.host(name)).unwrap().ino();
        let inside = ["", "dir", "dir/inner", "link", "gone", "file"].map(ino);
        let mutation = (0..bytes.len(), any::<u8>());
        let changes = proptest::collection::vec(mutation, 0..4);
        let cut = prop_oneof![4 => Just(usize::MAX), 1 => 0..bytes.len()];
        let config = ProptestConfig {
            failure_persistence: None,
            cases: 400,
            ..ProptestConfig::default()
        };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let checked = runner.run(&(changes, cut), |(changes, cut)| {
            let mut bytes = bytes.clone();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(cut);
            let _ = load(&there.fs, &bytes);
            for node in (1..20).map(NodeId) {
                if let Ok(attributes) = there.fs.getattr(&me(), node, None) {
                    prop_assert!(inside.contains(&attributes.attr.ino));
                }
            }
            // It serves, whatever it was given.
            let (node, fh) = there.file("gone", b"", RDONLY);
            there.release((node, fh)).unwrap();
            there.fs.forget(node, 1);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Counts what is written, and how much at once.
#[derive(Default)]
struct Counted {
    bytes: Vec<u8>,
    largest: usize,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.largest = self.largest.max(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_hundred_thousand_inodes_take_few_bytes_and_few_descriptors() {
    const DIRS: usize = 100;
    const FILES: usize = 1000;
    let few = |config: Config| config.max_open_inodes(100).max_descriptors(300);
    let here = Share::in_dir(TempDir::new_in("/dev/shm").unwrap(), few);
    for dir in 0..DIRS {
        let name = format!("directory {dir}");
        std::fs::create_dir(here.host(&name)).unwrap();
        let node = here.node(&name);
        for file in 0..FILES {
            let file = format!("file {file}");
            std::fs::File::create(here.host(&name).join(&file)).unwrap();
            here.lookup_in(node, &file).unwrap();
        }
    }
    let mut saved = Counted::default();
    here.fs.state().unwrap().save(&mut saved).unwrap();
    assert!(saved.largest <= 4096, "{}", saved.largest);
    assert!(
        saved.bytes.len() < DIRS * FILES * 60,
        "{}",
        saved.bytes.len()
    );
    let there = here.again(few);
    load(&there.fs, &saved.bytes).unwrap();
    for node in (2..DIRS * FILES).step_by(997) {
        let node = NodeId(node as u64);
        assert_eq!(there.attr(node), here.attr(node));
    }
    assert_eq!(save(&there.fs), saved.bytes);
}
