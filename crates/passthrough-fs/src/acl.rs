//! POSIX ACLs as extended attributes hold them (acl(5), `linux/posix_acl_xattr.h`): a version, then
//! entries of a tag, permissions and an id, all little-endian.

use std::ffi::CStr;

use fuse_fs::Errno;

/// The ACL that is checked.
pub(crate) const ACCESS: &CStr = c"system.posix_acl_access";
/// What the ACLs are called: that, and the one that is handed down to what is made in a directory.
pub(crate) const NAMES: [&CStr; 2] = [ACCESS, c"system.posix_acl_default"];

const VERSION: u32 = 2;
/// A tag and permissions of 2 bytes each, an id of 4.
const ENTRY_LEN: usize = 8;
/// The tags whose entries name a user or a group. With others, the id means nothing.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    User(u32),
    Group(u32),
}

/// Whether `name` is that of an ACL.
pub(crate) fn is_acl(name: &[u8]) -> bool {
    NAMES.into_iter().any(|acl| acl.to_bytes() == name)
}

/// Replaces the users and groups that the ACL `value` names by those that `translate` says.
///
/// # Errors
/// As setxattr(2) where it is no ACL: EINVAL, EOPNOTSUPP for one of another version. Whatever
/// `translate` says; part of the value is translated then.
pub(crate) fn translate(
    value: &mut [u8],
    translate: impl Fn(Named) -> Result<Named, Errno>,
) -> Result<(), Errno> {
    for entry in entries(value)? {
        if let Some(named) = named(entry) {
            let (Named::User(id) | Named::Group(id)) = translate(named)?;
            let [_, _, _, _, place @ ..] = entry;
            *place = id.to_le_bytes();
        }
    }
    Ok(())
}

/// Refuses an ACL with two entries for one user or group. To the kernel, the first would count.
///
/// # Errors
/// EINVAL; as [`translate`] where it is no ACL.
pub(crate) fn check_unique(value: &mut [u8]) -> Result<(), Errno> {
    let mut all: Vec<Named> = entries(value)?.iter().filter_map(named).collect();
    all.sort_unstable();
    if all.array_windows().any(|[one, next]| one == next) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn entries(value: &mut [u8]) -> Result<&mut [[u8; ENTRY_LEN]], Errno> {
    let (version, entries) = value.split_first_chunk_mut().ok_or(Errno::EINVAL)?;
    if u32::from_le_bytes(*version) != VERSION {
        return Err(Errno::EOPNOTSUPP);
    }
    match entries.as_chunks_mut() {
        (entries, []) => Ok(entries),
        _ => Err(Errno::EINVAL),
    }
}

fn named(entry: &[u8; ENTRY_LEN]) -> Option<Named> {
    let [tag0, tag1, _, _, id @ ..] = *entry;
    let id = u32::from_le_bytes(id);
    match u16::from_le_bytes([tag0, tag1]) {
        USER => Some(Named::User(id)),
        GROUP => Some(Named::Group(id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNDEFINED: u32 = u32::MAX;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    fn shifted(named: Named) -> Result<Named, Errno> {
        match named {
            Named::User(7) => Err(Errno::EPERM),
            Named::User(id) => Ok(Named::User(id + 100)),
            Named::Group(id) => Ok(Named::Group(id + 200)),
        }
    }

    #[test]
    fn only_named_users_and_groups_are_translated() {
        let with = |user, group| {
            acl(&[
                (1, 7, UNDEFINED),
                (USER, 6, user),
                (4, 5, UNDEFINED),
                (GROUP, 4, group),
                (16, 7, UNDEFINED),
                (32, 0, UNDEFINED),
            ])
        };
        let mut value = with(1000, 1000);
        translate(&mut value, shifted).unwrap();
        assert_eq!(value, with(1100, 1200));
        let mut value = with(7, 1000);
        assert_eq!(translate(&mut value, shifted), Err(Errno::EPERM));
        // No entries at all: setxattr(2) then removes the ACL.
        assert_eq!(translate(&mut acl(&[]), shifted), Ok(()));
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        let mut whole = acl(&[(USER, 6, 1)]);
        for len in 0..whole.len() {
            let fits = len >= 4 && (len - 4).is_multiple_of(ENTRY_LEN);
            let result = translate(&mut whole.clone()[..len], shifted);
            assert_eq!(result.is_ok(), fits, "{len}");
        }
        whole[0] = 1;
        assert_eq!(translate(&mut whole, shifted), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn two_entries_for_one_user_or_group_are_refused() {
        let check = |entries: &[_]| check_unique(&mut acl(entries));
        let distinct = [
            (USER, 6, 1),
            (USER, 6, 2),
            (GROUP, 6, 1),
            (1, 6, 1),
            (4, 6, 1),
        ];
        assert_eq!(check(&distinct), Ok(()));
        let twice = [(USER, 6, 1), (USER, 6, 2), (USER, 4, 1)];
        assert_eq!(check(&twice), Err(Errno::EINVAL));
        assert_eq!(check(&[(GROUP, 6, 9), (GROUP, 6, 9)]), Err(Errno::EINVAL));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_length_tags_and_permissions(mut value: Vec<u8>) {
            let before = value.clone();
            if translate(&mut value, |named| Ok(match named {
                Named::User(id) => Named::User(!id),
                Named::Group(id) => Named::Group(!id),
            })).is_ok() {
                for (old, new) in before[4..].chunks(8).zip(value[4..].chunks(8)) {
                    prop_assert_eq!(&old[..4], &new[..4]);
                }
            } else {
                prop_assert_eq!(value, before);
            }
        }
    }
}
