use std::ffi::CStr;

use fuse_wire::abi::{GetxattrIn, SetxattrIn};
use fuse_wire::flags::SetxattrFlags;
use fuse_wire::{NodeId, Operation, Reply};

use super::{Mount, reply, xattr_name};
use crate::Error;

/// Longest value of an extended attribute, and longest list of them, in bytes
/// (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: u32 = 65536;

/// Extended attributes.
#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl Mount {
    /// SETXATTR: `flags` as of setxattr(2).
    pub fn setxattr(
        &mut self,
        node: NodeId,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> Result<(), Error> {
        let args = SetxattrIn {
            size: value.len() as u32,
            flags,
            setxattr_flags: SetxattrFlags::empty(),
            padding: 0,
        };
        let name = xattr_name(name)?;
        self.empty(node, Operation::SetXattr { args, name, value })
    }

    /// GETXATTR: the value.
    pub fn getxattr(&mut self, node: NodeId, name: &CStr) -> Result<Vec<u8>, Error> {
        let operation = Operation::GetXattr {
            args: getxattr_in(XATTR_MAX),
            name: xattr_name(name)?,
        };
        self.reply(
            node,
            operation,
            reply!(Reply::Data(value) => value.to_vec()),
        )
    }

    /// GETXATTR of size 0: the length of the value in bytes.
    pub fn getxattr_size(&mut self, node: NodeId, name: &CStr) -> Result<u32, Error> {
        let operation = Operation::GetXattr {
            args: getxattr_in(0),
            name: xattr_name(name)?,
        };
        self.reply(node, operation, reply!(Reply::XattrSize(out) => out.size))
    }

    /// LISTXATTR: the names, each with its NUL.
    pub fn listxattr(&mut self, node: NodeId) -> Result<Vec<u8>, Error> {
        self.reply(
            node,
            Operation::ListXattr(getxattr_in(XATTR_MAX)),
            reply!(Reply::Data(names) => names.to_vec()),
        )
    }

    /// REMOVEXATTR.
    pub fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<(), Error> {
        let name = xattr_name(name)?;
        self.empty(node, Operation::RemoveXattr { name })
    }
}

const fn getxattr_in(size: u32) -> GetxattrIn {
    GetxattrIn { size, padding: 0 }
}
