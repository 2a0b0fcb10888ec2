//! The record of who did what, sent to where not even root of this machine can rewrite it.
//!
//! ```text
//! position (file) ─> records after it ─> sent ─> taken ─> position (file, fsync)
//!                                          └─ not taken: again from the position, later and later
//! ```
//!
//! A record is sent once or more often, never less: receivers know it again by its sequence and hash. Nobody who asks
//! for something waits for it. Each receiver has a position of its own.

mod git;
mod syslog;

use std::path::Path;
use std::time::Duration;

use berth_host::fs::{FsError, atomic_write, ensure_dir, read_optional};
use berth_model::resource::Settings;
use berth_model::resource::operation::Actor;
use berth_model::resource::settings::{self, MirrorSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{DaemonError, Parts};
use crate::config::Config;
use crate::store::{EventType, Link, ReadTx, Store, StoreError, Tx};
use git::{Git, PushError};
use syslog::{SendError, Syslog};

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
    /// The syslog server.
    #[error("sending audit records to {server}")]
    Syslog {
        /// As it is set.
        server: String,
        /// Why.
        #[source]
        source: SendError,
    },
    /// The git repository.
    #[error("pushing audit records to {url}")]
    Git {
        /// As it is set.
        url: String,
        /// Why.
        #[source]
        source: PushError,
    },
}

/// Somebody whom records are sent to.
trait Receiver: Send + Sync + 'static {
    /// How often it is looked for new records: what only reads and is refused wakes nobody.
    const PACE: Duration;

    /// Sends all that it does not have yet, if it is set.
    fn advance(&self, records: &Records) -> impl Future<Output = Result<(), MirrorError>> + Send;
}

/// Where records come from.
struct Records {
    store: Store,
}

impl Records {
    async fn set(&self) -> Result<MirrorSettings, StoreError> {
        let settings = self.store.read(|tx| tx.get::<Settings>("", settings::NAME)).await?;
        Ok(settings.map(|settings| settings.spec.audit.mirror).unwrap_or_default())
    }

    /// The next of them, oldest first.
    async fn after(&self, sequence: u64) -> Result<Vec<Link>, StoreError> {
        self.store.read(move |tx: &ReadTx<'_>| tx.audit_after(sequence, BATCH)).await
    }
}

/// Begins to send records wherever that is set.
pub(super) fn spawn(parts: &Parts, config: &Config, tasks: &TaskTracker) -> Result<(), DaemonError> {
    let folder = config.data.join("audit");
    ensure_dir(&folder, 0o700)?;
    let hostname =
        nix::unistd::gethostname().map_err(|errno| super::io_error("reading the machine's name")(errno.into()))?;
    let hostname = hostname.to_string_lossy().into_owned();
    let syslog = Syslog { file: folder.join("syslog.json"), hostname: hostname.clone() };
    let (sealer, notary) = (parts.sealer.clone(), parts.notary.clone());
    let git = Git { folder, hostname, sealer, notary, clock: parts.clock.clone() };
    let records = || Records { store: parts.store.clone() };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(run(syslog, records())));
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(run(git, records())));
    Ok(())
}

async fn run<R: Receiver>(receiver: R, records: Records) {
    let (mut told, mut pause) = (None, PAUSES.0);
    loop {
        match receiver.advance(&records).await {
            Ok(()) if told.is_some() => {
                (told, pause) = (None, PAUSES.0);
                tell(&records.store, EventType::Normal, "AuditMirrored", "the audit records are sent again").await;
            }
            Ok(()) => tokio::time::sleep(R::PACE).await,
            Err(error) => {
                let why = Some(advised(&crate::log::chain(&error)));
                // Told once, until it is another reason.
                if let Some(news) = why.as_ref().filter(|_| why != told) {
                    tell(&records.store, EventType::Warning, "AuditMirrorFailed", news).await;
                }
                told = why;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// In the log, and as an event of the Settings, which stand for the machine.
async fn tell(store: &Store, kind: EventType, reason: &'static str, message: &str) {
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
    if let Err(error) = store.write(&actor, write).await {
        warn!("telling how the audit records fare failed: {}", crate::log::chain(&error));
    }
}

fn advised(why: &str) -> String {
    format!("{why}; nothing is lost, and it is tried again: see spec.audit.mirror of Settings berth, and the receiver")
}

/// How far a receiver has them. A file that cannot be understood is as none: everything is sent once more.
fn kept<P: DeserializeOwned + Default>(file: &Path) -> Result<P, FsError> {
    let bytes = read_optional(file)?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn keep(file: &Path, position: &impl Serialize) -> Result<(), FsError> {
    let text = serde_json::json!(position).to_string();
    atomic_write(file, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests;
