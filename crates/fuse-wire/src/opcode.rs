use core::fmt;

macro_rules! opcodes {
    ($($name:ident = $value:literal,)*) => {
        /// What a request asks for (`enum fuse_opcode`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "each is documented at its variant of `Operation`")]
        pub enum Opcode {
            $($name = $value,)*
        }

        impl Opcode {
            /// Every opcode, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The opcode with this number, if there is one.
            #[must_use]
            #[inline]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Lookup = 1,
    Forget = 2,
    GetAttr = 3,
    SetAttr = 4,
    ReadLink = 5,
    Symlink = 6,
    MkNod = 8,
    MkDir = 9,
    Unlink = 10,
    RmDir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    StatFs = 17,
    Release = 18,
    FSync = 20,
    SetXattr = 21,
    GetXattr = 22,
    ListXattr = 23,
    RemoveXattr = 24,
    Flush = 25,
    Init = 26,
    OpenDir = 27,
    ReadDir = 28,
    ReleaseDir = 29,
    FSyncDir = 30,
    GetLk = 31,
    SetLk = 32,
    SetLkW = 33,
    Access = 34,
    Create = 35,
    Interrupt = 36,
    BMap = 37,
    Destroy = 38,
    Ioctl = 39,
    Poll = 40,
    NotifyReply = 41,
    BatchForget = 42,
    FAllocate = 43,
    ReadDirPlus = 44,
    Rename2 = 45,
    LSeek = 46,
    CopyFileRange = 47,
    SetupMapping = 48,
    RemoveMapping = 49,
    SyncFs = 50,
    TmpFile = 51,
    Statx = 52,
    CopyFileRange64 = 53,
}

impl Opcode {
    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// Whether the peer waits for a reply. It does not for FORGET, BATCH_FORGET, INTERRUPT and
    /// NOTIFY_REPLY.
    #[must_use]
    pub const fn expects_reply(self) -> bool {
        !matches!(
            self,
            Self::Forget | Self::BatchForget | Self::Interrupt | Self::NotifyReply
        )
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
