//! The daemon as its users see it: options, socket, signals, and what it says.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::Daemon;
use virtio_fs_guest::{Connection, MountOptions, Options};

fn virtiofsd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virtiofsd"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the daemon runs")
}

/// What it says on standard error, which is one line.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    text
}

#[track_caller]
fn assert_refused(args: &[&str], code: i32, parts: &[&str]) {
    let output = virtiofsd(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let text = complaint(&output);
    for part in parts {
        assert!(text.contains(part), "{args:?}: no {part:?} in {text:?}");
    }
}

#[test]
fn usage_errors_are_one_line() {
    assert_refused(&[], 2, &["--shared-dir", "--socket-path", "--help"]);
    assert_refused(&["--shared-dir=/tmp"], 2, &["--socket-path"]);
    assert_refused(&["--socket-path=/tmp/s"], 2, &["--shared-dir"]);
    let both = ["--shared-dir=/tmp", "--socket-path=/tmp/s"];
    let with = |option| [&both[..], &[option]].concat();
    assert_refused(
        &with("--fd=3"),
        2,
        &["--fd", "--socket-path", "cannot be used with"],
    );
    assert_refused(&with("--sandbox=none"), 2, &["--sandbox"]);
    assert_refused(&with("--writeback=yes"), 2, &["--writeback"]);
    assert_refused(&with("-o"), 2, &["-o"]);
    assert_refused(
        &with("--cache=some"),
        2,
        &["some", "never, metadata, auto, always"],
    );
    assert_refused(
        &with("--num-request-queues=0"),
        2,
        &["--num-request-queues"],
    );
    assert_refused(
        &with("--num-request-queues=64"),
        2,
        &["--num-request-queues", "63"],
    );
    assert_refused(
        &with("--queue-affinity=0,x"),
        2,
        &["--queue-affinity", "0,1,2-3"],
    );
    assert_refused(
        &with("--queue-affinity=1-0"),
        2,
        &["--queue-affinity", "1-0"],
    );
    assert_refused(
        &with("--queue-affinity=1000"),
        2,
        &["--queue-affinity", "processor 1000", "may run on"],
    );
    assert_refused(&with("--thread-pool-size=many"), 2, &["--thread-pool-size"]);
    for bad in ["--poll-us=1001", "--poll-us=-1", "--poll-us=often"] {
        assert_refused(&with(bad), 2, &["--poll-us", "from 0 to 1000"]);
    }
    assert_refused(&with("--tag="), 2, &["--tag"]);
    let long = format!("--tag={}", "t".repeat(37));
    assert_refused(&with(&long), 2, &["--tag", "36"]);
    assert_refused(&["--shared-dir=/tmp", "--fd=-1"], 2, &["--fd"]);
}

#[test]
fn what_cannot_be_shared_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("--socket-path={}/socket", directory.path().display());
    assert_refused(
        &[&socket, "--shared-dir=/no/such/directory"],
        1,
        &["/no/such/directory", "No such file or directory"],
    );
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let shared = format!("--shared-dir={}", file.display());
    assert_refused(&[&socket, &shared], 1, &["file", "Not a directory"]);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "only `file`"
    );
}

#[test]
fn sockets_that_cannot_be_listened_on_are_named() {
    let nowhere = [
        "--socket-path=/no/such/directory/socket",
        "--shared-dir=/tmp",
    ];
    assert_refused(&nowhere, 1, &["/no/such/directory/socket"]);
    // Standard input is /dev/null.
    assert_refused(
        &["--fd=0", "--shared-dir=/tmp"],
        1,
        &["--fd=0", "not a listening"],
    );
    assert_refused(
        &["--fd=99", "--shared-dir=/tmp"],
        1,
        &["--fd=99", "not a listening"],
    );
}

#[test]
fn limit_on_open_files_is_set_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let daemon = Daemon::start(&socket, directory.path(), &["--rlimit-nofile=512"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some("512"), "{limits}");

    let socket = format!("--socket-path={}", directory.path().join("other").display());
    let too_many = "--rlimit-nofile=1000000000000";
    assert_refused(
        &[&socket, "--shared-dir=/tmp", too_many],
        1,
        &["--rlimit-nofile", "1000000000000", "the most"],
    );
}

#[test]
fn capabilities_are_json() {
    let output = virtiofsd(&["--print-capabilities"]);
    assert!(output.status.success());
    let text: String = String::from_utf8(output.stdout).unwrap();
    let dense: String = text.split_whitespace().collect();
    let features = r#"["migrate-precopy","separate-options"]"#;
    assert_eq!(dense, format!(r#"{{"type":"fs","features":{features}}}"#));
}

#[test]
fn help_and_version_are_printed() {
    let help = virtiofsd(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for part in [
        "--socket-path",
        "Examples:",
        "qemu-system-x86_64",
        "mount -t virtiofs",
    ] {
        assert!(text.contains(part), "no {part:?} in the help");
    }
    let version = virtiofsd(&["--version"]);
    let expected = format!("virtiofsd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

/// Starts a daemon that shares a fresh directory with one file.
fn start(directory: &Path, args: &[&str]) -> Daemon {
    let shared = directory.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "content").unwrap();
    Daemon::start(&directory.join("socket"), &shared, args)
}

fn connect(daemon: &Daemon) -> Connection {
    Connection::connect(daemon.socket(), &Options::default()).expect("the daemon takes it")
}

#[test]
fn signals_end_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let daemon = start(directory.path(), &[]);
        assert!(daemon.end(signal).success());
        let left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["shared"], "the socket and its lock are gone");
    }
}

#[test]
fn signal_ends_it_with_a_mounted_guest() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(directory.path(), &[]);
    let mut mount = connect(&daemon).mount(&MountOptions::default()).unwrap();
    mount.lookup(fuse_wire::NodeId::ROOT, c"file").unwrap();
    let socket = daemon.socket().to_owned();
    assert!(daemon.end("TERM").success());
    assert!(!socket.exists());
}

#[test]
fn second_daemon_on_a_socket_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(directory.path(), &[]);
    let socket = format!("--socket-path={}", daemon.socket().display());
    let id = daemon.id().to_string();
    assert_refused(
        &[&socket, "--shared-dir=/tmp"],
        1,
        &[&id, "socket", "another"],
    );
    connect(&daemon).mount(&MountOptions::default()).unwrap();
}

#[test]
fn socket_of_a_killed_daemon_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    // Killed when dropped.
    let socket = start(directory.path(), &[]).socket().to_owned();
    assert!(socket.exists());
    let daemon = Daemon::start::<&str>(&socket, &directory.path().join("shared"), &[]);
    connect(&daemon).mount(&MountOptions::default()).unwrap();
}

#[test]
fn front_ends_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = start(directory.path(), &["--num-request-queues=2"]);
    for _ in 0..3 {
        let mut mount = connect(&daemon).mount(&MountOptions::default()).unwrap();
        let file = mount.lookup(fuse_wire::NodeId::ROOT, c"file").unwrap();
        let handle = mount.open(file.nodeid, 0).unwrap().fh;
        let mut content = [0; 100];
        let read = mount.read(file.nodeid, handle, 0, &mut content).unwrap();
        assert_eq!(&content[..read], b"content");
        // Gone without a farewell.
        drop(mount);
    }
    assert!(daemon.is_running());
}

#[test]
fn read_only_share_refuses_changes() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(directory.path(), &["--readonly"]);
    let mut mount = connect(&daemon).mount(&MountOptions::default()).unwrap();
    let error = mount
        .mkdir(fuse_wire::NodeId::ROOT, c"new", 0o755)
        .unwrap_err();
    assert_eq!(error.errno(), Some(fuse_wire::Errno::EROFS));
    assert!(!directory.path().join("shared/new").exists());
}

#[test]
fn several_directories_are_shared() {
    let directory = tempfile::tempdir().unwrap();
    let exports: Vec<_> = ["a", "b:ro"]
        .map(|name| {
            let path = directory.path().join(&name[..1]);
            fs::create_dir(&path).unwrap();
            format!("--export={}={}{}", &name[..1], path.display(), &name[1..])
        })
        .into();
    let both = [
        exports[0].as_str(),
        "--shared-dir=/tmp",
        "--socket-path=/tmp/s",
    ];
    assert_refused(
        &both,
        2,
        &["--export", "--shared-dir", "cannot be used with"],
    );
    assert_refused(&["--export=/tmp", "--socket-path=/tmp/s"], 2, &["NAME=DIR"]);

    let daemon = Daemon::start_sharing(&directory.path().join("socket"), &exports);
    let mut mount = connect(&daemon).mount(&MountOptions::default()).unwrap();
    let [a, b] = [c"a", c"b"].map(|name| {
        let entry = mount.lookup(fuse_wire::NodeId::ROOT, name).unwrap();
        entry.nodeid
    });
    mount.mkdir(a, c"new", 0o755).unwrap();
    assert!(directory.path().join("a/new").exists());
    let error = mount.mkdir(b, c"new", 0o755).unwrap_err();
    assert_eq!(error.errno(), Some(fuse_wire::Errno::EROFS));
}

#[test]
fn tag_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(directory.path(), &["--tag=mine", "--num-request-queues=3"]);
    let connection = connect(&daemon);
    let config = connection.config().expect("a configuration space");
    assert_eq!(config.tag, b"mine");
    assert_eq!(config.num_request_queues, 3);
}

#[test]
fn inherited_socket_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_virtiofsd"))
        .args(["--fd=0", "--log-level=off", "--shared-dir"])
        .arg(directory.path())
        .stdin(OwnedFd::from(listener))
        .spawn()
        .unwrap();
    let mounted = Connection::connect(&path, &Options::default())
        .and_then(|device| device.mount(&MountOptions::default()));
    child.kill().unwrap();
    child.wait().unwrap();
    mounted.unwrap();
    assert!(path.exists(), "whoever made it removes it");
}
