//! How a new operation is to stand to others: looked at before anything is written.

use berth_model::admission::circle;
use berth_model::field::FieldError;
use berth_model::resource::Operation;
use berth_model::resource::operation::{OperationState, Relations, Target};
use berth_model::status::{Failure, Reason};

use super::reply::Error;
use crate::bundle::view::operation_state;
use crate::operation::order;
use crate::store::ReadTx;

/// Fails unless every name is that of an operation of the namespace, each that is required may still succeed, and the
/// new one closes no circle.
pub(super) fn check(tx: &ReadTx<'_>, target: &Target, relations: &Relations) -> Result<(), Error> {
    if relations.is_empty() {
        return Ok(());
    }
    let mut causes = Vec::new();
    let lists = [
        ("requires", &relations.requires),
        ("prefersBefore", &relations.prefers_before),
        ("conflictsWith", &relations.conflicts_with),
    ];
    for (list, names) in lists {
        for (at, name) in names.iter().enumerate() {
            let found = tx.get::<Operation>(&target.namespace, name)?;
            let why = why_not(target, name, found.as_ref(), list == "requires");
            causes.extend(why.map(|why| FieldError::invalid(format!("relations.{list}[{at}]"), why)));
        }
    }
    if causes.is_empty() {
        causes.extend(closed(tx, target, relations)?);
    }
    if causes.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = causes.iter().map(ToString::to_string).collect();
    Err(Failure { causes, ..Failure::new(Reason::Invalid, told.join(", ")) }.into())
}

/// What one that is asked for again keeps of how it stood to others. What it required and is over is what it failed by, or
/// no reason to wait any more; a preference that would close a circle by now is none.
pub(super) fn kept(tx: &ReadTx<'_>, target: &Target, relations: &Relations) -> Result<Relations, Error> {
    let mut kept = Relations::default();
    let lists = [
        (&relations.requires, &mut kept.requires),
        (&relations.prefers_before, &mut kept.prefers_before),
        (&relations.conflicts_with, &mut kept.conflicts_with),
    ];
    for (names, kept) in lists {
        for name in names {
            let found = tx.get::<Operation>(&target.namespace, name)?;
            kept.extend(found.filter(|one| !operation_state(one).finished()).map(|_| name.clone()));
        }
    }
    if closed(tx, target, &kept)?.is_some() {
        kept.prefers_before.clear();
    }
    Ok(kept)
}

fn why_not(target: &Target, name: &str, found: Option<&Operation>, required: bool) -> Option<String> {
    let Some(found) = found else {
        let namespace = &target.namespace;
        return Some(format!("there is no operation {name} in namespace {namespace}; see `berth operations`"));
    };
    match operation_state(found) {
        state @ (OperationState::Failed | OperationState::Cancelled) if required => {
            Some(format!("operation {name} has ended: {state:?}; try it again first: `berth operation retry {name}`"))
        }
        _ => None,
    }
}

fn closed(tx: &ReadTx<'_>, target: &Target, relations: &Relations) -> Result<Option<FieldError>, Error> {
    let mut waiting: Vec<Operation> = tx.list_lasting()?;
    waiting.retain(|one| one.metadata.namespace.as_ref() == Some(&target.namespace));
    waiting.retain(|one| operation_state(one) == OperationState::Pending);
    waiting.sort_by_key(order);
    Ok(circle(&waiting, target, relations).map(|names| {
        let told = format!(
            "this would close a circle: it goes before {}, which goes before it; leave one of these relations out",
            names.join(", which goes before ")
        );
        FieldError::invalid("relations.prefersBefore", told)
    }))
}
