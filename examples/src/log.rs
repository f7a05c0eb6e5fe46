//! What a program logs, to standard error.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

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
        tracing_subscriber::fmt()
            .with_max_level(self.filter())
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .init();
    }

    fn filter(&self) -> LevelFilter {
        if self.debug {
            return LevelFilter::DEBUG;
        }
        match self.log_level {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}
