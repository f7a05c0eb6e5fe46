//! ACLs, labels, renamed attributes and translated users, as a Linux guest uses them.
//!
//! Needs what `guest.rs` needs.

#![forbid(unsafe_code)]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use support::Host;
use testing::emulated;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(900);

const OPTIONS: [&str; 5] = [
    "--posix-acl",
    "--security-label",
    "--xattrmap=:map:security.:trusted.virtiofs.:",
    "--translate-uid=map:1000:101000:1000",
    "--translate-gid=map:1000:201000:1000",
];

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn privileges_with_cache_never() {
    privileges("never");
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn privileges_with_cache_auto() {
    privileges("auto");
}

fn privileges(cache: &str) {
    emulated(|| {
        let mut host = Host::new(cache, &OPTIONS);
        let kernel = ["security=selinux", "selinux=1"];
        let said = host.boot("privileges.sh", &kernel).wait(PATIENCE);
        println!("cache={cache}:\n{}", said.join("\n"));

        let share = host.share();
        let owner = |name: &str| {
            let host = std::fs::symlink_metadata(share.join(name)).unwrap();
            (host.uid(), host.gid())
        };
        assert_eq!(owner("dir"), (101_000, 201_000));
        assert_eq!(owner("dir/file"), (101_001, 201_001));
        assert_eq!(owner("labelled/file"), (0, 0));
        let acl = attribute(&share.join("dir"), c"system.posix_acl_access").unwrap();
        let named = |id: u32| acl.windows(4).any(|word| word == id.to_le_bytes());
        assert!(named(101_001) && !named(1001));
        for name in ["file", "dir", "pipe", "link"] {
            let path = share.join("labelled").join(name);
            let label = attribute(&path, c"trusted.virtiofs.security.selinux");
            assert!(label.is_some_and(|label| !label.is_empty()), "{name}");
            assert_eq!(attribute(&path, c"security.selinux"), None, "{name}");
        }
        host.end();
    });
}

fn attribute(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let mut value = [0; 1000];
    let len = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..len].to_vec())
}
