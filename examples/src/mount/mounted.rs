//! Mounting and unmounting (mount(2), umount2(2)).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{getegid, geteuid};

use super::device::{self, Device};
use super::fusermount;

/// Why something cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot mount on {}: {source}", .path.display())]
    Mountpoint { path: PathBuf, source: io::Error },
    #[error(
        "cannot mount on {path}: a filesystem is mounted there whose program has ended; \
         unmount it first: umount {path}", path = .0.display()
    )]
    LeftBehind(PathBuf),
    #[error("cannot mount on {}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "cannot open {path}: {0}; where it does not exist, the kernel's module is missing: modprobe fuse",
        path = device::PATH
    )]
    Device(#[source] io::Error),
    #[error(
        "cannot mount on {}: {source}; root may, with CAP_SYS_ADMIN in the mount namespace",
        .path.display()
    )]
    Mount { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Fusermount(#[from] fusermount::Error),
}

/// How something is mounted.
pub(super) struct Request<'a> {
    /// What /proc/mounts says of where it comes from.
    pub(super) source: String,
    /// The second part of what /proc/mounts says is its type.
    pub(super) kind: &'static str,
    /// Where.
    pub(super) mountpoint: &'a Path,
    /// Whether the kernel refuses changes.
    pub(super) readonly: bool,
}

/// A mounted filesystem.
#[derive(Debug, Clone)]
pub(super) struct Mounted {
    path: PathBuf,
    /// What the kernel calls this mount.
    id: u64,
    by: By,
}

/// Who mounted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    ThisProcess,
    Fusermount,
}

impl Mounted {
    /// Mounts a filesystem whose requests come by the device that is returned. Until they are
    /// served, whoever looks at it waits.
    ///
    /// # Errors
    /// Names the path, or the program, and what to do.
    pub(super) fn new(request: &Request<'_>) -> Result<(Self, Device), Error> {
        let path = directory(request.mountpoint)?;
        let (device, by) = match geteuid().is_root() {
            true => (mount_here(request, &path)?, By::ThisProcess),
            false => (fusermount::mount(request, &path)?, By::Fusermount),
        };
        match mount_id(&path) {
            Ok(id) => Ok((Self { path, id, by }, device)),
            Err(source) => Err(Error::Mountpoint { path, source }),
        }
    }

    /// Unmounts it, unless somebody has. What is in use is taken out of the tree at once, and served
    /// until it is not in use any more.
    ///
    /// # Errors
    /// As umount2(2).
    pub(super) fn unmount(&self) -> io::Result<()> {
        if !mount_id(&self.path).is_ok_and(|id| id == self.id) {
            return Ok(());
        }
        if self.by == By::Fusermount {
            return fusermount::unmount(&self.path);
        }
        match unmount(&self.path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => {
                tracing::info!("{} is in use: serving until it is not", self.path.display());
                unmount(&self.path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
            }
            done => done?,
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory at `path`, by a path without symbolic links.
fn directory(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: io::Error| match Errno::from_io_error(&source) {
        Some(Errno::NOTCONN) => Error::LeftBehind(path.to_owned()),
        _ => Error::Mountpoint {
            path: path.to_owned(),
            source,
        },
    };
    let found = path.canonicalize().map_err(failed)?;
    match found.metadata().map_err(failed)?.is_dir() {
        true => Ok(found),
        false => Err(Error::NotADirectory(path.to_owned())),
    }
}

fn mount_here(request: &Request<'_>, path: &Path) -> Result<Device, Error> {
    let device = Device::open().map_err(Error::Device)?;
    // The kernel asks for the type of the root only, and learns the rest from the filesystem.
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_fd().as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw(),
    );
    let data = CString::new(data).expect("there is no NUL in numbers");
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, request.readonly);
    let kind = format!("fuse.{}", request.kind);
    mount(&*request.source, path, kind, flags, &*data).map_err(|errno| Error::Mount {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    Ok(device)
}

/// What the kernel calls the mount at `path`. The filesystem is not asked.
fn mount_id(path: &Path) -> io::Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(statx(CWD, path, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}
