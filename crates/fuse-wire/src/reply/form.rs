use super::Reply;
use crate::Operation;

/// Which [`Reply`] an operation is answered with: the bytes of a reply do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is documented at its variant of `Reply`")]
pub enum ReplyForm {
    Empty,
    Entry,
    Attr,
    Data {
        /// Most bytes that were asked for.
        max: u32,
    },
    XattrSize,
    Open,
    Create,
    Write,
    StatFs,
    Init,
    Lk,
    BMap,
    Ioctl {
        /// Most bytes of output that were asked for.
        max: u32,
    },
    Poll,
    LSeek,
    Statx,
    CopyFileRange64,
}

/// Longest target of a symbolic link in bytes (`PATH_MAX` - 1): READLINK states no limit.
const TARGET_MAX: u32 = 4095;

impl Operation<'_> {
    /// The form of the reply to be expected, or `None` where there will be none
    /// ([`Opcode::expects_reply`](crate::Opcode::expects_reply)).
    #[must_use]
    pub const fn reply_form(&self) -> Option<ReplyForm> {
        Some(match self {
            Self::Lookup { .. }
            | Self::Symlink { .. }
            | Self::MkNod { .. }
            | Self::MkDir { .. }
            | Self::Link { .. } => ReplyForm::Entry,
            Self::GetAttr(_) | Self::SetAttr(_) => ReplyForm::Attr,
            Self::ReadLink => ReplyForm::Data { max: TARGET_MAX },
            Self::Read(args) | Self::ReadDir(args) | Self::ReadDirPlus(args) => {
                ReplyForm::Data { max: args.size }
            }
            Self::GetXattr { args, .. } | Self::ListXattr(args) => match args.size {
                0 => ReplyForm::XattrSize,
                max => ReplyForm::Data { max },
            },
            Self::Open(_) | Self::OpenDir(_) => ReplyForm::Open,
            Self::Create { .. } | Self::TmpFile(_) => ReplyForm::Create,
            Self::Write(_) | Self::CopyFileRange(_) => ReplyForm::Write,
            Self::StatFs => ReplyForm::StatFs,
            Self::Init(_) => ReplyForm::Init,
            Self::GetLk(_) => ReplyForm::Lk,
            Self::BMap(_) => ReplyForm::BMap,
            Self::Ioctl { args, .. } => ReplyForm::Ioctl { max: args.out_size },
            Self::Poll(_) => ReplyForm::Poll,
            Self::LSeek(_) => ReplyForm::LSeek,
            Self::Statx(_) => ReplyForm::Statx,
            Self::CopyFileRange64(_) => ReplyForm::CopyFileRange64,
            Self::Unlink { .. }
            | Self::RmDir { .. }
            | Self::Rename { .. }
            | Self::Rename2 { .. }
            | Self::Release(_)
            | Self::ReleaseDir(_)
            | Self::FSync(_)
            | Self::FSyncDir(_)
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. }
            | Self::Flush(_)
            | Self::SetLk(_)
            | Self::SetLkW(_)
            | Self::Access(_)
            | Self::Destroy
            | Self::FAllocate(_)
            | Self::SetupMapping(_)
            | Self::RemoveMapping(_)
            | Self::SyncFs(_) => ReplyForm::Empty,
            Self::Forget(_) | Self::BatchForget(_) | Self::Interrupt(_) | Self::NotifyReply(_) => {
                return None;
            }
        })
    }
}

impl Reply<'_> {
    /// The form of this reply, its data being all that was asked for.
    #[must_use]
    pub fn form(&self) -> ReplyForm {
        let max = |data: &[u8]| u32::try_from(data.len()).unwrap_or(u32::MAX);
        match self {
            Self::Empty => ReplyForm::Empty,
            Self::Entry(_) => ReplyForm::Entry,
            Self::Attr(_) => ReplyForm::Attr,
            Self::Data(data) => ReplyForm::Data { max: max(data) },
            Self::XattrSize(_) => ReplyForm::XattrSize,
            Self::Open(_) => ReplyForm::Open,
            Self::Create(..) => ReplyForm::Create,
            Self::Write(_) => ReplyForm::Write,
            Self::StatFs(_) => ReplyForm::StatFs,
            Self::Init(_) => ReplyForm::Init,
            Self::Lk(_) => ReplyForm::Lk,
            Self::BMap(_) => ReplyForm::BMap,
            Self::Ioctl(_, data) => ReplyForm::Ioctl { max: max(data) },
            Self::Poll(_) => ReplyForm::Poll,
            Self::LSeek(_) => ReplyForm::LSeek,
            Self::Statx(_) => ReplyForm::Statx,
            Self::CopyFileRange64(_) => ReplyForm::CopyFileRange64,
        }
    }
}
