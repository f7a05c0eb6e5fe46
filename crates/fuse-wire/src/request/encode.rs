use core::ffi::CStr;

use zerocopy::{Immutable, IntoBytes};

use super::decode::{EXTLEN_UNIT, carries_extensions, check_payload};
use super::{Operation, Request, RequestError};
use crate::VERSION_MINOR_INIT_EXT;
use crate::abi::{BatchForgetIn, InHeader, InitIn, RemovemappingIn, SetxattrIn};
use crate::flags::InitFlags;
use crate::writer::{MessageTooLong, Writer, announced};

/// Why a request cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It breaks a rule that the peer would refuse it for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It does not fit.
    #[error(transparent)]
    TooLong(#[from] MessageTooLong),
}

impl Request<'_> {
    /// Writes header, arguments and extensions to the start of `buffer` and returns their length
    /// in bytes: all that precedes the payload. The rest of the buffer is left as it was.
    ///
    /// `payload_len` counts the bytes of data that the caller sends behind it, for WRITE and
    /// NOTIFY_REPLY. `agreed` is what INIT settled, empty before; it decides the form of SETXATTR
    /// and of extensions. The header's `len`, `opcode` and `total_extlen` are filled in here,
    /// whatever they hold.
    ///
    /// INIT is written in its short form of 16 bytes for a minor version before 36 that sets
    /// nothing beyond it.
    ///
    /// # Errors
    /// A length in the arguments is not that of the data, the operation cannot carry the
    /// extensions or they were not agreed on, or the buffer is too short.
    pub fn encode(
        &self,
        payload_len: usize,
        agreed: InitFlags,
        buffer: &mut [u8],
    ) -> Result<usize, EncodeError> {
        check_payload(&self.operation, payload_len)?;
        let mut out = Writer::new(buffer);
        out.structure(&self.header);
        write_operation(&self.operation, agreed, &mut out)?;
        let before_extensions = out.len();
        self.write_extensions(agreed, &mut out)?;

        let extension_units = out
            .len()
            .saturating_sub(before_extensions)
            .div_ceil(EXTLEN_UNIT);
        let opcode = self.operation.opcode();
        out.overwrite_start(&InHeader {
            len: announced(out.len().saturating_add(payload_len), u32::MAX)?,
            opcode: opcode.raw(),
            total_extlen: announced(extension_units, u16::MAX)?,
            ..self.header
        });
        Ok(out.finish()?.len())
    }

    #[inline]
    fn write_extensions(
        &self,
        agreed: InitFlags,
        out: &mut Writer<'_>,
    ) -> Result<(), RequestError> {
        if carries_extensions(self.operation.opcode()) {
            self.extensions.write(agreed, out)
        } else if self.extensions.is_empty() {
            Ok(())
        } else {
            Err(RequestError::Extension)
        }
    }
}

#[inline]
fn write_operation(
    operation: &Operation<'_>,
    agreed: InitFlags,
    out: &mut Writer<'_>,
) -> Result<(), EncodeError> {
    match operation {
        Operation::Lookup { name } => out.bytes(name.as_c_str().to_bytes_with_nul()),
        Operation::Forget(args) => out.structure(args),
        Operation::GetAttr(args) => out.structure(args),
        Operation::SetAttr(args) => out.structure(args),
        Operation::ReadLink | Operation::StatFs | Operation::Destroy => {}
        Operation::Symlink { name, target } => {
            out.bytes(name.as_c_str().to_bytes_with_nul());
            out.bytes(target.as_c_str().to_bytes_with_nul());
        }
        Operation::MkNod { args, name } => with_name(args, name.as_c_str(), out),
        Operation::MkDir { args, name } => with_name(args, name.as_c_str(), out),
        Operation::Unlink { name } | Operation::RmDir { name } => {
            out.bytes(name.as_c_str().to_bytes_with_nul());
        }
        Operation::Rename {
            args,
            name,
            new_name,
        } => {
            with_name(args, name.as_c_str(), out);
            out.bytes(new_name.as_c_str().to_bytes_with_nul());
        }
        Operation::Link { args, name } => with_name(args, name.as_c_str(), out),
        Operation::Open(args) | Operation::OpenDir(args) => out.structure(args),
        Operation::Read(args) | Operation::ReadDir(args) | Operation::ReadDirPlus(args) => {
            out.structure(args);
        }
        Operation::Write(args) => out.structure(args),
        Operation::Release(args) | Operation::ReleaseDir(args) => out.structure(args),
        Operation::FSync(args) | Operation::FSyncDir(args) => out.structure(args),
        Operation::SetXattr { args, name, value } => {
            check_data(args.size, value)?;
            write_setxattr_args(args, agreed, out);
            out.bytes(name.as_c_str().to_bytes_with_nul());
            out.bytes(value);
        }
        Operation::GetXattr { args, name } => with_name(args, name.as_c_str(), out),
        Operation::ListXattr(args) => out.structure(args),
        Operation::RemoveXattr { name } => out.bytes(name.as_c_str().to_bytes_with_nul()),
        Operation::Flush(args) => out.structure(args),
        Operation::Init(args) => write_init(args, out),
        Operation::GetLk(args) | Operation::SetLk(args) | Operation::SetLkW(args) => {
            out.structure(args);
        }
        Operation::Access(args) => out.structure(args),
        Operation::Create { args, name } => with_name(args, name.as_c_str(), out),
        Operation::Interrupt(args) => out.structure(args),
        Operation::BMap(args) => out.structure(args),
        Operation::Ioctl { args, data } => {
            check_data(args.in_size, data)?;
            out.structure(args);
            out.bytes(data);
        }
        Operation::Poll(args) => out.structure(args),
        Operation::NotifyReply(args) => out.structure(args),
        Operation::BatchForget(list) => {
            out.structure(&BatchForgetIn {
                count: announced(list.len(), u32::MAX)?,
                dummy: 0,
            });
            out.bytes(list.as_bytes());
        }
        Operation::FAllocate(args) => out.structure(args),
        Operation::Rename2 {
            args,
            name,
            new_name,
        } => {
            with_name(args, name.as_c_str(), out);
            out.bytes(new_name.as_c_str().to_bytes_with_nul());
        }
        Operation::LSeek(args) => out.structure(args),
        Operation::CopyFileRange(args) | Operation::CopyFileRange64(args) => out.structure(args),
        Operation::SetupMapping(args) => out.structure(args),
        Operation::RemoveMapping(list) => {
            out.structure(&RemovemappingIn {
                count: announced(list.len(), u32::MAX)?,
            });
            out.bytes(list.as_bytes());
        }
        Operation::SyncFs(args) => out.structure(args),
        // Linux sends the name of an entry that is not linked anywhere.
        Operation::TmpFile(args) => with_name(args, c"/", out),
        Operation::Statx(args) => out.structure(args),
    }
    Ok(())
}

#[inline]
fn with_name<T: IntoBytes + Immutable>(args: &T, name: &CStr, out: &mut Writer<'_>) {
    out.structure(args);
    out.bytes(name.to_bytes_with_nul());
}

#[inline]
fn check_data(announced: u32, data: &[u8]) -> Result<(), RequestError> {
    if usize::try_from(announced) == Ok(data.len()) {
        Ok(())
    } else {
        Err(RequestError::PayloadLength {
            expected: announced,
            actual: data.len(),
        })
    }
}

fn write_setxattr_args(args: &SetxattrIn, agreed: InitFlags, out: &mut Writer<'_>) {
    if agreed.contains(InitFlags::SETXATTR_EXT) {
        out.structure(args);
    } else {
        out.structure(&[args.size, args.flags]);
    }
}

fn write_init(args: &InitIn, out: &mut Writer<'_>) {
    let bytes = args.as_bytes();
    let (short, rest) = bytes
        .split_at_checked(InitIn::COMPAT_SIZE)
        .unwrap_or((bytes, &[]));
    let extended = args.minor >= VERSION_MINOR_INIT_EXT
        || args.offered().contains(InitFlags::INIT_EXT)
        || rest.iter().any(|byte| *byte != 0);
    if !extended {
        out.bytes(short);
    } else {
        out.bytes(bytes);
    }
}
