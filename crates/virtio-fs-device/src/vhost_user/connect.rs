use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::options::Connect;
use crate::Error;

const DOING: &str = "connect to the daemon's socket; a daemon must listen there";

impl Connect {
    /// Connects, without waiting.
    pub(super) fn connect(&self) -> Result<UnixStream, Error> {
        match self {
            Self::Path(path) => to_path(path).map_err(Error::io(DOING)),
            Self::By(connect) => connect().map_err(Error::io("connect to the daemon")),
        }
    }
}

/// One whose queue of connections is full is not waited for: it is tried again as one that is not
/// there is.
fn to_path(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
