use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use benches::daemon::{Daemon, Program};
use fuse_wire::abi::{FsyncIn, GetattrIn, ReadIn};
use fuse_wire::{Handle, NodeId, Operation};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;
use virtio_fs_guest::{Connection, Mount, MountOptions, Options, Payload, Queue, Token};

use crate::Error;
use crate::args::Args;

/// Bytes of a read.
const READ: u32 = 4096;
const MIB: usize = 1 << 20;
/// Reads of the cold file that are in flight.
const COLD_READS: usize = 4;
/// Read one after the other, pages this far apart have not been read ahead.
const STRIDE: u64 = 37 * MIB as u64 + READ as u64;
/// `O_RDWR` (open(2)).
const RDWR: u32 = 2;

/// What the quick requests run beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// Reads of a file that the host has not cached.
    ColdReads,
    /// An fsync of a file with much to write back, over and over.
    Fsync,
}

impl Beside {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::ColdReads, Self::Fsync];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::ColdReads => "beside reads of a cold file",
            Self::Fsync => "beside fsync",
        }
    }
}

/// What was seen of the quick requests: each latency in nanoseconds.
pub(crate) struct Sample {
    pub(crate) latencies: Vec<u64>,
    /// Slow requests that ended meanwhile, and how long the slowest took, in nanoseconds.
    pub(crate) slow: Vec<u64>,
}

/// A daemon that shares a directory on a disk, and a driver that mounted it.
pub(crate) struct Session {
    // In the order in which they end.
    mount: Mount,
    cached: Open,
    cold: Open,
    dirty: Open,
    _daemon: Daemon,
    directory: TempDir,
}

#[derive(Clone, Copy)]
struct Open {
    node: NodeId,
    handle: Handle,
}

impl Session {
    pub(crate) fn start(program: &Program, args: &Args) -> Result<Self, Error> {
        let io = |doing| move |source| Error::Io { doing, source };
        let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let directory = TempDir::with_prefix_in("virtio-fs-blocking-", parent)
            .map_err(io("make a directory; choose another place with --dir"))?;
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).map_err(io("make a directory"))?;
        for (name, size) in [("cached", MIB), ("cold", args.size * MIB), ("dirty", 0)] {
            fs::write(shared.join(name), vec![1; size]).map_err(io("write a file"))?;
        }
        let socket = directory.path().join("socket");
        let daemon = Daemon::start(program, &socket, &shared, &directory.path().join("log"))?;
        let connection = Connection::connect(&socket, &Options::default())?;
        let mut mount = connection.mount(&MountOptions::default())?;
        let mut open = |name| -> Result<Open, Error> {
            let node = mount.lookup(NodeId::ROOT, name)?.nodeid;
            let handle = mount.open(node, RDWR)?.fh;
            Ok(Open { node, handle })
        };
        Ok(Self {
            cached: open(c"cached")?,
            cold: open(c"cold")?,
            dirty: open(c"dirty")?,
            mount,
            _daemon: daemon,
            directory,
        })
    }

    /// Does quick requests, one after the other, beside slow ones.
    pub(crate) fn measure(&mut self, beside: Beside, args: &Args) -> Result<Sample, Error> {
        let shared = self.directory.path().join("shared");
        match beside {
            Beside::Nothing => {}
            Beside::ColdReads => evict(&shared.join("cold"))?,
            Beside::Fsync => soil(&shared.join("dirty"), args.size)?,
        }
        let mut sample = Sample {
            latencies: Vec::new(),
            slow: Vec::new(),
        };
        let (cached, cold, dirty) = (self.cached, self.cold, self.dirty);
        let queue = &mut self.mount.connection().request_queues()[0];
        let cold_len = (args.size * MIB) as u64;
        let mut position = 0;
        let mut slow = |queue: &mut Queue| match beside {
            Beside::Nothing => Ok(None),
            Beside::ColdReads => {
                position = (position + STRIDE) % cold_len;
                read(queue, cold, position).map(Some)
            }
            Beside::Fsync => fsync(queue, dirty).map(Some),
        };
        let at_once = match beside {
            Beside::ColdReads => COLD_READS,
            Beside::Nothing | Beside::Fsync => 1,
        };
        let started = Instant::now();
        let mut waiting: Vec<(Token, Instant)> = Vec::new();
        let mut quick: Option<(Token, Instant)> = None;
        let mut count = 0_u64;
        loop {
            let over = started.elapsed() > args.time();
            // What the host writes before an fsync is no part of a quick request's latency.
            let ready = beside != Beside::Fsync || quick.is_none();
            while !over && ready && waiting.len() < at_once {
                // One fsync writes all back; the next would have nothing to do.
                if beside == Beside::Fsync && !sample.slow.is_empty() {
                    soil(&shared.join("dirty"), args.size)?;
                }
                let now = Instant::now();
                match slow(queue)? {
                    Some(token) => waiting.push((token, now)),
                    None => break,
                }
            }
            if over && quick.is_none() && waiting.is_empty() {
                return Ok(sample);
            }
            if quick.is_none() && !over {
                let now = Instant::now();
                let token = match count % 2 {
                    0 => queue.submit(
                        cached.node,
                        Operation::GetAttr(GetattrIn::default()),
                        Payload::None,
                    )?,
                    _ => read(queue, cached, count * u64::from(READ) % MIB as u64)?,
                };
                count += 1;
                quick = Some((token, now));
            }
            let completion = queue.wait()?;
            completion.result()?;
            let token = completion.token();
            match quick {
                Some((ours, began)) if ours == token => {
                    sample.latencies.push(nanos(began));
                    quick = None;
                }
                _ => {
                    let of_token = |(other, _): &(Token, Instant)| *other == token;
                    if let Some(index) = waiting.iter().position(of_token) {
                        let (_, began) = waiting.swap_remove(index);
                        sample.slow.push(nanos(began));
                    }
                }
            }
        }
    }
}

fn read(queue: &mut Queue, file: Open, offset: u64) -> Result<Token, virtio_fs_guest::Error> {
    let args = ReadIn {
        fh: file.handle,
        offset,
        size: READ,
        ..ReadIn::default()
    };
    queue.submit(file.node, Operation::Read(args), Payload::None)
}

fn fsync(queue: &mut Queue, file: Open) -> Result<Token, virtio_fs_guest::Error> {
    let args = FsyncIn {
        fh: file.handle,
        ..FsyncIn::default()
    };
    queue.submit(file.node, Operation::FSync(args), Payload::None)
}

/// Has the host forget what it cached of a file.
fn evict(path: &Path) -> Result<(), Error> {
    let evict = || {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(())
    };
    evict().map_err(|source| Error::Io {
        doing: "evict a file",
        source,
    })
}

/// Leaves the host with so many MiB to write back.
fn soil(path: &Path, size: usize) -> Result<(), Error> {
    let soil = || {
        let mut file = File::create(path)?;
        let block = vec![1; MIB];
        (0..size).try_for_each(|_| file.write_all(&block))
    };
    soil().map_err(|source| Error::Io {
        doing: "write a file",
        source,
    })
}

fn nanos(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
