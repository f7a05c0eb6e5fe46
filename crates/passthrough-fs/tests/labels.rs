//! Security labels that come with what the guest makes.

mod common;

use std::ffi::CStr;

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, Feature, PassthroughFs};

const SELINUX: &CStr = c"security.selinux";
const ON_HOST: &CStr = c"user.virtiofs.security.selinux";

/// A share that any user can store labels in; where they cannot be: on what is neither a file nor
/// a directory (xattr(7)).
fn share() -> Share {
    let share = Share::with(|config| {
        config
            .security_labels(Feature::Always)
            .xattr_map(":map:security.:user.virtiofs.:".parse().unwrap())
    });
    let agreed = begin(&share.fs, InitFlags::SECURITY_CTX).unwrap();
    assert!(agreed.contains(InitFlags::SECURITY_CTX));
    share
}

fn with_labels<T>(labels: &[(&CStr, &[u8])], call: impl FnOnce(&Context<'_>) -> T) -> T {
    let contexts: Vec<_> = labels
        .iter()
        .map(|(name, value)| SecurityContext {
            name: XattrName::new(name).unwrap(),
            value,
        })
        .collect();
    let mut buffer = [0; 10_000];
    let contexts = SecurityContexts::write(&contexts, &mut buffer).unwrap();
    call(&Context {
        extensions: Extensions::new(contexts, &[]),
        ..me()
    })
}

#[derive(Debug, Clone, Copy)]
enum Made {
    File,
    Unnamed,
    Dir,
    Node,
    Link,
}

const ALL: [Made; 5] = [Made::File, Made::Unnamed, Made::Dir, Made::Node, Made::Link];

fn make(share: &Share, cx: &Context<'_>, what: Made) -> Result<Entry> {
    let name = cstr("new");
    let name = Name::new(&name).unwrap();
    let (fs, dir) = (&share.fs, NodeId::ROOT);
    let create = CreateIn {
        flags: RDWR,
        mode: 0o100_644,
        ..Default::default()
    };
    let with_file = |(entry, opened): (Entry, Opened)| {
        share.release((entry.node, opened.handle)).unwrap();
        entry
    };
    match what {
        Made::File => fs.create(cx, dir, name, &create).map(with_file),
        Made::Unnamed => fs.tmpfile(cx, dir, &create).map(with_file),
        Made::Dir => {
            let args = MkdirIn {
                mode: 0o755,
                umask: 0,
            };
            fs.mkdir(cx, dir, name, &args)
        }
        Made::Node => {
            let args = MknodIn {
                mode: 0o010_644,
                ..Default::default()
            };
            fs.mknod(cx, dir, name, &args)
        }
        Made::Link => fs.symlink(cx, dir, name, SymlinkTarget::new(c"target").unwrap()),
    }
}

/// Descriptors of anything in the share: other tests have theirs at the same time.
fn open_descriptors(share: &Share) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|fd| {
        let target = std::fs::read_link(fd.as_ref().unwrap().path());
        target.is_ok_and(|target| target.starts_with(&share.path))
    })
    .count()
}

#[test]
fn labels_are_agreed_on_as_configured() {
    let outer = tempfile::TempDir::new().unwrap();
    let labels = InitFlags::SECURITY_CTX;
    for (feature, offered, expected) in [
        (Feature::Never, labels, Ok(InitFlags::empty())),
        (Feature::Auto, labels, Ok(labels)),
        (Feature::Auto, InitFlags::empty(), Ok(InitFlags::empty())),
        (Feature::Always, labels, Ok(labels)),
        (
            Feature::Always,
            InitFlags::empty(),
            Err(Errno::EPROTO.into()),
        ),
    ] {
        let config = Config::new(outer.path()).security_labels(feature);
        let fs = PassthroughFs::new(config).unwrap();
        let agreed = begin(&fs, offered).map(|agreed| agreed & labels);
        assert_eq!(agreed, expected, "{feature:?} {offered:?}");
    }
}

#[test]
fn what_is_made_has_its_labels() {
    let share = share();
    for what in [Made::File, Made::Dir] {
        let labels: [(&CStr, &[u8]); 2] = [(SELINUX, b"label\0"), (c"security.SMACK64", b"_")];
        let entry = with_labels(&labels, |cx| make(&share, cx, what)).unwrap();
        assert_eq!(host_xattr(&share.host("new"), ON_HOST).unwrap(), b"label\0");
        assert_eq!(get_xattr(&share, entry.node, SELINUX).unwrap(), b"label\0");
        let smack = get_xattr(&share, entry.node, c"security.SMACK64");
        assert_eq!(smack.unwrap(), b"_");
        std::fs::remove_file(share.host("new"))
            .or_else(|_| std::fs::remove_dir(share.host("new")))
            .unwrap();
    }
    let label: [(&CStr, &[u8]); 1] = [(SELINUX, b"label")];
    let unnamed = with_labels(&label, |cx| make(&share, cx, Made::Unnamed)).unwrap();
    let read = get_xattr(&share, unnamed.node, SELINUX);
    assert_eq!(read.unwrap(), b"label");
}

#[test]
fn nodes_and_links_are_labelled_without_being_opened() {
    if !is_root("nodes_and_links_are_labelled_without_being_opened") {
        return;
    }
    let share = Share::with(|config| config.security_labels(Feature::Auto));
    begin(&share.fs, InitFlags::SECURITY_CTX).unwrap();
    for what in ALL {
        let label: [(&CStr, &[u8]); 1] = [(SELINUX, b"label")];
        let entry = match with_labels(&label, |cx| make(&share, cx, what)) {
            Err(Error::Errno(Errno::EPERM)) => {
                eprintln!("{what:?}: skipped: needs CAP_SYS_ADMIN");
                return;
            }
            entry => entry.unwrap(),
        };
        let read = get_xattr(&share, entry.node, SELINUX).unwrap();
        assert_eq!(read, b"label", "{what:?}");
        if !matches!(what, Made::Unnamed) {
            let path = share.host("new");
            assert_eq!(host_xattr(&path, SELINUX).unwrap(), b"label");
            let removed = match what {
                Made::Dir => std::fs::remove_dir(path),
                _ => std::fs::remove_file(path),
            };
            removed.unwrap();
        }
    }
}

/// Neither a file nor a descriptor nor a lookup is left of what cannot be labelled.
#[test]
fn what_cannot_be_labelled_is_not_made() {
    let share = share();
    let huge = vec![0; 9000];
    // The last one of the labels is the one that fails, after the others are set.
    let refused: [&[(&CStr, &[u8])]; 3] = [
        &[(SELINUX, b"fine"), (c"user.other", b"x")],
        &[(SELINUX, b"fine"), (c"system.posix_acl_access", b"x")],
        &[(c"security.SMACK64", b"fine"), (SELINUX, &huge)],
    ];
    let before = open_descriptors(&share);
    for labels in refused {
        for what in ALL {
            let made = with_labels(labels, |cx| make(&share, cx, what));
            made.unwrap_err();
            assert!(!share.host("new").is_symlink() && !share.host("new").exists());
            assert_eq!(open_descriptors(&share), before, "{what:?}");
        }
    }
    // The host takes attributes of users for files and directories only.
    for what in [Made::Node, Made::Link] {
        let label: [(&CStr, &[u8]); 1] = [(SELINUX, b"label")];
        let made = with_labels(&label, |cx| make(&share, cx, what));
        assert_eq!(errno(made), Errno::EPERM, "{what:?}");
        assert!(!share.host("new").is_symlink() && !share.host("new").exists());
        assert_eq!(open_descriptors(&share), before, "{what:?}");
    }
    assert_eq!(std::fs::read_dir(&share.path).unwrap().count(), 0);
}

#[test]
fn a_file_that_was_there_keeps_its_label() {
    let share = share();
    let (node, _) = share.file("new", b"content", RDONLY);
    set_xattr(&share, node, SELINUX, b"old").unwrap();
    let label: [(&CStr, &[u8]); 1] = [(SELINUX, b"new")];
    let opened = with_labels(&label, |cx| make(&share, cx, Made::File)).unwrap();
    assert_eq!(opened.node, node);
    assert_eq!(get_xattr(&share, node, SELINUX).unwrap(), b"old");
    for what in [Made::Dir, Made::Node, Made::Link] {
        let made = with_labels(&label, |cx| make(&share, cx, what));
        assert_eq!(errno(made), Errno::EEXIST);
    }
    assert_eq!(std::fs::read(share.host("new")).unwrap(), b"content");
    assert_eq!(get_xattr(&share, node, SELINUX).unwrap(), b"old");
}
