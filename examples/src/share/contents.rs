use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use fuse_wire::{Handle, NodeId};
use rustix::fs::OFlags;
use virtio_fs_guest::Error;

use super::finding::{Finding, answer, errno};
use super::stack::Stack;

/// Compares the contents of files.
#[derive(Debug)]
pub(super) struct Contents {
    host: Vec<u8>,
    guest: Vec<u8>,
}

impl Contents {
    /// Compares in pieces of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self {
            host: vec![0; size],
            guest: vec![0; size],
        }
    }

    /// Compares the regular file `path` with `node`.
    pub(super) fn compare(
        &mut self,
        stack: &mut Stack,
        node: NodeId,
        path: &Path,
    ) -> Result<Finding, Error> {
        // Should it be something else by now, it is neither followed nor waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let host = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path);
        let guest = answer(stack.open(node))?;
        match (host, guest) {
            (Ok(file), Ok(handle)) => {
                let finding = self.compare_open(stack, node, handle, &file);
                stack.release(node, handle)?;
                finding
            }
            (Err(host), Ok(handle)) => {
                stack.release(node, handle)?;
                Ok(Finding::of_failure("open", Some(errno(&host)), None))
            }
            (host, Err(guest)) => {
                let host = host.err().map(|error| errno(&error));
                Ok(Finding::of_failure("open", host, Some(guest)))
            }
        }
    }

    fn compare_open(
        &mut self,
        stack: &mut Stack,
        node: NodeId,
        handle: Handle,
        file: &File,
    ) -> Result<Finding, Error> {
        let mut offset = 0;
        loop {
            let host = read_full(file, &mut self.host, offset);
            let guest = answer(stack.read(node, handle, offset, &mut self.guest))?;
            let (host, guest) = match (host, guest) {
                (Ok(host), Ok(guest)) => (&self.host[..host], &self.guest[..guest]),
                (host, guest) => {
                    let host = host.err().map(|error| errno(&error));
                    return Ok(Finding::of_failure("read", host, guest.err()));
                }
            };
            if let Some(position) = first_difference(host, guest) {
                let position = offset + position as u64;
                return Ok(Finding::Differs(format!("contents: at byte {position}")));
            }
            if host.len() < self.host.len() {
                return Ok(Finding::Same);
            }
            offset += host.len() as u64;
        }
    }
}

/// Fills `buffer`, unless the file ends before. That is what READ does, too.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Where two files start to differ; where the shorter one ends if that is the difference.
fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    if one == other {
        return None;
    }
    let common = one.iter().zip(other).position(|(one, other)| one != other);
    Some(common.unwrap_or(one.len().min(other.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_located() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"abc", b"ab"), Some(2));
        assert_eq!(first_difference(b"", b"a"), Some(0));
    }
}
