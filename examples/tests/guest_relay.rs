//! Real front-ends behind the relay: QEMU, with the driver of Linux, and User Mode Linux. Their
//! daemons come and go, which neither can deal with itself.
//!
//! Needs what `guest.rs` and `guest_uml.rs` need, and takes a minute.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Daemon, boot, run, uml};
use tempfile::TempDir;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// A directory with a share, and its daemon, to which there is a relay.
struct Place {
    relay: Daemon,
    daemon: Daemon,
    // After the daemons, which end before it is removed.
    directory: TempDir,
}

impl Place {
    fn new(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("share")).expect("a directory to share");
        let daemon = serve(directory.path());
        let relay = Daemon::relay(&directory.path().join("relay"), daemon.socket(), options);
        Self {
            relay,
            daemon,
            directory,
        }
    }

    fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// Has another daemon in the place of the one there is, which goes by SIGKILL, and tells the guest,
    /// by a file that it sees in its root.
    fn replace_daemon(&mut self, times: usize) {
        // Dropped by the assignment it would end after the other one has begun.
        self.daemon.kill();
        self.daemon = serve(self.directory.path());
        self.relay.logs_times("a daemon is there again", times);
        let told = self.directory.path().join(format!("replaced{times}"));
        fs::write(told, "").expect("a file for the guest");
    }

    fn end(mut self) {
        assert!(self.relay.is_running(), "{}", self.relay.log());
        assert!(self.relay.end("TERM").success());
        assert!(self.daemon.end("TERM").success());
    }
}

fn serve(directory: &Path) -> Daemon {
    let options: [&str; 0] = [];
    Daemon::start(
        &directory.join("daemon"),
        &directory.join("share"),
        &options,
    )
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn daemons_of_a_linux_guest_come_and_go() {
    let queues = "--num-request-queues=2";
    let mut place = Place::new(&[queues]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let daemon = directory.path().join("daemon");
    let daemon = Daemon::start(&daemon, Path::new("/"), &["--readonly"]);
    let root = Daemon::relay(&directory.path().join("relay"), daemon.socket(), &[queues]);

    let told = format!("TOLD={}/replaced", place.directory.path().display());
    let guest = boot(&root, &place.relay, "relayed.sh", &[&told], &[]);
    guest.wait_for("guest: unmounted", PATIENCE);
    place.replace_daemon(1);
    guest.wait_for("guest: works", PATIENCE);
    place.replace_daemon(2);
    println!("{}", guest.wait(PATIENCE).join("\n"));

    let share = place.share();
    assert!(share.join("second_boot").exists(), "it booted once only");
    run(&share, "md5sum", &["--quiet", "-c", "big_file.md5"]);
    run(&share, "md5sum", &["--quiet", "-c", "files.md5"]);
    assert!(root.end("TERM").success());
    assert!(daemon.end("TERM").success());
    place.end();
}

#[test]
#[ignore = "boots User Mode Linux; .ci/run runs it"]
fn daemons_of_user_mode_linux_come_and_go() {
    let mut place = Place::new(&["--tag=data"]);
    uml::works(place.relay.socket(), &place.share());
    place.replace_daemon(1);
    uml::works(place.relay.socket(), &place.share());
    place.end();
}
