//! Its Vfs behind our device, as nydus uses it: several filesystems in one share, with and without
//! handles.

mod support;

use std::fs;

use fuse_backend_rs::api::{Vfs, VfsOptions};
use fuse_backend_rs::passthrough::Config;
use fuse_wire::Errno;
use fuse_wire::flags::{InitFlags, RenameFlags};
use std::sync::Arc;
use support::{Guest, ROOT, config, errno, passthrough};
use tempfile::TempDir;

/// Two directories at `/one` and `/below/two`.
fn two_mounts(options: VfsOptions) -> ([TempDir; 2], Guest) {
    let roots = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let vfs = Arc::new(Vfs::new(options));
    mount(&vfs, &roots[0], "/one");
    let guest = Guest::start(Arc::clone(&vfs));
    // The other comes while it is served.
    mount(&vfs, &roots[1], "/below/two");
    (roots, guest)
}

fn mount(vfs: &Vfs, root: &TempDir, path: &str) {
    let fs = passthrough(Config {
        do_import: false,
        ..config(root.path())
    });
    vfs.mount(Box::new(fs), path).unwrap();
}

#[test]
fn two_filesystems_are_served_as_one() {
    let options = VfsOptions::default();
    for options in [
        options,
        VfsOptions {
            no_open: !options.no_open,
            no_opendir: !options.no_opendir,
            no_writeback: !options.no_writeback,
            ..options
        },
    ] {
        let ([one_root, two_root], mut guest) = two_mounts(options);
        let agreed = guest.mount.limits().agreed;
        assert!(agreed.contains(InitFlags::ASYNC_READ | InitFlags::AUTO_INVAL_DATA));
        assert_eq!(agreed.contains(InitFlags::NO_OPEN_SUPPORT), options.no_open);

        assert_eq!(guest.names(ROOT), ["below", "one"]);
        let one = guest.walk(&[c"one"]).unwrap();
        let two = guest.walk(&[c"below", c"two"]).unwrap();
        for (directory, text) in [(one, "first"), (two, "second")] {
            let (entry, opened) = guest.create(directory, c"file");
            guest.write_all(entry.nodeid, opened.fh, text.as_bytes());
        }
        assert_eq!(fs::read(one_root.path().join("file")).unwrap(), b"first");
        assert_eq!(fs::read(two_root.path().join("file")).unwrap(), b"second");
        assert_eq!(guest.content(&[c"one", c"file"]), b"first");
        assert_eq!(guest.content(&[c"below", c"two", c"file"]), b"second");
        assert_eq!(guest.names(two), ["file"]);

        let none = RenameFlags::empty();
        guest
            .mount
            .rename((one, c"file"), (one, c"other"), none)
            .unwrap();
        let across = guest.mount.rename((one, c"other"), (two, c"other"), none);
        assert_eq!(errno(across), Errno::EINVAL);
        guest.mount.unlink(one, c"other").unwrap();
        assert!(guest.names(one).is_empty());
    }
}

#[test]
fn cookies_of_its_own_directories_are_checked() {
    let (_roots, mut guest) = two_mounts(VfsOptions::default());
    let handle = Default::default();
    for offset in [3, i64::MAX.cast_unsigned()] {
        let listed = guest.mount.readdir(ROOT, handle, offset, 4096).unwrap();
        assert!(listed.is_empty());
    }
    // Where it counts on from the cookie, this would overflow.
    let listed = guest.mount.readdir(ROOT, handle, u64::MAX, 4096);
    assert_eq!(errno(listed), Errno::EINVAL);
}
