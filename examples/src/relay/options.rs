use std::path::PathBuf;

use clap::Parser;
use vhost_user_fs::MAX_REQUEST_QUEUES;
use virtio_fs_device::Tag;

use crate::log::LogOptions;

const EXAMPLES: &str = "\
Examples:
  Put it between QEMU and a daemon. The daemon is started first, and QEMU has the
  relay's socket where it had that of the daemon:
    virtiofsd --socket-path=/run/daemon.sock --shared-dir=/srv/data &
    relay --listen=/run/data.sock --daemon=/run/daemon.sock &
    qemu-system-x86_64 ... -machine memory-backend=mem -m 1G \\
        -object memory-backend-memfd,id=mem,size=1G,share=on \\
        -chardev socket,id=data,path=/run/data.sock \\
        -device vhost-user-fs-pci,chardev=data,tag=data,queue-size=512

  A front-end that reads the tag from its back-end, such as User Mode Linux:
    relay --listen=/run/data.sock --daemon=/run/daemon.sock --tag=data &
    linux.uml mem=512M virtio_uml.device=/run/data.sock:26 ...

What happens when the daemon ends, is killed, or is replaced by a newer one:
  Requests wait, and the next daemon that listens at the same path answers them,
  those that were in flight, too (it has to offer INFLIGHT_SHMFD, as virtiofsd of
  these examples does). Of the files that the guest has open it may know nothing:
  then they fail, and the guest mounts anew (umount -l, mount). Without
  INFLIGHT_SHMFD, what was in flight is lost, and the guest has to be reset. A
  daemon that was idle, as where nothing is mounted, can be replaced in any case.

The relay takes no part in requests, so it costs nothing while they are served.
It has to outlive the VMM's connection: where it ends, that is gone. A machine
that is moved elsewhere (migration) has to be connected with its daemon itself.
It runs until SIGTERM or SIGINT.";

/// Stands between a VMM and a virtio-fs daemon, so that the daemon can be restarted while the virtual
/// machine runs, which the VMM does not notice.
#[derive(Debug, Parser)]
#[command(name = "relay", version, after_help = EXAMPLES)]
pub(super) struct Options {
    /// Socket that the VMM connects to. It is made here and removed at the end
    #[arg(long, value_name = "PATH")]
    pub(super) listen: PathBuf,

    /// Socket that the daemon listens on, this one and those that take its place
    #[arg(long, value_name = "PATH")]
    pub(super) daemon: PathBuf,

    /// Tag that the device tells the VMM, 1 to 36 bytes. Unless given, that is up to the VMM, as with
    /// QEMU's tag=
    #[arg(long)]
    pub(super) tag: Option<Tag>,

    /// Most request queues that the VMM may use, 1 to 63, and no more than the daemon has
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REQUEST_QUEUES)),
    )]
    pub(super) num_request_queues: u16,

    #[command(flatten)]
    pub(super) log: LogOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Options::command().debug_assert();
    }
}
