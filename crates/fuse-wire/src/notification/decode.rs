use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Notification, NotifyCode};
use crate::abi::{NotifyDeleteOut, NotifyInvalEntryOut, NotifyPruneOut, NotifyStoreOut, OutHeader};
use crate::cursor::Cursor;
use crate::list::Records;
use crate::{Name, NameError};

/// The rule that a notification broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// Fewer than the 16 bytes of a header.
    #[error("the notification has {0} bytes, fewer than its header")]
    TruncatedHeader(usize),
    /// It is the reply to a request.
    #[error("this is the reply to request {0}, no notification")]
    Reply(u64),
    /// `header.len` is not the length of the notification.
    #[error("the header says {header} bytes, the notification has {actual}")]
    Length {
        /// What the header says.
        header: u32,
        /// Bytes that are there.
        actual: usize,
    },
    /// No such notification.
    #[error("notification {0} is unknown")]
    UnknownCode(i32),
    /// The body ends early.
    #[error("the body is truncated")]
    Truncated,
    /// Bytes are left over after the body.
    #[error("{0} bytes are left over after the body")]
    TrailingBytes(usize),
    /// The name is not as long as the body says, or has no NUL.
    #[error("the body says that the name has {0} bytes, which it has not")]
    NameLength(u32),
    /// A string is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl<'a> Notification<'a> {
    /// Checks and decodes one notification: header and body are all of `message`.
    ///
    /// # Errors
    /// Says which rule the notification breaks.
    pub fn decode(message: &'a [u8]) -> Result<Self, NotificationError> {
        let mut cursor = Cursor::new(message);
        let header: OutHeader = cursor
            .read()
            .ok_or(NotificationError::TruncatedHeader(message.len()))?;
        if header.unique != 0 {
            return Err(NotificationError::Reply(header.unique));
        }
        if usize::try_from(header.len) != Ok(message.len()) {
            return Err(NotificationError::Length {
                header: header.len,
                actual: message.len(),
            });
        }
        let code = NotifyCode::from_raw(header.error)
            .ok_or(NotificationError::UnknownCode(header.error))?;
        let notification = decode_body(code, &mut cursor)?;
        match cursor.remaining() {
            0 => Ok(notification),
            trailing => Err(NotificationError::TrailingBytes(trailing)),
        }
    }
}

fn decode_body<'a>(
    code: NotifyCode,
    body: &mut Cursor<'a>,
) -> Result<Notification<'a>, NotificationError> {
    Ok(match code {
        NotifyCode::Poll => Notification::Poll(read(body)?),
        NotifyCode::InvalInode => Notification::InvalInode(read(body)?),
        NotifyCode::InvalEntry => {
            let head: NotifyInvalEntryOut = read(body)?;
            Notification::InvalEntry {
                parent: head.parent,
                flags: head.flags,
                name: name(body, head.namelen)?,
            }
        }
        NotifyCode::Store => {
            let head: NotifyStoreOut = read(body)?;
            Notification::Store {
                nodeid: head.nodeid,
                offset: head.offset,
                data: usize::try_from(head.size)
                    .ok()
                    .and_then(|len| body.take(len))
                    .ok_or(NotificationError::Truncated)?,
            }
        }
        NotifyCode::Retrieve => Notification::Retrieve(read(body)?),
        NotifyCode::Delete => {
            let head: NotifyDeleteOut = read(body)?;
            Notification::Delete {
                parent: head.parent,
                child: head.child,
                name: name(body, head.namelen)?,
            }
        }
        NotifyCode::Resend => Notification::Resend,
        NotifyCode::IncEpoch => Notification::IncEpoch,
        NotifyCode::Prune => {
            let head: NotifyPruneOut = read(body)?;
            let nodes = Records::read(body, head.count);
            Notification::Prune(nodes.ok_or(NotificationError::Truncated)?)
        }
    })
}

fn read<T: FromBytes + KnownLayout + Immutable>(
    body: &mut Cursor<'_>,
) -> Result<T, NotificationError> {
    body.read().ok_or(NotificationError::Truncated)
}

fn name<'a>(body: &mut Cursor<'a>, namelen: u32) -> Result<Name<'a>, NotificationError> {
    let name = body
        .c_str()
        .filter(|name| usize::try_from(namelen) == Ok(name.count_bytes()))
        .ok_or(NotificationError::NameLength(namelen))?;
    Ok(Name::new(name)?)
}
