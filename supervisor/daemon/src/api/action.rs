//! Actions on a bundle: one transaction that sets what is wanted and records the [`Operation`] that
//! brings it about, so that neither is ever there without the other. Whoever asks gets the
//! Operation at once (202) and follows it by watching.

use berth_model::condition;
use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, Kind};
use berth_model::meta;
use berth_model::resource::Bundle;
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Relations, Target,
};
use berth_model::status::Reason;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::relations;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::rollback::{Goal, Told};
use super::volume;
use super::write::{must_get, transact};
use crate::operation::{StepError, beginning};
use crate::store::{Deletion, ReadTx, Tx};

/// Bytes of an idempotency key.
const KEY_LIMIT: usize = 128;

/// One action of the API.
#[derive(Debug)]
pub(super) struct Action {
    /// `start`.
    name: &'static str,
    /// `actions/start`, as the policy and the path have it.
    pub(super) subresource: &'static str,
    operation: OperationKind,
    /// What becomes of `spec.start`.
    start: Option<bool>,
}

/// Every action.
pub(super) static ACTIONS: [Action; 6] = [
    Action { name: "start", subresource: "actions/start", operation: OperationKind::Start, start: Some(true) },
    Action { name: "stop", subresource: "actions/stop", operation: OperationKind::Stop, start: Some(false) },
    // A service that was stopped runs after a restart, as with systemd.
    Action { name: "restart", subresource: "actions/restart", operation: OperationKind::Restart, start: Some(true) },
    Action { name: "update", subresource: "actions/update", operation: OperationKind::Update, start: None },
    Action { name: "rollback", subresource: "actions/rollback", operation: OperationKind::Rollback, start: None },
    Action { name: "uninstall", subresource: "actions/uninstall", operation: OperationKind::Uninstall, start: None },
];

/// The body of an action; may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    /// Why, for people.
    reason: String,
    /// The revision that a rollback goes back to; by default the one that served before.
    to: Option<u64>,
    /// How it is to stand to other operations.
    relations: Relations,
}

/// `POST .../bundles/{name}/actions/{action}`.
pub(super) async fn ask_for(mut ask: Ask, action: &'static Action) -> Reply {
    let wish: Wish = ask.options().await?;
    if wish.to.is_some() && action.operation != OperationKind::Rollback {
        return Err(FieldError::invalid("to", "only a rollback goes to a revision").into());
    }
    let target = Target {
        kind: Bundle::registration().kind.into(),
        namespace: ask.namespace(),
        name: ask.name(),
        uid: String::new(),
    };
    let Wish { reason, to, relations } = wish;
    let mut asked = Asked { action, target, key: idempotency_key(&ask)?, reason, to, relations, actor: ask.actor() };
    if action.operation == OperationKind::Rollback {
        asked = asked.check_image(&ask).await?;
    }
    let operation = transact(&ask, move |tx| asked.perform(tx)).await?;
    let operation = serde_json::to_value(operation);
    let operation = operation.map_err(|_| Error::new(Reason::InternalError, "the operation could not be shown"))?;
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&operation)))
}

pub(super) fn idempotency_key(ask: &Ask) -> Result<Option<String>, Error> {
    let Some(header) = ask.headers.get("idempotency-key") else { return Ok(None) };
    let key = header.to_str().ok().filter(|key| (1..=KEY_LIMIT).contains(&key.len()));
    let wrong = || Error::bad_request(format!("Idempotency-Key must be 1 to {KEY_LIMIT} printable characters"));
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// Notes what an operation on a bundle wants that begins after all that it requires.
///
/// # Errors
/// It cannot be wanted any more, for one because the bundle is gone: permanent. Else the fault is not the operation's.
pub fn note_wish(tx: &mut Tx<'_>, operation: &Operation) -> Result<(), StepError> {
    want(tx, operation).map_err(|error| {
        let failed = StepError::new(condition::Reason::ProfileFailed, error.message());
        match error.is_fault() {
            true => failed,
            false => failed.suggest("ask anew for what is to be done with what is there now").permanent(),
        }
    })
}

/// Notes what an operation on a bundle wants that was held, and is released, or that begins after all that it requires.
/// What schedules and Berth itself ask for wants nothing that is not noted already.
pub(super) fn want(tx: &mut Tx<'_>, operation: &Operation) -> Result<(), Error> {
    let spec = &operation.spec;
    let by_itself = ["schedule", "reconciler"].contains(&spec.actor.source.as_str());
    if spec.target.kind != Bundle::registration().kind || by_itself {
        return Ok(());
    }
    let bundle = tx.get_value(&BUNDLE, &spec.target.namespace, &spec.target.name)?;
    let Some(bundle) = bundle.filter(|bundle| meta::uid(bundle) == spec.target.uid) else {
        let message = format!("the bundle {} that it was asked for is gone", spec.target.name);
        return Err(Error::new(Reason::Conflict, message));
    };
    if let Some(room) = &spec.room {
        return volume::want(tx, &bundle, room).map(drop);
    }
    let Some(action) = ACTIONS.iter().find(|action| action.operation == spec.kind) else { return Ok(()) };
    let asked = Asked {
        action,
        target: spec.target.clone(),
        key: None,
        reason: String::new(),
        to: spec.rollback_to,
        relations: Relations::default(),
        actor: spec.actor.clone(),
    };
    asked.set_desired(tx).map(drop)
}

struct Asked {
    action: &'static Action,
    target: Target,
    key: Option<String>,
    reason: String,
    to: Option<u64>,
    relations: Relations,
    actor: Actor,
}

impl Asked {
    /// A rollback whose image cannot be had is refused before anything is written.
    async fn check_image(self, ask: &Ask) -> Result<Self, Error> {
        let look = move |tx: &ReadTx<'_>| {
            let goal = self.goal(tx);
            Ok((self, goal))
        };
        let (asked, goal) = ask.api.store.read(look).await?;
        if let Some(goal) = goal? {
            goal.check_image(ask).await?;
        }
        Ok(asked)
    }

    /// Where the bundle is to go back to, unless that was asked for before or comes too late.
    fn goal(&self, tx: &ReadTx<'_>) -> Result<Option<Goal>, Error> {
        let bundle = must_get(tx, &BUNDLE, &self.target.namespace, &self.target.name)?;
        if meta::is_deleting(&bundle) || self.before(tx)?.is_some() {
            return Ok(None);
        }
        Goal::find(tx, &self.target, self.to).map(Some)
    }

    fn perform(mut self, tx: &mut Tx<'_>) -> Result<Operation, Error> {
        if let Some(before) = self.before(tx)? {
            return Ok(before);
        }
        let bundle = must_get(tx, &BUNDLE, &self.target.namespace, &self.target.name)?;
        self.target.uid = meta::uid(&bundle).to_owned();
        if meta::is_deleting(&bundle) {
            return self.already_going(tx);
        }
        relations::check(tx, &self.target, &self.relations)?;
        let status = beginning(tx, self.action.operation)?;
        // What is held may be rejected, and what is required may fail: nothing is noted before that is decided.
        let told = match status.state == OperationState::Held || !self.relations.requires.is_empty() {
            true => self.foresee(tx, meta::generation(&bundle))?,
            false => self.set_desired(tx)?,
        };
        let operation = Operation { status: Some(status), ..self.operation(told, tx.version()?) };
        let operation = tx.create(&operation)?;
        if let Some(key) = &self.key {
            tx.remember_key(key, &self.target, &operation)?;
        }
        Ok(operation)
    }

    /// The operation that an earlier request with the same key has started.
    fn before(&self, tx: &ReadTx<'_>) -> Result<Option<Operation>, Error> {
        let Some(key) = &self.key else { return Ok(None) };
        match tx.operation_for(key, &self.target)? {
            Some(other) if other.spec.kind != self.action.operation => {
                let kind = other.spec.kind;
                let message = format!("this Idempotency-Key was used for {kind:?} of the same bundle; use a new one");
                Err(Error::new(Reason::Conflict, message))
            }
            found => Ok(found),
        }
    }

    /// A bundle that is being removed can only be removed: the operation that does so, if there is
    /// one already.
    fn already_going(&self, tx: &mut Tx<'_>) -> Result<Operation, Error> {
        let name = &self.target.name;
        if self.action.operation != OperationKind::Uninstall {
            let message =
                format!("bundle {name} is being removed: {} is no longer possible; install it again", self.action.name);
            return Err(Error::new(Reason::Conflict, message));
        }
        let all: Vec<Operation> = tx.list_about(&self.target.namespace, name)?;
        let ours = |operation: &Operation| {
            operation.spec.target == self.target && operation.spec.kind == OperationKind::Uninstall
        };
        let at_work = |operation: &Operation| {
            let state = operation.status.as_ref().map_or(OperationState::Pending, |status| status.state);
            !state.finished()
        };
        match all.into_iter().find(|operation| ours(operation) && at_work(operation)) {
            Some(operation) => Ok(operation),
            None => {
                let bundle: Option<Bundle> = tx.get(&self.target.namespace, name)?;
                let generation = bundle.and_then(|bundle| bundle.metadata.generation).unwrap_or_default();
                Ok(tx.create(&self.operation(Told { generation, ..Told::default() }, tx.version()?))?)
            }
        }
    }

    /// What its operation would be told, if it were done now.
    fn foresee(&self, tx: &ReadTx<'_>, generation: i64) -> Result<Told, Error> {
        match self.action.operation {
            OperationKind::Rollback => Ok(Goal::find(tx, &self.target, self.to)?.told(generation)),
            _ => Ok(Told { generation, ..Told::default() }),
        }
    }

    /// Sets what is wanted of the bundle; answers the generation that says so.
    fn set_desired(&self, tx: &mut Tx<'_>) -> Result<Told, Error> {
        let Target { namespace, name, .. } = &self.target;
        let told =
            |bundle: &Bundle| Told { generation: bundle.metadata.generation.unwrap_or_default(), ..Told::default() };
        match self.action.operation {
            OperationKind::Rollback => return Goal::find(tx, &self.target, self.to)?.set(tx),
            OperationKind::Uninstall => {
                let gone = tx.delete::<Bundle>(namespace, name, &Deletion::default())?;
                return Ok(told(&gone.into_inner()));
            }
            _ => {}
        }
        let Some(mut bundle) = tx.get::<Bundle>(namespace, name)? else { return Ok(Told::default()) };
        if let Some(start) = self.action.start {
            bundle.spec.start = start;
            bundle = tx.update(&bundle)?.into_inner();
        }
        Ok(told(&bundle))
    }

    fn operation(&self, told: Told, sequence: u64) -> Operation {
        Operation {
            metadata: ObjectMeta {
                namespace: Some(self.target.namespace.clone()),
                generate_name: Some(format!("{}-{}-", self.target.name, self.action.name)),
                ..ObjectMeta::default()
            },
            spec: OperationSpec {
                kind: self.action.operation,
                target: self.target.clone(),
                actor: self.actor.clone(),
                generation: told.generation,
                sequence,
                reason: self.reason.clone(),
                idempotency_key: self.key.clone(),
                priority: Priority::Interactive,
                relations: self.relations.clone(),
                rollback_of: told.rollback_of,
                rollback_to: told.rollback_to,
                system: None,
                room: None,
            },
            status: Some(OperationStatus::default()),
        }
    }
}
