//! Users and groups of the guest and of the host.

use fuse_fs::{Errno, Result};

use crate::IdMap;
use crate::acl::{self, Named};

/// Which users and groups of the host those of the guest are.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) users: IdMap,
    pub(crate) groups: IdMap,
}

impl Ids {
    /// The ACL `value` of the guest, as the host keeps it. None where it is the same.
    ///
    /// What were two users in the guest may be one on the host, which cannot be told apart in an
    /// ACL: then it is EINVAL.
    pub(crate) fn acl_to_host(&self, value: &[u8]) -> Result<Option<Vec<u8>>> {
        // Nothing at all removes the ACL.
        if self.are_the_same() || value.is_empty() {
            return Ok(None);
        }
        let mut value = value.to_vec();
        acl::translate(&mut value, |named| {
            Ok(match named {
                Named::User(id) => Named::User(valid(self.users.to_host(id)?)?),
                Named::Group(id) => Named::Group(valid(self.groups.to_host(id)?)?),
            })
        })?;
        acl::check_unique(&mut value)?;
        Ok(Some(value))
    }

    /// Makes the ACL `value` of the host that which the guest reads. It may name a user twice,
    /// where two of the host are one in the guest; then the first entry counts.
    pub(crate) fn acl_to_guest(&self, value: &mut [u8]) -> Result<()> {
        if self.are_the_same() {
            return Ok(());
        }
        Ok(acl::translate(value, |named| {
            Ok(match named {
                Named::User(id) => Named::User(self.users.to_guest(id)),
                Named::Group(id) => Named::Group(self.groups.to_guest(id)),
            })
        })?)
    }

    fn are_the_same(&self) -> bool {
        self.users.is_identity() && self.groups.is_identity()
    }
}

/// Refuses the number that is no id, as the host would.
fn valid(id: u32) -> std::result::Result<u32, Errno> {
    if id == u32::MAX {
        Err(Errno::EINVAL)
    } else {
        Ok(id)
    }
}
