//! What is open ends when whoever opened it may not have it any more: his session or key is gone, he is disabled, his
//! certificate is revoked, a role was taken back. That a token has run out, or was exchanged for another one, ends nothing:
//! it was good when it was shown.
//!
//! ```text
//! store ─ changes ─> one task for all: about accounts and rights? ─> a guard for each stream ─> looks him up again
//! ```

use std::sync::{Arc, OnceLock};

use berth_model::kinds::{
    API_KEY, CERTIFICATE, DEVICE, ROLE, ROLE_BINDING, Registration, SERVICE_ACCOUNT, SESSION, USER,
};
use berth_model::policy::{Decision, Resource, Verb, authorize};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::auth::{Refusal, Standing};
use crate::store::{Store, StoreError};

/// Of what a change may change what somebody may do.
const ABOUT_RIGHTS: [&Registration; 8] =
    [&USER, &SESSION, &API_KEY, &CERTIFICATE, &DEVICE, &SERVICE_ACCOUNT, &ROLE, &ROLE_BINDING];
/// Changes that are read at a time.
const BATCH: usize = 500;

/// Tells when anything was changed about accounts and rights.
#[derive(Default)]
pub struct Rights(OnceLock<Receiver<u64>>);

impl Rights {
    fn changes(&self, api: &Api) -> Receiver<u64> {
        let begin = || {
            let (told, changes) = channel(0);
            tokio::spawn(follow(api.store.clone(), told, api.stop.clone()));
            changes
        };
        self.0.get_or_init(begin).clone()
    }
}

async fn follow(store: Store, told: Sender<u64>, stop: CancellationToken) {
    let mut newest = store.revision();
    let mut since = *newest.borrow_and_update();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
        let until = *newest.borrow_and_update();
        match is_about_rights(&store, &mut since).await {
            Ok(false) => {}
            Ok(true) => told.send_modify(|times| *times += 1),
            Err(error) => {
                // What cannot be read may have been about rights.
                tracing::debug!("what changed in the store is not known: {}", crate::log::chain(&error));
                since = until;
                told.send_modify(|times| *times += 1);
            }
        }
    }
}

async fn is_about_rights(store: &Store, since: &mut u64) -> Result<bool, StoreError> {
    let mut found = false;
    loop {
        let changes = store.changes(*since, BATCH).await?;
        let Some(last) = changes.last() else { return Ok(found) };
        *since = last.resource_version;
        found |= changes.iter().any(|change| ABOUT_RIGHTS.contains(&change.kind));
    }
}

/// What somebody has open.
pub(super) struct Opened {
    pub(super) standing: Standing,
    pub(super) verb: Verb,
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    pub(super) subresource: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Sees to it that something open ends when it has to. `ending` says that it is to end, and that it has.
pub(super) fn guard(api: &Arc<Api>, opened: Opened, ending: CancellationToken) {
    let (mut changes, api) = (api.rights.changes(api), api.clone());
    tokio::spawn(async move {
        // What changed since he was let in counts, too.
        while opened.may_stay(&api).await {
            tokio::select! {
                () = ending.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
        tracing::info!(
            "a {} of {} is ended, as whoever opened it may not have it any more",
            opened.verb,
            opened.plural
        );
        ending.cancel();
    });
}

impl Opened {
    async fn may_stay(&self, api: &Api) -> bool {
        let Self { group, plural, subresource, namespace, name, .. } = self;
        let resource = Resource::Object { group, plural, subresource, namespace, name };
        match api.authenticator.stands(&self.standing).await {
            Ok(subject) => authorize(&subject, self.verb, &resource) == Decision::Allowed,
            Err(Refusal::Store(error)) => {
                tracing::warn!("whether a {} may stay open is not known: {}", self.verb, crate::log::chain(&error));
                true
            }
            Err(_) => false,
        }
    }
}
