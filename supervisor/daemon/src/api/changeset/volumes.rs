//! Volumes of a bundle that gets another name go over to it, in the transaction that renames it.
//!
//! File, device and key of a volume go by its uid, so nothing of them is touched: its record gets another name and names
//! another bundle. The bundle of the old name is being removed from then on, and that of the new one is installed when
//! it is gone, so that two services never have one volume. What is killed in between goes on from there.

use berth_model::changes::Staged;
use berth_model::changes::plan::PlannedChange;
use berth_model::field::FieldError;
use berth_model::kinds::Kind;
use berth_model::resource::Volume;
use berth_model::resource::change_set::EntryVerb;
use berth_model::resource::operation::Operation;
use berth_model::resource::volume::{VolumeState, volume_name};
use berth_model::status::{Failure, Reason};

use super::super::reply::Error;
use super::Place;
use super::apply::is_renamed;
use crate::store::{EventType, ReadTx, Tx};

/// Gives every volume of a renamed bundle to the bundle of the new name; a line for each.
pub(super) fn hand_over(
    tx: &mut Tx<'_>,
    place: &Place,
    staged: &Staged,
    changes: &[PlannedChange],
) -> Result<Vec<PlannedChange>, Error> {
    let renamed = || changes.iter().filter(|change| is_renamed(change));
    let (mut lines, mut causes) = (Vec::new(), Vec::new());
    for rename in &staged.renames {
        let is_plain = renamed().any(|change| change.renamed_from.as_ref() == Some(&rename.old));
        if !is_plain && !tx.list_about::<Volume>(&place.namespace, &rename.old)?.is_empty() {
            causes.push(stays(&rename.old));
        }
    }
    for change in renamed() {
        let old = change.renamed_from.clone().unwrap_or_default();
        for volume in tx.list_about::<Volume>(&place.namespace, &old)? {
            match obstacle(tx, place, &volume, &change.name)? {
                Some(cause) => causes.push(cause),
                None => lines.push(hand_one_over(tx, place, &volume, &change.name)?),
            }
        }
    }
    if causes.is_empty() {
        return Ok(lines);
    }
    let told: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
    let message = format!("changeset {} cannot be applied: {}", place.name, told.join("; "));
    Err(Failure { causes, ..Failure::new(Reason::Conflict, message) }.into())
}

/// Its name is given to another bundle at once, or it is given the name of one that is there.
fn stays(bundle: &str) -> FieldError {
    let message = format!(
        "bundle {bundle} has volumes, and two services could come to be on one: make the names change in two change \
         sets, one after the other"
    );
    FieldError::forbidden(format!("bundle/{bundle}"), message)
}

fn name_of(volume: &Volume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

/// Why a volume cannot go over now.
fn obstacle(tx: &ReadTx<'_>, place: &Place, volume: &Volume, bundle: &str) -> Result<Option<FieldError>, Error> {
    let (name, new) = (name_of(volume), volume_name(bundle, &volume.spec.volume));
    let refused = |why: String| Ok(Some(FieldError::forbidden(format!("volume/{name}"), why)));
    if let Some(taken) = tx.get::<Volume>(&place.namespace, &new)? {
        let advice = "choose another name for the bundle, or erase that volume";
        return refused(format!(
            "volume {name} would be named {new}, as one of bundle {} is; {advice}",
            taken.spec.bundle
        ));
    }
    let state = volume.status.as_ref().map(|status| status.state).unwrap_or_default();
    if !matches!(state, VolumeState::Ready | VolumeState::Locked | VolumeState::Damaged) {
        return refused(format!("volume {name} is {}; try again when it is Ready", state.name()));
    }
    let open = |one: &Operation| {
        one.spec.target.kind == Volume::registration().kind
            && !one.status.as_ref().is_some_and(|status| status.state.finished())
    };
    let at_work = tx.list_about::<Operation>(&place.namespace, name)?.into_iter().find(open);
    match at_work.and_then(|one| one.metadata.name) {
        Some(operation) => {
            refused(format!("operation {operation} is at work on volume {name}; try again when it is done"))
        }
        None => Ok(None),
    }
}

fn hand_one_over(tx: &mut Tx<'_>, place: &Place, volume: &Volume, bundle: &str) -> Result<PlannedChange, Error> {
    let (old, new) = (name_of(volume).to_owned(), volume_name(bundle, &volume.spec.volume));
    let renamed = tx.rename::<Volume>(&place.namespace, &old, |volume| {
        volume.metadata.name = Some(new.clone());
        volume.spec.bundle = bundle.to_owned();
    })?;
    let told = format!("it was {old} of bundle {}; its data is untouched", volume.spec.bundle);
    tx.emit_event(&renamed, EventType::Normal, "Renamed", &told)?;
    Ok(PlannedChange {
        verb: EntryVerb::Rename.name().to_owned(),
        kind: Volume::registration().kind.to_owned(),
        name: new,
        renamed_from: Some(old),
        ..PlannedChange::default()
    })
}
