//! The machine itself: what is used, and how it is found when it is examined.

use axum::body::Body;
use axum::response::Response;
use berth_model::diagnostics::Diagnosis;
use berth_model::kinds::DEFAULT_NAMESPACE;
use berth_model::machine::Machine;
use berth_model::release::SystemStatus;
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, Priority, Relations, SystemWish, Target,
};
use berth_model::resource::{API_VERSION, settings};
use berth_model::status::Reason;
use berth_model::usage::Usage;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::action::idempotency_key;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::stream::PortError;
use super::write::transact;
use crate::operation::beginning;
use crate::store::Tx;

/// Whoever looks after the machine.
pub trait SystemPort: Send + Sync {
    /// What bundles and the machine use now.
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>>;
    /// A look at it, or two a moment apart if rates are wanted.
    fn machine(&self, rates: bool) -> BoxFuture<'_, Result<Machine, PortError>>;
    /// Examines everything; it goes on to its end even if nobody waits for it any more.
    fn diagnose(&self, request: DiagnoseRequest) -> BoxFuture<'_, Result<Diagnosis, PortError>>;
    /// Which versions of its system the machine has.
    fn versions(&self) -> BoxFuture<'_, Result<SystemStatus, PortError>>;
    /// Gives the version that runs up for the newest other good one, and answers which; none if there is none.
    fn give_up(&self) -> BoxFuture<'_, Result<Option<String>, PortError>>;
    /// Begins to start the machine anew, or to switch it off.
    fn power(&self, power: Power) -> BoxFuture<'_, Result<(), PortError>>;
    /// One archive for whoever helps, without secrets; with what services wrote only if `output`.
    fn support_bundle(&self, output: bool) -> BoxFuture<'_, Result<Vec<u8>, PortError>>;
}

/// What is to become of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It starts anew.
    Reboot,
    /// It is switched off.
    Off,
}

/// What an examination is to do besides looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiagnoseRequest {
    /// Make a bundle, try it, and throw it away.
    pub loopback: bool,
    /// Remove what belongs to nothing, and start what should run.
    pub repair: bool,
}

/// `GET .../system/usage`: one look; rates are the difference between two.
pub(super) async fn usage(ask: Ask) -> Reply {
    Ok(reply::json(&json!(ask.api.system.usage().await?)))
}

/// `GET .../system/status`: which versions of its system the machine has.
pub(super) async fn status(ask: Ask) -> Reply {
    Ok(told("SystemStatus", &ask.api.system.versions().await?))
}

/// What is told of the machine, as a document of its own kind.
pub(super) fn told(kind: &str, what: &impl Serialize) -> Response {
    let mut document = json!({ "apiVersion": API_VERSION, "kind": kind });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, json!(what)) {
        document.extend(more);
    }
    reply::json(&document)
}

/// `POST .../system/reboot`.
pub(super) async fn reboot(ask: Ask) -> Reply {
    power(ask, Power::Reboot).await
}

/// `POST .../system/poweroff`.
pub(super) async fn poweroff(ask: Ask) -> Reply {
    power(ask, Power::Off).await
}

/// `POST .../system/rollback`: the machine starts anew with the version before.
pub(super) async fn rollback(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let Some(version) = ask.api.system.give_up().await? else {
        let message = "there is no other version that was found good; `berth system status` shows which there are";
        return Err(Error::new(Reason::Conflict, message));
    };
    ask.api.system.power(Power::Reboot).await?;
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 202,
        "message": format!("the machine starts anew with {version}") });
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&status)))
}

async fn power(ask: Ask, power: Power) -> Reply {
    ask.no_dry_run()?;
    ask.api.system.power(power).await?;
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 202 });
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&status)))
}

/// `POST .../system/update`, with a [`SystemWish`] or without: an Operation in the default namespace.
pub(super) async fn update(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let wish: SystemWish = ask.options().await?;
    let (actor, key) = (ask.actor(), idempotency_key(&ask)?);
    let operation = transact(&ask, move |tx| begun(tx, wish, actor, key)).await?;
    let operation = serde_json::to_value(operation);
    let operation = operation.map_err(|_| Error::new(Reason::InternalError, "the operation could not be shown"))?;
    Ok(reply::with_code(StatusCode::ACCEPTED, reply::json(&operation)))
}

fn begun(tx: &mut Tx<'_>, wish: SystemWish, actor: Actor, key: Option<String>) -> Result<Operation, Error> {
    let (namespace, name) = (DEFAULT_NAMESPACE.to_owned(), settings::NAME.to_owned());
    let target = Target { kind: "System".to_owned(), namespace: namespace.clone(), name, uid: String::new() };
    if let Some(before) = key.as_deref().map(|key| tx.operation_for(key, &target)).transpose()?.flatten() {
        return Ok(before);
    }
    let metadata = ObjectMeta {
        namespace: Some(namespace),
        generate_name: Some("system-update-".to_owned()),
        ..ObjectMeta::default()
    };
    let spec = OperationSpec {
        kind: OperationKind::UpdateSystem,
        target: target.clone(),
        actor,
        generation: 0,
        sequence: tx.version()?,
        reason: String::new(),
        idempotency_key: key.clone(),
        priority: Priority::Interactive,
        relations: Relations::default(),
        rollback_of: None,
        rollback_to: None,
        system: Some(wish),
        room: None,
    };
    let status = Some(beginning(tx, OperationKind::UpdateSystem)?);
    let operation = tx.create(&Operation { metadata, spec, status })?;
    if let Some(key) = key {
        tx.remember_key(&key, &target, &operation)?;
    }
    Ok(operation)
}

/// `POST .../system/diagnostics[?loopback=true][&repair=true]`: everything that was looked at.
pub(super) async fn diagnose(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let request = DiagnoseRequest { loopback: ask.flag("loopback")?, repair: ask.flag("repair")? };
    Ok(reply::json(&json!(ask.api.system.diagnose(request).await?)))
}

/// `GET .../system/support-bundle[?serviceLogs=true]`: a tar file packed with zstd.
pub(super) async fn support_bundle(ask: Ask) -> Reply {
    let archive = ask.api.system.support_bundle(ask.flag("serviceLogs")?).await?;
    let mut response = Response::new(Body::from(archive));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    Ok(response)
}
