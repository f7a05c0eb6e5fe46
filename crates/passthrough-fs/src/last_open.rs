//! Whether the guest may keep what it cached of a file when it opens it again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuse_fs::Opened;
use fuse_fs::flags::OpenOutFlags;
use rustix::fs::{OFlags, Statx, StatxTimestamp};

use crate::attr::stat_fd;
use crate::inode_table::Inode;
use crate::open_flags::access_mode;
use crate::volume::Storage;
use crate::{CachePolicy, PassthroughFs};

/// A file that was changed this short a time ago can be changed again with its times staying as
/// they are: FAT's are the coarsest.
const COARSEST: Duration = Duration::from_secs(2);

/// What a file was like when the guest opened it last: a digest of its size and its times, or 0
/// where that would not tell the next change.
#[derive(Debug, Default)]
pub(crate) struct LastOpen(AtomicU64);

impl LastOpen {
    /// Notes what the file is like at `now`, and returns whether it was like that the last time.
    fn is_unchanged(&self, stat: &Statx, now: SystemTime) -> bool {
        let digest = digest(stat, now);
        let before = self.0.swap(digest, Ordering::AcqRel);
        digest != 0 && digest == before
    }
}

impl PassthroughFs {
    /// What the attributes of an open file of `inode` tell the guest about its pages, if they are
    /// to be asked: see [`CachePolicy::Auto`].
    ///
    /// They are not where the clock is another machine's, nor in memory, where what is written
    /// through a mapping leaves no trace in the times.
    pub(crate) fn stat_opened(
        &self,
        inode: &Inode,
        fd: &OwnedFd,
        host_flags: OFlags,
    ) -> Option<Statx> {
        let reads =
            access_mode(host_flags) != OFlags::WRONLY && !host_flags.contains(OFlags::TRUNC);
        let tells = inode.volume.storage == Storage::Local;
        if self.cache == CachePolicy::Auto && reads && tells {
            stat_fd(fd).ok()
        } else {
            None
        }
    }
}

/// Has the guest keep its pages where `stat` says that the file is as it was when it was opened
/// last. Only for an open that succeeds: the next one is held against it.
pub(crate) fn keep_pages(inode: &Inode, stat: Option<&Statx>, opened: &mut Opened) {
    let unchanged = |stat| inode.last_open.is_unchanged(stat, SystemTime::now());
    if stat.is_some_and(unchanged) && !opened.flags.contains(OpenOutFlags::DIRECT_IO) {
        opened.flags |= OpenOutFlags::KEEP_CACHE;
    }
}

fn digest(stat: &Statx, now: SystemTime) -> u64 {
    let times = [&stat.stx_ctime, &stat.stx_mtime];
    if !times.into_iter().all(|time| is_settled(time, now)) {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    stat.stx_size.hash(&mut hasher);
    for time in times {
        (time.tv_sec, time.tv_nsec).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a change from `now` on gives the file another time than `time`.
fn is_settled(time: &StatxTimestamp, now: SystemTime) -> bool {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let settled = since_epoch.unwrap_or_default().saturating_sub(COARSEST);
    i64::try_from(settled.as_secs()).is_ok_and(|settled| time.tv_sec < settled)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD, StatxFlags};

    use super::*;

    fn stat() -> Statx {
        rustix::fs::statx(CWD, c"/", AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap()
    }

    fn after(stat: &Statx, seconds: i64) -> SystemTime {
        let latest = stat.stx_ctime.tv_sec.max(stat.stx_mtime.tv_sec) + seconds;
        SystemTime::UNIX_EPOCH + Duration::from_secs(latest.try_into().unwrap())
    }

    #[test]
    fn what_did_not_change_is_unchanged() {
        let stat = stat();
        let last = LastOpen::default();
        assert!(!last.is_unchanged(&stat, after(&stat, 60)));
        assert!(last.is_unchanged(&stat, after(&stat, 60)));
        assert!(last.is_unchanged(&stat, after(&stat, 90)));
    }

    #[test]
    fn each_change_tells() {
        let was = stat();
        let changes: [fn(&mut Statx); 4] = [
            |stat| stat.stx_size += 1,
            |stat| stat.stx_mtime.tv_sec -= 1,
            |stat| stat.stx_ctime.tv_sec -= 1,
            |stat| stat.stx_ctime.tv_nsec ^= 1,
        ];
        for change in changes {
            let last = LastOpen::default();
            last.is_unchanged(&was, after(&was, 60));
            let mut is = was;
            change(&mut is);
            assert!(!last.is_unchanged(&is, after(&was, 60)));
            assert!(last.is_unchanged(&is, after(&was, 60)));
        }
    }

    #[test]
    fn what_changed_just_now_may_change_unseen() {
        let stat = stat();
        let last = LastOpen::default();
        for seconds in [-10, 0, 1, 2] {
            assert!(!last.is_unchanged(&stat, after(&stat, seconds)));
        }
        assert!(!last.is_unchanged(&stat, after(&stat, 3)));
        assert!(last.is_unchanged(&stat, after(&stat, 3)));
        // The clock was set back: there is no telling any more.
        assert!(!last.is_unchanged(&stat, after(&stat, -10)));
        assert!(!last.is_unchanged(&stat, after(&stat, 3)));
    }
}
