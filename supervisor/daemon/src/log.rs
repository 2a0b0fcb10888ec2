//! Where the daemon's own log goes.
//!
//! `journalctl` shows a message and not the fields beside it, so what an administrator needs stands in the message:
//! which object, and the whole [`chain`] of causes.

use std::error::Error;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Config, LogFormat};

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level does not parse.
    #[error("understanding the log level `{level}`; write e.g. `info` or `info,berthd=debug`")]
    Level {
        /// As given.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// journald does not listen.
    #[error("opening the journal; `--log-format text` writes to standard error instead")]
    Journal(#[source] std::io::Error),
    /// Somebody else logs already.
    #[error("installing the log")]
    Install(#[source] TryInitError),
}

/// Begins to log.
///
/// # Errors
/// [`LogError`].
pub fn begin(config: &Config) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|source| LogError::Level { level: config.log_level.clone(), source })?;
    let base = tracing_subscriber::registry().with(filter);
    let installed = match config.log_format {
        LogFormat::Journal => base.with(tracing_journald::layer().map_err(LogError::Journal)?).try_init(),
        LogFormat::Text => base.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).try_init(),
        LogFormat::Json => base.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    installed.map_err(LogError::Install)
}

/// An error and its causes on one line, each once.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
