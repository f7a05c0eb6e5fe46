//! The back-end of a virtio-fs device, as a program: shares a directory of the host with a virtual
//! machine, with the options of the reference daemon.

mod options;
mod window;

use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use fuse_fs::Serve;
use rustix::fs::Mode;
use rustix::process::umask;
use vhost_user_fs::{
    Backend, BackendConfig, ConfigError, Daemon, DaemonError, DaxWindow, DaxWindowError,
};
use virtio_fs_queue::{Polling, Pool};

use crate::filesystem::Ways;
use crate::signals::{self, Signals};
use crate::socket::{self, BoundSocket};
use crate::{cli, filesystem, limits, sys};
use options::Options;

/// What the program is called.
pub const NAME: &str = "virtiofsd";

/// What `--print-capabilities` prints (QEMU's `docs/interop/vhost-user.json`). That options are
/// separate, not packed into `-o`, and that a running guest can be moved, is what libvirt asks for.
const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "migrate-precopy",
    "separate-options"
  ]
}"#;

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Signals(#[from] signals::Error),
    #[error(transparent)]
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Filesystem(#[from] filesystem::Error),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error("--dax-window: {0}")]
    Window(#[from] DaxWindowError),
    #[error("--num-request-queues: {0}")]
    Backend(#[from] ConfigError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Runs the program with the arguments of this process, until SIGTERM or SIGINT.
///
/// Ends with 0 after a signal, 1 where the daemon cannot serve, 2 where it was called wrongly.
#[must_use]
pub fn main() -> ExitCode {
    sys::share_one_heap();
    let options = match cli::parse::<Options>() {
        Ok(options) => options,
        Err(code) => return code,
    };
    if options.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    options.log.start();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure(NAME, &error),
    }
}

fn serve(options: &Options) -> Result<(), Error> {
    // Before there is anything that a signal would leave behind.
    let signals = Signals::catch()?;
    options.limits.apply()?;
    let window = options.window()?.map(Arc::new);
    let filesystem = filesystem(options, window.clone())?;
    let (listener, _bound) = listen(options)?;
    // The guest's kernel has applied its own mask to the modes that it asks for.
    umask(Mode::empty());
    let backend = Backend::new(BackendConfig {
        filesystem,
        tag: options.tag.clone(),
        request_queues: options.num_request_queues,
        queue_affinity: options.queue_affinity.clone(),
        pool: Arc::new(Pool::new(options.thread_pool_size)),
        polling: Arc::new(Polling::new(options.poll_us)),
    })?;
    let backend = match window {
        Some(window) => backend.with_window(window),
        None => backend,
    };
    let daemon = Daemon::new(backend, listener)?;
    let handle = daemon.stop_handle();
    signals.on_first(move || handle.stop())?;
    daemon.run()?;
    tracing::info!("ended by a signal");
    Ok(())
}

fn filesystem(
    options: &Options,
    window: Option<Arc<DaxWindow>>,
) -> Result<Arc<dyn Serve>, filesystem::Error> {
    let ways = Ways {
        migration: options.migration.chosen(),
        window,
    };
    match options.exports.as_slice() {
        [] => options.filesystem.serve(options.shared_dir(), ways),
        exports => options.filesystem.serve_exports(exports, ways),
    }
}

/// The socket to listen on, and what removes it at the end where it was made here.
fn listen(options: &Options) -> Result<(UnixListener, Option<BoundSocket>), Error> {
    let shared = options.shared();
    if let Some(fd) = options.fd {
        let listener = socket::inherited(fd)?;
        tracing::info!("listening on descriptor {fd}, sharing {shared}");
        return Ok((listener, None));
    }
    let path = options.socket_path();
    let (listener, bound) = BoundSocket::listen(path)?;
    tracing::info!("listening on {}, sharing {shared}", path.display());
    Ok((listener, Some(bound)))
}
