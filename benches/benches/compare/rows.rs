//! The lines of the table.

use virtio_fs_guest::{Error as GuestError, Mount, PageReuse};

use crate::native::{self, Native};
use crate::served::Files;
use crate::site::{DATA_LEN, WARM_LEN};
use crate::steps::{self as step, Step};
use crate::walks as walk;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) job: Job,
    /// Operations in flight.
    pub(crate) depth: usize,
    pub(crate) place: Place,
}

/// What an operation is, for a driver and by direct system calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Job {
    /// Requests that follow upon each other.
    Script(Script),
    /// One READ or WRITE.
    Data(Data),
    /// The same, while elsewhere one FSYNC after the other is in flight, each of data that was
    /// just written.
    BesideFsync(Data),
    /// As many requests as the replies call for, one at a time.
    Walk {
        guest: fn(&mut Mount, &Files) -> Result<(), GuestError>,
        native: native::Operation,
    },
}

/// Requests that follow upon each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) steps: &'static [Step],
    pub(crate) native: native::Operation,
    /// Whether what is looked up or created is forgotten at the end: the driver sends FORGET, and
    /// waits for nothing.
    pub(crate) forgets: bool,
    pub(crate) names: Names,
}

/// The names that operations make or remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// An operation leaves none behind.
    Same,
    /// Each has its own; after some hundreds, what they left behind is removed by direct system
    /// calls, while no clock runs.
    New,
    /// Each has its own, and finds a file of that name.
    Files,
}

/// Where the shared directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `--dir`.
    Memory,
    /// `--disk`.
    Disk,
}

/// Reads and writes of the large file, one after the other from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data {
    /// How many of ten operations read; the others write.
    reads: u64,
    /// Bytes of an operation.
    pub(crate) size: u32,
    /// Bytes of the file that are used, over and over.
    pub(crate) len: u64,
    /// Which of the driver's memory is used.
    pub(crate) buffers: PageReuse,
}

impl Data {
    const fn reading(size: u32) -> Self {
        Self {
            reads: 10,
            size,
            len: DATA_LEN,
            buffers: PageReuse::LastFreed,
        }
    }

    const fn writing(size: u32) -> Self {
        Self {
            reads: 0,
            ..Self::reading(size)
        }
    }

    /// Through buffers that are together larger than the caches, too.
    const fn cold(self) -> Self {
        Self {
            buffers: PageReuse::FirstFreed,
            ..self
        }
    }

    /// Of a part of the file that the caches hold.
    const fn warm(self) -> Self {
        Self {
            len: WARM_LEN,
            ..self
        }
    }

    pub(crate) const fn offset(&self, number: u64) -> u64 {
        number * self.size as u64 % self.len
    }

    /// Whether operation `number` reads.
    pub(crate) const fn reads(&self, number: u64) -> bool {
        number * 7 % 10 < self.reads
    }
}

/// Bytes of data that can be in flight on a queue: more than the caches of most processors hold.
pub(crate) const BUFFERS: usize = 64 << 20;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// All rows.
pub(crate) const ROWS: [Row; 47] = [
    row("getattr", steps(&[step::getattr], Native::stat), 1),
    row("getattr x32", steps(&[step::getattr], Native::stat), 32),
    row("lookup", steps(&[step::lookup], Native::stat_at), 1),
    row("lookup x32", steps(&[step::lookup], Native::stat_at), 32),
    row("statx", steps(&[step::statx], Native::statx), 1),
    row("statfs", steps(&[step::statfs], Native::statfs), 1),
    row("chmod", steps(&[step::chmod], Native::chmod), 1),
    row("chmod x32", steps(&[step::chmod], Native::chmod), 32),
    row("utimens", steps(&[step::utimens], Native::utimens), 1),
    row("truncate", steps(&[step::truncate], Native::truncate), 1),
    row("getxattr", steps(&[step::getxattr], Native::getxattr), 1),
    row("setxattr", steps(&[step::setxattr], Native::setxattr), 1),
    row("open+release", OPEN_RELEASE, 1),
    row("open+release x16", OPEN_RELEASE, 16),
    row("create+unlink", CREATE_UNLINK, 1),
    row("create+unlink x16", CREATE_UNLINK, 16),
    row("create+write+unlink", CREATE_WRITE_UNLINK, 1),
    row("tmpfile", TMPFILE, 1),
    row(
        "unlink",
        named(&[step::unlink], Native::unlink, Names::Files),
        1,
    ),
    row(
        "rename",
        named(&[step::rename], Native::rename, Names::Files),
        1,
    ),
    row("mkdir", named(&[step::mkdir], Native::mkdir, Names::New), 1),
    row("mkdir+rmdir", MKDIR_RMDIR, 1),
    row(
        "symlink",
        named(&[step::symlink], Native::symlink, Names::New),
        1,
    ),
    row("symlink+readlink+unlink", SYMLINK_READLINK_UNLINK, 1),
    row("link+unlink", LINK_UNLINK, 1),
    row(
        "readdirplus 100",
        walks(walk::list_with_attributes, Native::list_with_attributes),
        1,
    ),
    row("readdir 10000", walks(walk::list, Native::list), 1),
    row("tree walk", walks(walk::tree, Native::tree), 1),
    row("untar+remove", walks(walk::untar, Native::untar), 1),
    row("lseek", steps(&[step::lseek], Native::lseek), 1),
    row("fallocate", steps(&[step::fallocate], Native::fallocate), 1),
    row(
        "copy_file_range",
        steps(&[step::copy_file_range], Native::copy_file_range),
        1,
    ),
    row("read 4k", Job::Data(Data::reading(4 * KIB)), 1),
    row("read 4k x32", Job::Data(Data::reading(4 * KIB)), 32),
    row("read 128k", Job::Data(Data::reading(128 * KIB).cold()), 1),
    row("read 1M", Job::Data(Data::reading(MIB).cold()), 1),
    row("read 1M x4", Job::Data(Data::reading(MIB).cold()), 4),
    row("read 1M, cached", Job::Data(Data::reading(MIB).warm()), 1),
    row("write 4k", Job::Data(Data::writing(4 * KIB)), 1),
    row("write 4k x32", Job::Data(Data::writing(4 * KIB)), 32),
    row("write 128k", Job::Data(Data::writing(128 * KIB).cold()), 1),
    row(
        "write 128k x8",
        Job::Data(Data::writing(128 * KIB).cold()),
        8,
    ),
    row("write 1M", Job::Data(Data::writing(MIB).cold()), 1),
    row("write 1M, cached", Job::Data(Data::writing(MIB).warm()), 1),
    row("read+write 4k x16", Job::Data(MIXED), 16),
    row("read 4k on disk", Job::Data(Data::reading(4 * KIB)), 1).on_disk(),
    row(
        "read 4k beside fsync",
        Job::BesideFsync(Data::reading(4 * KIB)),
        1,
    )
    .on_disk(),
];

const OPEN_RELEASE: Job = steps(&[step::open, step::release_plain], Native::open_and_close);
/// As creat(2), close(2) and unlink(2) do.
const CREATE_UNLINK: Job = forgetting(
    &[step::create, step::flush, step::release, step::unlink],
    Native::create_and_unlink,
);
const CREATE_WRITE_UNLINK: Job = forgetting(
    &[
        step::create,
        step::write_small,
        step::flush,
        step::release,
        step::unlink,
    ],
    Native::create_write_and_unlink,
);
const TMPFILE: Job = forgetting(&[step::tmpfile, step::release], Native::tmpfile);
const MKDIR_RMDIR: Job = forgetting(&[step::mkdir, step::rmdir], Native::mkdir_and_rmdir);
const SYMLINK_READLINK_UNLINK: Job = forgetting(
    &[step::symlink, step::readlink, step::unlink],
    Native::symlink_readlink_and_unlink,
);
const LINK_UNLINK: Job = forgetting(&[step::link, step::unlink], Native::link_and_unlink);
const MIXED: Data = Data {
    reads: 7,
    ..Data::reading(4 * KIB)
};

const fn row(name: &'static str, job: Job, depth: usize) -> Row {
    Row {
        name,
        job,
        depth,
        place: Place::Memory,
    }
}

const fn steps(steps: &'static [Step], native: native::Operation) -> Job {
    Job::Script(Script {
        steps,
        native,
        forgets: false,
        names: Names::Same,
    })
}

const fn forgetting(steps: &'static [Step], native: native::Operation) -> Job {
    Job::Script(Script {
        steps,
        native,
        forgets: true,
        names: Names::Same,
    })
}

const fn named(steps: &'static [Step], native: native::Operation, names: Names) -> Job {
    Job::Script(Script {
        steps,
        native,
        forgets: matches!(names, Names::New),
        names,
    })
}

const fn walks(
    guest: fn(&mut Mount, &Files) -> Result<(), GuestError>,
    native: native::Operation,
) -> Job {
    Job::Walk { guest, native }
}

impl Row {
    const fn on_disk(self) -> Self {
        Self {
            place: Place::Disk,
            ..self
        }
    }

    /// Operations until all memory that the row uses was used, so that none is mapped only while
    /// it is measured.
    pub(crate) const fn warm_up(&self) -> u64 {
        match self.job {
            Job::Data(Data {
                size,
                buffers: PageReuse::FirstFreed,
                ..
            }) => (BUFFERS as u64).div_ceil(size as u64),
            _ => 0,
        }
    }

    /// Bytes of data that an operation moves.
    pub(crate) const fn bytes(&self) -> u32 {
        match self.job {
            Job::Data(data) | Job::BesideFsync(data) => data.size,
            _ => 0,
        }
    }
}
