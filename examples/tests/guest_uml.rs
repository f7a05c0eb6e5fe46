//! User Mode Linux as the front-end: another implementation than QEMU's, which reads the tag from
//! our config space.
//!
//! Needs Debian's user-mode-linux (kernel 6.1 or newer); `.ci/run` installs it and runs this.

#![forbid(unsafe_code)]

mod support;

use support::{Daemon, uml};

#[test]
#[ignore = "boots User Mode Linux; .ci/run runs it"]
fn user_mode_linux_mounts_a_share() {
    let share = tempfile::tempdir().expect("a directory to share");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("socket");
    let mut daemon = Daemon::start(&socket, share.path(), &["--tag=data"]);
    uml::works(&socket, share.path());
    assert!(daemon.is_running());
}
