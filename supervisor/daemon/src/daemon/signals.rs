//! Who is woken by what: changes in the store and at systemd become keys of bundles.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_host::systemd::{Change, Systemd};
use berth_model::event::ChangeKind;
use berth_model::kinds::{self, Kind};
use berth_model::meta;
use berth_model::projection::{Source, SourceKind, wanted};
use berth_model::resource::bundle::RENAMED_FROM;
use berth_model::resource::{Bundle, Namespace, Operation, Revision, Volume};
use tokio::sync::mpsc::Sender;
use tracing::{error, warn};

use super::machine::LinuxMachine;
use crate::bundle::BundleKey;
use crate::bundle::view::container_of;
use crate::store::{Change as StoreChange, Refusal, Store, StoreError};

/// Changes read from the store at a time.
const BATCH: usize = 500;

/// Follows the store until nobody listens.
pub(super) async fn from_store(store: Store, wake: Sender<BundleKey>) {
    let mut newest = store.revision();
    let mut seen = *newest.borrow_and_update();
    while newest.changed().await.is_ok() {
        newest.mark_unchanged();
        match forward(&store, seen, &wake).await {
            Ok(until) => seen = until,
            Err(StoreError::Refused(Refusal::Gone { .. })) => {
                warn!("changes were compacted before they were read; the next resync sees to it");
                seen = *newest.borrow();
            }
            Err(error) => error!("following the store failed: {}", crate::log::chain(&error)),
        }
        if wake.is_closed() {
            return;
        }
    }
}

async fn forward(store: &Store, mut seen: u64, wake: &Sender<BundleKey>) -> Result<u64, StoreError> {
    loop {
        let changes = store.changes(seen, BATCH).await?;
        let Some(last) = changes.last() else { return Ok(seen) };
        seen = last.resource_version;
        let takers = takers(store, &changes).await?;
        for key in changes.iter().filter_map(|change| concerned(change)).chain(takers) {
            if wake.send(key).await.is_err() {
                return Ok(seen);
            }
        }
    }
}

/// The bundle that a change is about, if any.
fn concerned(change: &StoreChange) -> Option<BundleKey> {
    let text = |pointer: &str| change.object.pointer(pointer).and_then(|value| value.as_str()).map(str::to_owned);
    let is = |kind: &'static kinds::Registration| change.kind == kind;
    let name = if is(Bundle::registration()) {
        // What a look has written is no reason to look again.
        is_wish(change).then(|| change.name.clone())
    } else if is(Revision::registration()) || is(Volume::registration()) {
        text("/spec/bundle")
    } else if is(Operation::registration()) {
        text("/spec/target/name")
    } else {
        None
    };
    Some(BundleKey { namespace: change.namespace.clone(), name: name? })
}

/// Whether anything but the status of an object has changed.
fn is_wish(change: &StoreChange) -> bool {
    const BY_ITSELF: [&str; 2] = ["resourceVersion", "managedFields"];
    let without = |object: &serde_json::Value| {
        let mut metadata = object["metadata"].clone();
        BY_ITSELF.iter().for_each(|field| drop(metadata.as_object_mut().and_then(|all| all.shift_remove(*field))));
        metadata
    };
    let same = |old: &serde_json::Value| without(old) == without(&change.object);
    change.what != ChangeKind::Modified || change.previous.as_ref().is_none_or(|old| !same(old))
}

/// The bundles that take something from a ConfigMap, a Secret or another bundle among what changed.
async fn takers(store: &Store, changes: &[Arc<StoreChange>]) -> Result<Vec<BundleKey>, StoreError> {
    let changed: BTreeSet<(String, Source)> = changes.iter().filter_map(|change| source(change)).collect();
    let renewed: BTreeSet<&str> = changes.iter().filter_map(|change| renewed(change)).collect();
    if changed.is_empty() && renewed.is_empty() {
        return Ok(Vec::new());
    }
    let (mut bundles, namespaces) =
        store.read(|tx| Ok((tx.list::<Bundle>(None)?, tx.list::<Namespace>(None)?))).await?;
    bundles.retain(|bundle| {
        let namespace = bundle.metadata.namespace.clone().unwrap_or_default();
        // One that got another name waits until the old one is free.
        let old = bundle.metadata.annotations.as_ref().and_then(|all| all.get(RENAMED_FROM));
        let old = old.map(|old| (SourceKind::Bundle, old.clone()));
        let of = namespaces.iter().find(|one| one.metadata.name.as_deref() == Some(&namespace));
        let wanted = wanted(&bundle.spec, of.map_or(&[], |of| of.spec.env.as_slice()));
        renewed.contains(namespace.as_str())
            || wanted.into_iter().chain(old).any(|source| changed.contains(&(namespace.clone(), source)))
    });
    Ok(bundles.iter().map(crate::bundle::key_of).collect())
}

/// The namespace whose variables are others.
fn renewed(change: &StoreChange) -> Option<&str> {
    let env = |object: &serde_json::Value| object.pointer("/spec/env").cloned();
    let same = change.previous.as_ref().is_some_and(|old| env(old) == env(&change.object));
    (change.kind == Namespace::registration() && !same).then_some(change.name.as_str())
}

fn source(change: &StoreChange) -> Option<(String, Source)> {
    let kinds = [
        (&kinds::CONFIG_MAP, SourceKind::ConfigMap),
        (&kinds::SECRET, SourceKind::Secret),
        (&kinds::BUNDLE, SourceKind::Bundle),
    ];
    let (_, kind) = kinds.into_iter().find(|(kind, _)| change.kind == *kind)?;
    // How a bundle fares leads nowhere else.
    let same = |old: &serde_json::Value| {
        meta::generation(old) == meta::generation(&change.object)
            && meta::is_deleting(old) == meta::is_deleting(&change.object)
    };
    let is_news = change.what != ChangeKind::Modified || change.previous.as_ref().is_none_or(|old| !same(old));
    (kind != SourceKind::Bundle || is_news).then(|| (change.namespace.clone(), (kind, change.name.clone())))
}

/// Follows systemd until nobody listens. A new connection is told to the machine, which has lost its
/// references with the old one; every bundle is then looked at.
pub(super) async fn from_systemd(systemd: Systemd, machine: Arc<LinuxMachine>, store: Store, wake: Sender<BundleKey>) {
    let mut changes = systemd.changes("berth.");
    let mut connections = 0;
    while !wake.is_closed() {
        match changes.next().await {
            Change::Unit(unit) => {
                machine.news(&unit);
                if let Some(key) = bundle_of(&unit)
                    && wake.send(key).await.is_err()
                {
                    return;
                }
            }
            Change::Everything => {
                connections += 1;
                machine.news_of_all();
                if connections > 1 {
                    machine.references_are_gone();
                }
                wake_all(&store, &wake).await;
            }
        }
    }
}

async fn wake_all(store: &Store, wake: &Sender<BundleKey>) {
    let bundles = match store.read(|tx| tx.list::<Bundle>(None)).await {
        Ok(bundles) => bundles,
        Err(error) => return error!("listing the bundles failed: {}", crate::log::chain(&error)),
    };
    for bundle in bundles {
        if wake.send(crate::bundle::key_of(&bundle)).await.is_err() {
            return;
        }
    }
}

/// `berth.default.nginx.r7.service` belongs to `default/nginx`.
fn bundle_of(unit: &str) -> Option<BundleKey> {
    let id = container_of(unit)?;
    let mut parts = id.split('.');
    let (namespace, name) = (parts.next()?, parts.next()?);
    let revision = parts.next()?.strip_prefix('r')?;
    let whole = parts.next().is_none() && revision.parse::<u64>().is_ok();
    whole.then(|| BundleKey { namespace: namespace.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use berth_model::resource::bundle::BundleStatus;
    use berth_model::resource::operation::Actor;

    use super::*;

    #[test]
    fn a_unit_tells_whose_it_is() {
        let key = bundle_of("berth.my-team.web.r12.service").unwrap();
        assert_eq!(key.to_string(), "my-team/web");
    }

    #[tokio::test]
    async fn what_a_look_has_written_is_no_reason_to_look_again_and_a_wish_is() {
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let store = Store::open(&dir.path().join("berth.db"), clock).unwrap();
        let actor = Actor { identity: "somebody".into(), source: "api".into() };
        let written = store.write(&actor, |tx| {
            let metadata = serde_json::json!({"name": "web", "namespace": "default"});
            let bundle = serde_json::json!({"metadata": metadata, "spec": {"image": "r/web:1"}, "status": {}});
            let mut bundle = tx.create(&serde_json::from_value::<Bundle>(bundle).unwrap())?;
            bundle.status = Some(BundleStatus { revision: Some(7), ..BundleStatus::default() });
            tx.write_status(&bundle)?;
            bundle = tx.get::<Bundle>("default", "web")?.unwrap();
            bundle.spec.image = "r/web:2".into();
            tx.update(&bundle)?;
            Ok::<_, StoreError>(())
        });
        written.await.unwrap();
        let changes = store.changes(0, BATCH).await.unwrap();
        let of_bundles = changes.iter().filter(|change| change.kind == Bundle::registration());
        let woken: Vec<bool> = of_bundles.map(|change| concerned(change).is_some()).collect();
        assert_eq!(woken, [true, false, true], "made, fares, wanted otherwise");
    }

    #[test]
    fn what_only_looks_like_a_service_of_ours_is_left_alone() {
        for unit in ["berth.slice", "berth.default.web.service", "berth.default.web.rx.service", "berthd.service"] {
            assert_eq!(bundle_of(unit), None, "{unit}");
        }
    }
}
