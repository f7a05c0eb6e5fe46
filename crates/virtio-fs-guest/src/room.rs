use fuse_wire::abi::{
    AttrOut, BmapOut, CopyFileRangeOut, EntryOut, GetxattrOut, InitOut, IoctlOut, Kstatfs, LkOut,
    LseekOut, OpenOut, PollOut, StatxOut, WriteOut,
};
use fuse_wire::{Opcode, ReplyForm};

/// What Linux makes writable for the body of a reply (`args->out_args` in its `fs/fuse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes of arguments, right behind the header.
    pub(crate) arguments: usize,
    /// Bytes of data in pages.
    pub(crate) pages: usize,
    /// Fewest bytes that the body can have.
    pub(crate) least: usize,
}

impl Room {
    pub(crate) const NONE: Self = Self {
        arguments: 0,
        pages: 0,
        least: 0,
    };

    /// The room for a reply of `form` to `opcode`.
    pub(crate) const fn of(opcode: Opcode, form: ReplyForm) -> Self {
        match form {
            ReplyForm::Data { max } => match opcode {
                // Collected in a buffer of the driver's own.
                Opcode::GetXattr | Opcode::ListXattr => Self {
                    arguments: max as usize,
                    ..Self::NONE
                },
                _ => Self {
                    pages: max as usize,
                    ..Self::NONE
                },
            },
            ReplyForm::Ioctl { max } => Self {
                pages: max as usize,
                ..Self::fixed(size_of::<IoctlOut>())
            },
            // Shorter before 7.23.
            ReplyForm::Init => Self {
                least: InitOut::COMPAT_SIZE,
                ..Self::fixed(size_of::<InitOut>())
            },
            ReplyForm::Empty => Self::NONE,
            ReplyForm::Entry => Self::fixed(size_of::<EntryOut>()),
            ReplyForm::Attr => Self::fixed(size_of::<AttrOut>()),
            ReplyForm::XattrSize => Self::fixed(size_of::<GetxattrOut>()),
            ReplyForm::Open => Self::fixed(size_of::<OpenOut>()),
            ReplyForm::Create => Self::fixed(size_of::<EntryOut>() + size_of::<OpenOut>()),
            ReplyForm::Write => Self::fixed(size_of::<WriteOut>()),
            ReplyForm::StatFs => Self::fixed(size_of::<Kstatfs>()),
            ReplyForm::Lk => Self::fixed(size_of::<LkOut>()),
            ReplyForm::BMap => Self::fixed(size_of::<BmapOut>()),
            ReplyForm::Poll => Self::fixed(size_of::<PollOut>()),
            ReplyForm::LSeek => Self::fixed(size_of::<LseekOut>()),
            ReplyForm::Statx => Self::fixed(size_of::<StatxOut>()),
            ReplyForm::CopyFileRange64 => Self::fixed(size_of::<CopyFileRangeOut>()),
        }
    }

    const fn fixed(len: usize) -> Self {
        Self {
            arguments: len,
            pages: 0,
            least: len,
        }
    }

    pub(crate) const fn total(self) -> usize {
        self.arguments + self.pages
    }
}
