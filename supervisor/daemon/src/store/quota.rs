//! The quota of a namespace, held in the transaction that would exceed it, whoever writes: clients, rollbacks, change
//! sets. What is used stands in the namespace's status, and changes in the same transaction.

use berth_model::event::ChangeKind;
use berth_model::kinds::{BUNDLE, NAMESPACE, Registration, VOLUME};
use berth_model::meta;
use berth_model::quota::{Used, exceeded};
use berth_model::resource::{Bundle, Namespace, Volume};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ownership::Part;
use super::read::typed;
use super::{Refusal, StoreError, Tx};

impl Tx<'_> {
    /// Counts again after a bundle or a volume was kept or removed; refuses what would exceed the quota.
    pub(super) fn count(
        &mut self,
        kind: &'static Registration,
        object: &Value,
        previous: Option<&Value>,
        what: ChangeKind,
    ) -> Result<(), StoreError> {
        if !matters(kind, object, previous, what) {
            return Ok(());
        }
        let place = meta::namespace(object);
        let Some(namespace) = self.get::<Namespace>("", place)? else { return Ok(()) };
        let quota = &namespace.spec.quota;
        if quota.is_empty() {
            return Ok(());
        }
        let bundles = self.list::<Bundle>(Some(place))?;
        let after = self.used(place, &bundles)?;
        if *kind == BUNDLE && what != ChangeKind::Deleted {
            let before = self.used(place, &without(&bundles, object, previous))?;
            let excess = exceeded(quota, &before, &after);
            if !excess.is_empty() {
                let (name, namespace) = (meta::name(object).to_owned(), place.to_owned());
                return Err(Refusal::QuotaExceeded { name, namespace, excess }.into());
            }
        }
        if namespace.status.as_ref().map(|status| &status.used) == Some(&quota.showing(&after)) {
            return Ok(());
        }
        let old = self.must_get(&NAMESPACE, "", place)?;
        self.put(&NAMESPACE, old.clone(), Some(&old), Part::Status).map(drop)
    }

    /// Writes into a namespace what is used of its quota.
    pub(super) fn fill_used(&self, object: &mut Value) -> Result<(), StoreError> {
        let namespace: Namespace = typed(object)?;
        let quota = &namespace.spec.quota;
        let place = meta::name(object).to_owned();
        let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return Ok(()) };
        if quota.is_empty() {
            status.shift_remove("used");
            return Ok(());
        }
        let used = self.used(&place, &self.list::<Bundle>(Some(&place))?)?;
        status.insert("used".into(), json!(quota.showing(&used)));
        Ok(())
    }

    fn used(&self, namespace: &str, bundles: &[Bundle]) -> Result<Used, StoreError> {
        let volumes = self.list::<Volume>(Some(namespace))?;
        let volumes = volumes.iter().filter_map(|one| Some((one.metadata.name.as_deref()?, one.status.as_ref()?)));
        Ok(Used::by(bundles.iter().filter_map(|one| Some((one.metadata.name.as_deref()?, &one.spec))), volumes))
    }
}

/// The bundles as they were before one of them was written.
fn without(bundles: &[Bundle], object: &Value, previous: Option<&Value>) -> Vec<Bundle> {
    let others = bundles.iter().filter(|one| one.metadata.name.as_deref() != Some(meta::name(object))).cloned();
    let before = previous.and_then(|previous| Bundle::deserialize(previous).ok());
    others.chain(before).collect()
}

/// Whether a sum may be another one.
fn matters(kind: &'static Registration, object: &Value, previous: Option<&Value>, what: ChangeKind) -> bool {
    let other = |pointer: &str| previous.and_then(|old| old.pointer(pointer)) != object.pointer(pointer);
    let differs = |pointers: &[&str]| what != ChangeKind::Modified || pointers.iter().copied().any(other);
    (*kind == BUNDLE && differs(&["/spec"])) || (*kind == VOLUME && differs(&["/status/size", "/status/target"]))
}
