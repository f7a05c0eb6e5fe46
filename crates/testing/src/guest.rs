use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::{Console, emulator};

/// Processors of a guest.
pub const PROCESSORS: u16 = 2;

/// How long what QEMU wrote before its end may be on its way.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A share that a guest is given.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// What the guest calls it.
    pub tag: &'a str,
    /// Where its daemon listens.
    pub socket: &'a Path,
    /// How many request queues the device has, at most as many as the daemon serves.
    pub request_queues: u16,
}

/// A virtual machine that runs a script. Killed when dropped.
///
/// QEMU emulates it in software, with Debian's cloud kernel (it has FUSE and virtio-fs built in, so
/// no initrd is needed), and with the host's `/` as its root: what is installed here is there.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    console: Console,
    errors: Console,
}

impl Guest {
    /// Boots on the share `root`, the host's `/`, with `shares` at hand, and has sh(1) run the
    /// script `workload` with the variables `environment`, each `NAME=VALUE` without blanks. With a
    /// variable `DATA_TAG` the share of that tag is mounted at `/run/share` by then.
    ///
    /// # Panics
    /// Where what this takes is not installed.
    #[must_use]
    pub fn boot(
        root: &Share<'_>,
        shares: &[Share<'_>],
        workload: &Path,
        environment: &[&str],
    ) -> Self {
        Self::boot_with(root, shares, workload, environment, &[])
    }

    /// As [`boot`](Self::boot), by a QEMU with the options `qemu` as well.
    ///
    /// # Panics
    /// As [`boot`](Self::boot).
    #[must_use]
    pub fn boot_with(
        root: &Share<'_>,
        shares: &[Share<'_>],
        workload: &Path,
        environment: &[&str],
        qemu: &[&str],
    ) -> Self {
        // QEMU dies with the thread that started it, even where that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
            .args(["-accel", "tcg,thread=multi", "-smp"])
            .arg(PROCESSORS.to_string())
            .args(["-machine", "q35,memory-backend=mem", "-m", "1G"])
            .args(["-object", "memory-backend-memfd,id=mem,size=1G,share=on"])
            .arg("-kernel")
            .arg(kernel())
            .arg("-append")
            .arg(command_line(root, workload, environment))
            .args(qemu);
        for share in [root].into_iter().chain(shares) {
            command.args(device(share));
        }
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) and qemu-system-x86_64 are installed");
        let console = Console::read(qemu.stdout.take().expect("its console is piped"));
        let errors = Console::read(qemu.stderr.take().expect("its errors are piped"));
        Self {
            qemu,
            console,
            errors,
        }
    }

    /// Waits for a line of the console that contains `text`.
    ///
    /// # Panics
    /// Where none came in time, or before the guest ended.
    pub fn wait_for(&self, text: &str, patience: Duration) {
        assert!(
            self.says(text, patience),
            "no {text:?} within {patience:?} on the console:\n{}",
            self.console.tail()
        );
    }

    /// Types a line on its console.
    ///
    /// # Errors
    /// It has ended.
    pub fn type_line(&mut self, line: &str) -> io::Result<()> {
        let input = self.qemu.stdin.as_mut();
        let input = input.ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")
    }

    /// What is on its console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Whether a line with `text` comes within `patience`, and before the guest fails or ends.
    #[must_use]
    pub fn says(&self, text: &str, patience: Duration) -> bool {
        let line = self.console.wait_for(patience, |line| {
            line.contains(text) || line.contains("guest: FAILED")
        });
        line.is_some_and(|line| line.contains(text))
    }

    /// Waits until the guest has powered itself off, and returns what it said.
    ///
    /// # Panics
    /// Where it did not in time, or a step of its workload failed.
    #[must_use]
    pub fn wait(mut self, patience: Duration) -> Vec<String> {
        let ended = self.console.wait_for_end(patience);
        let lines = self.console.lines();
        assert!(
            ended && !lines.iter().any(|line| line.contains("guest: FAILED")),
            "the guest {}; its console:\n{}",
            if ended {
                "failed"
            } else {
                "did not end in time"
            },
            self.console.tail()
        );
        assert!(self.qemu.wait().is_ok_and(|status| status.success()));
        lines
            .into_iter()
            .filter(|line| line.contains("guest: "))
            .collect()
    }

    /// Takes the machine away in the midst of what it does.
    pub fn kill(self) {}
}

impl Drop for Guest {
    fn drop(&mut self) {
        // None of these fails where it has ended already.
        let _ = self.qemu.kill();
        let status = self.qemu.wait();
        let _ = self.errors.wait_for_end(LAST_WORDS);
        let errors = self.errors.lines();
        errors.iter().for_each(|line| eprintln!("{line}"));
        if let Ok(status) = status {
            emulator::ended(status, &errors, &self.console.lines());
        }
    }
}

/// The newest installed cloud kernel.
fn kernel() -> PathBuf {
    let mut kernels: Vec<PathBuf> = fs::read_dir("/boot")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let path = path.to_string_lossy();
            path.starts_with("/boot/vmlinuz-") && path.ends_with("-cloud-amd64")
        })
        .collect();
    kernels.sort();
    kernels
        .pop()
        .expect("a kernel in /boot (package linux-image-cloud-amd64 from bookworm-backports)")
}

/// What is not known to the kernel becomes the environment of the first process.
///
/// The kernel counts ticks early on to see whether its timer works; emulated on a busy host there
/// are too few, and it hangs with what it takes for a broken one. So it is told not to.
fn command_line(root: &Share<'_>, workload: &Path, environment: &[&str]) -> String {
    let init = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/init.sh");
    let line = [
        "console=ttyS0 quiet no_timer_check panic=-1 rootfstype=virtiofs ro".to_owned(),
        format!("root={}", root.tag),
        format!("init={}", word(Path::new(init))),
        format!("TOOLS={}", tools().display()),
        format!("WORKLOAD={}", word(workload)),
    ];
    let environment = environment.iter().map(|&variable| variable.to_owned());
    line.into_iter()
        .chain(environment)
        .collect::<Vec<_>>()
        .join(" ")
}

fn word(path: &Path) -> &str {
    let path = path.to_str().filter(|path| !path.contains(' '));
    path.expect("a path that a kernel's command line can hold")
}

/// Where cargo installs programs.
fn tools() -> PathBuf {
    let cargo = env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&env::var_os("HOME").expect("a home")).join(".cargo"),
        PathBuf::from,
    );
    cargo.join("bin")
}

fn device(share: &Share<'_>) -> [String; 4] {
    let Share {
        tag,
        socket,
        request_queues,
    } = share;
    [
        "-chardev".to_owned(),
        format!("socket,id={tag},path={}", socket.display()),
        "-device".to_owned(),
        format!(
            "vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=512,\
             num-request-queues={request_queues}"
        ),
    ]
}
