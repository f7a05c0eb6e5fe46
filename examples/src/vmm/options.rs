use std::path::PathBuf;

use clap::Parser;
use virtio_fs_device::{MAX_QUEUE_SIZE, MAX_REQUEST_QUEUES, Tag};

use super::machine::Design;
use super::window::PIECE;
use crate::log::LogOptions;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  Boot with a directory as the root. Its daemon is started first:
    virtiofsd --socket-path=/run/root.sock --shared-dir=/srv/root &
    vmm --kernel=/boot/vmlinuz --fs tag=root,socket=/run/root.sock \\
        --cmdline='root=root rootfstype=virtiofs rw console=ttyS0'

  Have two queues for two processors, and a second share, which vmm serves itself
  and the guest mounts with: mount -t virtiofs data /mnt
    vmm --cpus=2 --memory=size=1G --kernel=/boot/vmlinuz \\
        --cmdline='root=root rootfstype=virtiofs rw console=ttyS0' \\
        --fs tag=root,socket=/run/root.sock,num_queues=2 \\
        --fs tag=data,dir=/srv/data,num_queues=2

  Have the guest use files in the host's memory, without a copy of its own. It mounts
  with: mount -t virtiofs -o dax=always data /mnt
    virtiofsd --socket-path=/run/data.sock --shared-dir=/srv/data --dax-window=1G &
    vmm --fs tag=data,socket=/run/data.sock,window=1G ...

  Save the machine, end it, and go on with it later:
    vmm --api-socket=/run/vmm.sock ... &
    printf 'pause\\nsnapshot /srv/saved\\nquit\\n' | nc -U /run/vmm.sock
    vmm --restore=/srv/saved --fs tag=root,socket=/run/root.sock

A daemon that dies takes the guest's open files along: the device is \"failed\" then,
the guest is told that it needs a reset, and \"reset\" has it begin anew, with the
next daemon that listens there. A snapshot does not contain the files: they are to
be as they were. With dir=DIR, whoever attacks the device attacks vmm itself.

A machine whose guest has files mapped in a DAX window (mounted with dax=always) is
not saved; \"status\" says how many mappings there are. Those go with \"reset\", and with
the daemon: a guest that still uses such memory then, or that of a file which somebody
on the host cut short, is waited for for ten seconds; then vmm ends with an error.

The kernel needs virtio-fs and PCI (CONFIG_VIRTIO_FS, CONFIG_VIRTIO_PCI) built in
to have its root there. The console is standard input and output; a terminal
passes on all that is typed, Ctrl-C too.

Lines that --api-socket takes, each of which is answered by one that begins with
\"ok\" or \"error\":
  status         whether the machine runs, and how its devices are
  pause, resume  stop the processors and the devices, and have them go on
  snapshot FILE  save a machine that is paused
  reset          have the machine begin anew, as its reset button would
  quit           end it";

/// Runs Linux in a small virtual machine on KVM whose files come from virtio-fs.
///
/// It shows how crates of rust-vmm and virtio-fs-device make a VMM, and tests them. What it lacks for
/// everyday use: a network, a sandbox around itself, and a graceful end of a guest from outside.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, after_help = EXAMPLES)]
pub(super) struct Options {
    /// Kernel to boot, a bzImage or a vmlinux
    #[arg(long, value_name = "FILE", required_unless_present = "restore")]
    pub(super) kernel: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0")]
    pub(super) cmdline: String,

    /// The guest's memory, with a suffix of K, M or G. A machine that is restored has what it had
    #[arg(long, value_name = "size=SIZE", default_value = "size=512M", value_parser = memory_size)]
    pub(super) memory: u64,

    /// The guest's processors. A machine that is restored has as many as it had
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(super) cpus: u8,

    /// A virtio-fs device: its tag, the socket of its daemon or a directory that is shared without
    /// one, how many request queues it has, of how many descriptors, and the size of its DAX window, a
    /// multiple of 2M, of which the guest gets as much as the daemon wants. To be repeated for several
    #[arg(
        long,
        value_name = "tag=TAG,socket=PATH|dir=DIR[,num_queues=N][,queue_size=N][,window=SIZE]",
        value_parser = FsOptions::parse
    )]
    pub(super) fs: Vec<FsOptions>,

    /// Go on with the machine that was saved there, with the same devices
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "cmdline", "memory", "cpus"])]
    pub(super) restore: Option<PathBuf>,

    /// Socket to be made for commands; see below
    #[arg(long, value_name = "PATH")]
    pub(super) api_socket: Option<PathBuf>,

    #[command(flatten)]
    pub(super) log: LogOptions,
}

impl Options {
    /// The machine to make, where none is restored.
    pub(super) fn design(&self) -> Design {
        Design {
            // There is one, unless a machine is restored.
            kernel: self.kernel.clone().unwrap_or_default(),
            command_line: self.cmdline.clone(),
            processors: self.cpus,
        }
    }
}

/// Who serves a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// The daemon that listens there.
    Daemon(PathBuf),
    /// This process, which shares that directory.
    Directory(PathBuf),
}

/// A device as `--fs` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FsOptions {
    pub(super) tag: Tag,
    pub(super) server: Server,
    pub(super) num_queues: u16,
    pub(super) queue_size: u16,
    /// Bytes of its DAX window, where it is to have one.
    pub(super) window: Option<u64>,
}

impl FsOptions {
    fn parse(text: &str) -> Result<Self, String> {
        const ONE_SERVER: &str = "one of socket=PATH, where its daemon listens, and dir=DIR, which \
                                  vmm shares itself, is needed";
        let (mut tag, mut server, mut window) = (None, None, None);
        let (mut num_queues, mut queue_size) = (1, MAX_QUEUE_SIZE);
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or(format!("{part} has no value"))?;
            match name {
                "tag" => tag = Some(value.parse().map_err(|error| format!("tag: {error}"))?),
                "socket" | "dir" if server.is_some() => return Err(ONE_SERVER.to_owned()),
                "socket" => server = Some(Server::Daemon(value.into())),
                "dir" => server = Some(Server::Directory(value.into())),
                "num_queues" => num_queues = number(name, value, MAX_REQUEST_QUEUES)?,
                "queue_size" => queue_size = number(name, value, MAX_QUEUE_SIZE)?,
                "window" => window = Some(window_size(value)?),
                _ => return Err(format!("there is no {name}")),
            }
        }
        if !queue_size.is_power_of_two() {
            return Err(format!("queue_size is a power of two, not {queue_size}"));
        }
        if window.is_some() && matches!(server, Some(Server::Directory(_))) {
            return Err("window=SIZE is for a daemon, with socket=PATH".to_owned());
        }
        Ok(Self {
            tag: tag.ok_or("tag=TAG is missing, which the guest mounts it by")?,
            server: server.ok_or(ONE_SERVER)?,
            num_queues,
            queue_size,
            window,
        })
    }
}

fn number(name: &str, value: &str, most: u16) -> Result<u16, String> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or(format!("{name} is a number from 1 to {most}, not {value}"))
}

/// Most bytes of a window.
const MOST_WINDOW: u64 = 1 << 40;

fn window_size(text: &str) -> Result<u64, String> {
    let size = size::bytes(text);
    size.filter(|size| (PIECE..=MOST_WINDOW).contains(size) && size.is_multiple_of(PIECE))
        .ok_or(format!(
            "window is a multiple of {}M, up to {}G, not {text}",
            PIECE >> 20,
            MOST_WINDOW >> 30
        ))
}

/// Most memory, which is more than the tables of a boot allow for.
const MOST_MEMORY: u64 = 1 << 40;

fn memory_size(text: &str) -> Result<u64, String> {
    const PAGE: u64 = 4096;
    let size = text.strip_prefix("size=").unwrap_or(text);
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.iter().find(|(letter, _)| size.ends_with(*letter));
    let (digits, shift) = unit.map_or((size, 0), |&(letter, shift)| {
        (size.trim_end_matches(letter), shift)
    });
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| (16 << 20..=MOST_MEMORY).contains(bytes) && bytes % PAGE == 0)
        .ok_or(format!(
            "not whole pages from 16M to {}G",
            MOST_MEMORY >> 30
        ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn devices_are_described() {
        let full = "tag=data,socket=/run/data.sock,num_queues=2,queue_size=512,window=6M";
        let options = FsOptions::parse(full).unwrap();
        assert_eq!(options.tag.to_string(), "data");
        assert_eq!(options.server, Server::Daemon("/run/data.sock".into()));
        assert_eq!((options.num_queues, options.queue_size), (2, 512));
        assert_eq!(options.window, Some(6 << 20));
        let short = FsOptions::parse("dir=/srv,tag=t").unwrap();
        assert_eq!(short.server, Server::Directory("/srv".into()));
        assert_eq!((short.num_queues, short.queue_size), (1, MAX_QUEUE_SIZE));
        assert_eq!(short.window, None);
    }

    #[test]
    fn devices_are_refused_with_the_reason() {
        let reason = |text: &str| FsOptions::parse(text).unwrap_err();
        assert!(reason("socket=s").contains("tag=TAG"));
        assert!(reason("tag=t").contains("socket=PATH"));
        assert!(reason("tag=t,socket=s,dir=d").contains("one of"));
        assert!(reason("tag=t,socket=s,queue_size=100").contains("power of two"));
        assert!(reason("tag=t,socket=s,num_queues=0").contains("1 to 255"));
        assert!(reason("tag=t,socket=s,dax=on").contains("dax"));
        for size in ["", "0", "2", "3M", "2049G", "all"] {
            assert!(reason(&format!("tag=t,socket=s,window={size}")).contains("2M"));
        }
        assert!(reason("tag=t,dir=d,window=2M").contains("socket=PATH"));
        assert!(reason("tag=t,socket").contains("no value"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory_size("size=512M"), Ok(512 << 20));
        assert_eq!(memory_size("1G"), Ok(1 << 30));
        assert_eq!(memory_size("size=16384K"), Ok(16 << 20));
        for wrong in [
            "",
            "size=",
            "512",
            "M",
            "size=17000001",
            "99999999999G",
            "-1G",
        ] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }
}
