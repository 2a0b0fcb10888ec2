//! What has to be done now and then, at no time in particular: the change log, the certificate, a look at what is unused.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::Parts;
use super::cleanup::Cleaner;
use crate::audit::Notary;
use crate::auth::ca::ServerCertificate;
use crate::auth::{accounts, machine_names};
use crate::store::{Clock, Store, StoreError, Tx, house_keeping};

/// How often.
const INTERVAL: Duration = Duration::from_secs(600);
/// Versions that watchers may lag behind before they have to list again.
const KEPT_CHANGES: u64 = 20_000;
/// How long audit records are kept.
const AUDIT_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Begins to keep house.
pub(super) fn spawn(parts: &Parts, cleaner: Arc<Cleaner>, certificate: ServerCertificate, tasks: &TaskTracker) {
    let (store, sealer, clock) = (parts.store.clone(), parts.sealer.clone(), parts.clock.clone());
    let notary = parts.notary.clone();
    let rounds = async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            note_unused(&cleaner).await;
            if let Err(error) = tidy(&store).await {
                error!("keeping house in the store failed: {}", crate::log::chain(&error));
            }
            if let Err(error) = look_after_audit(&store, &notary).await {
                error!("signing audit records and forgetting old ones failed: {}", crate::log::chain(&error));
            }
            if let Err(error) = accounts::end_old_sessions(&store).await {
                error!("ending old sessions failed: {}", crate::log::chain(&error));
            }
            if let Err(error) = sealer.forget_gone(&store).await {
                error!("removing the keys of removed namespaces failed: {}", crate::log::chain(&error));
            }
            renew(&certificate, &clock);
        }
    };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(rounds));
}

/// While an image is on its way, this waits.
async fn note_unused(cleaner: &Cleaner) {
    match cleaner.look().await {
        Ok(()) => {}
        Err(busy) if busy.is_busy() => {}
        Err(error) => error!("noting what is unused failed: {}", crate::log::chain(&error)),
    }
}

async fn tidy(store: &Store) -> Result<(), StoreError> {
    let newest = *store.revision().borrow();
    match newest.checked_sub(KEPT_CHANGES) {
        Some(oldest) => store.compact(oldest).await,
        None => Ok(()),
    }
}

async fn look_after_audit(store: &Store, notary: &Arc<Notary>) -> Result<(), StoreError> {
    let notary = notary.clone();
    let work = move |tx: &mut Tx<'_>| {
        notary.sign(tx)?;
        let old = tx.now().checked_sub(AUDIT_KEPT).unwrap_or(Timestamp::MIN);
        tx.forget_audit(old).map(drop)
    };
    store.write(&house_keeping(), work).await
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
