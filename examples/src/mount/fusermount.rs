//! Mounting without being root, by way of the program fusermount3 of libfuse (fusermount3(1)).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::device::Device;
use super::mounted::Request;

/// The program, which is set-user-id root.
const PROGRAM: &str = "fusermount3";

/// The variable that tells it where to send the device.
const SOCKET: &str = "_FUSE_COMMFD";

/// Why it did not mount.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "cannot run {PROGRAM}: {0}; whoever is not root needs it to mount (Debian: apt install fuse3)"
    )]
    Run(#[source] io::Error),
    /// It has said why.
    #[error("{PROGRAM} did not mount: {0}")]
    Refused(ExitStatus),
    #[error("{PROGRAM} did not hand over the device: {0}")]
    Device(#[source] io::Error),
}

/// Mounts on `path`.
pub(super) fn mount(request: &Request<'_>, path: &Path) -> Result<Device, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Run)?;
    // Nothing else is started meanwhile that could inherit it.
    fcntl_setfd(&theirs, FdFlags::empty()).map_err(|errno| Error::Run(errno.into()))?;
    let access = if request.readonly { "ro" } else { "rw" };
    let options = format!(
        "{access},default_permissions,subtype={},fsname={}",
        request.kind,
        escape(&request.source)
    );
    let status = Command::new(PROGRAM)
        .args(["-o", &options, "--"])
        .arg(path)
        .env(SOCKET, theirs.as_raw_fd().to_string())
        .status()
        .map_err(Error::Run)?;
    if !status.success() {
        return Err(Error::Refused(status));
    }
    drop(theirs);
    receive(&ours).map(Device::from).map_err(Error::Device)
}

/// Unmounts `path`, at the latest when it is not in use any more.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let status = Command::new(PROGRAM)
        .args(["-u", "-z", "--"])
        .arg(path)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{PROGRAM} -u: {status}"))),
    }
}

/// Commas and backslashes would end the value.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

/// The descriptor that comes with one byte.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut messages,
        flags,
    )?;
    let mut descriptors = messages.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors
        .next()
        .and_then(|mut descriptors| descriptors.next())
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_options_are_escaped() {
        assert_eq!(escape("/a,b\\c"), "/a\\,b\\\\c");
    }
}
