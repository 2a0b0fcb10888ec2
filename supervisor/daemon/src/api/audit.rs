//! What is recorded of requests: every deed, in the transaction that does it where there is one, and every refusal. Reads
//! are none, but for values of secrets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_model::kinds::AUDIT_RECORD;
use berth_model::policy::{AUTH_PATH, Verb};
use berth_model::resource::GROUP;
use berth_model::resource::audit_record::{Deed, DeedResult};
use berth_model::resource::operation::Actor;
use berth_model::status::Reason;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::Api;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, REVEAL, Route};
use crate::audit::{INTERVAL, Notary};
use crate::store::{ReadTx, StoreError, Tx, house_keeping};

/// The routes beside those of the kind.
pub(super) fn rows() -> Vec<Route> {
    let access =
        |subresource| Access::Object { group: GROUP, plural: AUDIT_RECORD.plural, subresource, verb: Verb::Get };
    let path = |subresource| format!("/apis/berth.dev/v1/auditrecords/{subresource}");
    vec![
        Route::new(Method::GET, path("verification"), access("verification"), verify),
        Route::new(Method::GET, path("export"), access("export"), export),
    ]
}

/// What a request will be recorded as.
pub(super) struct Trail {
    notary: Arc<Notary>,
    state: Mutex<State>,
}

struct State {
    deed: Deed,
    /// It is to be recorded when it is done, and has not been.
    is_open: bool,
}

impl Trail {
    /// A request of which nothing is known yet but its way in.
    pub(super) fn new(notary: Arc<Notary>, address: Option<IpAddr>) -> Self {
        let address = address.map_or_else(|| "local".to_owned(), |address| address.to_canonical().to_string());
        let deed = Deed { identity: "unknown".to_owned(), address, ..Deed::default() };
        Self { notary, state: Mutex::new(State { deed, is_open: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked for.
    pub(super) fn asks(&self, access: &Asked<'_>, source: &str) {
        let mut state = self.state();
        let deed = &mut state.deed;
        deed.verb = access.verb.name().to_owned();
        deed.source = source.to_owned();
        deed.group = access.group.to_owned();
        deed.resource = access.resource.clone();
        deed.namespace = access.namespace.to_owned();
        deed.name = access.name.to_owned();
        state.is_open = access.is_deed;
    }

    /// Who asks, or has just proven who he is.
    pub(super) fn by(&self, identity: &str) {
        identity.clone_into(&mut self.state().deed.identity);
    }

    /// Which object it is about, if that was not in the path.
    pub(super) fn about(&self, name: &str) {
        name.clone_into(&mut self.state().deed.name);
    }

    /// Records in the transaction that does it that it was done.
    pub(super) fn done(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let deed = {
            let mut state = self.state();
            if !std::mem::take(&mut state.is_open) {
                return Ok(());
            }
            state.deed.clone()
        };
        record(tx, &self.notary, &deed)
    }

    /// Records what has not been, now that the answer is known.
    pub(super) async fn answered(&self, api: &Api, refused: Option<&str>, succeeded: bool) {
        let deed = {
            let mut state = self.state();
            match (refused, succeeded && std::mem::take(&mut state.is_open)) {
                (Some(why), _) => Deed { result: DeedResult::Denied, message: why.to_owned(), ..state.deed.clone() },
                (None, true) => state.deed.clone(),
                (None, false) => return,
            }
        };
        if refused.is_some() && !api.refusals.is_news(&deed, (api.clock)()) {
            return;
        }
        let (notary, actor) = (self.notary.clone(), house_keeping());
        let actor = Actor { identity: deed.identity.clone(), ..actor };
        let write = move |tx: &mut Tx<'_>| record(tx, &notary, &deed);
        if let Err(error) = api.store.write(&actor, write).await {
            tracing::error!("recording a request failed: {}", crate::log::chain(&error));
        }
    }
}

fn record(tx: &mut Tx<'_>, notary: &Notary, deed: &Deed) -> Result<(), StoreError> {
    tx.audit(deed)?;
    match tx.newest_audit()?.is_some_and(|newest| newest.sequence % INTERVAL == 0) {
        true => notary.sign(tx),
        false => Ok(()),
    }
}

/// What a request asks for, as the policy saw it.
pub(super) struct Asked<'a> {
    pub(super) verb: Verb,
    pub(super) group: &'a str,
    /// With what is below it.
    pub(super) resource: String,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// It changes something, or shows what is hidden.
    pub(super) is_deed: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn path(verb: Verb, path: &str) -> Self {
        let is_deed = path.starts_with(AUTH_PATH);
        Self { verb, group: "", resource: path.to_owned(), namespace: "", name: "", is_deed }
    }

    pub(super) fn object(
        verb: Verb,
        group: &'a str,
        plural: &str,
        subresource: &str,
        (namespace, name): (&'a str, &'a str),
        is_rehearsal: bool,
    ) -> Self {
        // Reviews are questions, though they are asked with POST.
        let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch)
            || group.ends_with(".k8s.io") && group.starts_with("auth");
        let is_deed = !is_rehearsal && (!reads || subresource == REVEAL);
        let resource = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
        Self { verb, group, resource, namespace, name, is_deed }
    }
}

/// The same refusal, again and again, is one record a minute.
const ANEW: SignedDuration = SignedDuration::from_mins(1);
/// Refusals that are kept in mind.
const KEPT: usize = 1000;

/// Refusals of late.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, Timestamp>>);

impl Refusals {
    fn is_news(&self, deed: &Deed, now: Timestamp) -> bool {
        let parts = [&deed.identity, &deed.address, &deed.verb, &deed.resource, &deed.namespace, &deed.name];
        let key = parts.map(String::as_str).join("\n");
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| *at <= now && now.duration_since(*at) < ANEW);
        // Of a flood of different ones it is the first that tell of it.
        if known.contains_key(&key) || known.len() >= KEPT {
            return false;
        }
        known.insert(key, now);
        true
    }
}

/// `GET .../auditrecords/verification`.
async fn verify(ask: Ask) -> Reply {
    let notary = ask.api.notary.clone();
    let found = ask.api.store.read(move |tx| notary.verify(tx)).await?;
    let body =
        serde_json::to_value(found).map_err(|_| Error::new(Reason::InternalError, "the answer cannot be written"))?;
    Ok(reply::json(&body))
}

/// Records that are sent at once.
const PIECE: usize = 500;

/// `GET .../auditrecords/export`: all of them, a line of JSON each, with what proves the chain.
async fn export(ask: Ask) -> Reply {
    let store = ask.api.store.clone();
    let pieces = futures_util::stream::try_unfold(0, move |after| {
        let store = store.clone();
        async move {
            let links = store.read(move |tx: &ReadTx<'_>| tx.audit_after(after, PIECE)).await?;
            let Some(last) = links.last().map(|last| last.sequence) else { return Ok::<_, StoreError>(None) };
            let text: String = links.iter().map(|link| format!("{}\n", link.line())).collect();
            Ok(Some((Bytes::from(text), last)))
        }
    });
    Ok(reply::text("application/jsonl", axum::body::Body::from_stream(pieces.boxed())))
}
