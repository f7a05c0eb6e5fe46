//! What a program logs, to standard error: what the crates say by way of `tracing`, which hands it
//! to `log` where nobody else listens. The registry of spans that `tracing-subscriber` keeps takes
//! more memory than anything else in an idle daemon, and there are no spans.

use clap::{Args, ValueEnum};
use env_logger::Builder;
use log::LevelFilter;

/// How much is logged.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// What is logged, to standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    log_level: LogLevel,

    /// Short for --log-level=debug
    #[arg(short = 'd', conflicts_with = "log_level")]
    debug: bool,
}

/// The least important events that are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// What went wrong
    Error,
    /// What may be wrong
    Warn,
    /// Front-ends that come and go
    #[default]
    Info,
    /// Sessions and their queues
    Debug,
    /// Every request
    Trace,
}

impl LogOptions {
    /// Logs from now on.
    pub(crate) fn start(&self) {
        Builder::new()
            .filter_level(self.filter())
            .format_timestamp_micros()
            .format_target(false)
            .init();
    }

    fn filter(&self) -> LevelFilter {
        if self.debug {
            return LevelFilter::Debug;
        }
        match self.log_level {
            LogLevel::Off => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        }
    }
}
