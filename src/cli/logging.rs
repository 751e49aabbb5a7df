//! Logging of `serve`: to stderr, as `[log]` says.
//!
//! Crates that talk much are kept to warnings, whatever the level.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{fmt, registry};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging for the whole process.
///
/// # Errors
/// When it was started before.
pub(super) fn start(log: &Log) -> Result<(), TryInitError> {
    let shown = shown(level(log.level));
    let lines = fmt::layer().with_writer(io::stderr);
    match log.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            registry().with(lines.with_filter(shown)).try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            registry().with(lines.with_filter(shown)).try_init()
        }
    }
}

fn shown(level: LevelFilter) -> Targets {
    let quiet = level.min(LevelFilter::WARN);
    Targets::new()
        .with_default(level)
        .with_targets(NOISY.map(|name| (name, quiet)))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

const NOISY: [&str; 10] = [
    "actix_http",
    "actix_rt",
    "actix_server",
    "actix_web",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "tokio",
];

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn noisy_crates_are_kept_to_warnings_and_never_louder_than_the_rest() {
        let debug = shown(LevelFilter::DEBUG);
        assert!(debug.would_enable("reveille::mdm", &Level::DEBUG));
        assert!(debug.would_enable("h2::proto", &Level::WARN));
        assert!(!debug.would_enable("h2::proto", &Level::INFO));
        assert!(!shown(LevelFilter::ERROR).would_enable("h2", &Level::WARN));
    }
}
