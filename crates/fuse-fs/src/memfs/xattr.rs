use std::collections::BTreeMap;

use fuse_wire::Errno;

use super::budget::{Budget, bytes};

/// `XATTR_CREATE` of setxattr(2).
const CREATE: u32 = 1;
/// `XATTR_REPLACE` of setxattr(2).
const REPLACE: u32 = 2;
/// Longest list of names that listxattr(2) can return, in bytes (`XATTR_LIST_MAX`).
const LIST_MAX: u64 = 64 * 1024;
/// What an attribute takes up besides its name and value, about.
const OVERHEAD: u64 = 96;
/// Attributes that mean something to the kernel, as POSIX ACLs do: to store one without doing what
/// it says would be a lie.
const SYSTEM: &[u8] = b"system.";

/// The extended attributes of an inode.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Xattrs {
    /// Sets an attribute as setxattr(2) does.
    ///
    /// # Errors
    /// EEXIST, ENODATA, EOPNOTSUPP, ENOSPC.
    pub(super) fn set(
        &mut self,
        name: &[u8],
        value: &[u8],
        flags: u32,
        budget: &mut Budget,
    ) -> Result<(), Errno> {
        check_supported(name)?;
        let old = self.values.get(name).map(|value| cost(name, value));
        match old {
            Some(_) if flags & CREATE != 0 => return Err(Errno::EEXIST),
            None if flags & REPLACE != 0 => return Err(Errno::ENODATA),
            None if self.list_len().saturating_add(listed(name)) > LIST_MAX => {
                return Err(Errno::ENOSPC);
            }
            _ => {}
        }
        let (old, new) = (old.unwrap_or(0), cost(name, value));
        budget.take(new.saturating_sub(old))?;
        budget.give_back(old.saturating_sub(new));
        self.values.insert(name.into(), value.into());
        Ok(())
    }

    /// Copies a value to `buffer` and returns its length; with an empty buffer only that.
    ///
    /// # Errors
    /// ENODATA, ERANGE, EOPNOTSUPP.
    pub(super) fn read(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        check_supported(name)?;
        let value = self.values.get(name).ok_or(Errno::ENODATA)?;
        if !buffer.is_empty() {
            let front = buffer.get_mut(..value.len()).ok_or(Errno::ERANGE)?;
            front.copy_from_slice(value);
        }
        Ok(value.len())
    }

    /// Copies the names, each with a NUL, to `buffer` and returns their length; with an empty
    /// buffer only that.
    ///
    /// # Errors
    /// ERANGE.
    pub(super) fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let len = usize::try_from(self.list_len()).map_err(|_| Errno::E2BIG)?;
        if buffer.is_empty() {
            return Ok(len);
        }
        let mut free = buffer.get_mut(..len).ok_or(Errno::ERANGE)?;
        for name in self.values.keys() {
            for part in [name, [0].as_slice()] {
                let (now, later) = free.split_at_mut_checked(part.len()).unwrap_or_default();
                now.copy_from_slice(part);
                free = later;
            }
        }
        Ok(len)
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// ENODATA, EOPNOTSUPP.
    pub(super) fn remove(&mut self, name: &[u8], budget: &mut Budget) -> Result<(), Errno> {
        check_supported(name)?;
        let value = self.values.remove(name).ok_or(Errno::ENODATA)?;
        budget.give_back(cost(name, &value));
        Ok(())
    }

    /// Bytes of memory that all of them take up.
    pub(super) fn allocated(&self) -> u64 {
        let costs = self.values.iter().map(|(name, value)| cost(name, value));
        costs.fold(0, u64::saturating_add)
    }

    fn list_len(&self) -> u64 {
        let lens = self.values.keys().map(|name| listed(name));
        lens.fold(0, u64::saturating_add)
    }
}

fn check_supported(name: &[u8]) -> Result<(), Errno> {
    if name.starts_with(SYSTEM) {
        Err(Errno::EOPNOTSUPP)
    } else {
        Ok(())
    }
}

fn listed(name: &[u8]) -> u64 {
    bytes(name.len()).saturating_add(1)
}

fn cost(name: &[u8], value: &[u8]) -> u64 {
    bytes(name.len())
        .saturating_add(bytes(value.len()))
        .saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_decide_between_new_and_old() {
        let mut budget = Budget::new(1 << 20);
        let mut xattrs = Xattrs::default();
        let name = b"user.a";
        assert_eq!(
            xattrs.set(name, b"1", REPLACE, &mut budget),
            Err(Errno::ENODATA)
        );
        assert_eq!(xattrs.set(name, b"1", CREATE, &mut budget), Ok(()));
        assert_eq!(
            xattrs.set(name, b"2", CREATE, &mut budget),
            Err(Errno::EEXIST)
        );
        assert_eq!(xattrs.set(name, b"22", REPLACE, &mut budget), Ok(()));
        assert_eq!(xattrs.set(name, b"333", 0, &mut budget), Ok(()));
        assert_eq!(budget.limit() - budget.left(), xattrs.allocated());
        assert_eq!(xattrs.read(name, &mut []), Ok(3));
        assert_eq!(xattrs.read(name, &mut [0; 2]), Err(Errno::ERANGE));
        assert_eq!(xattrs.remove(name, &mut budget), Ok(()));
        assert_eq!(xattrs.remove(name, &mut budget), Err(Errno::ENODATA));
        assert_eq!(budget.left(), budget.limit());
    }

    #[test]
    fn the_list_never_outgrows_what_can_be_returned() {
        let mut budget = Budget::new(1 << 30);
        let mut xattrs = Xattrs::default();
        let mut set = 0;
        while xattrs
            .set(format!("user.{set:0>250}").as_bytes(), b"", 0, &mut budget)
            .is_ok()
        {
            set += 1;
        }
        assert_eq!(set, 256, "of 256 bytes each with the NUL");
        assert_eq!(xattrs.list(&mut []), Ok(64 * 1024));
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(xattrs.list(&mut buffer), Ok(buffer.len()));
        assert_eq!(buffer.iter().filter(|&&byte| byte == 0).count(), 256);
    }
}
