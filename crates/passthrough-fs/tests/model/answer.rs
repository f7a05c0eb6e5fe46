//! What an operation says, in terms that both sides share.

/// What was done, or the error number.
pub type Answer = Result<Outcome, i32>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A slot was empty, or what it holds is nothing that a guest's kernel would ask this of.
    Skipped,
    /// An inode, and the first slot that holds the same one.
    Found(Facts, Option<usize>),
    Attributes(Facts),
    Bytes(Vec<u8>),
    Number(u64),
    /// Sorted by name.
    Listed(Vec<Listed>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: Vec<u8>,
    /// `DT_*` of readdir(3).
    pub kind: u32,
    /// Of READDIRPLUS.
    pub facts: Option<Facts>,
}

/// The attributes that do not depend on which of two trees a file is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    /// Not of directories, whose size is the host's own business.
    pub size: Option<u64>,
    /// Of regular files; `None` for what is about now.
    pub atime: Option<(i64, u32)>,
    /// `None` for what is about now.
    pub mtime: Option<(i64, u32)>,
}

impl Facts {
    /// Takes out what differs between two runs.
    pub fn comparable(mut self) -> Self {
        let format = self.mode & 0o170_000;
        if format == 0o040_000 {
            self.size = None;
        }
        if format != 0o100_000 {
            self.atime = None;
        }
        // Nothing sets a time to one of these years, but the clock.
        let set = |time: &(i64, u32)| !(1_500_000_000..4_000_000_000).contains(&time.0);
        self.atime = self.atime.filter(set);
        self.mtime = self.mtime.filter(set);
        self
    }
}

impl From<&rustix::fs::Stat> for Facts {
    fn from(stat: &rustix::fs::Stat) -> Self {
        Self {
            mode: stat.st_mode,
            #[allow(clippy::unnecessary_cast, reason = "narrower on other architectures")]
            nlink: stat.st_nlink as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            size: Some(stat.st_size.cast_unsigned()),
            atime: Some((stat.st_atime, u32::try_from(stat.st_atime_nsec).unwrap())),
            mtime: Some((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap())),
        }
        .comparable()
    }
}

impl From<&fuse_fs::abi::Attr> for Facts {
    fn from(attr: &fuse_fs::abi::Attr) -> Self {
        Self {
            mode: attr.mode,
            nlink: attr.nlink.into(),
            uid: attr.uid,
            gid: attr.gid,
            rdev: (
                attr.rdev >> 8 & 0xfff,
                attr.rdev & 0xff | attr.rdev >> 12 & 0xf_ff00,
            ),
            size: Some(attr.size),
            atime: Some((attr.atime.cast_signed(), attr.atimensec)),
            mtime: Some((attr.mtime.cast_signed(), attr.mtimensec)),
        }
        .comparable()
    }
}
