//! Its overlay behind our device: a lower directory that never changes, an upper one that takes
//! every change.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use fuse_backend_rs::overlayfs::config::Config as OverlayConfig;
use fuse_backend_rs::overlayfs::{BoxedLayer, OverlayFs};
use fuse_wire::abi::SetattrIn;
use fuse_wire::flags::SetattrValid;
use fuse_wire::{Errno, NodeId};
use support::{Guest, O_RDWR, ROOT, config, errno, passthrough, pattern};
use tempfile::TempDir;

struct Layers {
    lower: TempDir,
    upper: TempDir,
}

/// An overlay whose lower directory holds what `fill` puts there.
fn overlay(fill: impl FnOnce(&std::path::Path)) -> (Layers, Guest) {
    let layers = Layers {
        lower: TempDir::new().unwrap(),
        upper: TempDir::new().unwrap(),
    };
    fill(layers.lower.path());
    let layer = |root: &TempDir| -> Arc<BoxedLayer> {
        Arc::new(Box::new(passthrough(config(root.path()))))
    };
    let params = OverlayConfig {
        do_import: true,
        ..Default::default()
    };
    let lower = vec![layer(&layers.lower)];
    let fs = OverlayFs::new(Some(layer(&layers.upper)), lower, params).unwrap();
    (layers, Guest::start(fs))
}

#[test]
fn the_lower_directory_is_read_through() {
    let content = pattern(1_500_000);
    let (_layers, mut guest) = overlay(|lower| {
        fs::create_dir(lower.join("directory")).unwrap();
        fs::write(lower.join("directory/file"), &content).unwrap();
    });
    assert!(guest.content(&[c"directory", c"file"]) == content);
    assert_eq!(guest.names(ROOT), ["directory"]);
}

#[test]
fn a_write_copies_up() {
    let content = pattern(300_000);
    let (layers, mut guest) = overlay(|lower| fs::write(lower.join("file"), &content).unwrap());
    let node = guest.walk(&[c"file"]).unwrap();
    let handle = guest.open(node, O_RDWR);
    guest
        .mount
        .write(node, handle, 100_000, b"changed")
        .unwrap();
    guest.mount.release(node, handle).unwrap();

    let mut changed = content.clone();
    changed[100_000..100_007].copy_from_slice(b"changed");
    assert!(guest.content(&[c"file"]) == changed);
    assert!(fs::read(layers.upper.path().join("file")).unwrap() == changed);
    assert!(fs::read(layers.lower.path().join("file")).unwrap() == content);
}

#[test]
fn a_truncation_copies_up_too() {
    let (layers, mut guest) = overlay(|lower| fs::write(lower.join("file"), "hello").unwrap());
    let node = guest.walk(&[c"file"]).unwrap();
    let set = SetattrIn {
        valid: SetattrValid::SIZE,
        size: 2,
        ..Default::default()
    };
    assert_eq!(guest.mount.setattr(node, set).unwrap().attr.size, 2);
    assert_eq!(fs::read(layers.upper.path().join("file")).unwrap(), b"he");
    assert_eq!(
        fs::read(layers.lower.path().join("file")).unwrap(),
        b"hello"
    );
}

#[test]
fn an_unlink_leaves_a_whiteout() {
    let (layers, mut guest) = overlay(|lower| {
        fs::write(lower.join("gone"), "").unwrap();
        fs::write(lower.join("stays"), "").unwrap();
    });
    guest.mount.unlink(ROOT, c"gone").unwrap();
    assert_eq!(errno(guest.mount.lookup(ROOT, c"gone")), Errno::ENOENT);
    assert_eq!(guest.names(ROOT), ["stays"]);
    let whiteout = fs::metadata(layers.upper.path().join("gone")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
    assert!(layers.lower.path().join("gone").exists());

    // The name can be used again.
    let (entry, opened) = guest.create(ROOT, c"gone");
    guest.write_all(entry.nodeid, opened.fh, b"new");
    assert_eq!(fs::read(layers.upper.path().join("gone")).unwrap(), b"new");
    assert_eq!(guest.names(ROOT), ["gone", "stays"]);
}

#[test]
fn both_directories_are_listed_as_one() {
    let (layers, mut guest) = overlay(|lower| {
        for n in 0..20 {
            fs::write(lower.join(format!("lower {n:02}")), "").unwrap();
        }
    });
    let mut expected: Vec<_> = (0..20).map(|n| format!("lower {n:02}")).collect();
    let directory = guest.mount.mkdir(ROOT, c"directory", 0o755).unwrap();
    guest.mount.symlink(ROOT, c"symlink", c"lower 00").unwrap();
    expected.insert(0, "directory".to_owned());
    expected.push("symlink".to_owned());
    assert_eq!(guest.names(ROOT), expected);
    assert!(layers.upper.path().join("directory").is_dir());
    guest.create(directory.nodeid, c"file");
    assert_eq!(guest.names(directory.nodeid), ["file"]);
}

#[test]
fn nodes_and_handles_that_nobody_gave_out_are_refused() {
    let (_layers, mut guest) = overlay(|lower| fs::write(lower.join("file"), "hello").unwrap());
    for node in [0, 77, u64::MAX] {
        let found = guest.mount.getattr(NodeId(node), None);
        assert_eq!(errno(found), Errno::ENOENT);
        guest.mount.forget(NodeId(node), u64::MAX).unwrap();
    }
    let node = guest.walk(&[c"file"]).unwrap();
    let read = guest
        .mount
        .read(node, fuse_wire::Handle(99), 0, &mut [0; 8]);
    assert_eq!(errno(read), Errno::ENOENT);
    assert_eq!(guest.content(&[c"file"]), b"hello");
}
