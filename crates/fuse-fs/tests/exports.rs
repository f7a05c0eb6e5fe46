//! Several filesystems as one: what the guest sees of them, and what they see of it.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::every::{data, operation};
use common::files::{O_RDONLY, O_RDWR, Open};
use common::{Answer, Guest, offer};
use fuse_fs::abi::*;
use fuse_fs::flags::{AttrFlags, InitFlags, RenameFlags};
use fuse_fs::*;
use fuse_wire::{DirentsPlus, Opcode, Operation};

const ROOT: NodeId = NodeId::ROOT;
const PLAIN: RenameFlags = RenameFlags::empty();

/// A filesystem whose node ids and handles are as large as they can be, and which says what it was
/// asked.
#[derive(Default)]
struct Odd {
    seen: Arc<Mutex<Seen>>,
    wants: InitFlags,
    fails: bool,
}

#[derive(Default)]
struct Seen {
    /// Lookups that the guest holds of each inode.
    lookups: HashMap<NodeId, i64>,
    /// Open files.
    open: i64,
    sessions: i64,
    agreed: InitFlags,
    interrupted: Vec<u64>,
}

impl Odd {
    fn wanting(wants: InitFlags) -> Self {
        Self {
            wants,
            ..Self::default()
        }
    }

    fn entry(&self, node: NodeId) -> Entry {
        *self.seen.lock().unwrap().lookups.entry(node).or_default() += 1;
        Entry {
            node,
            generation: 3,
            attr: file(node),
            attr_valid: Duration::ZERO,
            entry_valid: Duration::ZERO,
        }
    }
}

fn file(node: NodeId) -> Attr {
    Attr {
        ino: node.0,
        mode: if node == ROOT { 0o040_755 } else { 0o100_644 },
        nlink: 1,
        ..Default::default()
    }
}

/// `first`, `second`, ...
fn node_of(name: &[u8]) -> NodeId {
    NodeId(u64::MAX - u64::from(name[0]))
}

impl FileSystem for Odd {
    fn init(&self, negotiation: &mut Negotiation) -> Result<()> {
        if self.fails {
            return Err(Errno::EPROTO.into());
        }
        negotiation.enable(self.wants);
        let mut seen = self.seen.lock().unwrap();
        seen.sessions += 1;
        seen.agreed = negotiation.enabled;
        Ok(())
    }

    fn destroy(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.sessions -= 1;
        seen.lookups.clear();
        seen.open = 0;
    }

    fn lookup(&self, _: &Context<'_>, _: NodeId, name: Name<'_>) -> Result<Entry> {
        Ok(self.entry(node_of(name.as_bytes())))
    }

    fn forget(&self, node: NodeId, nlookup: u64) {
        let mut seen = self.seen.lock().unwrap();
        *seen.lookups.get_mut(&node).unwrap() -= nlookup.cast_signed();
    }

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<Handle>) -> Result<Attributes> {
        let attr = file(node);
        let valid = Duration::ZERO;
        Ok(Attributes { attr, valid })
    }

    fn open(&self, _: &Context<'_>, node: NodeId, _: &OpenIn) -> Result<Opened> {
        self.seen.lock().unwrap().open += 1;
        Ok(Opened {
            handle: Handle(node.0),
            ..Default::default()
        })
    }

    fn read(
        &self,
        _: &Context<'_>,
        node: NodeId,
        args: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        assert_eq!(args.fh.0, node.0, "not its own handle");
        Ok(sink.write(format!("{:x}", node.0).as_bytes()))
    }

    fn release(&self, _: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        assert_eq!(args.fh.0, node.0, "not its own handle");
        self.seen.lock().unwrap().open -= 1;
        Ok(())
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, args: &OpenIn) -> Result<Opened> {
        self.open(cx, node, args)
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, args: &ReleaseIn) -> Result<()> {
        self.release(cx, node, args)
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        _: &mut DirentWriter<'_>,
    ) -> Result<()> {
        Ok(())
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        entries: &mut DirentPlusWriter<'_>,
    ) -> Result<()> {
        assert!(entries.push(EntryOut::default(), 1, 1, 4, b"."));
        for (cookie, name) in [(2, b"a".as_slice()), (3, b"bcdefghij"), (4, b"k")] {
            let entry = self.entry(node_of(name));
            assert!(entries.push(entry.into(), entry.attr.ino, cookie, 8, name));
        }
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs::default())
    }

    fn interrupt(&self, unique: u64) {
        self.seen.lock().unwrap().interrupted.push(unique);
    }
}

/// Runs `test` with two `Odd` as exports `one` and `two`.
fn with_odd(exports: Exports, test: impl FnOnce(&Guest<'_>, [&Mutex<Seen>; 2])) {
    let members = [Odd::default(), Odd::default()];
    let seen = members.each_ref().map(|odd| Arc::clone(&odd.seen));
    let [one, two] = members;
    let exports = exports.add(c"one", one).unwrap().add(c"two", two).unwrap();
    let session = Session::new(exports);
    test(&Guest::begun(&session), seen.each_ref().map(|seen| &**seen));
}

/// Runs `test` with two empty filesystems, of which the second cannot be changed.
fn with_memory(test: impl FnOnce(&Guest<'_>, NodeId, NodeId)) {
    let exports = Exports::new()
        .add(c"rw", MemFs::new())
        .unwrap()
        .add(c"ro", ReadOnly::new(MemFs::new()))
        .unwrap();
    let session = Session::new(exports);
    let guest = Guest::begun(&session);
    let [rw, ro] = ["rw", "ro"].map(|name| guest.lookup(ROOT, name).unwrap().nodeid);
    test(&guest, rw, ro);
}

#[test]
fn names_are_checked() {
    let refused = |name| Exports::new().add(name, MemFs::new()).unwrap_err();
    for name in [c"", c".", c"..", c"a/b"] {
        assert!(
            matches!(refused(name), ExportError::Name { .. }),
            "{name:?}"
        );
    }
    let twice = Exports::new().add(c"a", MemFs::new()).unwrap();
    let error = twice.add(c"a", MemFs::new()).unwrap_err();
    assert_eq!(error, ExportError::Twice(c"a".to_owned()));
    assert!(error.to_string().contains("give each a name"), "{error}");
}

#[test]
fn exports_are_directories_of_the_root() {
    with_memory(|guest, rw, ro| {
        assert_eq!(guest.names(ROOT), ["ro", "rw"]);
        assert_eq!(guest.lookup(ROOT, "other"), Err(Errno::ENOENT));
        assert_eq!(guest.getattr(ROOT).unwrap().nlink, 4);
        assert_ne!(rw, ro);
        for export in [rw, ro] {
            let attr = guest.getattr(export).unwrap();
            assert_eq!(attr.mode & 0o170_000, 0o040_000);
            assert!(attr.flags.contains(AttrFlags::SUBMOUNT));
        }
        // They are not forgotten: nobody counts their lookups.
        guest.forget(rw, 1000);
        guest.getattr(rw).unwrap();
    });
}

#[test]
fn root_cannot_be_changed() {
    with_memory(|guest, rw, _| {
        assert_eq!(guest.mkdir(ROOT, "new"), Err(Errno::EROFS));
        assert_eq!(guest.rmdir(ROOT, "rw"), Err(Errno::EROFS));
        assert_eq!(guest.create(ROOT, "new", O_RDWR).unwrap_err(), Errno::EROFS);
        assert_eq!(
            guest.rename((ROOT, "rw"), (ROOT, "b"), PLAIN),
            Err(Errno::EROFS)
        );
        assert_eq!(
            guest.rename((ROOT, "rw"), (rw, "b"), PLAIN),
            Err(Errno::EXDEV)
        );
        assert_eq!(guest.open(ROOT, O_RDONLY).unwrap_err(), Errno::EISDIR);
        assert_eq!(
            guest.getxattr(ROOT, "user.a", 10).error(),
            Errno::EOPNOTSUPP
        );
        let statfs: Kstatfs = guest.ask(ROOT, Operation::StatFs).structure();
        assert_eq!((statfs.blocks, statfs.namelen), (0, 255));
        let stat: StatxOut = guest
            .ask(ROOT, Operation::Statx(StatxIn::default()))
            .structure();
        assert_eq!((stat.stat.ino, stat.stat.mode), (1, 0o040_555));
        assert_eq!(guest.names(ROOT), ["ro", "rw"]);
    });
}

#[test]
fn each_export_is_a_filesystem_of_its_own() {
    with_memory(|guest, rw, ro| {
        assert_eq!(guest.mkdir(ro, "new"), Err(Errno::EROFS));
        let directory = guest.mkdir(rw, "directory").unwrap();
        let file = guest.create(directory, "file", O_RDWR).unwrap();
        assert_eq!(guest.write(file, 0, b"data"), Ok(4));
        assert_eq!(guest.read(file, 1, 10).unwrap(), b"ata");
        guest.release(file).unwrap();
        assert_eq!(guest.read(file, 0, 10), Err(Errno::EBADF));
        guest
            .rename((directory, "file"), (rw, "moved"), PLAIN)
            .unwrap();
        assert_eq!(guest.lookup(rw, "moved").unwrap().nodeid, file.node);
        guest.link(file.node, directory, "again").unwrap();
        assert_eq!(guest.getattr(file.node).unwrap().nlink, 2);
        assert_eq!(guest.names(rw), ["directory", "moved"]);
        assert_eq!(guest.names(ro), [""; 0]);

        let crossed = guest.rename((rw, "moved"), (ro, "moved"), PLAIN);
        assert_eq!(crossed, Err(Errno::EXDEV));
        assert_eq!(guest.link(file.node, ro, "linked"), Err(Errno::EXDEV));
        let copy = CopyFileRangeIn {
            nodeid_out: ro,
            len: 1,
            ..Default::default()
        };
        let copied = guest.ask(file.node, Operation::CopyFileRange(copy));
        assert_eq!(copied.error(), Errno::EXDEV);
    });
}

#[test]
fn equal_ids_are_kept_apart() {
    with_odd(Exports::new(), |guest, seen| {
        let [one, two] = ["one", "two"].map(|name| guest.lookup(ROOT, name).unwrap().nodeid);
        let files = [one, two].map(|export| guest.lookup(export, "a").unwrap());
        assert_ne!(files[0].nodeid, files[1].nodeid);
        assert_eq!(files[0].generation, 3);
        let opens = files.map(|file| guest.open(file.nodeid, O_RDONLY).unwrap());
        assert_ne!(opens[0].handle, opens[1].handle);
        for open in opens {
            let expected = format!("{:x}", node_of(b"a").0);
            assert_eq!(guest.read(open, 0, 100).unwrap(), expected.as_bytes());
        }
        // A handle is one of its own export only, and none if it is made up.
        for handle in [opens[1].handle, Handle(node_of(b"a").0), Handle(0)] {
            let crossed = Open { handle, ..opens[0] };
            assert_eq!(guest.read(crossed, 0, 100), Err(Errno::EBADF));
        }
        guest.release(opens[0]).unwrap();
        assert_eq!(seen.map(|seen| seen.lock().unwrap().open), [0, 1]);
        assert_eq!(guest.release(opens[0]), Err(Errno::EBADF));
    });
}

#[test]
fn lookups_are_counted_exactly() {
    with_odd(Exports::new(), |guest, [seen, _]| {
        let held = |name: &str| seen.lock().unwrap().lookups[&node_of(name.as_bytes())];
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let file = guest.lookup(one, "a").unwrap().nodeid;
        assert_eq!(guest.lookup(one, "a").unwrap().nodeid, file);
        assert_eq!(held("a"), 2);
        guest.forget(file, 1);
        assert_eq!(held("a"), 1);
        guest.getattr(file).unwrap();
        // More than there are.
        let open = guest.open(file, O_RDONLY).unwrap();
        guest.forget(file, 1000);
        assert_eq!(held("a"), 0);
        assert_eq!(guest.getattr(file), Err(Errno::ESTALE));
        guest.forget(file, 1);
        assert_eq!(held("a"), 0);
        // The guest's kernel may close a file after it has forgotten the inode.
        guest.release(open).unwrap();
        assert_eq!(seen.lock().unwrap().open, 0);
        assert_ne!(guest.lookup(one, "a").unwrap().nodeid, file, "another id");
    });
}

#[test]
fn listed_entries_are_translated() {
    with_odd(Exports::new(), |guest, [seen, _]| {
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let directory = guest.opendir(one).unwrap();
        let list = |directory: Open, node| {
            let args = ReadIn {
                fh: directory.handle,
                size: 4096,
                ..Default::default()
            };
            let body = guest.ask(node, Operation::ReadDirPlus(args)).body();
            let entries = DirentsPlus::new(&body).map(|entry| {
                let entry = entry.unwrap();
                let name = String::from_utf8(entry.entry.name.to_vec()).unwrap();
                (name, entry.entry_out.nodeid)
            });
            entries.collect::<Vec<_>>()
        };
        let listed = list(directory, one);
        let names: Vec<_> = listed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".", "a", "bcdefghij", "k"]);
        assert_eq!(listed[0].1, NodeId::NEGATIVE);
        for (name, node) in &listed[1..] {
            assert_eq!(guest.lookup(one, name).unwrap().nodeid, *node);
            guest.forget(*node, 2);
            assert_eq!(seen.lock().unwrap().lookups[&node_of(name.as_bytes())], 0);
        }
        let root = guest.opendir(ROOT).unwrap();
        let exports = list(root, ROOT);
        assert_eq!(exports[2], ("one".to_owned(), one));
        assert_eq!(exports.len(), 4);
    });
}

#[test]
fn what_the_guest_may_hold_is_bounded() {
    with_odd(Exports::new().max_nodes(2), |guest, [seen, _]| {
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let [a, _] = ["a", "b"].map(|name| guest.lookup(one, name).unwrap().nodeid);
        assert_eq!(guest.lookup(one, "c"), Err(Errno::ENFILE));
        let lookups = |name: &[u8]| seen.lock().unwrap().lookups[&node_of(name)];
        assert_eq!(lookups(b"c"), 0, "given back");
        guest.lookup(one, "a").unwrap();
        guest.forget(a, 2);
        guest.lookup(one, "c").unwrap();
    });
}

#[test]
fn nothing_outlives_the_session() {
    with_odd(Exports::new(), |guest, seen| {
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let file = guest.lookup(one, "a").unwrap().nodeid;
        let open = guest.open(file, O_RDONLY).unwrap();
        guest.ask(ROOT, Operation::Destroy).done().unwrap();
        assert_eq!(seen.map(|seen| seen.lock().unwrap().sessions), [0, 0]);
        let guest = Guest::begun(guest.server);
        assert_eq!(guest.getattr(file), Err(Errno::ESTALE));
        assert_eq!(
            guest.read(Open { node: one, ..open }, 0, 1),
            Err(Errno::EBADF)
        );
        assert_eq!(seen.map(|seen| seen.lock().unwrap().sessions), [1, 1]);
    });
}

#[test]
fn all_agree_on_the_same() {
    let both = InitFlags::POSIX_LOCKS.union(InitFlags::DO_READDIRPLUS);
    let never = InitFlags::NO_OPEN_SUPPORT;
    let members = [
        Odd::wanting(both.union(InitFlags::WRITEBACK_CACHE).union(never)),
        Odd::wanting(both.union(InitFlags::POSIX_ACL).union(never)),
    ];
    let seen = members.each_ref().map(|odd| Arc::clone(&odd.seen));
    let [one, two] = members;
    let exports = Exports::new()
        .add(c"one", one)
        .unwrap()
        .add(c"two", two)
        .unwrap();
    let session = Session::new(exports);
    let guest = Guest::begun(&session);
    let ours = InitFlags::SUBMOUNTS;
    assert!(guest.agreed.contains(both | ours));
    let not = never | InitFlags::WRITEBACK_CACHE | InitFlags::POSIX_ACL;
    assert!(!guest.agreed.intersects(not));
    for seen in seen {
        let seen = seen.lock().unwrap();
        assert_eq!(seen.agreed | ours, guest.agreed);
        assert_eq!(seen.sessions, 1);
    }
}

#[test]
fn one_that_refuses_ends_the_session_of_all() {
    let willing = Odd::default();
    let seen = Arc::clone(&willing.seen);
    let refusing = Odd {
        fails: true,
        ..Odd::default()
    };
    let exports = Exports::new()
        .add(c"a", willing)
        .unwrap()
        .add(c"b", refusing)
        .unwrap();
    let session = Session::new(exports);
    let guest = Guest::new(&session);
    let answer = guest.ask(NodeId(0), Operation::Init(offer(InitFlags::all())));
    assert_eq!(answer.error(), Errno::EPROTO);
    assert_eq!(seen.lock().unwrap().sessions, 0);
}

#[test]
fn interrupts_are_passed_on() {
    with_odd(Exports::new(), |guest, seen| {
        guest.ask(ROOT, Operation::Interrupt(InterruptIn { unique: 5 }));
        for seen in seen {
            assert_eq!(seen.lock().unwrap().interrupted, [5]);
        }
    });
}

#[test]
fn what_one_lacks_the_others_are_still_asked() {
    with_odd(Exports::new(), |guest, _| {
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let file = guest.lookup(one, "a").unwrap().nodeid;
        assert_eq!(
            guest.getxattr(file, "user.a", 10).error(),
            Errno::EOPNOTSUPP
        );
        assert_eq!(guest.symlink(one, "b", "c"), Err(Errno::EOPNOTSUPP));
        let open = guest.open(file, O_RDONLY).unwrap();
        let flush = FlushIn {
            fh: open.handle,
            ..Default::default()
        };
        assert!(guest.ask(file, Operation::Flush(flush)).is_empty_success());
        let stat: StatxOut = guest
            .ask(file, Operation::Statx(StatxIn::default()))
            .structure();
        assert_eq!(stat.stat.ino, node_of(b"a").0);
        assert!(
            guest
                .ask(ROOT, Operation::SyncFs(SyncfsIn::default()))
                .is_empty_success()
        );
    });
}

#[test]
fn threads_lose_no_lookup() {
    with_odd(Exports::new(), |guest, seen| {
        let exports = ["one", "two"].map(|name| guest.lookup(ROOT, name).unwrap().nodeid);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..1000 {
                        let file = guest.lookup(exports[round % 2], "a").unwrap().nodeid;
                        guest.getattr(file).unwrap();
                        guest.forget(file, 1);
                    }
                });
            }
        });
        for seen in seen {
            assert_eq!(seen.lock().unwrap().lookups[&node_of(b"a")], 0);
        }
    });
}

#[test]
fn any_node_and_handle_is_answered() {
    with_odd(Exports::new(), |guest, _| {
        let one = guest.lookup(ROOT, "one").unwrap().nodeid;
        let file = guest.lookup(one, "a").unwrap().nodeid;
        let session_ends = [Opcode::Init, Opcode::Destroy];
        for &opcode in Opcode::ALL.iter().filter(|it| !session_ends.contains(it)) {
            for node in [0, 1, 2, 3, 4, file.0 + 1, u64::MAX - 1, u64::MAX].map(NodeId) {
                let answer = guest.ask_with_data(node, operation(opcode), data(opcode));
                assert_eq!(
                    answer == Answer::NoReply,
                    !opcode.expects_reply(),
                    "{opcode}"
                );
            }
        }
        assert_eq!(guest.lookup(one, "a").unwrap().nodeid, file);
    });
}
