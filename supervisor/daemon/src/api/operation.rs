//! Actions on an operation: cancel one that is not done, try one again that did not succeed, release or reject one that is
//! held.
//!
//! To cancel is to note who wants it in the operation's status; the runner stops at what it is doing, undoes what is
//! done, and closes the record. A note survives the supervisor, so a cancelled operation never goes on after a crash.

use berth_model::field::FieldError;
use berth_model::kinds::{OPERATION, Registration};
use berth_model::meta;
use berth_model::resource::Operation;
use berth_model::resource::operation::{
    Actor, OperationError, OperationKind, OperationState, OperationStatus, Priority, REJECTED, Relations, StepState,
};
use berth_model::status::Reason;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::write::{must_get, transact};
use super::{action, relations};
use crate::bundle::view::operation_state;
use crate::operation::beginning;
use crate::store::Tx;

/// One action of the API.
#[derive(Debug)]
pub(super) struct Action {
    /// `actions/cancel`, as the policy and the path have it.
    pub(super) subresource: &'static str,
    perform: fn(&Asked, &mut Tx<'_>, Operation) -> Result<Operation, Error>,
}

/// Every action.
pub(super) static ACTIONS: [Action; 4] = [
    Action { subresource: "actions/cancel", perform: Asked::cancel },
    Action { subresource: "actions/retry", perform: Asked::retry },
    Action { subresource: "actions/release", perform: Asked::release },
    Action { subresource: "actions/reject", perform: Asked::reject },
];

struct Asked {
    namespace: String,
    name: String,
    actor: Actor,
    reason: String,
}

/// The body of an action; may be left out but for `reject`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Words {
    /// Why, for people.
    reason: String,
}

/// `POST .../operations/{name}/actions/{action}`: the operation, or the new one.
pub(super) async fn ask_for(mut ask: Ask, action: &'static Action) -> Reply {
    let Words { reason } = ask.options().await?;
    let asked = Asked { namespace: ask.namespace(), name: ask.name(), actor: ask.actor(), reason };
    let operation = transact(&ask, move |tx| {
        must_get(tx, &OPERATION, &asked.namespace, &asked.name)?;
        let operation = tx.get::<Operation>(&asked.namespace, &asked.name)?;
        let gone = || Error::new(Reason::NotFound, format!("operation {} is gone", asked.name));
        (action.perform)(&asked, tx, operation.ok_or_else(gone)?)
    })
    .await?;
    let operation = serde_json::to_value(operation);
    let operation = operation.map_err(|_| Error::new(Reason::InternalError, "the operation could not be shown"))?;
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&operation)))
}

impl Asked {
    /// Twice is once.
    fn cancel(&self, tx: &mut Tx<'_>, mut operation: Operation) -> Result<Operation, Error> {
        let mut status = operation.status.take().unwrap_or_default();
        if status.cancelled_by.is_some() {
            return Ok(Operation { status: Some(status), ..operation });
        }
        self.refuse_cancel(operation.spec.kind, &status)?;
        status.cancelled_by = Some(self.actor.clone());
        operation.status = Some(status);
        Ok(tx.update_status(&operation)?.into_inner())
    }

    fn refuse_cancel(&self, kind: OperationKind, status: &OperationStatus) -> Result<(), Error> {
        let conflict = |why: &str| Err(Error::new(Reason::Conflict, format!("operation {} {why}", self.name)));
        let promoted = kind.commits().and_then(|step| status.steps.iter().find(|one| one.name == step));
        match kind.commits() {
            _ if status.state.finished() => conflict(&format!("has ended: {:?}", status.state)),
            _ if status.state == OperationState::Held => Ok(()),
            None => conflict(&format!("cannot be cancelled: {kind:?} leaves nothing to go back to")),
            Some(_) if promoted.is_some_and(|step| step.state == StepState::Succeeded) => {
                conflict("has done what it was to do, and is tidying up; `berth rollback` goes back")
            }
            Some(_) => Ok(()),
        }
    }

    /// It waits for its turn from now on, as if it had been asked for now.
    fn release(&self, tx: &mut Tx<'_>, mut operation: Operation) -> Result<Operation, Error> {
        let mut status = self.held(&mut operation)?;
        if !operation.spec.wants_later() {
            action::want(tx, &operation)?;
        }
        (status.state, status.waiting) = (OperationState::Pending, String::new());
        (status.released_by, status.sequence) = (Some(self.actor.clone()), Some(tx.version()?));
        operation.status = Some(status);
        Ok(tx.update_status(&operation)?.into_inner())
    }

    /// It ends without having begun.
    fn reject(&self, tx: &mut Tx<'_>, mut operation: Operation) -> Result<Operation, Error> {
        if self.reason.is_empty() {
            let message = "say why, for whoever asked: {\"reason\": \"not before the backup\"}";
            return Err(FieldError::required("reason", message).into());
        }
        let mut status = self.held(&mut operation)?;
        let Actor { identity, source } = &self.actor;
        status.error = Some(OperationError {
            code: REJECTED.to_owned(),
            message: format!("{identity} ({source}) rejected it: {}", self.reason),
            suggestions: vec![format!("`berth operation retry {}` asks for it again", self.name)],
            ..OperationError::default()
        });
        (status.state, status.waiting) = (OperationState::Cancelled, String::new());
        (status.cancelled_by, status.finished_at) = (Some(self.actor.clone()), Some(tx.now().to_string()));
        operation.status = Some(status);
        Ok(tx.update_status(&operation)?.into_inner())
    }

    /// The status of one that is held.
    fn held(&self, operation: &mut Operation) -> Result<OperationStatus, Error> {
        let status = operation.status.take().unwrap_or_default();
        if status.state == OperationState::Held && status.cancelled_by.is_none() {
            return Ok(status);
        }
        let message = format!("operation {} is not held: {:?}", self.name, status.state);
        Err(Error::new(Reason::Conflict, message))
    }

    /// A new operation with the same purpose, for what is wanted now.
    fn retry(&self, tx: &mut Tx<'_>, operation: Operation) -> Result<Operation, Error> {
        let conflict = |why: String| Err(Error::new(Reason::Conflict, format!("operation {} {why}", self.name)));
        match operation_state(&operation) {
            OperationState::Succeeded => return conflict("has succeeded: there is nothing to try again".to_owned()),
            OperationState::Failed | OperationState::Cancelled => {}
            state => return conflict(format!("has not ended: {state:?}; see `berth operation show {} -w`", self.name)),
        }
        let target = &operation.spec.target;
        let Some(kind) = of_kind(&target.kind) else { return conflict(format!("is about a {}", target.kind)) };
        let object = must_get(tx, kind, &target.namespace, &target.name)?;
        if meta::uid(&object) != target.uid {
            return conflict(format!("was about another {} of that name, which is gone", kind.singular));
        }
        if let Some(other) = self.unfinished(tx, &operation)? {
            return conflict(format!("cannot be tried again while {other} is at work; see `berth operations`"));
        }
        let status = beginning(tx, operation.spec.kind)?;
        let began = operation.status.as_ref().is_some_and(|status| status.started_at.is_some());
        let relations = relations::kept(tx, target, &operation.spec.relations)?;
        if status.state == OperationState::Pending && !began && relations.requires.is_empty() {
            action::want(tx, &operation)?;
        }
        let again = self.again(operation, relations, meta::generation(&object), tx.version()?);
        Ok(tx.create(&Operation { status: Some(status), ..again })?)
    }

    fn unfinished(&self, tx: &Tx<'_>, operation: &Operation) -> Result<Option<String>, Error> {
        let all: Vec<Operation> = tx.list_about(&self.namespace, &operation.spec.target.name)?;
        let other = |one: &Operation| one.spec.target == operation.spec.target && !operation_state(one).finished();
        Ok(all.into_iter().find(other).and_then(|one| one.metadata.name))
    }

    fn again(&self, operation: Operation, relations: Relations, generation: i64, sequence: u64) -> Operation {
        let mut spec = operation.spec;
        let stem = format!("{}-{}-", spec.target.name, format!("{:?}", spec.kind).to_lowercase());
        spec.reason = format!("{} tried again", self.name);
        spec.actor = self.actor.clone();
        spec.relations = relations;
        (spec.generation, spec.sequence, spec.idempotency_key, spec.priority) =
            (generation, sequence, None, Priority::Interactive);
        let metadata =
            ObjectMeta { namespace: Some(self.namespace.clone()), generate_name: Some(stem), ..ObjectMeta::default() };
        Operation { metadata, spec, status: Some(OperationStatus::default()) }
    }
}

/// The kinds that operations are about.
fn of_kind(kind: &str) -> Option<&'static Registration> {
    use berth_model::kinds::{BUNDLE, SCHEDULE, VOLUME};
    [&BUNDLE, &VOLUME, &SCHEDULE].into_iter().find(|one| one.kind == kind)
}
