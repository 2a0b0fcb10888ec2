//! Where the references of bundles lead, as the store has it. Secrets are looked at for their keys
//! alone.

use berth_model::kinds::SECRET;
use berth_model::meta;
use berth_model::projection::{Held, Missing, SourceKind, lead, source_of};
use berth_model::reference::{Reference, offers, references};
use berth_model::resource::bundle::{Bundle, BundleSpec};
use berth_model::resource::revision::Resolved;
use serde_json::Value;

use crate::store::{ReadTx, StoreError};

/// A reference that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Astray {
    /// Index of the variable that has it.
    pub index: usize,
    /// The reference.
    pub reference: Reference,
    /// Why.
    pub missing: Missing,
}

/// The references of a bundle that lead nowhere.
pub(crate) fn astray(tx: &ReadTx<'_>, namespace: &str, spec: &BundleSpec) -> Result<Vec<Astray>, StoreError> {
    let all = references(spec);
    let held = held(tx, namespace, &all)?;
    let wrong = |(index, reference): (usize, Reference)| {
        let missing = lead(&reference, &held).err()?;
        Some(Astray { index, reference, missing })
    };
    Ok(all.into_iter().filter_map(wrong).collect())
}

/// What a revision keeps of where its references led: nothing of a Secret.
pub(crate) fn resolved(tx: &ReadTx<'_>, namespace: &str, spec: &BundleSpec) -> Result<Vec<Resolved>, StoreError> {
    let mut all: Vec<Reference> = references(spec).into_iter().map(|(_, reference)| reference).collect();
    all.sort();
    all.dedup();
    let held = held(tx, namespace, &all.iter().cloned().map(|one| (0, one)).collect::<Vec<_>>())?;
    let resolved = |reference: &Reference| Resolved {
        reference: reference.to_string(),
        value: reference.bundle().and_then(|_| lead(reference, &held).ok()),
    };
    Ok(all.iter().map(resolved).collect())
}

fn held(tx: &ReadTx<'_>, namespace: &str, all: &[(usize, Reference)]) -> Result<Held, StoreError> {
    let mut held = Held::new();
    for source in all.iter().map(|(_, reference)| source_of(reference)) {
        let (kind, name) = &source;
        let values = if *kind == SourceKind::Bundle {
            let bundle = tx.get::<Bundle>(namespace, name)?;
            bundle.filter(|one| one.metadata.deletion_timestamp.is_none()).map(|one| offers(name, &one.spec))
        } else {
            let secret = tx.get_value(&SECRET, namespace, name)?.filter(|one| !meta::is_deleting(one));
            secret.map(|secret| {
                let keys = secret.get("data").and_then(Value::as_object).into_iter().flatten();
                keys.map(|(key, _)| (key.clone(), Vec::new())).collect()
            })
        };
        held.extend(values.map(|values| (source, values)));
    }
    Ok(held)
}
