//! What has to be done now and then: cleanup, the change log, the certificate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::Parts;
use super::cleanup::Cleaner;
use crate::auth::ca::ServerCertificate;
use crate::auth::machine_names;
use crate::store::{Clock, Store, StoreError};

/// How often.
const INTERVAL: Duration = Duration::from_secs(600);
/// Versions that watchers may lag behind before they have to list again.
const KEPT_CHANGES: u64 = 20_000;

/// How often what is old enough is removed.
const CLEANUP: Duration = Duration::from_hours(24);

/// Begins to keep house.
pub(super) fn spawn(parts: &Parts, cleaner: Arc<Cleaner>, certificate: ServerCertificate, tasks: &TaskTracker) {
    let (store, sealer, clock) = (parts.store.clone(), parts.sealer.clone(), parts.clock.clone());
    let rounds = async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut cleaned = None;
        loop {
            ticks.tick().await;
            clean(&cleaner, &mut cleaned).await;
            if let Err(error) = tidy(&store).await {
                error!("keeping house in the store failed: {}", crate::log::chain(&error));
            }
            if let Err(error) = sealer.forget_gone(&store).await {
                error!("removing the keys of removed namespaces failed: {}", crate::log::chain(&error));
            }
            renew(&certificate, &clock);
        }
    };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(rounds));
}

/// Notes what is unused, and once a day removes what is old enough. While an image is on its way, both wait.
async fn clean(cleaner: &Cleaner, cleaned: &mut Option<Instant>) {
    let due = cleaned.is_none_or(|last| last.elapsed() >= CLEANUP);
    let done = if due { cleaner.run(false).await.map(drop) } else { cleaner.look().await };
    match done {
        Ok(()) if due => *cleaned = Some(Instant::now()),
        Ok(()) => {}
        Err(busy) if busy.is_busy() => {}
        Err(error) => error!("cleaning up failed: {}", crate::log::chain(&error)),
    }
}

async fn tidy(store: &Store) -> Result<(), StoreError> {
    let newest = *store.revision().borrow();
    match newest.checked_sub(KEPT_CHANGES) {
        Some(oldest) => store.compact(oldest).await,
        None => Ok(()),
    }
}

fn renew(certificate: &ServerCertificate, clock: &Clock) {
    let names = match machine_names() {
        Ok(names) => names,
        Err(error) => return error!("reading the machine's names and addresses failed: {}", crate::log::chain(&error)),
    };
    match certificate.renew(&names, clock()) {
        Ok(Some(why)) => info!("the API's certificate is renewed: {why:?}"),
        Ok(None) => {}
        Err(error) => error!("renewing the certificate failed: {}", crate::log::chain(&error)),
    }
}
