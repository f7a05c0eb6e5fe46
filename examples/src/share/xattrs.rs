use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::path::Path;

use fuse_wire::NodeId;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;
use virtio_fs_guest::Error;

use super::finding::{Finding, answer};
use super::stack::Stack;

/// Longest value, and longest list, of extended attributes in bytes (xattr(7)).
const LONGEST: usize = 65536;

/// Attributes that are not shared: the guest's kernel would have to heed them.
const ACLS: &[u8] = b"system.posix_acl_";

/// Compares the extended attributes of `path` with those of `node`.
pub(super) fn compare(stack: &mut Stack, node: NodeId, path: &Path) -> Result<Finding, Error> {
    let (host, guest) = match (host_names(path), answer(stack.listxattr(node))?) {
        (Ok(host), Ok(guest)) => (host, split(&guest)),
        (Err(Errno::NOTSUP), Err(Errno::NOTSUP)) => return Ok(Finding::Same),
        (host, guest) => return Ok(Finding::of_failure("listxattr", host.err(), guest.err())),
    };
    if host != guest {
        return Ok(Finding::Differs(format!(
            "extended attributes: {host:?} on the host, {guest:?} through the stack"
        )));
    }
    for name in host {
        match (
            host_value(path, &name),
            answer(stack.getxattr(node, &name))?,
        ) {
            (Ok(host), Ok(guest)) if host == guest => {}
            (Ok(_), Ok(_)) => {
                return Ok(Finding::Differs(format!(
                    "extended attribute {name:?}: its value"
                )));
            }
            (host, guest) => {
                let doing = format!("getxattr of {name:?}");
                return Ok(Finding::of_failure(&doing, host.err(), guest.err()));
            }
        }
    }
    Ok(Finding::Same)
}

fn host_names(path: &Path) -> Result<BTreeSet<CString>, Errno> {
    let mut list = vec![0_u8; LONGEST];
    let len = llistxattr(path, &mut list[..])?;
    Ok(split(&list[..len]))
}

fn host_value(path: &Path, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0_u8; LONGEST];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// The names of a list, each of which ends with its NUL.
fn split(list: &[u8]) -> BTreeSet<CString> {
    list.split_inclusive(|byte| *byte == 0)
        .filter(|name| !name.starts_with(ACLS))
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect()
}
