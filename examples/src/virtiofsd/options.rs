use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use vhost_user_fs::{DaxWindow, DaxWindowError, MAX_REQUEST_QUEUES, QueueAffinity, Tag};
use virtio_fs_queue::PollLimit;

use super::window;
use crate::filesystem::{Export, FilesystemOptions, MigrationOptions};
use crate::limits::LimitOptions;
use crate::log::LogOptions;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  Share /srv/data with one virtual machine, which may change it:
    virtiofsd --socket-path=/run/data.sock --shared-dir=/srv/data

  Share /srv/images with a machine that may only read, and let it cache what it
  has read for as long as it likes:
    virtiofsd --socket-path=/run/images.sock --shared-dir=/srv/images \\
        --readonly --cache=always

  Share two directories as one, the second only to be read:
    virtiofsd --socket-path=/run/both.sock --export=data=/srv/data \\
        --export=images=/srv/images:ro

  The machine's memory must be shared with the daemon. With QEMU:
    qemu-system-x86_64 ... -machine memory-backend=mem -m 1G \\
        -object memory-backend-memfd,id=mem,size=1G,share=on \\
        -chardev socket,id=data,path=/run/data.sock \\
        -device vhost-user-fs-pci,chardev=data,tag=data,queue-size=512
  With Cloud Hypervisor:
    cloud-hypervisor ... --memory size=1G,shared=on \\
        --fs tag=data,socket=/run/data.sock,num_queues=1,queue_size=512

  In the guest:
    mount -t virtiofs data /mnt

The daemon serves until SIGTERM or SIGINT. A machine that is reset, and one that
is started anew, find it there.";

/// Shares a directory of this host with a virtual machine: the back-end of a virtio-fs device.
#[derive(Debug, Parser)]
#[command(name = "virtiofsd", version, after_help = EXAMPLES)]
pub(super) struct Options {
    /// Socket that the VMM connects to. It is made here and removed at the end
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "fd",
        required_unless_present_any = ["fd", "print_capabilities"]
    )]
    socket_path: Option<PathBuf>,

    /// Descriptor of a listening UNIX socket that was inherited, instead of --socket-path
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub(super) fd: Option<RawFd>,

    /// Directory to share
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present_any = ["print_capabilities", "exports"]
    )]
    shared_dir: Option<PathBuf>,

    /// Share DIR as the directory NAME, read-only with :ro. To be repeated, instead of --shared-dir,
    /// for several directories in one share
    #[arg(
        long = "export",
        value_name = "NAME=DIR[:ro]",
        conflicts_with = "shared_dir",
        value_parser = OsStringValueParser::new().try_map(Export::parse),
    )]
    pub(super) exports: Vec<Export>,

    /// Tag that the device tells the VMM, 1 to 36 bytes. QEMU ignores it and wants its own tag=
    #[arg(long)]
    pub(super) tag: Option<Tag>,

    /// Most request queues that the VMM may use, 1 to 63. Unless given, as many as it asks for; one
    /// that reads the number from the device (--tag) then finds that of this host's processors, at
    /// most 8. A guest uses one per processor, and each that is used has a thread here
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REQUEST_QUEUES)),
    )]
    pub(super) num_request_queues: Option<u16>,

    /// Processors of this host that serve the request queues, such as 0,1,2-3: the first queue runs
    /// on 0, the second on 1, the third on 2 or 3, the fourth on 0 again. Unless given, all run
    /// anywhere
    #[arg(long, value_name = "LIST")]
    pub(super) queue_affinity: Option<QueueAffinity>,

    /// Most threads for requests that wait for a disk or a network, so that they hold up no others,
    /// and for large reads beside others where there are processors for that; 0 for none
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = pool_size)]
    pub(super) thread_pool_size: usize,

    /// Microseconds, 0 to 1000, for which a request queue that has served everything looks out for
    /// the next request before it sleeps, longer after requests that took longer; 0 for never. A
    /// guest with little to do costs next to nothing by that, as does a machine with too much: what
    /// finds nothing is done ever more rarely
    #[arg(long, value_name = "N", default_value_t)]
    pub(super) poll_us: PollLimit,

    /// Bytes of a DAX window, or with K, M or G behind: a guest that mounts with -o dax=always has
    /// files mapped there, and reads and writes them without a request and without a copy of its own.
    /// It takes a VMM that knows of it (vhost-user protocol feature SHMEM). Keep in mind that a file
    /// that is cut short on the host while a guest has it mapped ends the guest's program, or the
    /// machine, and that a machine cannot be moved meanwhile. What is mapped keeps its file open, for
    /// which a quarter of the limit on open files is there at most (see --rlimit-nofile)
    #[arg(long, value_name = "SIZE", value_parser = window_size)]
    dax_window: Option<u64>,

    /// Print what this daemon can do, as JSON, and end
    #[arg(long)]
    pub(super) print_capabilities: bool,

    #[command(flatten)]
    pub(super) limits: LimitOptions,

    #[command(flatten)]
    pub(super) log: LogOptions,

    #[command(flatten, next_help_heading = "What is shared, and how")]
    pub(super) filesystem: FilesystemOptions,

    #[command(
        flatten,
        next_help_heading = "When the machine is moved, or taken from a snapshot"
    )]
    pub(super) migration: MigrationOptions,
}

impl Options {
    /// The directory to share. There is one, unless only capabilities are printed.
    pub(super) fn shared_dir(&self) -> &Path {
        self.shared_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// Where files can be mapped.
    pub(super) fn window(&self) -> Result<Option<DaxWindow>, DaxWindowError> {
        self.dax_window.map(window::window).transpose()
    }

    /// What is shared, for whoever reads the log.
    pub(super) fn shared(&self) -> String {
        let exports = self.exports.iter().map(Export::directory);
        let directories = self.shared_dir.as_deref().into_iter().chain(exports);
        let texts: Vec<_> = directories.map(|path| path.display().to_string()).collect();
        texts.join(", ")
    }

    /// Where to listen. There is a path where there is no descriptor.
    pub(super) fn socket_path(&self) -> &Path {
        self.socket_path.as_deref().unwrap_or(Path::new(""))
    }
}

/// As many threads as anybody could want.
const MOST_THREADS: usize = 1024;

fn pool_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size <= MOST_THREADS => Ok(size),
        _ => Err(format!("not a number from 0 to {MOST_THREADS}")),
    }
}

fn window_size(text: &str) -> Result<u64, String> {
    let otherwise = || "not a number of bytes, with or without K, M or G behind".to_owned();
    size::bytes(text).ok_or_else(otherwise)
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
