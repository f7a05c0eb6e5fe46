use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::sys;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is served by another program{1}; end that or choose another path")]
    Taken(PathBuf, String),
    #[error("{0} exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    #[error("cannot make the lock file {0}: {1}")]
    Lock(PathBuf, #[source] io::Error),
    #[error("cannot listen on {0}: {1}")]
    Listen(PathBuf, #[source] io::Error),
    #[error("--fd={0} is not a listening UNIX stream socket; pass one that listen(2) was done on")]
    NotListening(RawFd),
}

/// A listening socket on a path. Both the path and its lock are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    path: PathBuf,
    /// The socket's device and inode: the path may have become another's.
    identity: (u64, u64),
    /// Given up last.
    _lock: Lock,
}

impl BoundSocket {
    /// Listens on `path`, for this user only. A socket that nobody listens on any more is replaced.
    pub(crate) fn listen(path: &Path) -> Result<(UnixListener, Self), Error> {
        let lock = Lock::take(path)?;
        remove_stale(path)?;
        let failed = |error| Error::Listen(path.to_owned(), error);
        let listener = bind_privately(path).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let socket = Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            _lock: lock,
        };
        Ok((listener, socket))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Takes over the listening socket `fd`, which this process inherited.
pub(crate) fn inherited(fd: RawFd) -> Result<UnixListener, Error> {
    let socket = sys::duplicate_inherited(fd).map_err(|_| Error::NotListening(fd))?;
    let listens = sockopt::socket_acceptconn(&socket).unwrap_or(false)
        && sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
    if !listens {
        return Err(Error::NotListening(fd));
    }
    Ok(UnixListener::from(socket))
}

/// A listening socket that only this user can connect to, from its first moment on: Linux takes the
/// mode of the name from that of the socket (`unix_bind_bsd`). A file mode mask would do the same to
/// what other threads create meanwhile.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    const BACKLOG: i32 = 128;
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RWXU)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket that a daemon left behind which did not end cleanly.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // Not every daemon takes the lock.
        Ok(_) => Err(Error::Taken(path.to_owned(), String::new())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| Error::Listen(path.to_owned(), error))
        }
        Err(error) => Err(Error::Listen(path.to_owned(), error)),
    }
}

/// A locked file beside the socket, `PATH.pid`: one daemon per path. Removed when dropped.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, Error> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".pid");
        let path = PathBuf::from(path);
        let failed = |error| Error::Lock(path.clone(), error);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::Taken(socket.to_owned(), owner(&mut file)));
                }
                Err(error) => return Err(failed(error.into())),
            }
            if !is_at(&file, &path) {
                // Its last owner removed it between the two calls.
                continue;
            }
            file.set_len(0)
                .and_then(|()| writeln!(file, "{}", process::id()))
                .map_err(failed)?;
            return Ok(Self { path, _file: file });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked. Where that fails it is taken over by the next daemon.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says which process wrote itself into a lock file, where one did.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn paths(directory: &tempfile::TempDir) -> (PathBuf, PathBuf) {
        let path = |name| directory.path().join(name);
        (path("socket"), path("socket.pid"))
    }

    #[test]
    fn both_files_are_removed_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = paths(&directory);
        let (_listener, socket) = BoundSocket::listen(&path).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&lock), 0o600);
        let id = fs::read_to_string(&lock).unwrap();
        assert_eq!(id.trim(), process::id().to_string());
        drop(socket);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = paths(&directory);
        drop(UnixListener::bind(&path).unwrap());
        fs::write(&lock, "1\n").unwrap();
        let (listener, _socket) = BoundSocket::listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn live_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = paths(&directory);
        let (_listener, _socket) = BoundSocket::listen(&path).unwrap();
        let error = BoundSocket::listen(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", process::id())),
            "{error}"
        );
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn live_socket_without_a_lock_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = paths(&directory);
        let _listener = UnixListener::bind(&path).unwrap();
        let error = BoundSocket::listen(&path).unwrap_err();
        assert!(matches!(error, Error::Taken(..)), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = paths(&directory);
        fs::write(&path, "precious").unwrap();
        let error = BoundSocket::listen(&path).unwrap_err();
        assert!(matches!(error, Error::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(!lock.exists());
    }

    #[test]
    fn another_ones_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = paths(&directory);
        let (_listener, socket) = BoundSocket::listen(&path).unwrap();
        let other = directory.path().join("other");
        let _other = UnixListener::bind(&other).unwrap();
        fs::rename(&other, &path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn lock_is_not_taken_through_a_symbolic_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = paths(&directory);
        let target = directory.path().join("target");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &lock).unwrap();
        let error = BoundSocket::listen(&path).unwrap_err();
        assert!(matches!(error, Error::Lock(..)), "{error}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
