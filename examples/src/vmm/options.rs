use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use virtio_fs_device::{MAX_QUEUE_SIZE, MAX_REQUEST_QUEUES, Tag};
use virtio_fs_pci::WindowMemory;

use super::machine::Design;
use crate::log::LogOptions;
use crate::{cli, size};

/// Runs Linux in a small virtual machine on KVM whose files come from virtio-fs.
///
/// It shows how crates of rust-vmm, virtio-fs-device and virtio-fs-pci make a VMM, and tests them. What
/// it lacks for everyday use: a network, a sandbox around itself, and a graceful end of a guest from
/// outside.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, after_help = include_str!("help.txt").trim_end())]
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
            memory_size: self.memory,
            processors: self.cpus,
        }
    }
}

/// A device as `--fs` describes it.
#[derive(Debug, Clone, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(super) struct FsOptions {
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Tag,

    /// The daemon that serves it listens there.
    #[arg(long, value_name = "PATH", required_unless_present = "dir")]
    pub(super) socket: Option<PathBuf>,

    /// This process serves it, and shares that directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "window"])]
    pub(super) dir: Option<PathBuf>,

    #[arg(long = "num_queues", default_value_t = 1, value_parser = RangedU64ValueParser::<u16>::new().range(1..=MAX_REQUEST_QUEUES.into()))]
    pub(super) num_queues: u16,

    #[arg(long = "queue_size", default_value_t = MAX_QUEUE_SIZE, value_parser = queue_size)]
    pub(super) queue_size: u16,

    /// Bytes of its DAX window, where it is to have one.
    #[arg(long, value_name = "SIZE", value_parser = window_size)]
    pub(super) window: Option<u64>,
}

impl FsOptions {
    fn parse(text: &str) -> Result<Self, String> {
        let options = text.split(',').map(|part| format!("--{part}"));
        Self::try_parse_from(options).map_err(|error| cli::summary(&error).replace("--", ""))
    }
}

fn queue_size(text: &str) -> Result<u16, String> {
    let size = text.parse().ok();
    size.filter(|size: &u16| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE)
        .ok_or(format!("not a power of two up to {MAX_QUEUE_SIZE}"))
}

/// Most bytes of a window, and of memory, which is more than the tables of a boot allow for.
const MOST: u64 = 1 << 40;

fn window_size(text: &str) -> Result<u64, String> {
    sized(text, WindowMemory::PIECE, WindowMemory::PIECE)
}

fn memory_size(text: &str) -> Result<u64, String> {
    sized(text.strip_prefix("size=").unwrap_or(text), 16 << 20, 4096)
}

fn sized(text: &str, least: u64, unit: u64) -> Result<u64, String> {
    size::bytes(text)
        .filter(|size| (least..=MOST).contains(size) && size.is_multiple_of(unit))
        .ok_or(format!(
            "not a multiple of {}K from {}M to {}G",
            unit >> 10,
            least >> 20,
            MOST >> 30
        ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Options::command().debug_assert();
        FsOptions::command().debug_assert();
    }

    #[test]
    fn devices_are_described() {
        let full = "tag=data,socket=/run/data.sock,num_queues=2,queue_size=512,window=6M";
        let options = FsOptions::parse(full).unwrap();
        assert_eq!(options.tag.to_string(), "data");
        assert_eq!(options.socket, Some("/run/data.sock".into()));
        assert_eq!((options.num_queues, options.queue_size), (2, 512));
        assert_eq!(options.window, Some(6 << 20));
        let short = FsOptions::parse("dir=/srv,tag=t").unwrap();
        assert_eq!((short.socket, short.dir), (None, Some("/srv".into())));
        assert_eq!((short.num_queues, short.queue_size), (1, MAX_QUEUE_SIZE));
        assert_eq!(short.window, None);
    }

    #[test]
    fn devices_are_refused_with_the_reason() {
        let reason = |text: &str| FsOptions::parse(text).unwrap_err();
        for (wrong, why) in [
            ("socket=s", "not provided: tag <TAG>"),
            ("tag=t", "not provided: socket <PATH>"),
            (
                "tag=t,socket=s,dir=d",
                "'socket <PATH>' cannot be used with 'dir <DIR>'",
            ),
            ("tag=t,dir=d,window=2M", "cannot be used with"),
            ("tag=t,socket=s,queue_size=100", "power of two up to"),
            ("tag=t,socket=s,queue_size=65536", "power of two up to"),
            ("tag=t,socket=s,num_queues=0", "not in 1..=255"),
            ("tag=t,socket=s,dax=on", "unexpected argument 'dax' found"),
            ("tag=t,socket", "a value is required for 'socket <PATH>'"),
            ("", "not provided"),
        ] {
            assert!(reason(wrong).contains(why), "{wrong}: {}", reason(wrong));
        }
        for size in ["0", "2", "3M", "2049G", "all"] {
            let reason = reason(&format!("tag=t,socket=s,window={size}"));
            assert!(
                reason.contains("multiple of 2048K from 2M to 1024G"),
                "{reason}"
            );
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory_size("size=512M"), Ok(512 << 20));
        assert_eq!(memory_size("1G"), Ok(1 << 30));
        assert_eq!(memory_size("size=16384K"), Ok(16 << 20));
        let wrong = [
            "",
            "size=",
            "512",
            "M",
            "size=17000001",
            "99999999999G",
            "-1G",
        ];
        for wrong in wrong {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }
}
