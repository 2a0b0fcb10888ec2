//! Actions on a volume. To grow one is to change the wish of its bundle, which then has the
//! operation; the others are operations on the volume itself.

use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, Kind, Request};
use berth_model::quantity::{self, show_bytes};
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Relations, Room, Target,
};
use berth_model::resource::volume::volume_name;
use berth_model::resource::{Bundle, Volume};
use berth_model::status::Reason;
use berth_model::{kinds, meta};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::action::idempotency_key;
use super::relations;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::write::{admit, must_get, transact};
use crate::operation::beginning;
use crate::store::{ReadTx, Tx};

/// One action of the API.
#[derive(Debug)]
pub(super) struct Action {
    name: &'static str,
    /// `actions/erase`, as the policy and the path have it.
    pub(super) subresource: &'static str,
    operation: OperationKind,
}

/// Every action.
pub(super) static ACTIONS: [Action; 4] = [
    Action { name: "grow", subresource: "actions/grow", operation: OperationKind::Grow },
    Action { name: "lock", subresource: "actions/lock", operation: OperationKind::Lock },
    Action { name: "unlock", subresource: "actions/unlock", operation: OperationKind::Unlock },
    Action { name: "erase", subresource: "actions/erase", operation: OperationKind::Erase },
];

/// The body of an action; may be left out but for `grow`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    /// Why, for people.
    reason: String,
    /// The room it is to have, e.g. `2Gi`.
    size: Option<String>,
    /// How it is to stand to other operations.
    relations: Relations,
}

/// `POST .../volumes/{name}/actions/{action}`.
pub(super) async fn ask_for(mut ask: Ask, action: &'static Action) -> Reply {
    let wish: Wish = ask.options().await?;
    if wish.size.is_some() != (action.operation == OperationKind::Grow) {
        let message = "grow takes the new size and nothing else does: {\"size\": \"2Gi\"}";
        return Err(FieldError::invalid("size", message).into());
    }
    let asked = Asked {
        action,
        namespace: ask.namespace(),
        name: ask.name(),
        wish,
        key: idempotency_key(&ask)?,
        actor: ask.actor(),
    };
    let operation = transact(&ask, move |tx| asked.perform(tx)).await?;
    let operation = serde_json::to_value(operation);
    let operation = operation.map_err(|_| Error::new(Reason::InternalError, "the operation could not be shown"))?;
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&operation)))
}

struct Asked {
    action: &'static Action,
    namespace: String,
    name: String,
    wish: Wish,
    key: Option<String>,
    actor: Actor,
}

impl Asked {
    fn perform(&self, tx: &mut Tx<'_>) -> Result<Operation, Error> {
        let volume = must_get(tx, &kinds::VOLUME, &self.namespace, &self.name)?;
        let volume = Volume::deserialize(&volume)
            .map_err(|_| Error::new(Reason::InternalError, "the volume's record cannot be read"))?;
        let bundle = tx.get::<Bundle>(&self.namespace, &volume.spec.bundle)?;
        let bundle = bundle.filter(|one| one.spec.volumes.iter().any(|wish| wish.name == volume.spec.volume));
        let target = match self.action.operation {
            OperationKind::Grow => bundle.as_ref().map(bundle_target),
            _ => Some(self.target(&volume)),
        };
        let Some(target) = target else { return Err(self.unowned(&volume)) };
        if let Some(before) = self.before(tx, &target)? {
            return Ok(before);
        }
        let status = beginning(tx, self.action.operation)?;
        relations::check(tx, &target, &self.wish.relations)?;
        let room = self.room(&volume);
        let generation = match (&room, bundle) {
            (Some(room), Some(bundle)) => self.grow(tx, &bundle, room, &status)?,
            (_, bundle) => {
                self.refuse_used(self.action.operation, bundle.as_ref())?;
                volume.metadata.generation.unwrap_or_default()
            }
        };
        let operation = self.operation(target.clone(), generation, tx.version()?);
        let spec = OperationSpec { room, ..operation.spec };
        let operation = tx.create(&Operation { spec, status: Some(status), ..operation })?;
        if let Some(key) = &self.key {
            tx.remember_key(key, &target, &operation)?;
        }
        Ok(operation)
    }

    /// The operation that an earlier request with the same key has started.
    fn before(&self, tx: &Tx<'_>, target: &Target) -> Result<Option<Operation>, Error> {
        let Some(key) = &self.key else { return Ok(None) };
        match tx.operation_for(key, target)? {
            Some(other) if other.spec.kind != self.action.operation => {
                let message = format!("this Idempotency-Key was used for {:?}; use a new one", other.spec.kind);
                Err(Error::new(Reason::Conflict, message))
            }
            found => Ok(found),
        }
    }

    fn room(&self, volume: &Volume) -> Option<Room> {
        let size = self.wish.size.clone()?;
        Some(Room { volume: volume.spec.volume.clone(), size })
    }

    /// Writes the new size into the bundle's wish, unless that comes later; answers the generation that it is about.
    fn grow(&self, tx: &mut Tx<'_>, bundle: &Bundle, room: &Room, status: &OperationStatus) -> Result<i64, Error> {
        let name = bundle.metadata.name.as_deref().unwrap_or_default();
        let bundle = must_get(tx, &BUNDLE, &self.namespace, name)?;
        match status.state == OperationState::Held || !self.wish.relations.requires.is_empty() {
            true => roomier(tx, &bundle, room).map(|_| meta::generation(&bundle)),
            false => want(tx, &bundle, room),
        }
    }

    fn unowned(&self, volume: &Volume) -> Error {
        let message = format!(
            "no bundle uses volume {}: it grows with bundle {}, which is to be installed first",
            self.name, volume.spec.bundle
        );
        Error::new(Reason::Conflict, message)
    }

    /// What is seen at once is said at once; the operation looks again.
    fn refuse_used(&self, kind: OperationKind, bundle: Option<&Bundle>) -> Result<(), Error> {
        let Some(bundle) = bundle else { return Ok(()) };
        let name = bundle.metadata.name.as_deref().unwrap_or_default();
        let why = match kind {
            OperationKind::Erase => format!("belongs to bundle {name}; first: berth uninstall {name}"),
            OperationKind::Lock if bundle.spec.start => {
                format!("is in use by bundle {name}; first: berth stop {name}")
            }
            _ => return Ok(()),
        };
        Err(Error::new(Reason::Conflict, format!("volume {} {why}", self.name)))
    }

    fn target(&self, volume: &Volume) -> Target {
        Target {
            kind: Volume::registration().kind.into(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: volume.metadata.uid.clone().unwrap_or_default(),
        }
    }

    fn operation(&self, target: Target, generation: i64, sequence: u64) -> Operation {
        Operation {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.clone()),
                generate_name: Some(format!("{}-{}-", self.name, self.action.name)),
                ..ObjectMeta::default()
            },
            spec: OperationSpec {
                kind: self.action.operation,
                target,
                actor: self.actor.clone(),
                generation,
                sequence,
                reason: self.wish.reason.clone(),
                idempotency_key: self.key.clone(),
                priority: Priority::Interactive,
                relations: self.wish.relations.clone(),
                rollback_of: None,
                rollback_to: None,
                system: None,
                room: None,
            },
            status: Some(OperationStatus::default()),
        }
    }
}

/// Writes the new size into the bundle's wish; answers the generation that says so.
pub(super) fn want(tx: &mut Tx<'_>, bundle: &Value, room: &Room) -> Result<i64, Error> {
    let wanted = roomier(tx, bundle, room)?;
    Ok(meta::generation(&tx.update_value(&BUNDLE, wanted)?.into_inner()))
}

/// The bundle with the new size in its wish.
fn roomier(tx: &ReadTx<'_>, bundle: &Value, Room { volume, size }: &Room) -> Result<Value, Error> {
    let asked = quantity::bytes(size).map_err(|error| FieldError::invalid("size", error.to_string()))?;
    let named = tx.get::<Volume>(meta::namespace(bundle), &volume_name(meta::name(bundle), volume))?;
    let present = named.and_then(|one| one.status).map(|status| status.size).unwrap_or_default();
    if asked < present {
        let message = format!("a volume never shrinks: it has {}", show_bytes(present));
        return Err(FieldError::forbidden("size", message).into());
    }
    let mut new = bundle.clone();
    let mut wishes = new["spec"]["volumes"].as_array_mut().into_iter().flatten();
    let Some(wish) = wishes.find(|wish| wish["name"] == volume.as_str()) else {
        let message = format!("bundle {} wants no volume {volume} any more", meta::name(bundle));
        return Err(Error::new(Reason::Conflict, message));
    };
    wish["size"] = size.as_str().into();
    Ok(admit(&BUNDLE, new, &Request::Patch(bundle))?.object)
}

fn bundle_target(bundle: &Bundle) -> Target {
    Target {
        kind: Bundle::registration().kind.into(),
        namespace: bundle.metadata.namespace.clone().unwrap_or_default(),
        name: bundle.metadata.name.clone().unwrap_or_default(),
        uid: bundle.metadata.uid.clone().unwrap_or_default(),
    }
}
