//! A rollback: what is wanted of a bundle becomes what an earlier revision was made from.
//!
//! ```text
//! history ─> goal ─> its volumes are there ─> its image can be had ─> spec and Operation, in one transaction
//! ```
//!
//! The goal is looked up twice: before the image is asked for, which may take as long as a registry
//! does, and in the transaction.

use std::time::Duration;

use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, Request};
use berth_model::quantity;
use berth_model::resource::bundle::{VolumeSummary, gone_back};
use berth_model::resource::operation::Target;
use berth_model::resource::revision::{self, NoWayBack, Revision};
use berth_model::resource::volume::{VolumeState, volume_name};
use berth_model::resource::{Bundle, Volume};
use berth_model::status::{Failure, Reason};
use serde_json::json;
use tokio::time::timeout;

use super::references;
use super::reply::Error;
use super::request::Ask;
use super::write::{admit, must_get};
use crate::bundle::operations_of;
use crate::store::{ReadTx, Tx};

/// So long a registry may take to say whether it still has an image.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(20);

/// Where a rollback leads.
pub(super) struct Goal {
    name: String,
    bundle: Bundle,
    revision: Revision,
    volumes: Vec<VolumeSummary>,
    undone: Option<String>,
}

/// What the bundle's operation is told.
#[derive(Default)]
pub(super) struct Told {
    /// The generation that says what is wanted.
    pub(super) generation: i64,
    /// The operation whose work is undone.
    pub(super) rollback_of: Option<String>,
    /// The number of the revision that is gone back to.
    pub(super) rollback_to: Option<u64>,
}

impl Goal {
    /// Where a rollback of the bundle leads: to the revision `to`, or to the one that served before.
    pub(super) fn find(tx: &ReadTx<'_>, target: &Target, to: Option<u64>) -> Result<Self, Error> {
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        let bundle = must_get(tx, &BUNDLE, namespace, name)?;
        let bundle: Bundle = serde_json::from_value(bundle)
            .map_err(|_| Error::new(Reason::InternalError, "the bundle's record cannot be read"))?;
        let revisions: Vec<Revision> = tx.list_about(namespace, name)?;
        let revision = revision::goal(&revisions, &bundle.spec, to).map_err(|why| refused(name, &why))?.clone();
        let volumes = volumes(tx, namespace, name)?;
        refuse_lost(name, &revision, &volumes)?;
        let undone = newest(tx, &bundle)?;
        Ok(Self { name: name.to_owned(), bundle, revision, volumes, undone })
    }

    /// Fails unless the image of the goal is here, or its registry gives it.
    pub(super) async fn check_image(&self, ask: &Ask) -> Result<(), Error> {
        let image = &self.revision.spec.image.reference;
        let why = match timeout(REGISTRY_PATIENCE, ask.api.images.check(image.clone())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why.to_string(),
            Err(_) => format!("its registry did not answer within {} s", REGISTRY_PATIENCE.as_secs()),
        };
        let message = format!(
            "revision {} cannot come back: its image {image} is no longer on this machine, and cannot be fetched: {why}; \
             make the registry reachable or bring the image here with `berth image import`, or go back to another \
             revision (`berth revisions {}`)",
            self.revision.spec.number, self.name
        );
        Err(Error::new(Reason::Conflict, message))
    }

    /// What the bundle's operation is told of it.
    pub(super) fn told(self, generation: i64) -> Told {
        Told { generation, rollback_of: self.undone, rollback_to: Some(self.revision.spec.number) }
    }

    /// Sets what is wanted of the bundle.
    pub(super) fn set(self, tx: &mut Tx<'_>) -> Result<Told, Error> {
        let namespace = self.bundle.metadata.namespace.as_deref().unwrap_or_default();
        let spec = gone_back(&self.name, &self.bundle.spec, &self.revision.spec.bundle_spec, &self.volumes);
        let old = must_get(tx, &BUNDLE, namespace, &self.name)?;
        let mut new = old.clone();
        new["spec"] = json!(spec);
        let admitted = admit(&BUNDLE, new, &Request::Patch(&old))?;
        let written = tx.update_value(&BUNDLE, admitted.object)?.into_inner();
        references::check(tx, &BUNDLE, &written, Some(&old))?;
        Ok(self.told(berth_model::meta::generation(&written)))
    }
}

/// The operation that made of the bundle what it is, or was to.
fn newest(tx: &ReadTx<'_>, bundle: &Bundle) -> Result<Option<String>, Error> {
    let all = operations_of(tx, bundle)?;
    let newest = all.into_iter().rfind(|op| op.spec.kind.makes_revision());
    Ok(newest.and_then(|op| op.metadata.name))
}

/// The volumes that were made for the bundle and are not being destroyed.
fn volumes(tx: &ReadTx<'_>, namespace: &str, bundle: &str) -> Result<Vec<VolumeSummary>, Error> {
    let all: Vec<Volume> = tx.list_about(namespace, bundle)?;
    let own = all.into_iter().map(|volume| {
        let status = volume.status.unwrap_or_default();
        let name = volume.metadata.name.unwrap_or_default();
        VolumeSummary { name, state: status.state, size: quantity::show_bytes(status.size) }
    });
    Ok(own.filter(|volume| volume.state != VolumeState::Erasing).collect())
}

/// An empty volume in the place of one that held data is no way back.
fn refuse_lost(name: &str, goal: &Revision, present: &[VolumeSummary]) -> Result<(), Error> {
    let wanted = goal.spec.bundle_spec.volumes.iter().map(|wish| volume_name(name, &wish.name));
    let lost: Vec<String> = wanted.filter(|wanted| present.iter().all(|one| one.name != *wanted)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!(
        "revision {} of {name} has data in volumes that are no longer there: {}; go back to another revision \
         (`berth revisions {name}`), or apply a spec with these volumes to have them anew, empty",
        goal.spec.number,
        lost.join(", ")
    );
    Err(Error::new(Reason::Conflict, message))
}

fn refused(name: &str, why: &NoWayBack) -> Error {
    let message = format!("{name}: {why}; `berth revisions {name}` shows what there is");
    let reason = match why {
        NoWayBack::Unknown { .. } => Reason::NotFound,
        _ => Reason::Conflict,
    };
    let cause = FieldError::invalid("to", why.to_string());
    Failure { causes: vec![cause], ..Failure::new(reason, message) }.into()
}
