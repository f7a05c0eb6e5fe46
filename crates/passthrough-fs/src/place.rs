//! Where in the share an inode was seen: what it takes to find it again by name.

use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fuse_fs::{Blocking, Error, Result};

use crate::inode_table::Inode;

/// Most places remembered of one inode. A file with more names may be looked up again by the guest
/// where it is removed under all of those.
const MAX_PLACES: usize = 4;
/// Most directories between an inode and the next one that is open: twice of what a path has room
/// for (PATH_MAX).
pub(crate) const MAX_DEPTH: usize = 4096;

/// A name in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Inode>,
    pub(crate) name: Arc<CStr>,
}

/// Where an inode was seen, the latest place last. A directory is in one place only.
///
/// The places of directories lead upwards and never in a circle: however the host moves them
/// about, an inode is not kept by itself.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Vec<Place>>);

impl Places {
    /// A copy of them, the latest first.
    pub(crate) fn all(&self) -> Vec<Place> {
        self.lock().iter().rev().cloned().collect()
    }

    pub(crate) fn latest(&self) -> Option<Place> {
        self.lock().last().cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes them all out.
    pub(crate) fn take(&mut self) -> Vec<Place> {
        let places = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(places)
    }

    /// Remembers a place of a file, or of a directory that was just found, below which nothing can
    /// be yet.
    pub(crate) fn add(&self, parent: &Arc<Inode>, name: &CStr) {
        let mut places = self.lock();
        let found = places.iter().rposition(|place| place.is(parent, name));
        // Declared before the removal, hence dropped after the lock.
        let _dropped;
        let place = match found {
            Some(at) if at.saturating_add(1) == places.len() => return,
            Some(at) => places.remove(at),
            None => {
                _dropped = (places.len() >= MAX_PLACES).then(|| places.remove(0));
                Place::new(parent, name)
            }
        };
        places.push(place);
        drop(places);
    }

    fn remove(&self, parent: &Arc<Inode>, name: &CStr) -> Option<Place> {
        let mut places = self.lock();
        let at = places.iter().position(|place| place.is(parent, name))?;
        Some(places.remove(at))
    }

    fn replace(&self, place: Option<Place>) -> Vec<Place> {
        std::mem::replace(&mut *self.lock(), place.into_iter().collect())
    }

    fn is_latest(&self, parent: &Arc<Inode>, name: &CStr) -> bool {
        let places = self.lock();
        places.last().is_some_and(|place| place.is(parent, name))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn new(parent: &Arc<Inode>, name: &CStr) -> Self {
        Self {
            parent: Arc::clone(parent),
            name: name.into(),
        }
    }

    fn is(&self, parent: &Arc<Inode>, name: &CStr) -> bool {
        Arc::ptr_eq(&self.parent, parent) && *self.name == *name
    }
}

/// What moves inodes from place to place.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// Held while the place of a directory changes.
    directories: Mutex<()>,
    renames: Mutex<Renames>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Renames {
    running: usize,
    done: u64,
}

/// How many renames were done at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(u64);

/// A rename that the guest asked for, from before it is made until the places are up to date.
#[derive(Debug)]
pub(crate) struct Renaming<'a>(&'a Moves);

impl Moves {
    /// `inode` was seen as `name` in `parent`.
    pub(crate) fn seen(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &CStr) {
        if !inode.volume.reopening.needs_places() || inode.places.is_latest(parent, name) {
            return;
        }
        if !inode.is_directory() {
            inode.places.add(parent, name);
            return;
        }
        let _replaced;
        let _one_at_a_time = lock(&self.directories);
        // A directory in itself is what the host made of it while it was looked at.
        let place = (!is_below(parent, inode)).then(|| Place::new(parent, name));
        _replaced = inode.places.replace(place);
    }

    /// `inode` is no longer what `name` in `parent` stands for.
    pub(crate) fn gone(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &CStr) {
        drop(inode.places.remove(parent, name));
    }

    /// Announces a rename. Who does not find an inode while it lasts looks again.
    pub(crate) fn begin_rename(&self) -> Renaming<'_> {
        let mut renames = lock(&self.renames);
        renames.running = renames.running.saturating_add(1);
        Renaming(self)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(lock(&self.renames).done)
    }

    /// Whether a rename ended since `mark`. Waits for one that is running.
    pub(crate) fn any_since(&self, mark: Mark, blocking: Blocking) -> Result<bool> {
        let mut renames = lock(&self.renames);
        while renames.done == mark.0 && renames.running > 0 {
            if blocking == Blocking::Forbidden {
                return Err(Error::WouldBlock);
            }
            let woken = self.done.wait(renames);
            renames = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(renames.done != mark.0)
    }
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        let mut renames = lock(&self.0.renames);
        renames.running = renames.running.saturating_sub(1);
        renames.done = renames.done.wrapping_add(1);
        self.0.done.notify_all();
    }
}

/// Whether `inode` is `above`, or below it as far as the places tell.
fn is_below(inode: &Arc<Inode>, above: &Arc<Inode>) -> bool {
    let mut here = Arc::clone(inode);
    for _ in 0..MAX_DEPTH {
        if Arc::ptr_eq(&here, above) {
            return true;
        }
        match here.places.latest() {
            Some(place) => here = place.parent,
            None => return false,
        }
    }
    // Too deep to be found again anyway.
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::inode_table::tests::inode;

    #[test]
    fn directories_are_never_in_a_circle() {
        let moves = Moves::default();
        let [a, b, c] = [2, 3, 4].map(|ino| inode(None, ino));
        moves.seen(&b, &a, c"b");
        moves.seen(&c, &b, c"c");
        let parent = |inode: &Inode| inode.places.latest().map(|place| place.parent.identity);
        assert_eq!(parent(&c), Some(b.identity));
        // Seen by a thread that was slow while the host moved them about.
        moves.seen(&a, &c, c"a");
        assert_eq!(parent(&a), None);
        moves.seen(&a, &a, c"a");
        assert_eq!(parent(&a), None);
        // The last place counts.
        moves.seen(&c, &a, c"c");
        assert_eq!(parent(&c), Some(a.identity));
        moves.gone(&c, &a, c"c");
        assert_eq!(parent(&c), None);
        assert_eq!(Arc::strong_count(&a), 2, "b is in it");
    }

    #[test]
    fn the_latest_places_of_a_file_are_kept() {
        let places = Places::default();
        let dir = inode(None, 2);
        let name = |n: usize| std::ffi::CString::new(n.to_string()).unwrap();
        for n in 0..MAX_PLACES + 2 {
            places.add(&dir, &name(n));
        }
        places.add(&dir, &name(3));
        let names = || -> Vec<_> {
            let all = places.all().into_iter();
            all.map(|place| place.name.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(), ["3", "5", "4", "2"]);
        places.remove(&dir, &name(5));
        places.remove(&dir, &name(0));
        assert_eq!(names(), ["3", "4", "2"]);
    }

    #[test]
    fn who_finds_nothing_waits_for_the_rename_that_is_running() {
        let moves = Moves::default();
        let mark = moves.mark();
        assert_eq!(moves.any_since(mark, Blocking::Forbidden), Ok(false));
        let renaming = moves.begin_rename();
        let refused = moves.any_since(mark, Blocking::Forbidden);
        assert_eq!(refused, Err(Error::WouldBlock));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(moves.any_since(mark, Blocking::Allowed), Ok(true));
                assert!(done.load(Ordering::SeqCst));
            });
            done.store(true, Ordering::SeqCst);
            drop(renaming);
        });
        assert_eq!(moves.any_since(mark, Blocking::Forbidden), Ok(true));
        let mark = moves.mark();
        assert_eq!(moves.any_since(mark, Blocking::Allowed), Ok(false));
    }
}
