use core::ffi::CStr;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Extensions, Operation, Request, RequestError};
use crate::abi::{
    BatchForgetIn, InHeader, InitIn, IoctlIn, NotifyRetrieveIn, RemovemappingIn, SetxattrIn,
    WriteIn,
};
use crate::cursor::Cursor;
use crate::flags::{InitFlags, SetxattrFlags};
use crate::list::Records;
use crate::{LookupName, Name, Opcode, SymlinkTarget, VERSION_MAJOR, VERSION_MINOR, XattrName};

/// INIT's opcode as a peer of the other byte order sends it (`FUSE_INIT_BSWAP_RESERVED`).
const INIT_BYTE_SWAPPED: u32 = Opcode::Init.raw().swap_bytes();
/// Unit of `header.total_extlen` in bytes.
pub(super) const EXTLEN_UNIT: usize = 8;

/// For an operation whose data is kept apart as payload: where the payload starts, in bytes from
/// the start of the request. `None` for all others, which are decoded whole.
#[must_use]
pub const fn argument_len_before_payload(opcode: u32) -> Option<usize> {
    match Opcode::from_raw(opcode) {
        Some(Opcode::Write) => Some(size_of::<InHeader>().saturating_add(size_of::<WriteIn>())),
        Some(Opcode::NotifyReply) => {
            Some(size_of::<InHeader>().saturating_add(size_of::<NotifyRetrieveIn>()))
        }
        _ => None,
    }
}

/// What must be agreed on before a request may end in extensions.
const EXTENDING: InitFlags = InitFlags::SECURITY_CTX.union(InitFlags::CREATE_SUPP_GROUP);

impl<'a> Request<'a> {
    /// Checks and decodes one request.
    ///
    /// `message` is the header and the arguments; `payload_len` counts the bytes that follow them
    /// and were left where they are (see [`argument_len_before_payload`]). `agreed` is what INIT
    /// settled, empty before.
    ///
    /// # Errors
    /// Says which rule the request breaks. Its header can still be read with [`InHeader::peek`]
    /// for a reply.
    pub fn decode(
        message: &'a [u8],
        payload_len: usize,
        agreed: InitFlags,
    ) -> Result<Self, RequestError> {
        let mut cursor = Cursor::new(message);
        let header: InHeader = cursor
            .read()
            .ok_or(RequestError::TruncatedHeader(message.len()))?;
        let opcode = check_header(&header, message.len(), payload_len)?;

        let announced_len = usize::from(header.total_extlen).saturating_mul(EXTLEN_UNIT);
        let announced = cursor
            .split_tail(announced_len)
            .ok_or(RequestError::Extension)?;
        let operation = decode_operation(opcode, &mut cursor, agreed)?;
        check_payload(&operation, payload_len)?;
        let extensions = extensions_after(opcode, announced, cursor, agreed)?;
        Ok(Self {
            header,
            operation,
            extensions: Extensions::decode(extensions, agreed)?,
        })
    }
}

#[inline]
fn check_header(
    header: &InHeader,
    message_len: usize,
    payload_len: usize,
) -> Result<Opcode, RequestError> {
    if header.opcode == INIT_BYTE_SWAPPED {
        return Err(RequestError::ByteOrder);
    }
    let actual = message_len.saturating_add(payload_len);
    if usize::try_from(header.len) != Ok(actual) {
        return Err(RequestError::Length {
            header: header.len,
            actual,
        });
    }
    Opcode::from_raw(header.opcode).ok_or(RequestError::UnknownOpcode(header.opcode))
}

#[inline]
pub(super) fn check_payload(
    operation: &Operation<'_>,
    payload_len: usize,
) -> Result<(), RequestError> {
    let expected = match operation {
        Operation::Write(args) => args.size,
        Operation::NotifyReply(args) => args.size,
        _ if payload_len == 0 => return Ok(()),
        _ => return Err(RequestError::UnexpectedPayload(payload_len)),
    };
    if usize::try_from(expected) == Ok(payload_len) {
        Ok(())
    } else {
        Err(RequestError::PayloadLength {
            expected,
            actual: payload_len,
        })
    }
}

/// The bytes that hold the extensions: what the header announced (7.38), or, with a security
/// context from before that, all that is left after the arguments.
#[inline]
fn extensions_after<'a>(
    opcode: Opcode,
    announced: Cursor<'a>,
    left: Cursor<'a>,
    agreed: InitFlags,
) -> Result<Cursor<'a>, RequestError> {
    let (extensions, needed) = match (announced.remaining(), left.remaining()) {
        (0, 0) => return Ok(announced),
        (_, 0) => (announced, EXTENDING),
        (0, _) => (left, InitFlags::SECURITY_CTX),
        (_, trailing) => return Err(RequestError::TrailingBytes(trailing)),
    };
    if carries_extensions(opcode) && agreed.intersects(needed) {
        Ok(extensions)
    } else {
        Err(RequestError::TrailingBytes(extensions.remaining()))
    }
}

#[inline]
pub(super) const fn carries_extensions(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Create | Opcode::TmpFile | Opcode::MkNod | Opcode::MkDir | Opcode::Symlink
    )
}

#[inline]
fn decode_operation<'a>(
    opcode: Opcode,
    cursor: &mut Cursor<'a>,
    agreed: InitFlags,
) -> Result<Operation<'a>, RequestError> {
    Ok(match opcode {
        Opcode::Lookup => Operation::Lookup {
            name: LookupName::new(c_str(cursor)?)?,
        },
        Opcode::Forget => Operation::Forget(args(cursor)?),
        Opcode::GetAttr => Operation::GetAttr(args(cursor)?),
        Opcode::SetAttr => Operation::SetAttr(args(cursor)?),
        Opcode::ReadLink => Operation::ReadLink,
        Opcode::Symlink => Operation::Symlink {
            name: name(cursor)?,
            target: SymlinkTarget::new(c_str(cursor)?)?,
        },
        Opcode::MkNod => Operation::MkNod {
            args: args(cursor)?,
            name: name(cursor)?,
        },
        Opcode::MkDir => Operation::MkDir {
            args: args(cursor)?,
            name: name(cursor)?,
        },
        Opcode::Unlink => Operation::Unlink {
            name: name(cursor)?,
        },
        Opcode::RmDir => Operation::RmDir {
            name: name(cursor)?,
        },
        Opcode::Rename => Operation::Rename {
            args: args(cursor)?,
            name: name(cursor)?,
            new_name: name(cursor)?,
        },
        Opcode::Link => Operation::Link {
            args: args(cursor)?,
            name: name(cursor)?,
        },
        Opcode::Open => Operation::Open(args(cursor)?),
        Opcode::Read => Operation::Read(args(cursor)?),
        Opcode::Write => Operation::Write(args(cursor)?),
        Opcode::StatFs => Operation::StatFs,
        Opcode::Release => Operation::Release(args(cursor)?),
        Opcode::FSync => Operation::FSync(args(cursor)?),
        Opcode::SetXattr => set_xattr(cursor, agreed)?,
        Opcode::GetXattr => Operation::GetXattr {
            args: args(cursor)?,
            name: xattr_name(cursor)?,
        },
        Opcode::ListXattr => Operation::ListXattr(args(cursor)?),
        Opcode::RemoveXattr => Operation::RemoveXattr {
            name: xattr_name(cursor)?,
        },
        Opcode::Flush => Operation::Flush(args(cursor)?),
        Opcode::Init => Operation::Init(init(cursor)?),
        Opcode::OpenDir => Operation::OpenDir(args(cursor)?),
        Opcode::ReadDir => Operation::ReadDir(args(cursor)?),
        Opcode::ReleaseDir => Operation::ReleaseDir(args(cursor)?),
        Opcode::FSyncDir => Operation::FSyncDir(args(cursor)?),
        Opcode::GetLk => Operation::GetLk(args(cursor)?),
        Opcode::SetLk => Operation::SetLk(args(cursor)?),
        Opcode::SetLkW => Operation::SetLkW(args(cursor)?),
        Opcode::Access => Operation::Access(args(cursor)?),
        Opcode::Create => Operation::Create {
            args: args(cursor)?,
            name: name(cursor)?,
        },
        Opcode::Interrupt => Operation::Interrupt(args(cursor)?),
        Opcode::BMap => Operation::BMap(args(cursor)?),
        Opcode::Destroy => Operation::Destroy,
        Opcode::Ioctl => ioctl(cursor)?,
        Opcode::Poll => Operation::Poll(args(cursor)?),
        Opcode::NotifyReply => Operation::NotifyReply(args(cursor)?),
        Opcode::BatchForget => {
            let head: BatchForgetIn = args(cursor)?;
            Operation::BatchForget(records(cursor, head.count)?)
        }
        Opcode::FAllocate => Operation::FAllocate(args(cursor)?),
        Opcode::ReadDirPlus => Operation::ReadDirPlus(args(cursor)?),
        Opcode::Rename2 => Operation::Rename2 {
            args: args(cursor)?,
            name: name(cursor)?,
            new_name: name(cursor)?,
        },
        Opcode::LSeek => Operation::LSeek(args(cursor)?),
        Opcode::CopyFileRange => Operation::CopyFileRange(args(cursor)?),
        Opcode::SetupMapping => Operation::SetupMapping(args(cursor)?),
        Opcode::RemoveMapping => {
            let head: RemovemappingIn = args(cursor)?;
            Operation::RemoveMapping(records(cursor, head.count)?)
        }
        Opcode::SyncFs => Operation::SyncFs(args(cursor)?),
        Opcode::TmpFile => {
            let operation = Operation::TmpFile(args(cursor)?);
            // The kernel's placeholder for the name, usually "/".
            c_str(cursor)?;
            operation
        }
        Opcode::Statx => Operation::Statx(args(cursor)?),
        Opcode::CopyFileRange64 => Operation::CopyFileRange64(args(cursor)?),
    })
}

#[inline]
fn args<T: FromBytes + KnownLayout + Immutable>(
    cursor: &mut Cursor<'_>,
) -> Result<T, RequestError> {
    cursor.read().ok_or(RequestError::Truncated)
}

#[inline]
fn records<'a, T: FromBytes + KnownLayout + Immutable>(
    cursor: &mut Cursor<'a>,
    count: u32,
) -> Result<Records<'a, T>, RequestError> {
    Records::read(cursor, count).ok_or(RequestError::Truncated)
}

#[inline]
fn c_str<'a>(cursor: &mut Cursor<'a>) -> Result<&'a CStr, RequestError> {
    cursor.c_str().ok_or(RequestError::UnterminatedName)
}

#[inline]
fn name<'a>(cursor: &mut Cursor<'a>) -> Result<Name<'a>, RequestError> {
    Ok(Name::new(c_str(cursor)?)?)
}

#[inline]
fn xattr_name<'a>(cursor: &mut Cursor<'a>) -> Result<XattrName<'a>, RequestError> {
    Ok(XattrName::new(c_str(cursor)?)?)
}

/// INIT is 16 bytes before 7.36 and 64 since; a peer newer than us may send more. What decides is
/// INIT_EXT, not the version: kernels of distributions mix.
fn init(cursor: &mut Cursor<'_>) -> Result<InitIn, RequestError> {
    if cursor.remaining() != InitIn::COMPAT_SIZE {
        let init: InitIn = args(cursor)?;
        if (init.major, init.minor) > (VERSION_MAJOR, VERSION_MINOR) {
            cursor.take_rest();
        }
        return Ok(init);
    }
    let [major, minor, max_readahead, flags] = args(cursor)?;
    let init = InitIn {
        major,
        minor,
        max_readahead,
        flags,
        ..Default::default()
    };
    if init.offered().contains(InitFlags::INIT_EXT) {
        return Err(RequestError::Truncated);
    }
    Ok(init)
}

fn set_xattr<'a>(
    cursor: &mut Cursor<'a>,
    agreed: InitFlags,
) -> Result<Operation<'a>, RequestError> {
    let args = if agreed.contains(InitFlags::SETXATTR_EXT) {
        args(cursor)?
    } else {
        let [size, flags] = args(cursor)?;
        SetxattrIn {
            size,
            flags,
            setxattr_flags: SetxattrFlags::empty(),
            padding: 0,
        }
    };
    let name = xattr_name(cursor)?;
    Ok(Operation::SetXattr {
        args,
        name,
        value: data(cursor, args.size)?,
    })
}

fn ioctl<'a>(cursor: &mut Cursor<'a>) -> Result<Operation<'a>, RequestError> {
    let args: IoctlIn = args(cursor)?;
    Ok(Operation::Ioctl {
        args,
        data: data(cursor, args.in_size)?,
    })
}

#[inline]
fn data<'a>(cursor: &mut Cursor<'a>, len: u32) -> Result<&'a [u8], RequestError> {
    usize::try_from(len)
        .ok()
        .and_then(|n| cursor.take(n))
        .ok_or(RequestError::Truncated)
}
