use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use testing::Guest;

use super::{Daemon, boot};

/// The daemons of a guest: `/` read-only, and a fresh directory to work on.
pub(crate) struct Host {
    root: Daemon,
    data: Daemon,
    share: PathBuf,
    // After the daemons, which end before it is removed.
    directory: TempDir,
}

impl Host {
    /// Starts the daemon of the root and that of the fresh directory, each with `--cache=CACHE`,
    /// the second with the options `data` as well.
    pub(crate) fn new(cache: &str, data: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let share = directory.path().join("share");
        fs::create_dir(&share).expect("the directory to share");
        Self::start(directory, share, cache, data, daemon())
    }

    /// As [`new`](Self::new), but the daemon of the fresh directory may open 1,024 files, and runs
    /// as `user`, whom the directory belongs to.
    pub(crate) fn limited(user: u32, cache: &str, data: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let share = directory.path().join("share");
        fs::create_dir(&share).expect("the directory to share");
        // Where this was built, the user may not be let in.
        let program = directory.path().join("virtiofsd");
        fs::copy(daemon().get_program(), &program).expect("a copy of the daemon");
        let everybody = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(directory.path(), everybody).expect("its mode");
        chown(&share, Some(user), Some(user)).expect("its owner");
        let mut command = Command::new("prlimit");
        command.args(["--nofile=1024:1024", "setpriv", "--clear-groups"]);
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.arg(program);
        Self::start(directory, share, cache, data, command)
    }

    /// As [`new`](Self::new), but shares the directory of `other`, which outlives this.
    pub(crate) fn beside(other: &Self, cache: &str, data: &[&str]) -> Self {
        Self::sharing(other.share(), cache, data)
    }

    /// As [`new`](Self::new), but shares a directory that is there and outlives this.
    pub(crate) fn sharing(share: PathBuf, cache: &str, data: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start(directory, share, cache, data, daemon())
    }

    fn start(
        directory: TempDir,
        share: PathBuf,
        cache: &str,
        data: &[&str],
        command: Command,
    ) -> Self {
        let cache = format!("--cache={cache}");
        let options = [cache.as_str(), "--num-request-queues=2"];
        let root_options = [&options[..], &["--readonly"]].concat();
        let root = Daemon::start(
            &directory.path().join("root"),
            Path::new("/"),
            &root_options,
        );
        let shared = format!("--shared-dir={}", share.display());
        let data_options = [&[shared.as_str()], &options[..], data].concat();
        let data = Daemon::start_by(command, &directory.path().join("data"), data_options);
        Self {
            root,
            data,
            share,
            directory,
        }
    }

    /// A directory for what belongs to this guest. It sees it in its root, where it is read-only.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory that the guest works on.
    pub(crate) fn share(&self) -> PathBuf {
        self.share.clone()
    }

    /// Boots a guest that runs `workload`, a script of `tests/guest/`, with the variables `environment`,
    /// each `NAME=VALUE` without blanks.
    pub(crate) fn boot(&mut self, workload: &str, environment: &[&str]) -> Guest {
        boot(&self.root, &self.data, workload, environment, &[])
    }

    /// As [`boot`](Self::boot), by a QEMU with the options `qemu` as well.
    pub(crate) fn boot_with(&mut self, workload: &str, qemu: &[&str]) -> Guest {
        boot(&self.root, &self.data, workload, &[], qemu)
    }

    /// Both daemons still serve, and end when told to.
    pub(crate) fn end(self) {
        for mut daemon in [self.root, self.data] {
            assert!(daemon.is_running(), "a daemon ended:\n{}", daemon.log());
            assert!(daemon.end("TERM").success());
        }
    }
}

fn daemon() -> Command {
    Command::new(env!("CARGO_BIN_EXE_virtiofsd"))
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(directory: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
