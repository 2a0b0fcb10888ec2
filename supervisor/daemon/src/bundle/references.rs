//! Where the references of bundles lead, as the store has it. Secrets are looked at for their keys
//! alone.

use berth_model::kinds::{CONFIG_MAP, SECRET};
use berth_model::meta;
use berth_model::projection::{Held, Missing, Source, SourceKind, inherited, lead, origins, source_of, wanted};
use berth_model::reference::{Reference, offers, references};
use berth_model::resource::Namespace;
use berth_model::resource::bundle::{Bundle, BundleSpec, EnvVar};
use berth_model::resource::revision::{Origin, Resolved, ResolvedImage};

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

/// The variables that a bundle has from its namespace.
pub(crate) fn of_namespace(tx: &ReadTx<'_>, namespace: &str, spec: &BundleSpec) -> Result<Vec<EnvVar>, StoreError> {
    let namespace = tx.get::<Namespace>("", namespace)?;
    Ok(inherited(spec, namespace.map(|namespace| namespace.spec.env).unwrap_or_default()))
}

/// Where each variable of a revision comes from.
pub(crate) fn environment(
    tx: &ReadTx<'_>,
    namespace: &str,
    image: &ResolvedImage,
    spec: &BundleSpec,
) -> Result<Vec<Origin>, StoreError> {
    let inherited = of_namespace(tx, namespace, spec)?;
    let held = keys(tx, namespace, wanted(spec, &inherited))?;
    Ok(origins(&image.env, &inherited, spec, &held))
}

fn held(tx: &ReadTx<'_>, namespace: &str, all: &[(usize, Reference)]) -> Result<Held, StoreError> {
    keys(tx, namespace, all.iter().map(|(_, reference)| source_of(reference)))
}

/// What these hold; of ConfigMaps and Secrets the keys alone.
fn keys(tx: &ReadTx<'_>, namespace: &str, sources: impl IntoIterator<Item = Source>) -> Result<Held, StoreError> {
    let mut held = Held::new();
    for source in sources {
        let (kind, name) = &source;
        let of = match kind {
            SourceKind::Bundle => {
                let bundle = tx.get::<Bundle>(namespace, name)?;
                let bundle = bundle.filter(|one| one.metadata.deletion_timestamp.is_none());
                held.extend(bundle.map(|one| (source.clone(), offers(name, &one.spec))));
                continue;
            }
            SourceKind::ConfigMap => &CONFIG_MAP,
            SourceKind::Secret => &SECRET,
        };
        let object = tx.get_value(of, namespace, name)?.filter(|one| !meta::is_deleting(one));
        let keys = object.map(|object| {
            let maps = ["data", "binaryData"].into_iter().filter_map(|map| object.get(map)?.as_object());
            maps.flatten().map(|(key, _)| (key.clone(), Vec::new())).collect()
        });
        held.extend(keys.map(|keys| (source, keys)));
    }
    Ok(held)
}
