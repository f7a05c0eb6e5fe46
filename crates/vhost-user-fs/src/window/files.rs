use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::fstat;
use rustix::io::Errno;

/// The files of which something is mapped, each open once however many parts of it are.
#[derive(Debug, Default)]
pub(super) struct Files(HashMap<Key, Weak<OwnedFd>>);

/// Device and inode, and whether it is open for writing. As long as it is open, no other file gets
/// these.
type Key = (u64, u64, bool);

impl Files {
    /// A descriptor of `file` that stays open, of `limit` at most.
    ///
    /// # Errors
    /// Others are open already, or the process has none left.
    pub(super) fn share(
        &mut self,
        file: BorrowedFd<'_>,
        writable: bool,
        limit: usize,
    ) -> io::Result<Arc<OwnedFd>> {
        let stat = fstat(file)?;
        let key = (stat.st_dev, stat.st_ino, writable);
        if let Some(open) = self.0.get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        if self.0.len() >= limit {
            self.forget_closed();
        }
        if self.0.len() >= limit {
            return Err(Errno::NOMEM.into());
        }
        let open = Arc::new(file.try_clone_to_owned()?);
        self.0.insert(key, Arc::downgrade(&open));
        Ok(open)
    }

    /// Forgets what is closed, once that is most of it: of `mapped` mappings, each has one file.
    pub(super) fn tidy(&mut self, mapped: usize) {
        if self.0.len() > mapped.saturating_mul(2).saturating_add(16) {
            self.forget_closed();
        }
    }

    fn forget_closed(&mut self) {
        self.0.retain(|_, open| open.strong_count() > 0);
    }
}
