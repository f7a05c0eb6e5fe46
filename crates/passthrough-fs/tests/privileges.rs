//! What becomes of SUID and SGID when files are changed, and of several changes in one request.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::*;
use fuse_fs::abi::*;
use fuse_fs::flags::*;
use fuse_fs::*;
use passthrough_fs::{Config, Killpriv, PassthroughFs, Xattr};
use rustix::fs::OFlags;

const USER: u32 = 1234;

/// A program with SUID and SGID, of the caller and open for writing.
struct Tool {
    share: Share,
    file: (NodeId, Handle),
}

impl Tool {
    fn new() -> Self {
        let share = Share::new();
        let file = share.file("tool", &[1; 5000], RDWR);
        Self { share, file }
    }

    fn arm(&self) {
        let armed = std::fs::Permissions::from_mode(0o6755);
        std::fs::set_permissions(self.share.host("tool"), armed).unwrap();
    }

    fn mode(&self) -> u32 {
        let host = std::fs::metadata(self.share.host("tool")).unwrap();
        host.permissions().mode() & 0o7777
    }

    /// The mode after the change by a user, and by root.
    fn modes_after(&self, change: impl Fn(&Self, &Context<'_>)) -> [u32; 2] {
        [USER, 0].map(|uid| {
            self.arm();
            change(self, &user(uid, uid));
            self.mode()
        })
    }
}

fn fallocate(tool: &Tool, cx: &Context<'_>, mode: u32) {
    let args = FallocateIn {
        fh: tool.file.1,
        length: 100,
        mode,
        ..Default::default()
    };
    tool.share.fs.fallocate(cx, tool.file.0, &args).unwrap();
}

fn copy(tool: &Tool, cx: &Context<'_>) {
    let source = tool.share.file("source", b"content", RDONLY);
    let args = CopyFileRangeIn {
        fh_in: source.1,
        nodeid_out: tool.file.0,
        fh_out: tool.file.1,
        len: 7,
        ..Default::default()
    };
    let copied = tool.share.fs.copy_file_range(cx, source.0, &args);
    assert_eq!(copied, Ok(7));
}

fn truncating_open(tool: &Tool, cx: &Context<'_>, open_flags: OpenInFlags) {
    let args = OpenIn {
        flags: (OFlags::WRONLY | OFlags::TRUNC).bits(),
        open_flags,
    };
    tool.share.fs.open(cx, tool.file.0, &args).unwrap();
}

/// FALLOCATE and COPY_FILE_RANGE do not say whether the caller may keep them: a user may not, root
/// may. The same with an open that truncates, if the guest was not asked to say so.
#[test]
fn privileges_go_when_a_user_changes_a_file_without_writing() {
    if !is_root("privileges_go_when_a_user_changes_a_file_without_writing") {
        return;
    }
    let tool = Tool::new();
    const PUNCH_HOLE_KEEP_SIZE: u32 = 3;
    for agreed in [InitFlags::empty(), InitFlags::HANDLE_KILLPRIV_V2] {
        begin(&tool.share.fs, agreed).unwrap();
        for mode in [0, PUNCH_HOLE_KEEP_SIZE] {
            let modes = tool.modes_after(|tool, cx| fallocate(tool, cx, mode));
            assert_eq!(modes, [0o755, 0o6755], "{mode}");
        }
        assert_eq!(tool.modes_after(copy), [0o755, 0o6755]);
    }
    begin(&tool.share.fs, InitFlags::empty()).unwrap();
    let silent = |tool: &Tool, cx: &Context<'_>| truncating_open(tool, cx, OpenInFlags::empty());
    assert_eq!(tool.modes_after(silent), [0o755, 0o6755]);
}

/// A guest that was asked to say so, and does not, has a caller who may keep them.
#[test]
fn privileges_stay_unless_the_guest_says_otherwise() {
    if !is_root("privileges_stay_unless_the_guest_says_otherwise") {
        return;
    }
    let fs = |config: Config| config.killpriv(Killpriv::Always);
    let share = Share::with(fs);
    begin(&share.fs, InitFlags::HANDLE_KILLPRIV_V2).unwrap();
    let file = share.file("tool", b"content", RDWR);
    let tool = Tool { share, file };
    let says = OpenInFlags::KILL_SUIDGID;
    for (flags, expected) in [(OpenInFlags::empty(), 0o6755), (says, 0o755)] {
        let modes = tool.modes_after(|tool, cx| truncating_open(tool, cx, flags));
        assert_eq!(modes, [expected; 2]);
    }
}

#[test]
fn a_process_that_is_not_root_clears_them_always() {
    if me().uid == 0 {
        eprintln!("a_process_that_is_not_root_clears_them_always: skipped: needs a user");
        return;
    }
    let tool = Tool::new();
    assert_eq!(
        tool.modes_after(|tool, cx| fallocate(tool, cx, 0)),
        [0o755; 2]
    );
    assert_eq!(tool.modes_after(copy), [0o755; 2]);
}

#[test]
fn killpriv_is_agreed_on_as_configured() {
    let outer = tempfile::TempDir::new().unwrap();
    for (xattr, killpriv, expected) in [
        (Xattr::Off, Killpriv::WithXattr, false),
        (Xattr::On, Killpriv::WithXattr, true),
        (Xattr::Off, Killpriv::Always, true),
        (Xattr::On, Killpriv::Always, true),
    ] {
        let config = Config::new(outer.path()).xattr(xattr).killpriv(killpriv);
        let fs = PassthroughFs::new(config).unwrap();
        let agrees = |offered| {
            let agreed = begin(&fs, offered).unwrap();
            agreed.contains(InitFlags::HANDLE_KILLPRIV_V2)
        };
        let without_dax = InitFlags::all().difference(InitFlags::MAP_ALIGNMENT);
        assert_eq!(agrees(without_dax), expected, "{xattr:?} {killpriv:?}");
        // Of what is written to memory, the host sees nothing.
        assert!(!agrees(InitFlags::all()), "{xattr:?} {killpriv:?}");
    }
}

/// As with notify_change() in the guest's kernel, the mode that is given is the mode that results,
/// though chown(2) alone clears SUID and SGID.
#[test]
fn a_mode_that_comes_with_an_owner_is_the_last_word() {
    if !is_root("a_mode_that_comes_with_an_owner_is_the_last_word") {
        return;
    }
    let tool = Tool::new();
    tool.arm();
    let owner = SetattrIn {
        uid: USER,
        gid: USER,
        ..set(SetattrValid::UID | SetattrValid::GID)
    };
    let attr = tool.share.setattr(tool.file.0, owner).unwrap();
    assert_eq!(
        (attr.uid, attr.mode & 0o7777),
        (USER, 0o755),
        "chown clears"
    );
    for mode in [0o755, 0o6755, 0o4711] {
        tool.arm();
        let both = SetattrIn {
            mode,
            uid: 0,
            gid: 0,
            ..set(SetattrValid::UID | SetattrValid::GID | SetattrValid::MODE)
        };
        let attr = tool.share.setattr(tool.file.0, both).unwrap();
        assert_eq!((attr.uid, attr.mode & 0o7777), (0, mode));
    }
}

/// The thread is left without CAP_FSETID by a write that clears them, until what is done next
/// needs it.
#[test]
fn what_root_sets_after_a_write_that_clears_them_stays() {
    if !is_root("what_root_sets_after_a_write_that_clears_them_stays") {
        return;
    }
    const FOREIGN: u32 = 77;
    let tool = Tool::new();
    let (share, node) = (&tool.share, tool.file.0);
    let clear = || {
        let args = WriteIn {
            write_flags: WriteFlags::KILL_SUIDGID,
            ..Default::default()
        };
        share.write_with(&me(), tool.file, args, b"x").unwrap();
    };
    let arm = || {
        with_all_capabilities(|| {
            chown(share.host("tool"), Some(0), Some(FOREIGN)).unwrap();
            tool.arm();
        });
    };
    arm();
    clear();
    assert_eq!(tool.mode(), 0o755);
    let mode = SetattrIn {
        mode: 0o6755,
        ..set(SetattrValid::MODE)
    };
    share.setattr(node, mode).unwrap();
    assert_eq!(tool.mode(), 0o6755, "chmod");

    clear();
    arm();
    share.write(tool.file, 0, b"x").unwrap();
    assert_eq!(tool.mode(), 0o6755, "write");

    clear();
    arm();
    let size = SetattrIn {
        size: 1,
        ..set(SetattrValid::SIZE)
    };
    share.setattr(node, size).unwrap();
    assert_eq!(tool.mode(), 0o6755, "truncate");

    clear();
    arm();
    truncating_open(&tool, &root(), OpenInFlags::empty());
    assert_eq!(tool.mode(), 0o6755, "open with O_TRUNC");

    clear();
    let sgid = std::fs::Permissions::from_mode(0o2777);
    chown(&share.path, None, Some(FOREIGN)).unwrap();
    with_all_capabilities(|| std::fs::set_permissions(&share.path, sgid).unwrap());
    let args = CreateIn {
        flags: RDWR,
        mode: 0o102_755,
        ..Default::default()
    };
    for (n, uid) in [0, USER, 0].into_iter().enumerate() {
        let name = format!("new{n}");
        let attr = share.create(&user(uid, uid), &name, args).unwrap().0.attr;
        let expected = if uid == 0 { 0o2000 } else { 0 };
        assert_eq!((attr.gid, attr.mode & 0o2000), (FOREIGN, expected), "{n}");
        clear();
    }
    // Nor does a thread without it hand that on to those that it starts.
    clear();
    arm();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            share.write(tool.file, 0, b"x").unwrap();
            assert_eq!(tool.mode(), 0o6755, "write");
            let foreign = share.create(&root(), "foreign", args).unwrap().0.attr;
            assert_eq!(foreign.mode & 0o2000, 0o2000);
            share.mkdir(&user(USER, USER), "dir3", 0o755).unwrap();
            share.write(tool.file, 0, b"x").unwrap();
            assert_eq!(tool.mode(), 0o6755, "write after mkdir");
        });
    });
    // A thread that acted for a user has all capabilities again, and can do without once more.
    arm();
    share.mkdir(&user(USER, USER), "dir", 0o755).unwrap();
    share.write(tool.file, 0, b"x").unwrap();
    assert_eq!(tool.mode(), 0o6755);
    share.mkdir(&user(USER, USER), "dir2", 0o755).unwrap();
    clear();
    assert_eq!(tool.mode(), 0o755);
}

#[test]
fn a_change_that_fails_changes_nothing_else() {
    let tool = Tool::new();
    let (node, fh) = tool.file;
    let before = tool.share.attr(node);
    let mode = SetattrValid::MODE;
    let all = SetattrIn {
        mode: 0o700,
        uid: before.uid,
        gid: before.gid,
        size: 10,
        mtime: 5,
        fh,
        ..SetattrIn::default()
    };
    let owner = SetattrValid::UID | SetattrValid::GID;
    let mut failing = vec![
        // A handle that is not there, an id that is none, and nanoseconds that are too many.
        (
            node,
            SetattrIn {
                fh: Handle(999),
                valid: mode | owner | SetattrValid::SIZE | SetattrValid::FH,
                ..all
            },
            Errno::EBADF,
        ),
        (
            node,
            SetattrIn {
                uid: u32::MAX,
                valid: mode | SetattrValid::UID,
                ..all
            },
            Errno::EINVAL,
        ),
        (
            node,
            SetattrIn {
                mtimensec: u32::MAX,
                valid: mode | SetattrValid::SIZE | SetattrValid::MTIME,
                ..all
            },
            Errno::EINVAL,
        ),
    ];
    std::fs::create_dir(tool.share.host("dir")).unwrap();
    std::os::unix::fs::symlink("tool", tool.share.host("link")).unwrap();
    let (dir, link) = (tool.share.node("dir"), tool.share.node("link"));
    let resize = SetattrIn {
        valid: mode | owner | SetattrValid::SIZE,
        ..all
    };
    failing.push((dir, resize, Errno::EINVAL));
    let times = SetattrValid::MTIME | SetattrValid::MODE;
    failing.push((
        link,
        SetattrIn {
            valid: times,
            ..all
        },
        Errno::EOPNOTSUPP,
    ));
    for (node, args, expected) in failing {
        let before = tool.share.attr(node);
        assert_eq!(errno(tool.share.setattr(node, args)), expected, "{args:?}");
        assert_eq!(tool.share.attr(node), before, "{args:?}");
    }
}

/// Whoever has to wait for a lease does so before anything has changed: the request comes again.
#[test]
fn a_change_that_is_put_off_changes_nothing_yet() {
    let tool = Tool::new();
    let holder = std::fs::File::open(tool.share.host("tool")).unwrap();
    tool.share.release(tool.file).unwrap();
    if !sys::take_lease(&holder) {
        eprintln!("a_change_that_is_put_off_changes_nothing_yet: skipped: no leases here");
        return;
    }
    let node = tool.file.0;
    let before = tool.share.attr(node);
    let args = SetattrIn {
        mode: 0o700,
        size: 10,
        ..set(SetattrValid::MODE | SetattrValid::SIZE)
    };
    let put_off = tool.share.fs.setattr(&hasty(), node, &args);
    assert_eq!(put_off, Err(Error::WouldBlock));
    assert_eq!(tool.share.attr(node), before);
    drop(holder);
    let attr = tool.share.fs.setattr(&me(), node, &args).unwrap().attr;
    assert_eq!((attr.mode & 0o7777, attr.size), (0o700, 10));
}

#[test]
fn supplementary_groups_are_gone_after_every_request() {
    if !is_root("supplementary_groups_are_gone_after_every_request") {
        return;
    }
    let share = Share::new();
    chown(&share.path, None, Some(77)).unwrap();
    std::fs::set_permissions(&share.path, std::fs::Permissions::from_mode(0o2777)).unwrap();
    std::fs::create_dir(share.host("there")).unwrap();
    let in_group = Context {
        extensions: Extensions::new(SecurityContexts::default(), &[77]),
        ..user(USER, USER)
    };
    let too_many: Vec<u32> = (0..20).collect();
    let crowded = Context {
        extensions: Extensions::new(SecurityContexts::default(), &too_many),
        ..user(USER, USER)
    };
    let no_user = Context {
        extensions: in_group.extensions,
        ..user(u32::MAX, USER)
    };
    let outsider = user(USER, USER);
    let sgid = CreateIn {
        flags: RDWR,
        mode: 0o102_755,
        ..Default::default()
    };
    let requests: [(&str, &dyn Fn() -> Option<Errno>); 5] = [
        ("made", &|| {
            share.mkdir(&in_group, "made", 0o755).err().map(number)
        }),
        ("there", &|| {
            share.mkdir(&in_group, "there", 0o755).err().map(number)
        }),
        ("crowded", &|| {
            share.mkdir(&crowded, "crowded", 0o755).err().map(number)
        }),
        ("no user", &|| {
            share.mkdir(&no_user, "no user", 0o755).err().map(number)
        }),
        ("no flags", &|| {
            let args = CreateIn { flags: 3, ..sgid };
            share.create(&in_group, "no flags", args).err().map(number)
        }),
    ];
    let expected = [
        None,
        Some(Errno::EEXIST),
        Some(Errno::EINVAL),
        Some(Errno::EINVAL),
        Some(Errno::EINVAL),
    ];
    for ((name, request), expected) in requests.into_iter().zip(expected) {
        assert_eq!(request(), expected, "{name}");
        assert!(rustix::process::getgroups().unwrap().is_empty(), "{name}");
        let after = format!("after {name}");
        let attr = share.create(&outsider, &after, sgid).unwrap().0.attr;
        let host = std::fs::metadata(share.host(&after)).unwrap();
        assert_eq!((attr.gid, host.gid()), (77, 77));
        assert_eq!(attr.mode & 0o2000, 0, "{after}");
    }
    assert!(rustix::process::geteuid().is_root());
}

/// On a thread of its own, as that of the test may do without some.
fn with_all_capabilities(action: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut own = rustix::thread::capabilities(None).unwrap();
            own.effective = own.permitted;
            rustix::thread::set_capabilities(None, own).unwrap();
            action();
        });
    });
}

fn number(error: Error) -> Errno {
    errno::<()>(Err(error))
}

#[allow(unsafe_code)]
mod sys {
    use std::os::fd::AsRawFd;

    /// Takes a lease on `file`, which openers for writing wait for (fcntl(2)).
    pub(super) fn take_lease(file: &std::fs::File) -> bool {
        // SAFETY: neither call touches memory, and ignoring the signal that tells of an opener runs
        // no code.
        unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0
        }
    }
}
