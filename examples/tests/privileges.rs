//! Whom the kernel of a guest lets do what, and what becomes of SUID and SGID: as on the host.
//!
//! Through `mount`, whose guest is this host. The threads of these tests become users of their own.

#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Gid, OFlags, Uid, XattrFlags};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use support::Mount;
use tempfile::TempDir;

const USER: u32 = 1234;
const OTHER: u32 = 1235;
const ACCESS: &std::ffi::CStr = c"system.posix_acl_access";
const DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";

/// A directory that all may write to, and a place for a mount of it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for path in [place.0.path(), &place.source()] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        place
    }

    fn source(&self) -> PathBuf {
        self.0.path().join("source")
    }

    fn mount(&self, options: &[&str]) -> Mount {
        Mount::start(self.source(), self.0.path().join("mnt"), options)
    }
}

/// Does `action` as user and group `uid`, without capabilities unless that is 0.
fn as_user<T: Send>(uid: u32, action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let become_user = || {
            if uid != 0 {
                let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(group, group, group).unwrap();
                set_thread_res_uid(user, user, user).unwrap();
            }
            action()
        };
        scope.spawn(become_user).join().unwrap()
    })
}

fn open(path: &Path, flags: OFlags) -> File {
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .unwrap()
}

/// Changes the file at a path, beside which there is one called `source`.
type Change = fn(&Path);

const CHANGES: [(&str, Change); 8] = [
    ("write", |path| {
        open(path, OFlags::empty()).write_all(b"x").unwrap();
    }),
    ("truncate", |path| {
        open(path, OFlags::empty()).set_len(3).unwrap();
    }),
    ("open with O_TRUNC", |path| drop(open(path, OFlags::TRUNC))),
    ("fallocate", |path| {
        let file = open(path, OFlags::empty());
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 9000).unwrap();
    }),
    ("punch a hole", |path| {
        let file = open(path, OFlags::empty());
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, mode, 0, 4).unwrap();
    }),
    ("copy_file_range", |path| {
        let source = File::open(path.with_file_name("source")).unwrap();
        let file = open(path, OFlags::empty());
        let copied = rustix::fs::copy_file_range(source, None, file, None, 3);
        assert_eq!(copied, Ok(3));
    }),
    ("chgrp", |path| {
        let group = rustix::process::getegid().as_raw();
        chown(path, None, Some(group)).unwrap();
    }),
    ("read", |path| {
        fs::read(path).unwrap();
    }),
];

/// The mode that a file of `mode`, of the user, has after the change was made through `dir`, as the
/// host has it in `source` and as it is seen through `dir`.
fn modes_after(change: Change, uid: u32, mode: u32, dir: &Path, source: &Path) -> [u32; 2] {
    let name = "tool";
    let host = source.join(name);
    fs::write(&host, "content").unwrap();
    fs::write(source.join("source"), "source").unwrap();
    chown(&host, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(&host, Permissions::from_mode(mode)).unwrap();
    as_user(uid, || change(&dir.join(name)));
    let modes = [&host, &dir.join(name)].map(|path| fs::metadata(path).unwrap().mode() & 0o7777);
    fs::remove_file(dir.join(name)).unwrap();
    modes
}

/// Whoever clears them, the guest's kernel or this host's, for whatever reason: the result is that
/// of the host's own filesystem.
#[test]
fn suid_and_sgid_are_cleared_as_on_the_host() {
    if !Mount::is_possible() {
        return;
    }
    let place = Place::new();
    let source = place.source();
    for options in [
        &["--cache=never"][..],
        &["--cache=never", "--xattr"],
        &["--cache=auto"],
        &["--cache=auto", "--xattr"],
        &["--cache=always", "--killpriv-v2"],
        &["--cache=auto", "--posix-acl", "--writeback"],
    ] {
        let mount = place.mount(options);
        for uid in [0, USER, OTHER] {
            for mode in [0o6777, 0o4777, 0o2777, 0o777] {
                for (name, change) in CHANGES {
                    if name == "chgrp" && uid == OTHER {
                        continue;
                    }
                    let expected = modes_after(change, uid, mode, &source, &source);
                    let seen = modes_after(change, uid, mode, mount.path(), &source);
                    assert_eq!(seen, expected, "{options:?}: {name} of {mode:o} by {uid}");
                }
            }
        }
    }
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Nobody but the owner and `user` may do anything.
fn acl_for(user: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    acl(&[
        (0x01, 7, NO_ID),
        (0x02, 7, user),
        (0x04, 0, NO_ID),
        (0x10, 7, NO_ID),
        (0x20, 0, NO_ID),
    ])
}

/// The guest's kernel heeds ACLs that name its own users, while the host has them name others.
#[test]
fn acls_let_in_whom_they_name() {
    if !Mount::is_possible() {
        return;
    }
    let place = Place::new();
    let host = place.source().join("dir");
    let flags = XattrFlags::empty();
    if rustix::fs::setxattr(place.source(), DEFAULT, &acl_for(1), flags).is_err() {
        eprintln!("acls_let_in_whom_they_name: skipped: needs a filesystem with ACLs");
        return;
    }
    rustix::fs::removexattr(place.source(), DEFAULT).unwrap();
    for cache in ["--cache=never", "--cache=auto", "--cache=always"] {
        let mount = place.mount(&[
            cache,
            "--posix-acl",
            "--translate-uid=map:1000:101000:1000",
            "--translate-gid=map:1000:201000:1000",
        ]);
        let dir = mount.path().join("dir");
        as_user(USER, || {
            fs::create_dir(&dir).unwrap();
            for name in [ACCESS, DEFAULT] {
                rustix::fs::setxattr(&dir, name, &acl_for(OTHER), flags).unwrap();
            }
        });
        as_user(OTHER, || {
            fs::write(dir.join("file"), "content").unwrap();
            fs::create_dir(dir.join("sub")).unwrap();
        });
        // The third has a directory handed down to it, but cannot reach it.
        let third = as_user(OTHER + 1, || fs::read_dir(dir.join("sub")).map(drop));
        assert_eq!(
            third.unwrap_err().kind(),
            std::io::ErrorKind::PermissionDenied
        );
        let mut value = [0; 100];
        let len = rustix::fs::getxattr(&host, ACCESS, &mut value).unwrap();
        assert_eq!(&value[..len], acl_for(OTHER + 100_000));
        let file = fs::metadata(host.join("file")).unwrap();
        assert_eq!((file.uid(), file.gid()), (OTHER + 100_000, OTHER + 200_000));
        // The ACL that is handed down takes the place of the umask.
        assert_eq!(file.mode() & 0o777, 0o660, "{cache}");
        drop(mount);
        fs::remove_dir_all(&host).unwrap();
    }
}
