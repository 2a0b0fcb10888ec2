//! The record of who did what, sent to where not even root of this machine can rewrite it.
//!
//! ```text
//! position (file) ─> records after it ─> sent ─> taken ─> position (file, fsync)
//!                                          └─ not taken: again from the position, later and later
//! ```
//!
//! A record is sent once or more often, never less: receivers know it again by its sequence and hash. Nobody who asks
//! for something waits for it.

mod syslog;

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional};
use berth_model::resource::Settings;
use berth_model::resource::operation::Actor;
use berth_model::resource::settings::{self, SyslogMirror};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{DaemonError, Parts};
use crate::config::Config;
use crate::store::{EventType, Link, ReadTx, Store, StoreError, Tx};

/// How often it is looked for new records: what only reads and is refused wakes nobody.
const PACE: Duration = Duration::from_secs(2);
/// Pauses after a failure: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Records that are sent at once.
const BATCH: usize = 500;

/// Why records did not get away.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    /// The records, or what is set, cannot be read.
    #[error("reading the audit records")]
    Store(#[from] StoreError),
    /// How far they got cannot be kept.
    #[error("keeping how far the audit records were sent")]
    Position(#[from] FsError),
    /// The receiver.
    #[error("sending audit records to {server}")]
    Send {
        /// As it is set.
        server: String,
        /// Why.
        #[source]
        source: syslog::SendError,
    },
}

/// How far a receiver has them. Another receiver begins with the oldest that is kept.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    server: String,
    sequence: u64,
}

struct Mirror {
    store: Store,
    file: PathBuf,
    hostname: String,
}

/// Begins to send records wherever that is set.
pub(super) fn spawn(parts: &Parts, config: &Config, tasks: &TaskTracker) -> Result<(), DaemonError> {
    let folder = config.data.join("audit");
    ensure_dir(&folder, 0o700)?;
    let hostname =
        nix::unistd::gethostname().map_err(|errno| super::io_error("reading the machine's name")(errno.into()))?;
    let hostname = hostname.to_string_lossy().into_owned();
    let mirror = Mirror { store: parts.store.clone(), file: folder.join("syslog.json"), hostname };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(mirror.run()));
    Ok(())
}

impl Mirror {
    async fn run(self) {
        let (mut failed, mut pause) = (false, PAUSES.0);
        loop {
            match self.advance().await {
                Ok(()) if failed => {
                    failed = false;
                    self.tell(EventType::Normal, "AuditMirrored", "the audit records are sent again").await;
                }
                Ok(()) => tokio::time::sleep(PACE).await,
                Err(error) => {
                    let why = crate::log::chain(&error);
                    if !std::mem::replace(&mut failed, true) {
                        pause = PAUSES.0;
                        self.tell(EventType::Warning, "AuditMirrorFailed", &advised(&why)).await;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Sends what is new, piece by piece.
    async fn advance(&self) -> Result<(), MirrorError> {
        let settings = self.store.read(|tx| tx.get::<Settings>("", settings::NAME)).await?;
        let Some(syslog) = settings.and_then(|settings| settings.spec.audit.mirror.syslog) else { return Ok(()) };
        let mut position = kept(&self.file)?;
        if position.server != syslog.server {
            position = Position { server: syslog.server.clone(), sequence: 0 };
        }
        loop {
            let after = position.sequence;
            let links = self.store.read(move |tx: &ReadTx<'_>| tx.audit_after(after, BATCH)).await?;
            let Some(last) = links.last().map(|last| last.sequence) else { return Ok(()) };
            self.send(&syslog, &links).await?;
            position.sequence = last;
            keep(&self.file, &position)?;
        }
    }

    async fn send(&self, syslog: &SyslogMirror, links: &[Link]) -> Result<(), MirrorError> {
        let messages: Vec<String> =
            links.iter().map(|link| syslog::message(link, &self.hostname)).collect::<Result<_, _>>()?;
        let sent = syslog::send(syslog, &messages).await;
        sent.map_err(|source| MirrorError::Send { server: syslog.server.clone(), source })
    }

    /// In the log, and as an event of the Settings, which stand for the machine.
    async fn tell(&self, kind: EventType, reason: &'static str, message: &str) {
        match kind {
            EventType::Normal => info!("{message}"),
            EventType::Warning => warn!("{message}"),
        }
        let actor = Actor { identity: "berthd".into(), source: "audit".into() };
        let message = message.to_owned();
        let write = move |tx: &mut Tx<'_>| match tx.get::<Settings>("", settings::NAME)? {
            Some(settings) => tx.emit_event(&settings, kind, reason, &message),
            None => Ok(()),
        };
        if let Err(error) = self.store.write(&actor, write).await {
            warn!("telling how the audit records fare failed: {}", crate::log::chain(&error));
        }
    }
}

fn advised(why: &str) -> String {
    format!("{why}; nothing is lost, and it is tried again: see spec.audit.mirror of Settings berth, and the receiver")
}

/// A file that cannot be understood is as none: everything is sent once more.
fn kept(file: &Path) -> Result<Position, FsError> {
    let bytes = read_optional(file)?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn keep(file: &Path, position: &Position) -> Result<(), FsError> {
    let text = serde_json::json!(position).to_string();
    atomic_write(file, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests;
