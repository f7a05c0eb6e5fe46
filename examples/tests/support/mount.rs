use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use testing::Console;

/// A filesystem that `mount` of this package has mounted, and what that logs. Both are gone when
/// this is dropped.
pub(crate) struct Mount {
    child: Child,
    log: Console,
    mountpoint: PathBuf,
}

impl Mount {
    /// Whether this process can mount; says so where it cannot.
    pub(crate) fn is_possible() -> bool {
        let possible = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
        if !possible {
            eprintln!("skipped: needs root and /dev/fuse");
        }
        possible
    }

    /// Mounts `source` on `mountpoint`, a directory that is made where there is none.
    pub(crate) fn start(
        source: impl AsRef<OsStr>,
        mountpoint: impl Into<PathBuf>,
        args: &[&str],
    ) -> Self {
        let mountpoint = mountpoint.into();
        std::fs::create_dir_all(&mountpoint).expect("a mount point");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mount"))
            .args(args)
            .arg(source)
            .arg(&mountpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = Console::read(child.stderr.take().expect("its log is piped"));
        let mount = Self {
            child,
            log,
            mountpoint,
        };
        let mounted = mount.wait_for("mounted");
        assert!(mounted, "it does not mount; its log:\n{}", mount.log());
        mount
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until it logs a line with `part` in it, and returns whether it does.
    pub(crate) fn wait_for(&self, part: &str) -> bool {
        self.log
            .wait_for(Duration::from_secs(30), |line| line.contains(part))
            .is_some()
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        self.log.tail()
    }

    /// Sends it `signal`, a name that kill(1) knows.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill failed");
    }

    /// Ends it without a chance to unmount.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("its exit status");
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        assert!(
            self.log.wait_for_end(Duration::from_secs(30)),
            "it does not end; its log:\n{}",
            self.log()
        );
        self.child.wait().expect("its exit status")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Neither fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Nothing is there where it has unmounted it.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.mountpoint)
            .stderr(Stdio::null())
            .status();
    }
}
