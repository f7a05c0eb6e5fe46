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
use rustix::fs::Mode;
use rustix::process::umask;

use crate::filesystem::Ways;
use crate::signals::{self, Signals};
use crate::{cli, filesystem, limits};
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
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Filesystem(#[from] filesystem::Error),
    #[error("several SOURCEs need a name each: NAME=DIR or NAME=DIR:ro")]
    Unnamed,
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
        Err(error @ Error::Unnamed) => cli::misuse(NAME, &error.to_string()),
        Err(error) => cli::failure(NAME, &error),
    }
}

fn serve(options: &Options) -> Result<(), Error> {
    // Before there is anything that a signal would leave behind.
    let signals = Signals::catch()?;
    options.limits.apply()?;
    let filesystem = filesystem(options)?;
    let sources: Vec<_> = options.sources.iter().map(Source::to_string).collect();
    let source = sources.join(",");
    let (mounted, device) = Mounted::new(&Request {
        source: source.clone(),
        kind: kind(&options.sources),
        mountpoint: &options.mountpoint,
        readonly: options.filesystem.is_readonly(),
    })?;
    // The kernel has applied the mask of whoever asks to the modes that it asks for.
    umask(Mode::empty());
    let path = mounted.path().display();
    tracing::info!("mounted {source} on {path}");
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
    for directory in options.sources.iter().filter_map(Source::directory) {
        check_not_inside(directory, &options.mountpoint)?;
    }
    match options.sources.as_slice() {
        [Source::Directory(path)] => Ok(options.filesystem.serve(path, Ways::default())?),
        [Source::Memory { limit }] => {
            let session = options.filesystem.session();
            let filesystem = MemFs::with_limit(*limit);
            Ok(Arc::new(Session::with_config(filesystem, session)))
        }
        sources => {
            let exports = sources.iter().map(|source| match source {
                Source::Export(export) => Ok(export.clone()),
                Source::Directory(_) | Source::Memory { .. } => Err(Error::Unnamed),
            });
            let exports = exports.collect::<Result<Vec<_>, _>>()?;
            Ok(options
                .filesystem
                .serve_exports(&exports, Ways::default())?)
        }
    }
}

/// What kind of filesystem they make, in a word.
fn kind(sources: &[Source]) -> &'static str {
    match sources {
        [Source::Directory(_)] => "passthrough",
        [Source::Memory { .. }] => "memory",
        _ => "exports",
    }
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
