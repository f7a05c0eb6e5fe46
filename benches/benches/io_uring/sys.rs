//! Reads by io_uring(7), into memory that it may write to at any time.

#![allow(unsafe_code, reason = "the kernel writes to memory after the call")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::process::abort;
use std::ptr::null_mut;
use std::slice;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::{BLOCK, Registered, offset};

/// `len` bytes that begin with a page, as O_DIRECT asks for. They are never freed.
pub(crate) fn pages(len: usize) -> io::Result<&'static mut [u8]> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: the address is up to the kernel, which takes one where nothing is mapped.
    let start = unsafe { mmap_anonymous(null_mut(), len, protection, flags) }?;
    // SAFETY: `len` bytes are mapped from there on, zeroed and for ever, and nobody else knows of
    // them.
    Ok(unsafe { slice::from_raw_parts_mut(start.cast(), len) })
}

/// Makes reads in batches. No read is in flight between two calls.
pub(crate) struct Batch<'m> {
    ring: IoUring,
    file: &'m File,
    /// Whole blocks.
    memory: &'m mut [u8],
    depth: u32,
    registered: Registered,
}

impl<'m> Batch<'m> {
    /// # Errors
    /// The kernel has no io_uring, or does not register so much memory.
    pub(crate) fn new(
        file: &'m File,
        memory: &'m mut [u8],
        depth: u32,
        registered: Registered,
    ) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(depth)?;
        if registered != Registered::Nothing {
            ring.submitter().register_files(&[file.as_raw_fd()])?;
        }
        if registered == Registered::FileAndMemory {
            let all = [libc::iovec {
                iov_base: memory.as_mut_ptr().cast(),
                iov_len: memory.len(),
            }];
            // SAFETY: the memory is mapped as long as `self` borrows it, and the ring ends with
            // `self`. It is not written to but by the reads below.
            unsafe { ring.submitter().register_buffers(&all) }?;
        }
        Ok(Self {
            ring,
            file,
            memory,
            depth,
            registered,
        })
    }

    /// Makes as many reads as the queue is deep, the first of which is number `number`, and waits
    /// for all of them.
    pub(crate) fn read(&mut self, number: u64) -> io::Result<u64> {
        let blocks = self.memory.len() / BLOCK;
        for number in (number..).take(self.depth as usize) {
            let block = number as usize % blocks * BLOCK;
            let buffer = self.memory[block..block + BLOCK].as_mut_ptr();
            let entry = self.entry(buffer, offset(number));
            // SAFETY: the file is open and the block is mapped as long as `self` borrows them, and
            // nobody accesses it until the read is over, for which this call waits.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                abort();
            }
        }
        while let Err(error) = self.ring.submit_and_wait(self.depth as usize) {
            if error.kind() != io::ErrorKind::Interrupted {
                eprintln!("io_uring: cannot wait for reads: {error}");
                abort();
            }
        }
        let mut done = 0;
        for completion in self.ring.completion() {
            if completion.result() != BLOCK as i32 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            done += 1;
        }
        Ok(done)
    }

    fn entry(&self, buffer: *mut u8, offset: u64) -> squeue::Entry {
        let (fd, len) = (Fd(self.file.as_raw_fd()), BLOCK as u32);
        match self.registered {
            Registered::Nothing => opcode::Read::new(fd, buffer, len).offset(offset).build(),
            Registered::File => opcode::Read::new(Fixed(0), buffer, len)
                .offset(offset)
                .build(),
            Registered::FileAndMemory => opcode::ReadFixed::new(Fixed(0), buffer, len, 0)
                .offset(offset)
                .build(),
        }
    }
}
