use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use fuse_wire::abi::Attr;
use rustix::fs::{major, minor};

/// Lists what differs; nothing where all is the same. Times of access are left out, because
/// reading changes them, and inode numbers, which are a filesystem's own.
pub(super) fn differences(host: &Metadata, guest: &Attr) -> Vec<String> {
    let pairs = [
        ("mode", u64::from(host.mode()), u64::from(guest.mode)),
        ("size", host.size(), guest.size),
        ("blocks", host.blocks(), guest.blocks),
        ("links", host.nlink(), u64::from(guest.nlink)),
        ("owner", u64::from(host.uid()), u64::from(guest.uid)),
        ("group", u64::from(host.gid()), u64::from(guest.gid)),
        ("device", encoded(host.rdev()), u64::from(guest.rdev)),
        ("mtime", host.mtime().cast_unsigned(), guest.mtime),
        ("ctime", host.ctime().cast_unsigned(), guest.ctime),
        (
            "mtime's fraction",
            host.mtime_nsec().cast_unsigned(),
            guest.mtimensec.into(),
        ),
        (
            "ctime's fraction",
            host.ctime_nsec().cast_unsigned(),
            guest.ctimensec.into(),
        ),
    ];
    pairs
        .into_iter()
        .filter(|(_, host, guest)| host != guest)
        .map(|(name, host, guest)| match name {
            "mode" => format!("{name}: {host:o} on the host, {guest:o} through the stack"),
            _ => format!("{name}: {host} on the host, {guest} through the stack"),
        })
        .collect()
}

/// Whether the inode was not changed since its `ctime` was what `guest` says.
pub(super) fn same_ctime(host: &Metadata, guest: &Attr) -> bool {
    (
        host.ctime().cast_unsigned(),
        host.ctime_nsec().cast_unsigned(),
    ) == (guest.ctime, guest.ctimensec.into())
}

/// A device number in the 32 bits that FUSE has for it (`new_encode_dev` of Linux).
fn encoded(device: u64) -> u64 {
    let (major, minor) = (u64::from(major(device)), u64::from(minor(device)));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_linux_does() {
        assert_eq!(encoded(rustix::fs::makedev(1, 3)), 0x103);
        assert_eq!(encoded(rustix::fs::makedev(259, 0x12345)), 0x1231_0345);
    }

    #[test]
    fn each_difference_is_named() {
        let host = std::fs::metadata("/").unwrap();
        let mut guest = Attr {
            mode: host.mode(),
            size: host.size(),
            blocks: host.blocks(),
            nlink: u32::try_from(host.nlink()).unwrap(),
            uid: host.uid(),
            gid: host.gid(),
            mtime: host.mtime().cast_unsigned(),
            mtimensec: u32::try_from(host.mtime_nsec()).unwrap(),
            ctime: host.ctime().cast_unsigned(),
            ctimensec: u32::try_from(host.ctime_nsec()).unwrap(),
            ..Attr::default()
        };
        assert_eq!(differences(&host, &guest), Vec::<String>::new());
        guest.nlink += 1;
        guest.mode ^= 0o100;
        let found = differences(&host, &guest);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("mode: "), "{found:?}");
        assert!(found[1].starts_with("links: "), "{found:?}");
    }
}
