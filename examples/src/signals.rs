use std::{io, process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator;

/// Why signals cannot be dealt with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot catch SIGTERM and SIGINT: {0}")]
    Catch(#[source] io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// SIGTERM and SIGINT, which no longer end the process by themselves.
pub(crate) struct Signals(iterator::Signals);

impl Signals {
    /// Catches both from now on.
    pub(crate) fn catch() -> Result<Self, Error> {
        iterator::Signals::new([SIGTERM, SIGINT])
            .map(Self)
            .map_err(Error::Catch)
    }

    /// Calls `stop` at the first signal, also one that has come already. The second ends the
    /// process: what is in flight may take as long as a disk likes.
    pub(crate) fn on_first(mut self, stop: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let wait = move || {
            let mut signals = self.0.forever();
            signals.next();
            stop();
            signals.next();
            process::exit(1);
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)
            .map(drop)
            .map_err(Error::Thread)
    }
}
