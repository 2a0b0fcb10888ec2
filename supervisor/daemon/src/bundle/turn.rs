//! Whom a bundle waits for before it starts: those it depends on that are on their way up.
//!
//! After a boot, or when many are installed at once, a service would else start before what it needs, fail, and be
//! started again. It is a courtesy and no rule: who is stopped, fails or does not come up in time is not waited for, and
//! of those that depend on one another none waits for the other.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::condition::Reason;
use berth_model::reference::dependencies;
use berth_model::resource::bundle::{Bundle, Phase};
use berth_model::resource::operation::{Operation, OperationState};

use super::view::operation_state;
use crate::store::{ReadTx, StoreError};

/// Bundles by name.
type Found = BTreeMap<String, Bundle>;

/// Those that a bundle waits for at present.
pub fn awaited(tx: &ReadTx<'_>, namespace: &str, name: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut awaited = BTreeSet::new();
    for one in among(&reach(tx, namespace, name)?, name) {
        if !is_held(tx, namespace, &one)? {
            awaited.insert(one);
        }
    }
    Ok(awaited)
}

/// A bundle with all that it depends on, directly or not.
fn reach(tx: &ReadTx<'_>, namespace: &str, name: &str) -> Result<Found, StoreError> {
    let (mut found, mut open) = (Found::new(), vec![name.to_owned()]);
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        if let Some(bundle) = tx.get::<Bundle>(namespace, &name)? {
            open.extend(dependencies(&bundle.spec));
            found.insert(name, bundle);
        }
    }
    Ok(found)
}

fn among(found: &Found, name: &str) -> BTreeSet<String> {
    let mut direct = found.get(name).map(|bundle| dependencies(&bundle.spec)).unwrap_or_default();
    direct.retain(|one| found.get(one).is_some_and(is_coming) && !leads_to(found, one, name));
    direct
}

/// Whether `to` is `from`, or what that depends on, directly or not.
fn leads_to(found: &Found, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if let Some(bundle) = found.get(&name)
            && seen.insert(name)
        {
            open.extend(dependencies(&bundle.spec));
        }
    }
    false
}

/// It is meant to run and does not serve yet, and nobody has to do anything about it.
fn is_coming(bundle: &Bundle) -> bool {
    let status = bundle.status.clone().unwrap_or_default();
    let lacks = status.conditions.iter().any(|one| one.reason == Reason::SecretsPending.name() && one.status != "True");
    let on_its_way = match status.phase {
        Phase::Progressing => true,
        Phase::Pending => !lacks,
        _ => false,
    };
    bundle.spec.start && bundle.metadata.deletion_timestamp.is_none() && on_its_way && !status.is_ready()
}

/// What brings it up waits for somebody.
fn is_held(tx: &ReadTx<'_>, namespace: &str, name: &str) -> Result<bool, StoreError> {
    let about: Vec<Operation> = tx.list_about(namespace, name)?;
    Ok(about.iter().any(|one| operation_state(one) == OperationState::Held))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(all: &[(&str, &[&str], &str)]) -> Found {
        let bundle = |(name, depends_on, phase): &(&str, &[&str], &str)| {
            let ready = if *phase == "Running" { "True" } else { "False" };
            let condition = json!({"type": "Ready", "status": ready, "reason": "StartPending", "message": "",
                                   "lastTransitionTime": "2026-05-01T00:00:00Z"});
            let bundle = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"image": "r/x:1", "start": true, "dependsOn": depends_on},
                "status": {"phase": phase, "conditions": [condition]},
            });
            ((*name).to_owned(), serde_json::from_value(bundle).unwrap())
        };
        all.iter().map(bundle).collect()
    }

    fn waits(found: &Found, name: &str) -> Vec<String> {
        among(found, name).into_iter().collect()
    }

    #[test]
    fn who_is_on_its_way_is_waited_for_and_who_serves_failed_or_rests_is_not() {
        let all = found(&[
            ("web", &["a", "b", "c", "d", "e", "gone"], "Progressing"),
            ("a", &[], "Progressing"),
            ("b", &[], "Pending"),
            ("c", &[], "Running"),
            ("d", &[], "Failed"),
            ("e", &[], "Stopped"),
        ]);
        assert_eq!(waits(&all, "web"), ["a", "b"]);
        assert_eq!(waits(&all, "a"), Vec::<String>::new());
    }

    #[test]
    fn a_chain_comes_up_link_by_link_and_in_a_ring_nobody_waits() {
        let chain =
            found(&[("web", &["api"], "Progressing"), ("api", &["db"], "Progressing"), ("db", &[], "Progressing")]);
        assert_eq!((waits(&chain, "web"), waits(&chain, "api")), (vec!["api".to_owned()], vec!["db".to_owned()]));
        let ring = found(&[
            ("web", &["api", "db"], "Progressing"),
            ("api", &["cache"], "Progressing"),
            ("cache", &["web"], "Progressing"),
            ("db", &["db"], "Progressing"),
        ]);
        assert_eq!((waits(&ring, "web"), waits(&ring, "api")), (vec!["db".to_owned()], vec![]));
        assert_eq!((waits(&ring, "cache"), waits(&ring, "db")), (vec![], vec![]));
    }
}
