//! A filesystem of this workspace on `/dev/fuse`, as a program: mounts it on this host.

mod device;
mod fusermount;
mod mounted;
mod options;
mod pages;
mod source;
mod workers;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use fuse_fs::{MemFs, Serve, Session};
use passthrough_fs::PassthroughFs;
use rustix::fs::Mode;
use rustix::process::umask;

use crate::signals::{self, Signals};
use crate::{cli, limits};
use mounted::{Mounted, Request};
use options::Options;
use source::Source;

/// What the program is called.
pub const NAME: &str = "mount";

/// Why the program cannot serve.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Signals(#[from] signals::Error),
    #[error(transparent)]
    Filesystem(#[from] passthrough_fs::NewError),
    #[error(
        "cannot mount {} on {}, which is inside of it: it would contain itself; \
         mount it elsewhere, or on itself", .0.display(), .1.display()
    )]
    Inside(PathBuf, PathBuf),
    #[error(transparent)]
    Mount(#[from] mounted::Error),
    #[error("the mount failed: {0}")]
    Serve(#[source] io::Error),
}

/// Runs the program with the arguments of this process, until the filesystem is unmounted.
///
/// Ends with 0 when it is, 1 where it cannot be mounted or served, 2 where it was called wrongly.
#[must_use]
pub fn main() -> ExitCode {
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
    limits::raise_open_files();
    let filesystem = filesystem(options)?;
    let (mounted, device) = Mounted::new(&Request {
        source: options.source.to_string(),
        kind: options.source.kind(),
        mountpoint: &options.mountpoint,
        readonly: options.filesystem.is_readonly(),
    })?;
    // The kernel has applied the mask of whoever asks to the modes that it asks for.
    umask(Mode::empty());
    let path = mounted.path().display();
    tracing::info!("mounted {} on {path}", options.source);
    let by_signal = mounted.clone();
    signals.on_first(move || unmount(&by_signal))?;
    let threads = usize::from(options.threads);
    let served = workers::serve(device, &*filesystem, threads, &|| unmount(&mounted));
    filesystem.reset();
    // A device that has failed, and one that was aborted, leave it there.
    unmount(&mounted);
    served.map_err(Error::Serve)?;
    tracing::info!("unmounted {path}");
    Ok(())
}

fn unmount(mounted: &Mounted) {
    if let Err(error) = mounted.unmount() {
        let path = mounted.path().display();
        tracing::error!("cannot unmount {path}: {error}; try: umount {path}");
    }
}

fn filesystem(options: &Options) -> Result<Arc<dyn Serve>, Error> {
    let session = options.filesystem.session();
    Ok(match &options.source {
        Source::Directory(path) => {
            check_not_inside(path, &options.mountpoint)?;
            let filesystem = PassthroughFs::new(options.filesystem.passthrough(path))?;
            Arc::new(Session::with_config(filesystem, session))
        }
        Source::Memory { limit } => {
            Arc::new(Session::with_config(MemFs::with_limit(*limit), session))
        }
    })
}

/// A mount inside of what it shows is held by itself, and would never be unmounted.
fn check_not_inside(source: &Path, mountpoint: &Path) -> Result<(), Error> {
    // Where there is no such path, whoever opens it says so.
    let (Ok(source), Ok(mountpoint)) = (source.canonicalize(), mountpoint.canonicalize()) else {
        return Ok(());
    };
    match mountpoint != source && mountpoint.starts_with(&source) {
        true => Err(Error::Inside(source, mountpoint)),
        false => Ok(()),
    }
}
