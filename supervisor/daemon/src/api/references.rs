//! References of a bundle that was just written, in the same transaction: one that leads nowhere is
//! refused by its field. One that led nowhere before is no news, so that what is left of a removed
//! bundle does not stand in the way of other changes.

use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, Registration, SECRET};
use berth_model::meta;
use berth_model::projection::Missing;
use berth_model::reference::{Reference, references};
use berth_model::resource::bundle::BundleSpec;
use berth_model::status::Failure;
use serde::Deserialize;
use serde_json::Value;

use super::reply::Error;
use super::request::about;
use crate::bundle::references::{Astray, astray};
use crate::store::{ReadTx, StoreError};

/// So alike a name has to be to be what was meant.
const ALIKE: f64 = 0.75;

/// Refuses new references that lead nowhere.
pub(super) fn check(tx: &ReadTx<'_>, kind: &Registration, new: &Value, old: Option<&Value>) -> Result<(), Error> {
    let causes = findings(tx, kind, new, old)?;
    if causes.is_empty() {
        return Ok(());
    }
    let about = berth_model::status::About { kind: kind.kind.to_owned(), ..about(kind, meta::name(new)) };
    Err(Failure::invalid(about, causes).into())
}

/// What is wrong with new references, field by field.
fn findings(
    tx: &ReadTx<'_>,
    kind: &Registration,
    new: &Value,
    old: Option<&Value>,
) -> Result<Vec<FieldError>, StoreError> {
    let Some(spec) = spec_of(kind, new) else { return Ok(Vec::new()) };
    let before = old.and_then(|old| spec_of(kind, old)).map(|old| references(&old)).unwrap_or_default();
    let namespace = meta::namespace(new);
    let mut causes = Vec::new();
    for found in astray(tx, namespace, &spec)? {
        if !before.iter().any(|(_, known)| *known == found.reference) {
            causes.push(told(tx, namespace, &found)?);
        }
    }
    Ok(causes)
}

fn spec_of(kind: &Registration, object: &Value) -> Option<BundleSpec> {
    if *kind != BUNDLE {
        return None;
    }
    BundleSpec::deserialize(object.get("spec")?).ok()
}

/// A finding as it is told, by the field of the bundle.
pub(super) fn told(tx: &ReadTx<'_>, namespace: &str, found: &Astray) -> Result<FieldError, StoreError> {
    let Astray { index, reference, missing } = found;
    let meant = match meant(tx, namespace, reference, missing)? {
        Some(name) => format!("did you mean `{name}`? Otherwise "),
        None => String::new(),
    };
    let message = format!("`{reference}` leads nowhere: {missing}; {meant}{}", missing.advice());
    Ok(FieldError::invalid(format!("spec.env[{index}].value"), message))
}

/// The name of what is there that is most like the one that is not.
fn meant(
    tx: &ReadTx<'_>,
    namespace: &str,
    reference: &Reference,
    missing: &Missing,
) -> Result<Option<String>, StoreError> {
    let named = |kind: &'static Registration| -> Result<Vec<String>, StoreError> {
        let all = tx.list_values(kind, Some(namespace))?;
        Ok(all.iter().map(|object| meta::name(object).to_owned()).collect())
    };
    let (wrong, there) = match (missing, reference) {
        (Missing::Object(_, name), Reference::Secret { .. }) => (name, named(&SECRET)?),
        (Missing::Object(_, name), _) => (name, named(&BUNDLE)?),
        (Missing::Port { bundle, port: Some(port) }, _) => (port, ports(tx, namespace, bundle)?),
        (Missing::Key(_, secret, key), _) => (key, keys(tx, namespace, secret)?),
        _ => return Ok(None),
    };
    Ok(closest(wrong, there))
}

fn ports(tx: &ReadTx<'_>, namespace: &str, bundle: &str) -> Result<Vec<String>, StoreError> {
    let bundle = tx.get_value(&BUNDLE, namespace, bundle)?;
    let ports = bundle.as_ref().and_then(|bundle| bundle.pointer("/spec/ports")?.as_array());
    Ok(ports.into_iter().flatten().filter_map(|port| Some(port["name"].as_str()?.to_owned())).collect())
}

fn keys(tx: &ReadTx<'_>, namespace: &str, secret: &str) -> Result<Vec<String>, StoreError> {
    let secret = tx.get_value(&SECRET, namespace, secret)?;
    let data = secret.as_ref().and_then(|secret| secret.get("data")?.as_object());
    Ok(data.into_iter().flatten().map(|(key, _)| key.clone()).collect())
}

fn closest(wrong: &str, there: Vec<String>) -> Option<String> {
    let likeness = there.into_iter().map(|name| (strsim::jaro_winkler(wrong, &name), name));
    let best = likeness.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, name)| name)
}
