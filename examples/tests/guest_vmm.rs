//! Our VMM, with a Linux in it whose root and a second share are served by our daemon, and then by the
//! VMM itself.
//!
//! It needs KVM, which a guest in QEMU has by nested virtualization, in software as all else: so
//! there are two Linux, one in the other. Needs what `guest.rs` needs, and takes some four minutes.
//! QEMU was seen to reset the machine in the midst of it, without a word of its kernel's: then all steps
//! are done again from the first. The inner machine was seen to begin anew in the same way, for which
//! a triple fault is the likely reason: where that is so, the test is run again (see `emulated`).

#![forbid(unsafe_code)]

mod support;

use std::path::Path;
use std::time::Duration;

use support::Daemon;
use testing::{Guest, PROCESSORS, Share, emulated};

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(1800);

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn linux_in_our_vmm() {
    emulated(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root.sock");
        let root = Daemon::start(&root, Path::new("/"), &["--readonly"]);
        let share = Share {
            tag: "root",
            socket: root.socket(),
            request_queues: PROCESSORS,
        };
        let programs = Path::new(env!("CARGO_BIN_EXE_vmm")).parent();
        let programs = format!("PROGRAMS={}", programs.unwrap().display());
        let workload = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/vmm.sh");
        let nested = ["-cpu", "EPYC,+svm"];
        let guest = Guest::boot_with(&share, &[], &workload, &[&programs], &nested);
        println!("{}", guest.wait(PATIENCE).join("\n"));
        assert!(root.end("TERM").success());
    });
}
