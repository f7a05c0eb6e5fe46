//! A Linux guest that is moved while it runs, from one QEMU and its daemons to others.
//!
//! Needs QEMU (10 or newer) and Debian's cloud kernel (6.12 or newer), and takes a minute, because the
//! guest is emulated: `.ci/run` installs what is needed and runs this.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::Host;
use testing::{Guest, Monitor, emulated};

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the guest is moved.
const MOVES: usize = 3;

/// A machine, or one to be.
struct Machine {
    host: Host,
    guest: Guest,
    monitor: Monitor,
}

impl Machine {
    /// One that boots.
    fn boot(host: Host) -> Self {
        Self::start(host, &[])
    }

    /// One that waits for a guest at [`entrance`](Self::entrance).
    fn receive(host: Host) -> Self {
        let entrance = format!("unix:{}", host.directory().join("entrance").display());
        Self::start(host, &["-incoming", &entrance])
    }

    fn start(mut host: Host, options: &[&str]) -> Self {
        let socket = host.directory().join("monitor");
        let monitor = format!("unix:{},server=on,wait=off", socket.display());
        let options = [&["-qmp", &monitor], options].concat();
        let guest = host.boot_with("moved.sh", &options);
        let monitor = Monitor::connect(&socket, PATIENCE);
        Self {
            host,
            guest,
            monitor,
        }
    }

    fn entrance(&self) -> PathBuf {
        self.host.directory().join("entrance")
    }

    /// Waits until the guest has done something here from now on.
    fn wait_for_work(&self) {
        let rounds = || {
            let lines = self.guest.console().lines();
            let is = |text| move |line: &&String| line.contains(text);
            let failure = lines.iter().find(is("guest: FAILED"));
            assert_eq!(failure, None, "{}", self.guest.console().tail());
            lines.iter().filter(is("guest: round")).count()
        };
        let (before, begun) = (rounds(), Instant::now());
        while rounds() < before + 2 {
            assert!(begun.elapsed() < PATIENCE, "the guest does nothing");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn a_guest_that_is_moved_notices_nothing() {
    emulated(|| {
        let first = Host::new("auto", &[]);
        let share = first.share();
        let beside = || Host::sharing(share.clone(), "auto", &[]);
        let mut machine = Machine::boot(first);
        machine.wait_for_work();

        // One that does not arrive goes on where it is: what was logged is not any more.
        let other = Machine::receive(beside());
        machine.monitor.migrate(&other.entrance(), Some(1 << 20));
        machine.monitor.wait_for_migration("active", PATIENCE);
        machine.monitor.execute("migrate_cancel", json!({}));
        machine.monitor.wait_for_migration("cancelled", PATIENCE);
        machine.wait_for_work();
        drop(other);

        let mut left = Vec::new();
        for _ in 0..MOVES {
            let next = Machine::receive(beside());
            machine.monitor.migrate(&next.entrance(), None);
            machine.monitor.wait_for_migration("completed", PATIENCE);
            machine.guest.kill();
            left.push(machine.host);
            next.wait_for_work();
            machine = next;
        }
        fs::write(share.join("stop"), "").expect("a file for the guest");
        let said = machine.guest.wait(PATIENCE);
        println!("{}", said.join("\n"));
        assert_eq!(
            fs::read_to_string(share.join("held")).expect("the file that was open all the time"),
            "written before\nwritten after\n"
        );
        machine.host.end();
        left.into_iter().for_each(Host::end);
    });
}
