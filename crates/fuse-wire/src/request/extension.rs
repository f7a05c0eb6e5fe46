use core::fmt;

use zerocopy::IntoBytes;

use super::{EncodeError, RequestError};
use crate::XattrName;
use crate::abi::{ExtHeader, Secctx, SuppGroups};
use crate::cursor::Cursor;
use crate::flags::InitFlags;
use crate::list::Records;
use crate::writer::Writer;

/// Largest `ext_type` that counts security contexts (`FUSE_MAX_NR_SECCTX`).
const MAX_NR_SECCTX: u32 = 31;
/// `ext_type` of supplementary groups (`FUSE_EXT_GROUPS`).
const EXT_GROUPS: u32 = 32;
/// Extensions and what is in them start at multiples of this.
const ALIGNMENT: usize = 8;

/// What a creating operation carries besides its arguments.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    security_contexts: SecurityContexts<'a>,
    groups: Records<'a, u32>,
}

impl<'a> Extensions<'a> {
    /// Extensions to be sent, with `groups` as supplementary groups.
    #[must_use]
    pub fn new(security_contexts: SecurityContexts<'a>, groups: &'a [u32]) -> Self {
        Self {
            security_contexts,
            groups: groups.into(),
        }
    }

    /// Whether there are neither security contexts nor groups.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.security_contexts.is_empty() && self.groups.is_empty()
    }

    /// Security contexts to set on the new inode
    /// ([`SECURITY_CTX`](InitFlags::SECURITY_CTX)).
    #[must_use]
    pub const fn security_contexts(&self) -> SecurityContexts<'a> {
        self.security_contexts
    }

    /// Supplementary groups of the caller
    /// ([`CREATE_SUPP_GROUP`](InitFlags::CREATE_SUPP_GROUP)); Linux sends at most one, the group
    /// of the directory.
    pub fn supplementary_groups(&self) -> impl Iterator<Item = u32> + 'a {
        self.groups.iter()
    }

    /// Reads the extensions to the end of `cursor`.
    pub(super) fn decode(mut cursor: Cursor<'a>, agreed: InitFlags) -> Result<Self, RequestError> {
        let mut extensions = Self::default();
        let (mut contexts_seen, mut groups_seen) = (false, false);
        while cursor.remaining() > 0 {
            let header: ExtHeader = cursor.read().ok_or(RequestError::Extension)?;
            let body = body_len(header.size)
                .and_then(|len| cursor.take(len))
                .map(Cursor::new)
                .ok_or(RequestError::Extension)?;
            match header.ext_type {
                0..=MAX_NR_SECCTX if agreed.contains(InitFlags::SECURITY_CTX) => {
                    once(&mut contexts_seen)?;
                    extensions.security_contexts = SecurityContexts::decode(header.ext_type, body)?;
                }
                EXT_GROUPS if agreed.contains(InitFlags::CREATE_SUPP_GROUP) => {
                    once(&mut groups_seen)?;
                    extensions.groups = decode_groups(body)?;
                }
                _ => return Err(RequestError::Extension),
            }
        }
        Ok(extensions)
    }

    /// Writes the extensions as Linux does: with security contexts agreed on, their header comes
    /// even where there are none.
    pub(super) fn write(
        &self,
        agreed: InitFlags,
        out: &mut Writer<'_>,
    ) -> Result<(), RequestError> {
        if agreed.contains(InitFlags::SECURITY_CTX) {
            write_extension(
                self.security_contexts.count,
                &[],
                self.security_contexts.bytes,
                out,
            )?;
        } else if !self.security_contexts.is_empty() {
            return Err(RequestError::Extension);
        }
        if self.groups.is_empty() {
            return Ok(());
        }
        if !agreed.contains(InitFlags::CREATE_SUPP_GROUP) {
            return Err(RequestError::Extension);
        }
        let head = SuppGroups {
            nr_groups: u32::try_from(self.groups.len()).map_err(|_| RequestError::Extension)?,
        };
        write_extension(EXT_GROUPS, head.as_bytes(), self.groups.as_bytes(), out)
    }
}

impl fmt::Debug for Extensions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.security_contexts.iter());
        list.entries(self.supplementary_groups());
        list.finish()
    }
}

fn write_extension(
    ext_type: u32,
    head: &[u8],
    body: &[u8],
    out: &mut Writer<'_>,
) -> Result<(), RequestError> {
    let size = size_of::<ExtHeader>()
        .checked_add(head.len())
        .and_then(|len| len.checked_add(body.len()))
        .and_then(|len| len.checked_next_multiple_of(ALIGNMENT))
        .and_then(|len| u32::try_from(len).ok())
        .ok_or(RequestError::Extension)?;
    let start = out.len();
    out.structure(&ExtHeader { size, ext_type });
    out.bytes(head);
    out.bytes(body);
    out.pad(start, ALIGNMENT);
    Ok(())
}

/// Length of an extension's body, if its length over all is one that an extension can have.
fn body_len(size: u32) -> Option<usize> {
    let size = usize::try_from(size).ok()?;
    size.is_multiple_of(ALIGNMENT).then_some(())?;
    size.checked_sub(size_of::<ExtHeader>())
}

fn once(seen: &mut bool) -> Result<(), RequestError> {
    if core::mem::replace(seen, true) {
        Err(RequestError::RepeatedExtension)
    } else {
        Ok(())
    }
}

fn decode_groups(mut body: Cursor<'_>) -> Result<Records<'_, u32>, RequestError> {
    let head: SuppGroups = body.read().ok_or(RequestError::Extension)?;
    let groups = Records::read(&mut body, head.nr_groups).ok_or(RequestError::Extension)?;
    if body.remaining() < ALIGNMENT {
        Ok(groups)
    } else {
        Err(RequestError::Extension)
    }
}

/// The security contexts of one request, checked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SecurityContexts<'a> {
    count: u32,
    bytes: &'a [u8],
}

/// A security context: an extended attribute to set on the new inode, as atomically as can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecurityContext<'a> {
    /// Name of the attribute, as `security.selinux`.
    pub name: XattrName<'a>,
    /// Its value.
    pub value: &'a [u8],
}

impl fmt::Debug for SecurityContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=\"{}\"", self.name, self.value.escape_ascii())
    }
}

impl<'a> SecurityContexts<'a> {
    /// Lays out `contexts` in `buffer`, to be sent with [`Extensions::new`].
    ///
    /// # Errors
    /// There are more than 31, a value has 4 GiB or more, or the buffer is too short.
    pub fn write(
        contexts: &[SecurityContext<'_>],
        buffer: &'a mut [u8],
    ) -> Result<Self, EncodeError> {
        let count = u32::try_from(contexts.len())
            .ok()
            .filter(|count| *count <= MAX_NR_SECCTX)
            .ok_or(RequestError::Extension)?;
        let mut out = Writer::new(buffer);
        for context in contexts {
            let size = u32::try_from(context.value.len()).map_err(|_| RequestError::Extension)?;
            let start = out.len();
            out.structure(&Secctx { size, padding: 0 });
            out.bytes(context.name.as_c_str().to_bytes_with_nul());
            out.bytes(context.value);
            out.pad(start, ALIGNMENT);
        }
        Ok(Self {
            count,
            bytes: out.finish()?,
        })
    }

    /// The contexts, in order.
    pub fn iter(&self) -> impl Iterator<Item = SecurityContext<'a>> + 'a {
        let mut cursor = Cursor::new(self.bytes);
        core::iter::from_fn(move || read_context(&mut cursor).ok()).take(self.len())
    }

    /// Number of contexts, at most 31.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn decode(count: u32, body: Cursor<'a>) -> Result<Self, RequestError> {
        let mut cursor = body;
        for _ in 0..count {
            read_context(&mut cursor)?;
        }
        if cursor.remaining() > 0 {
            return Err(RequestError::Extension);
        }
        let mut body = body;
        Ok(Self {
            count,
            bytes: body.take_rest(),
        })
    }
}

impl fmt::Debug for SecurityContexts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn read_context<'a>(cursor: &mut Cursor<'a>) -> Result<SecurityContext<'a>, RequestError> {
    let before = cursor.remaining();
    let header: Secctx = cursor.read().ok_or(RequestError::Extension)?;
    let name = XattrName::new(cursor.c_str().ok_or(RequestError::UnterminatedName)?)?;
    let value = usize::try_from(header.size)
        .ok()
        .and_then(|len| cursor.take(len))
        .ok_or(RequestError::Extension)?;
    skip_padding(cursor, before).ok_or(RequestError::Extension)?;
    Ok(SecurityContext { name, value })
}

/// Skips to the alignment of what was begun when `before` bytes were left.
fn skip_padding(cursor: &mut Cursor<'_>, before: usize) -> Option<()> {
    let read = before.checked_sub(cursor.remaining())?;
    let aligned = read.checked_next_multiple_of(ALIGNMENT)?;
    cursor.take(aligned.checked_sub(read)?)?;
    Some(())
}
