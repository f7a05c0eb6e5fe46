//! The system calls of the operations.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags, Timespec,
    Timestamps, XattrFlags,
};

use super::Native;
use crate::site::{self, LARGE, TREE, UNTAR_DIRECTORIES, UNTAR_FILES};
use crate::steps::{RANGE, SMALL, VALUE, XATTR};

impl Native {
    pub(crate) fn stat(&mut self) -> io::Result<()> {
        rustix::fs::fstat(&self.plain)?;
        Ok(())
    }

    /// By name, as a LOOKUP is.
    pub(crate) fn stat_at(&mut self) -> io::Result<()> {
        rustix::fs::statat(&self.root, c"plain", AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    pub(crate) fn statx(&mut self) -> io::Result<()> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        rustix::fs::statx(&self.plain, c"", AtFlags::EMPTY_PATH, mask)?;
        Ok(())
    }

    pub(crate) fn statfs(&mut self) -> io::Result<()> {
        rustix::fs::fstatvfs(&self.root)?;
        Ok(())
    }

    pub(crate) fn chmod(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.plain, Mode::from(0o640))?)
    }

    pub(crate) fn utimens(&mut self) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.plain, &EPOCH)?)
    }

    pub(crate) fn truncate(&mut self) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.plain, 5)?)
    }

    pub(crate) fn getxattr(&mut self) -> io::Result<()> {
        let mut value = [0; 256];
        rustix::fs::fgetxattr(&self.plain, XATTR, &mut value)?;
        Ok(())
    }

    pub(crate) fn setxattr(&mut self) -> io::Result<()> {
        let flags = XattrFlags::empty();
        Ok(rustix::fs::fsetxattr(&self.plain, XATTR, VALUE, flags)?)
    }

    pub(crate) fn open_and_close(&mut self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        drop(rustix::fs::openat(
            &self.root,
            c"plain",
            flags,
            Mode::empty(),
        )?);
        Ok(())
    }

    pub(crate) fn create_and_unlink(&mut self) -> io::Result<()> {
        drop(self.create()?);
        self.unlink()
    }

    pub(crate) fn create_write_and_unlink(&mut self) -> io::Result<()> {
        let file = self.create()?;
        rustix::io::pwrite(&file, &self.buffer.bytes()[..SMALL as usize], 0)?;
        drop(file);
        self.unlink()
    }

    fn create(&self) -> io::Result<OwnedFd> {
        Ok(create_at(&self.work, &self.names[0])?)
    }

    pub(crate) fn tmpfile(&mut self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        drop(rustix::fs::openat(
            &self.work,
            c".",
            flags,
            Mode::from(0o600),
        )?);
        Ok(())
    }

    pub(crate) fn unlink(&mut self) -> io::Result<()> {
        let name = &self.names[0];
        Ok(rustix::fs::unlinkat(&self.work, name, AtFlags::empty())?)
    }

    pub(crate) fn rename(&mut self) -> io::Result<()> {
        let [old, new] = &self.names;
        Ok(rustix::fs::renameat(&self.work, old, &self.work, new)?)
    }

    pub(crate) fn mkdir(&mut self) -> io::Result<()> {
        let mode = Mode::from(0o755);
        Ok(rustix::fs::mkdirat(&self.work, &self.names[0], mode)?)
    }

    pub(crate) fn mkdir_and_rmdir(&mut self) -> io::Result<()> {
        self.mkdir()?;
        let name = &self.names[0];
        Ok(rustix::fs::unlinkat(&self.work, name, AtFlags::REMOVEDIR)?)
    }

    pub(crate) fn symlink(&mut self) -> io::Result<()> {
        let name = &self.names[0];
        Ok(rustix::fs::symlinkat(c"target", &self.work, name)?)
    }

    pub(crate) fn symlink_readlink_and_unlink(&mut self) -> io::Result<()> {
        self.symlink()?;
        rustix::fs::readlinkat(&self.work, &self.names[0], Vec::with_capacity(256))?;
        self.unlink()
    }

    pub(crate) fn link_and_unlink(&mut self) -> io::Result<()> {
        let (name, flags) = (&self.names[0], AtFlags::empty());
        rustix::fs::linkat(&self.root, c"plain", &self.work, name, flags)?;
        self.unlink()
    }

    pub(crate) fn lseek(&mut self) -> io::Result<()> {
        rustix::fs::seek(&self.data, SeekFrom::Data(0))?;
        Ok(())
    }

    pub(crate) fn fallocate(&mut self) -> io::Result<()> {
        let flags = FallocateFlags::empty();
        Ok(rustix::fs::fallocate(&self.data, flags, 0, RANGE)?)
    }

    pub(crate) fn copy_file_range(&mut self) -> io::Result<()> {
        let (mut from, mut to) = (0, 0);
        let len = RANGE as usize;
        rustix::fs::copy_file_range(&self.data, Some(&mut from), &self.copy, Some(&mut to), len)?;
        Ok(())
    }

    /// With the attributes of each, as READDIRPLUS.
    pub(crate) fn list_with_attributes(&mut self) -> io::Result<()> {
        for entry in Dir::read_from(&self.listed)? {
            let entry = entry?;
            rustix::fs::statat(&self.listed, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    pub(crate) fn list(&mut self) -> io::Result<()> {
        let directory = open_directory(&self.root, LARGE)?;
        for entry in Dir::new(directory)? {
            entry?;
        }
        Ok(())
    }

    pub(crate) fn tree(&mut self) -> io::Result<()> {
        let mut directories = vec![open_directory(&self.root, TREE)?];
        while let Some(directory) = directories.pop() {
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name();
                rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let dots = [c".", c".."].contains(&name);
                if entry.file_type() == FileType::Directory && !dots {
                    directories.push(open_directory(&directory, name)?);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn untar(&mut self) -> io::Result<()> {
        for n in 0..UNTAR_DIRECTORIES {
            let name = site::untar_directory(n);
            rustix::fs::mkdirat(&self.work, &name, Mode::from(0o755))?;
            let directory = open_directory(&self.work, &name)?;
            for n in 0..UNTAR_FILES {
                let file = create_at(&directory, site::untar_file(n))?;
                rustix::io::pwrite(&file, &self.buffer.bytes()[..SMALL as usize], 0)?;
                rustix::fs::fchmod(&file, Mode::from(0o644))?;
                rustix::fs::futimens(&file, &EPOCH)?;
            }
            for n in 0..UNTAR_FILES {
                rustix::fs::unlinkat(&directory, site::untar_file(n), AtFlags::empty())?;
            }
            rustix::fs::unlinkat(&self.work, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

/// As a SETATTR whose times are all zeros has it.
const EPOCH: Timestamps = {
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
};

fn create_at(directory: &OwnedFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from(0o644))
}

fn open_directory(parent: &OwnedFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
