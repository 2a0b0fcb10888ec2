//! What systemd is told about the daemon itself.

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::store::Store;

/// The API answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd could not be told: {error}");
    }
}

/// Pets the watchdog for as long as the store answers: a daemon that cannot read is better started
/// again.
pub(super) fn spawn_watchdog(store: Store, stop: CancellationToken, tasks: &TaskTracker) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let petting = async move {
        let mut ticks = tokio::time::interval(limit / 3);
        loop {
            ticks.tick().await;
            match store.read(|_| Ok(())).await {
                Ok(()) => tell(&[NotifyState::Watchdog]),
                Err(error) => error!("the store does not answer: {}", crate::log::chain(&error)),
            }
        }
    };
    tasks.spawn(stop.run_until_cancelled_owned(petting));
}
