//! What the runner reads of the store before it lets operations begin, and what it writes about those that do not.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::admission::{Admission, Close, Key, Queue, key};
use berth_model::condition::Reason;
use berth_model::event::ChangeKind;
use berth_model::kinds::{OPERATION, SETTINGS};
use berth_model::resource::Settings;
use berth_model::resource::operation::{Operation, OperationKind, OperationState, OperationStatus, Target};
use berth_model::resource::settings;
use serde_json::Value;

use super::order;
use super::record::{Ended, cancelled, runner};
use super::step::StepError;
use crate::store::{Change, ReadTx, Store, StoreError, Tx};

/// Changes looked through at most; more of them are news in any case.
const BATCH: usize = 200;

/// All that waits or is at work.
pub(super) struct Waiting {
    /// The oldest first.
    unfinished: Vec<Operation>,
    /// How those ended that others require.
    ended: BTreeMap<Key, OperationState>,
    places: usize,
}

impl Waiting {
    pub(super) fn queue<'a>(&'a self, at_work: &'a BTreeMap<Target, Key>, passed: &'a BTreeMap<Key, u32>) -> Queue<'a> {
        Queue { unfinished: &self.unfinished, ended: &self.ended, at_work, passed, places: self.places }
    }

    pub(super) fn get(&self, wanted: &Key) -> Option<&Operation> {
        self.unfinished.iter().find(|one| key(one) == *wanted)
    }
}

/// Whether something changed that decides which operations begin; how far those at work are does not.
pub(super) async fn has_news(store: &Store, seen: &mut u64) -> bool {
    let Ok(changes) = store.changes(*seen, BATCH).await else { return true };
    *seen = changes.last().map_or(*seen, |last| last.resource_version);
    changes.len() == BATCH || changes.iter().any(|change| is_news(change))
}

fn is_news(change: &Change) -> bool {
    let decides = |object: &Value| (object["status"]["state"].clone(), object["status"]["cancelledBy"].clone());
    match change.what {
        _ if change.kind == &SETTINGS => true,
        _ if change.kind != &OPERATION => false,
        ChangeKind::Modified => change.previous.as_ref().is_none_or(|old| decides(old) != decides(&change.object)),
        ChangeKind::Added | ChangeKind::Deleted => true,
    }
}

pub(super) async fn read(store: &Store) -> Result<Waiting, StoreError> {
    store
        .read(|tx| {
            let mut unfinished: Vec<Operation> = tx.list_lasting()?;
            unfinished.retain(|one| !state(one).finished());
            unfinished.sort_by_key(order);
            let settings = tx.get::<Settings>("", settings::NAME)?.map(|found| found.spec).unwrap_or_default();
            let ended = ended(tx, &unfinished)?;
            Ok(Waiting { unfinished, ended, places: settings.operations.parallel.into() })
        })
        .await
}

/// How an operation of a kind begins its life: waiting for its turn, or held.
///
/// # Errors
/// The store.
pub fn beginning(tx: &ReadTx<'_>, kind: OperationKind) -> Result<OperationStatus, StoreError> {
    let settings = tx.get::<Settings>("", settings::NAME)?.map(|found| found.spec).unwrap_or_default();
    let state = match settings.operations.hold.contains(&kind) {
        true => OperationState::Held,
        false => return Ok(OperationStatus::default()),
    };
    let waiting = format!("operations of kind {kind:?} are held until somebody releases or rejects them");
    Ok(OperationStatus { state, waiting, ..OperationStatus::default() })
}

fn ended(tx: &ReadTx<'_>, unfinished: &[Operation]) -> Result<BTreeMap<Key, OperationState>, StoreError> {
    let mut ended = BTreeMap::new();
    for one in unfinished {
        for name in &one.spec.relations.requires {
            let (namespace, _) = key(one);
            if let Some(found) = tx.get::<Operation>(&namespace, name)? {
                ended.insert((namespace, name.clone()), state(&found));
            }
        }
    }
    Ok(ended)
}

/// Closes the records of those that end without having begun, and notes what those wait for that rest.
pub(super) async fn note(
    store: &Store,
    waiting: &Waiting,
    admission: Admission,
) -> Result<Vec<(OperationKind, Ended)>, StoreError> {
    let rest: BTreeMap<Key, String> = admission.rest.into_iter().collect();
    let mut notes = Vec::new();
    for one in &waiting.unfinished {
        let (key, noted) = (key(one), one.status.as_ref().map_or("", |status| status.waiting.as_str()));
        let why = rest.get(&key).map(|name| format!("{name} has to succeed first")).unwrap_or_default();
        if noted != why && !admission.begin.contains(&key) && state(one) == OperationState::Pending {
            notes.push((key, why));
        }
    }
    if notes.is_empty() && admission.close.is_empty() {
        return Ok(Vec::new());
    }
    let write = move |tx: &mut Tx<'_>| {
        for (key, why) in notes {
            change(tx, &key, |_, status| status.waiting = why)?;
        }
        let mut all = Vec::new();
        for (key, why) in admission.close {
            all.extend(close(tx, &key, &why)?);
        }
        Ok::<_, StoreError>(all)
    };
    store.write(&runner(), write).await
}

fn close(tx: &mut Tx<'_>, key: &Key, why: &Close) -> Result<Option<(OperationKind, Ended)>, StoreError> {
    let now = tx.now().to_string();
    change(tx, key, |kind, status| {
        let error = match why {
            Close::Overtaken => None,
            Close::Cancelled => status.cancelled_by.as_ref().map(|by| cancelled(&key.1, by)),
            Close::Unmet(name, state) => Some(unmet(&key.1, name, *state)),
        };
        let failed = matches!(why, Close::Unmet(..));
        status.state = if failed { OperationState::Failed } else { OperationState::Cancelled };
        status.waiting.clear();
        status.finished_at = Some(now);
        status.error = error.as_ref().map(StepError::recorded);
        let why = error.map(|error| format!(": {error}")).unwrap_or_default();
        (kind, Ended { state: status.state, took: Duration::ZERO, told: format!("{} {:?}{why}", key.1, status.state) })
    })
}

/// Only somebody who asks for it can help: what was to come first did not come.
fn unmet(name: &str, required: &str, state: Option<OperationState>) -> StepError {
    let how = match state {
        Some(state) => format!("ended: {state:?}"),
        None => "is gone, and nobody knows how it ended".to_owned(),
    };
    let error = StepError::new(Reason::StartFailed, format!("it requires operation {required}, which {how}"));
    let advice = format!("`berth operation retry {name}` does it without waiting for {required}");
    error.coded("RequirementFailed").suggest(advice).permanent()
}

/// Changes the record of one that has not begun, if it still has not.
fn change<T>(
    tx: &mut Tx<'_>,
    (namespace, name): &Key,
    change: impl FnOnce(OperationKind, &mut OperationStatus) -> T,
) -> Result<Option<T>, StoreError> {
    let Some(mut operation) = tx.get::<Operation>(namespace, name)? else { return Ok(None) };
    if !matches!(state(&operation), OperationState::Pending | OperationState::Held) {
        return Ok(None);
    }
    let done = change(operation.spec.kind, operation.status.get_or_insert_default());
    tx.write_status(&operation)?;
    Ok(Some(done))
}

fn state(operation: &Operation) -> OperationState {
    operation.status.as_ref().map(|status| status.state).unwrap_or_default()
}
