//! Real front-ends behind the relay: QEMU, with the driver of Linux, and User Mode Linux. Their
//! daemons come and go, which neither can deal with itself.
//!
//! Needs what `guest.rs` and `guest_uml.rs` need, and takes a minute.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Daemon, Program, run, uml};
use tempfile::TempDir;
use testing::{Guest, Share, emulated};

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// A directory with a share, and its daemon, to which there is a relay.
struct Place {
    program: Program,
    relay: Daemon,
    daemon: Daemon,
    // After the daemons, which end before it is removed.
    directory: TempDir,
}

impl Place {
    fn new(program: Program, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("share")).expect("a directory to share");
        let daemon = serve(&program, directory.path());
        let relay = Daemon::relay(&directory.path().join("relay"), daemon.socket(), options);
        Self {
            program,
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
        self.daemon = serve(&self.program, self.directory.path());
        self.relay.logs_times("a daemon is there again", times);
        let told = self.directory.path().join(format!("replaced{times}"));
        fs::write(told, "").expect("a file for the guest");
    }

    fn end(mut self) {
        assert!(self.relay.is_running(), "{}", self.relay.log());
        assert!(self.relay.end("TERM").success());
        // The reference daemon ends with its connection.
        assert!(self.program != Program::Ours || self.daemon.end("TERM").success());
    }
}

fn serve(program: &Program, directory: &Path) -> Daemon {
    let shared = format!("--shared-dir={}", directory.join("share").display());
    Daemon::start_by(program.command(), &directory.join("daemon"), [shared])
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn daemons_of_a_linux_guest_come_and_go() {
    linux(&Program::Ours, "record");
}

/// What is in flight when it dies is lost, with all else that the guest still wants of the share: it is
/// reset then.
#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn daemons_that_keep_nothing_come_and_go() {
    if let Some(peer) = Program::peer() {
        linux(&peer, "nothing");
    }
}

/// Boots a guest on the host's root and the share of `program`, both by way of relays.
fn linux(program: &Program, keeps: &str) {
    emulated(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let daemon = directory.path().join("daemon");
        let daemon = Daemon::start(&daemon, Path::new("/"), &["--readonly"]);
        let root = Daemon::relay(&directory.path().join("relay"), daemon.socket(), &[]);
        let request_queues = program.request_queues();
        let queues = format!("--num-request-queues={request_queues}");
        let mut place = Place::new(program.clone(), &[&queues]);

        let share = |tag, relay, request_queues| Share {
            tag,
            socket: Daemon::socket(relay),
            request_queues,
        };
        let workload = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/relayed.sh");
        let told = format!("TOLD={}/replaced", place.directory.path().display());
        let guest = Guest::boot(
            &share("root", &root, 1),
            &[share("data", &place.relay, request_queues)],
            &workload,
            &["DATA_TAG=data", &told, &format!("DAEMON_KEEPS={keeps}")],
        );
        guest.wait_for("guest: unmounted", PATIENCE);
        let switches = (place.relay.switches(), place.daemon.switches());
        println!("switches of the relay and of the daemon: {switches:?}");
        assert!(switches.0 < 500 && switches.1 > 1_000, "{switches:?}");
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
    });
}

#[test]
#[ignore = "boots User Mode Linux; .ci/run runs it"]
fn daemons_of_user_mode_linux_come_and_go() {
    let mut place = Place::new(Program::Ours, &["--tag=data"]);
    uml::works(place.relay.socket(), &place.share());
    place.replace_daemon(1);
    uml::works(place.relay.socket(), &place.share());
    place.end();
}
