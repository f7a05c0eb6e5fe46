//! Random sequences of operations do to MemFs what they do to a simple model.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::Guest;
use common::files::*;
use fuse_fs::abi::Kstatfs;
use fuse_fs::flags::RenameFlags;
use fuse_fs::{Errno, MemFs, NodeId, Serve, Session};
use fuse_wire::Operation;
use proptest::prelude::*;

/// A place in the tree: one of a few directories, and one of a few names.
type Place = (usize, usize);

const NAMES: [&str; 3] = ["a", "b", "c"];
/// The largest file, in bytes: a few blocks.
const SIZE: u64 = 20_000;

#[derive(Debug, Clone)]
enum Action {
    Create(Place),
    MakeDirectory(Place),
    Unlink(Place),
    RemoveDirectory(Place),
    Link(Place, Place),
    Rename(Place, Place),
    NoReplace(Place, Place),
    Exchange(Place, Place),
    Write(Place, u64, u16, u8),
    Truncate(Place, u64),
    Remount,
}

fn place() -> impl Strategy<Value = Place> {
    (0..4_usize, 0..NAMES.len())
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    prop_oneof![
        4 => place().prop_map(Create),
        4 => place().prop_map(MakeDirectory),
        2 => place().prop_map(Unlink),
        2 => place().prop_map(RemoveDirectory),
        2 => (place(), place()).prop_map(|(from, to)| Link(from, to)),
        4 => (place(), place()).prop_map(|(from, to)| Rename(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| NoReplace(from, to)),
        2 => (place(), place()).prop_map(|(from, to)| Exchange(from, to)),
        6 => (place(), 0..SIZE, 0..9000_u16, any::<u8>())
            .prop_map(|(place, offset, len, byte)| Write(place, offset, len, byte)),
        3 => (place(), 0..SIZE).prop_map(|(place, size)| Truncate(place, size)),
        1 => Just(Remount),
    ]
}

/// The identity of an inode in the model.
type Id = usize;

/// The model: what each inode is, by identity, and the names in each directory.
#[derive(Debug, Default)]
struct Model {
    directories: BTreeMap<Id, BTreeMap<String, Id>>,
    files: BTreeMap<Id, Vec<u8>>,
    last: Id,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        model.directories.insert(0, BTreeMap::new());
        model
    }

    fn find(&self, directory: Id, name: &str) -> Result<Id> {
        let found = self.directories[&directory].get(name);
        found.copied().ok_or(Errno::ENOENT)
    }

    fn is_directory(&self, id: Id) -> bool {
        self.directories.contains_key(&id)
    }

    fn add(&mut self, directory: Id, name: &str, id: Id) -> Result<()> {
        let names = self.directories.get_mut(&directory).unwrap();
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        names.insert(name.to_owned(), id);
        Ok(())
    }

    fn new_id(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    fn create(&mut self, directory: Id, name: &str) -> Result<()> {
        let id = self.new_id();
        self.add(directory, name, id)?;
        self.files.insert(id, Vec::new());
        Ok(())
    }

    fn make_directory(&mut self, directory: Id, name: &str) -> Result<()> {
        let id = self.new_id();
        self.add(directory, name, id)?;
        self.directories.insert(id, BTreeMap::new());
        Ok(())
    }

    fn unlink(&mut self, directory: Id, name: &str) -> Result<()> {
        if self.is_directory(self.find(directory, name)?) {
            return Err(Errno::EISDIR);
        }
        self.drop_name(directory, name);
        Ok(())
    }

    fn remove_directory(&mut self, directory: Id, name: &str) -> Result<()> {
        match self.directories.get(&self.find(directory, name)?) {
            None => Err(Errno::ENOTDIR),
            Some(names) if !names.is_empty() => Err(Errno::ENOTEMPTY),
            Some(_) => {
                self.drop_name(directory, name);
                Ok(())
            }
        }
    }

    fn drop_name(&mut self, directory: Id, name: &str) {
        self.directories.get_mut(&directory).unwrap().remove(name);
    }

    /// Whether `directory` is `id` or below it.
    fn is_within(&self, directory: Id, id: Id) -> bool {
        let below = |names: &BTreeMap<String, Id>| {
            names
                .values()
                .any(|&child| self.is_within(directory, child))
        };
        directory == id || self.directories.get(&id).is_some_and(below)
    }

    fn rename(
        &mut self,
        (from, name): (Id, &str),
        (to, new_name): (Id, &str),
        flags: RenameFlags,
    ) -> Result<()> {
        let id = self.find(from, name)?;
        if self.is_directory(id) && self.is_within(to, id) {
            return Err(Errno::EINVAL);
        }
        let replaced = self.find(to, new_name).ok();
        if flags == RenameFlags::EXCHANGE {
            let other = replaced.ok_or(Errno::ENOENT)?;
            if self.is_directory(other) && self.is_within(from, other) {
                return Err(Errno::EINVAL);
            }
            self.drop_name(from, name);
            self.drop_name(to, new_name);
            self.add(from, name, other)?;
            if (from, name) != (to, new_name) {
                self.add(to, new_name, id)?;
            }
            return Ok(());
        }
        if let Some(other) = replaced {
            if flags == RenameFlags::NOREPLACE {
                return Err(Errno::EEXIST);
            }
            if other == id {
                return Ok(());
            }
            match (self.directories.get(&other), self.is_directory(id)) {
                (Some(_), false) => return Err(Errno::EISDIR),
                (Some(names), true) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
                (None, true) => return Err(Errno::ENOTDIR),
                _ => {}
            }
            self.drop_name(to, new_name);
        }
        self.drop_name(from, name);
        self.add(to, new_name, id)
    }

    fn names_of(&self, id: Id) -> u32 {
        let names = self.directories.values().flat_map(BTreeMap::values);
        names.filter(|&&named| named == id).count() as u32
    }
}

/// MemFs and its model, side by side.
struct Pair<'a> {
    guest: Guest<'a>,
    model: Model,
}

impl Pair<'_> {
    /// The directory with this number, counted as they are found from the root: in MemFs and in
    /// the model.
    fn directory(&self, number: usize) -> (NodeId, Id) {
        let mut all = vec![(NodeId::ROOT, 0)];
        let mut next = 0;
        while let Some(&(node, id)) = all.get(next) {
            next += 1;
            for (name, &child) in &self.model.directories[&id] {
                if self.model.is_directory(child) {
                    all.push((self.guest.lookup(node, name).unwrap().nodeid, child));
                }
            }
        }
        all[number % all.len()]
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::Create((dir, name)) => {
                let (node, id) = self.directory(dir);
                let created = self.guest.create(node, NAMES[name], O_RDWR | O_EXCL);
                let created = created.map(|file| self.guest.release(file).unwrap());
                assert_eq!(created, self.model.create(id, NAMES[name]));
            }
            Action::MakeDirectory((dir, name)) => {
                let (node, id) = self.directory(dir);
                let made = self.guest.mkdir(node, NAMES[name]).map(drop);
                assert_eq!(made, self.model.make_directory(id, NAMES[name]));
            }
            Action::Unlink((dir, name)) => {
                let (node, id) = self.directory(dir);
                let removed = self.guest.unlink(node, NAMES[name]);
                assert_eq!(removed, self.model.unlink(id, NAMES[name]));
            }
            Action::RemoveDirectory((dir, name)) => {
                let (node, id) = self.directory(dir);
                let removed = self.guest.rmdir(node, NAMES[name]);
                assert_eq!(removed, self.model.remove_directory(id, NAMES[name]));
            }
            Action::Link(from, to) => self.link(from, to),
            Action::Rename(from, to) => self.rename(from, to, RenameFlags::empty()),
            Action::NoReplace(from, to) => self.rename(from, to, RenameFlags::NOREPLACE),
            Action::Exchange(from, to) => self.rename(from, to, RenameFlags::EXCHANGE),
            Action::Write(place, offset, len, byte) => {
                let data = vec![byte; usize::from(len)];
                self.with_file(place, |guest, file, contents| {
                    assert_eq!(guest.write(file, offset, &data), Ok(u32::from(len)));
                    let (start, end) = (offset as usize, offset as usize + data.len());
                    if !data.is_empty() {
                        contents.resize(contents.len().max(end), 0);
                        contents[start..end].copy_from_slice(&data);
                    }
                });
            }
            Action::Truncate(place, size) => {
                self.with_file(place, |guest, file, contents| {
                    let args = fuse_fs::abi::SetattrIn {
                        valid: fuse_fs::flags::SetattrValid::SIZE,
                        size,
                        ..Default::default()
                    };
                    guest.ask(file.node, Operation::SetAttr(args)).body();
                    contents.resize(size as usize, 0);
                });
            }
            Action::Remount => {
                self.guest.server.reset();
                self.guest = Guest::begun(self.guest.server);
            }
        }
    }

    fn link(&mut self, (from, name): Place, (to, new_name): Place) {
        let (from, from_id) = self.directory(from);
        let (to, to_id) = self.directory(to);
        let Ok(id) = self.model.find(from_id, NAMES[name]) else {
            return;
        };
        let node = self.guest.lookup(from, NAMES[name]).unwrap().nodeid;
        let linked = self.guest.link(node, to, NAMES[new_name]).map(drop);
        if self.model.is_directory(id) {
            assert_eq!(linked, Err(Errno::EPERM));
        } else {
            assert_eq!(linked, self.model.add(to_id, NAMES[new_name], id));
        }
    }

    fn rename(&mut self, (from, name): Place, (to, new_name): Place, flags: RenameFlags) {
        let (from, from_id) = self.directory(from);
        let (to, to_id) = self.directory(to);
        let (name, new_name) = (NAMES[name], NAMES[new_name]);
        let renamed = self.guest.rename((from, name), (to, new_name), flags);
        let expected = self.model.rename((from_id, name), (to_id, new_name), flags);
        assert_eq!(renamed, expected);
    }

    fn with_file(
        &mut self,
        (dir, name): Place,
        change: impl FnOnce(&Guest<'_>, Open, &mut Vec<u8>),
    ) {
        let (node, id) = self.directory(dir);
        let Ok(id) = self.model.find(id, NAMES[name]) else {
            return;
        };
        if let Some(contents) = self.model.files.get_mut(&id) {
            let node = self.guest.lookup(node, NAMES[name]).unwrap().nodeid;
            let file = self.guest.open(node, O_RDWR).unwrap();
            change(&self.guest, file, contents);
            self.guest.release(file).unwrap();
        }
    }

    /// Everything below a directory is the same.
    fn compare(&self, node: NodeId, id: Id) {
        let names = &self.model.directories[&id];
        assert_eq!(
            self.guest.names(node),
            names.keys().cloned().collect::<Vec<_>>()
        );
        let directories = names.values().filter(|&&id| self.model.is_directory(id));
        let nlink = 2 + directories.count() as u32;
        assert_eq!(self.guest.getattr(node).unwrap().nlink, nlink);
        for (name, &child) in names {
            let entry = self.guest.lookup(node, name).unwrap();
            if self.model.is_directory(child) {
                let parent = self.guest.lookup(entry.nodeid, "..").unwrap();
                assert_eq!(parent.nodeid, node);
                self.compare(entry.nodeid, child);
                continue;
            }
            let contents = &self.model.files[&child];
            assert_eq!(entry.attr.size, contents.len() as u64);
            assert_eq!(entry.attr.nlink, self.model.names_of(child));
            let file = self.guest.open(entry.nodeid, O_RDONLY).unwrap();
            assert_eq!(&self.guest.read(file, 0, 1 << 20).unwrap(), contents);
            self.guest.release(file).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn memfs_does_what_its_model_does(actions in prop::collection::vec(action(), 1..60)) {
        let session = Session::new(MemFs::new());
        let mut pair = Pair { guest: Guest::begun(&session), model: Model::new() };
        for action in &actions {
            pair.apply(action);
        }
        pair.compare(NodeId::ROOT, 0);

        // With nothing looked up or open, just what has a name is left.
        session.reset();
        let model = &pair.model;
        let names = model.directories.values().flat_map(BTreeMap::values);
        let named: BTreeSet<_> = names.collect();
        prop_assert_eq!(session.filesystem().inode_count(), 1 + named.len());

        // With nothing that has a name left, all memory is given back.
        let guest = Guest::begun(&session);
        remove_all(&guest, NodeId::ROOT);
        session.reset();
        prop_assert_eq!(session.filesystem().inode_count(), 1);
        let empty = Session::new(MemFs::new());
        prop_assert_eq!(space(&session), space(&empty));
    }
}

fn remove_all(guest: &Guest<'_>, directory: NodeId) {
    for name in guest.names(directory) {
        if guest.unlink(directory, &name) == Err(Errno::EISDIR) {
            let below = guest.lookup(directory, &name).unwrap();
            remove_all(guest, below.nodeid);
            guest.rmdir(directory, &name).unwrap();
        }
    }
}

fn space(session: &Session<MemFs>) -> Kstatfs {
    let guest = Guest::begun(session);
    guest.ask(NodeId::ROOT, Operation::StatFs).structure()
}
