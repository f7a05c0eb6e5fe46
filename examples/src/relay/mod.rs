//! A virtio-fs device between two sockets: the back-end of a VMM's device on one side, and the device
//! model [`virtio_fs_device`] in front of a daemon on the other.
//!
//! A VMM that cannot reconnect to a daemon so has one that can be restarted, and the device model can
//! be tried with any VMM. It takes no part in requests: the daemon has the guest's memory and the
//! events by which the VMM and it signal each other.

mod driver;
mod front_end;
mod interrupts;
mod options;
mod ring;
mod served;

use std::path::PathBuf;
use std::process::ExitCode;

use vhost_user_fs::{Daemon, DaemonError};

use crate::signals::{self, Signals};
use crate::socket::{self, BoundSocket};
use crate::{cli, sys};
use options::Options;
use served::Served;

/// What the program is called.
pub const NAME: &str = "relay";

/// Why there is nothing to relay.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Signals(#[from] signals::Error),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error("cannot be the VMM of the daemon at {0}: {1}")]
    Device(PathBuf, #[source] virtio_fs_device::Error),
    #[error("cannot make an eventfd: {0}")]
    Event(#[source] std::io::Error),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Runs the program with the arguments of this process, until SIGTERM or SIGINT.
///
/// Ends with 0 after a signal, 1 where it cannot serve, 2 where it was called wrongly.
#[must_use]
pub fn main() -> ExitCode {
    sys::share_one_heap();
    let options = match cli::parse::<Options>() {
        Ok(options) => options,
        Err(code) => return code,
    };
    options.log.start();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure(NAME, &error),
    }
}

fn serve(options: &Options) -> Result<(), Error> {
    // Before there is anything that a signal would leave behind.
    let signals = Signals::catch()?;
    let (listener, _bound) = BoundSocket::listen(&options.listen)?;
    let served = Served::connect(options)?;
    let front_ends = Daemon::new(served, listener)?;
    let handle = front_ends.stop_handle();
    signals.on_first(move || handle.stop())?;
    let (listen, daemon) = (options.listen.display(), options.daemon.display());
    tracing::info!("listening on {listen}, served by the daemon at {daemon}");
    front_ends.run()?;
    tracing::info!("ended by a signal");
    Ok(())
}
