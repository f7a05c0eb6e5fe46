use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testing::Console;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// User Mode Linux, killed when dropped.
struct Uml(Child);

impl Drop for Uml {
    fn drop(&mut self) {
        // It fails where the kernel has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two machines, one after the other, mount the share `data` of the back-end that listens at `socket`,
/// work on it, and end. It shares `share`.
pub(crate) fn works(socket: &Path, share: &Path) {
    fs::write(share.join("from_host"), "hello\n").expect("a file to read");
    let big: Vec<u8> = (0..4u32 << 20).map(|n| (n % 251) as u8).collect();
    fs::write(share.join("big"), &big).expect("a large file to read");
    for _ in 0..2 {
        let (_uml, console) = boot(socket);
        let said = console.wait_for(PATIENCE, |line| line.starts_with("guest: "));
        assert_eq!(said.as_deref(), Some("guest: ok"), "{}", console.tail());
        assert!(console.wait_for_end(PATIENCE), "it does not end");
        let written = fs::read_to_string(share.join("from_guest")).expect("the guest's file");
        assert_eq!(written, "hello\n");
        let count = fs::read_dir(share.join("directory")).expect("the guest's directory");
        assert_eq!(count.count(), 100);
        fs::remove_dir_all(share.join("directory")).expect("what the guest made can be removed");
    }
}

fn boot(socket: &Path) -> (Uml, Console) {
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/uml.sh");
    let mut child = Command::new("linux.uml")
        .args(["mem=256M", "con=null", "con0=fd:0,fd:1"])
        // The host's own root, which the guest may only read.
        .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", init.display()))
        .arg(format!("virtio_uml.device={}:26", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("linux.uml starts");
    let console = Console::read(child.stdout.take().expect("its console is piped"));
    (Uml(child), console)
}
