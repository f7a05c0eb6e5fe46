//! What a guest holds, saved and loaded: node ids with their lookups, open files and directories,
//! and locks.
//!
//! **Paths.** An inode is written down with its path in the share, as the kernel shows it for its
//! descriptor, or else by a name that the guest knows it by; that the path leads to it is made sure
//! of. It is opened again beneath the shared directory, without symbolic links on the way, so that
//! whatever a state says, it leads to nothing that a guest could not have found.
//!
//! **Signs.** With it go its number, time of birth and file handle. Where the shared directory is the
//! very one that it was, going by these signs of its own, they have to be the same: what the host put
//! in the place of a file is not taken for it, and what the host renamed is found by its handle, if
//! the process may use such, and used if it is still in the share. Where it is another one, a copy
//! on another host say, only what kind of file it is has to be the same.
//!
//! **Ids.** Node ids and handles stay what they are, and the tables are those of before, down to how
//! often each of their slots was used: no id is given out again. One behind which there is nothing
//! any more is not known, which the guest is told as ESTALE.
//!
//! What is bounded: an id leads to no larger a table than a guest could fill, and nothing else in a
//! state takes memory but what it finds on the host, as a guest's lookups do.

mod above;
mod load;
mod path;
mod record;
mod save;
mod search;

use std::io;

use fuse_fs::State;

pub(crate) use self::record::{SavedLock, SavedLockKind};
use crate::PassthroughFs;

/// As [`Config::migration`](crate::Config::migration) says.
impl State for PassthroughFs {
    fn save(&self, to: &mut dyn io::Write) -> io::Result<()> {
        self.save_state(to)
    }

    fn load(&self, from: &mut dyn io::Read) -> io::Result<()> {
        self.load_state(from)
    }
}
