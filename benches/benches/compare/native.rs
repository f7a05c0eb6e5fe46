//! The same work by direct system calls, as a program of the host does it: what no daemon beats.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::ReadWriteFlags;
use rustix::time::ClockId;
use virtio_fs_guest::PageReuse;

use crate::drive::BATCH;
use crate::measure::Recorder;
use crate::rows::{BUFFERS, Data, Job, Names, Row};
use crate::site;
use crate::steps::{self, DIRTY};
use crate::sys::Buffer;

mod operations;

/// An operation by direct system calls.
pub(crate) type Operation = fn(&mut Native) -> io::Result<()>;

/// The shared directory, opened by the bench itself.
#[derive(Debug)]
pub(crate) struct Native {
    pub(super) shared: PathBuf,
    pub(super) root: OwnedFd,
    pub(super) work: OwnedFd,
    pub(super) plain: OwnedFd,
    pub(super) data: OwnedFd,
    pub(super) copy: OwnedFd,
    pub(super) listed: OwnedFd,
    pub(super) buffer: Buffer,
    /// Those that the next operation uses.
    pub(super) names: [CString; 2],
}

impl Native {
    pub(crate) fn open(shared: &Path) -> io::Result<Self> {
        let open = |name: &str, flags| {
            rustix::fs::openat(
                CWD,
                shared.join(name),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        let plain = open(site::PLAIN, OFlags::RDWR)?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&plain, steps::XATTR, steps::VALUE, flags)?;
        Ok(Self {
            shared: shared.to_owned(),
            root: open(".", directory)?,
            work: open(site::WORK, directory)?,
            plain,
            data: open(site::DATA, OFlags::RDWR)?,
            copy: open(site::COPY, OFlags::RDWR)?,
            listed: open(site::LISTED, directory)?,
            buffer: Buffer::new(BUFFERS)?,
            names: steps::names("native"),
        })
    }

    /// Does the operations of `row` until `recorder` says that time is up, one after the other whatever its depth is.
    /// Returns the nanoseconds of processor time that they took, too.
    pub(crate) fn drive(
        &mut self,
        row: &Row,
        mut recorder: Recorder,
    ) -> io::Result<(Recorder, u64)> {
        let nanos = match row.job {
            Job::Data(data) => self.transfers(&data, &mut recorder)?,
            Job::BesideFsync(data) => self.beside_fsync(&data, &mut recorder)?,
            Job::Walk { native, .. } => self.repeat(native, &[], &mut recorder)?.1,
            Job::Script(script) if script.names == Names::Same => {
                self.repeat(script.native, &[], &mut recorder)?.1
            }
            Job::Script(script) => self.batches(script.native, script.names, &mut recorder)?,
        };
        Ok((recorder, nanos))
    }

    fn batches(
        &mut self,
        operation: Operation,
        names: Names,
        recorder: &mut Recorder,
    ) -> io::Result<u64> {
        let name = |n: u64| steps::names(&n.to_string());
        let all: Vec<[CString; 2]> = (0..BATCH).map(name).collect();
        let work = self.shared.join(site::WORK);
        let mut total = 0;
        loop {
            if names == Names::Files {
                recorder.pause(|| site::make_files(&work, &all))?;
            }
            let (over, nanos) = self.repeat(operation, &all, recorder)?;
            total += nanos;
            recorder.pause(|| site::clear(&work))?;
            if over {
                return Ok(total);
            }
        }
    }

    /// Until time is up, and then returns true, or until `names` are used up, where there are any.
    fn repeat(
        &mut self,
        operation: Operation,
        names: &[[CString; 2]],
        recorder: &mut Recorder,
    ) -> io::Result<(bool, u64)> {
        let before = processor_nanos();
        let mut all = names.iter();
        let mut over = false;
        while !over {
            if !names.is_empty() {
                let Some(next) = all.next() else { break };
                self.names.clone_from(next);
            }
            let began = Instant::now();
            operation(self)?;
            over = recorder.record(began);
        }
        Ok((over, processor_nanos() - before))
    }

    fn transfers(&mut self, data: &Data, recorder: &mut Recorder) -> io::Result<u64> {
        let before = processor_nanos();
        let mut number = 0;
        loop {
            let began = Instant::now();
            self.transfer(data, number)?;
            if recorder.record(began) {
                return Ok(processor_nanos() - before);
            }
            number += 1;
        }
    }

    fn transfer(&mut self, data: &Data, number: u64) -> io::Result<()> {
        let size = data.size as usize;
        let start = match data.buffers {
            PageReuse::LastFreed => 0,
            PageReuse::FirstFreed => number as usize * size % BUFFERS,
        };
        let buffer = &mut self.buffer.bytes()[start..start + size];
        let (offset, flags) = (data.offset(number), ReadWriteFlags::empty());
        let moved = if data.reads(number) {
            let mut buffers = [io::IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.data, &mut buffers, offset, flags)?
        } else {
            let buffers = [io::IoSlice::new(buffer)];
            rustix::io::pwritev2(&self.data, &buffers, offset, flags)?
        };
        match moved == size {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The thread that writes and waits for the disk is another one, whose time is not counted.
    fn beside_fsync(&mut self, data: &Data, recorder: &mut Recorder) -> io::Result<u64> {
        let copy = self.copy.try_clone()?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| -> io::Result<()> {
                let dirty = vec![0; DIRTY as usize];
                while !over.load(Ordering::Relaxed) {
                    rustix::io::pwrite(&copy, &dirty, 0)?;
                    rustix::fs::fsync(&copy)?;
                }
                Ok(())
            });
            let nanos = self.transfers(data, recorder);
            over.store(true, Ordering::Relaxed);
            syncing
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))?;
            nanos
        })
    }
}

/// What this thread spent on a processor.
fn processor_nanos() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
