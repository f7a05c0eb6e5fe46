//! A Linux guest with a share of several directories. Needs what `guest.rs` needs.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::Daemon;
use testing::emulated;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn exports_in_a_guest() {
    emulated(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["rw", "ro"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), format!("{name}\n")).unwrap();
        }
        let exports = [
            format!("--export=rw={}", path("rw").display()),
            format!("--export=ro={}:ro", path("ro").display()),
        ];
        let root = Daemon::start(&path("root.sock"), Path::new("/"), &["--readonly"]);
        let data = Daemon::start_sharing(&path("data.sock"), exports);
        let guest = support::boot(&root, &data, "exports.sh", &[], &[]);
        println!("{}", guest.wait(PATIENCE).join("\n"));
        assert_eq!(fs::read_to_string(path("rw/moved")).unwrap(), "new\n");
        assert_eq!(fs::read_dir(path("ro")).unwrap().count(), 1);
        for daemon in [data, root] {
            assert!(daemon.end("TERM").success());
        }
    });
}
