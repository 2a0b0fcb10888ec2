//! What a bundle takes from ConfigMaps and Secrets, and what becomes of it when that is missing or
//! changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::projection::SourceKind;
use berth_model::reference::offers;
use berth_model::resource::bundle::{BundleSpec, Phase};
use berth_model::resource::operation::{OperationKind, OperationState};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World, ending};
use crate::bundle::decide::{Wish, decide};
use crate::bundle::seams::{Observed, UnitState};
use crate::operation::AbortPoints;

/// A world in which Secret `db` holds that password, if any.
pub fn world(password: Option<&str>) -> Arc<World> {
    let world = Arc::new(World::default());
    hold(&world, password);
    world
}

fn hold(world: &World, password: Option<&str>) {
    let object = password.map(|text| BTreeMap::from([("password".to_owned(), text.as_bytes().to_vec())]));
    let mut held = world.held.lock().unwrap();
    held.clear();
    held.extend(object.map(|object| ((SourceKind::Secret, "db".to_owned()), object)));
}

pub fn asks(spec: &mut BundleSpec) {
    let env = json!([{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
    spec.env = serde_json::from_value(env).unwrap();
}

async fn installed(world: &Arc<World>) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new());
    daemon.put(asks).await;
    daemon.settle().await;
    (dir, daemon)
}

/// The first condition that does not hold, or the last.
async fn stands(daemon: &Daemon) -> (String, String) {
    let conditions = daemon.bundle().await.unwrap().status.unwrap().conditions;
    let at = conditions.iter().find(|one| one.status != "True").or(conditions.last()).unwrap();
    (format!("{} {}", at.type_, at.reason), at.message.clone())
}

fn given(world: &World, id: &str) -> Vec<String> {
    let given = world.given.lock().unwrap();
    given[id].env.iter().map(|one| format!("{}={}", one.name, one.value)).collect()
}

#[tokio::test]
async fn a_unit_is_given_the_values_and_its_plan_holds_none_of_them() {
    let world = world(Some("hunter2"));
    let (_dir, daemon) = installed(&world).await;
    assert_eq!(stands(&daemon).await.0, "Ready StartCompleted");
    assert_eq!(given(&world, "default.web.r1"), ["PASSWORD=hunter2"]);
    let plan = world.plans.lock().unwrap()["default.web.r1"].clone();
    assert!(plan.provided && !serde_json::to_string(&plan).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn a_missing_secret_is_told_once_and_the_service_starts_when_it_is_there() {
    let world = world(None);
    let (_dir, daemon) = installed(&world).await;
    let (reason, message) = stands(&daemon).await;
    assert_eq!(reason, "SecretsProvisioned SecretsPending");
    assert_eq!(message, "Secret db is not there; create it with `berth secret create db`");
    let status = daemon.bundle().await.unwrap().status.unwrap();
    assert_eq!((status.phase, status.next_try), (Phase::Pending, None));
    let error = daemon.operations().await.pop().unwrap().status.unwrap().error.unwrap();
    assert!(error.suggestions.last().unwrap().contains("goes on by itself"), "{error:?}");
    daemon.settle().await;
    assert_eq!(daemon.operations().await.len(), 1, "it is not tried in vain again");

    hold(&world, Some("hunter2"));
    daemon.settle().await;
    assert_eq!(stands(&daemon).await.0, "Ready StartCompleted");
    assert_eq!(daemon.operations().await.len(), 2);
}

#[tokio::test]
async fn a_changed_value_makes_a_new_revision_and_an_unchanged_one_none() {
    let world = world(Some("one"));
    let (_dir, daemon) = installed(&world).await;
    hold(&world, Some("one"));
    daemon.settle().await;
    assert_eq!(daemon.operations().await.len(), 1);
    hold(&world, Some("two"));
    daemon.settle().await;
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().revision, Some(2));
    assert_eq!(given(&world, "default.web.r2"), ["PASSWORD=two"]);
    assert_eq!(*world.starts.lock().unwrap(), 2);
}

#[tokio::test]
async fn what_a_reference_leads_to_is_given_and_recorded_and_a_change_of_it_is_followed_once() {
    let world = world(Some("hunter2"));
    let leads_to = |port: u16| {
        let spec = json!({"image": "r/pg", "ports": [{"name": "sql", "containerPort": port}]});
        let offered = offers("web", &serde_json::from_value(spec).unwrap());
        world.held.lock().unwrap().insert((SourceKind::Bundle, "web".to_owned()), offered);
    };
    leads_to(5432);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    let refers = |spec: &mut BundleSpec| {
        let url = "${{secret.db.password}}@${{web.HOST}}:${{web.PORT}}";
        spec.env = serde_json::from_value(json!([{"name": "URL", "value": url}])).unwrap();
        spec.ports = serde_json::from_value(json!([{"name": "sql", "containerPort": 5432}])).unwrap();
    };
    daemon.put(refers).await;
    daemon.settle().await;
    assert_eq!(given(&world, "default.web.r1"), ["URL=hunter2@web:5432"]);
    let plan = serde_json::to_string(&world.plans.lock().unwrap()["default.web.r1"]).unwrap();
    assert!(!plan.contains("${{") && !plan.contains("hunter2"), "{plan}");
    let revision = daemon.revisions().await.pop().unwrap();
    let recorded: Vec<String> = revision
        .spec
        .references
        .iter()
        .map(|one| format!("{} {}", one.reference, one.value.as_deref().unwrap_or("?")))
        .collect();
    assert_eq!(recorded, ["${{web.HOST}} web", "${{web.PORT}} 5432", "${{secret.db.password}} ?"]);

    leads_to(5433);
    daemon.settle().await;
    assert_eq!(given(&world, "default.web.r2"), ["URL=hunter2@web:5433"]);
    assert_eq!(*world.starts.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_changed_value_does_not_start_what_somebody_stopped() {
    let world = world(Some("one"));
    let (_dir, daemon) = installed(&world).await;
    let ending = Some(ending(true, "success", "exited", "0"));
    let stopped = Observed { state: UnitState::Inactive, ending, ..Observed::default() };
    world.units.lock().unwrap().insert("default.web.r1".into(), stopped);
    hold(&world, Some("two"));
    daemon.settle().await;
    assert_eq!(stands(&daemon).await.0, "Ready StoppedByOperator");
    assert_eq!(*world.starts.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_value_that_is_gone_leaves_the_service_alone_and_says_what_will_be() {
    let world = world(Some("one"));
    let (_dir, daemon) = installed(&world).await;
    hold(&world, None);
    daemon.settle().await;
    let (reason, message) = stands(&daemon).await;
    assert_eq!(reason, "Ready Degraded");
    assert!(message.starts_with("It serves, but could not start again: Secret db is not there"), "{message}");
    assert_eq!((daemon.operations().await.len(), *world.starts.lock().unwrap()), (1, 1));

    // The machine starts again: nothing runs.
    world.units.lock().unwrap().clear();
    daemon.settle().await;
    assert_eq!(stands(&daemon).await.0, "SecretsProvisioned SecretsPending");
    hold(&world, Some("one"));
    daemon.settle().await;
    assert_eq!(stands(&daemon).await.0, "Ready StartCompleted");
    assert_eq!(daemon.operations().await.last().unwrap().spec.kind, OperationKind::Start);
}

#[tokio::test]
async fn an_update_that_lacks_something_leaves_the_old_revision_serving_until_it_is_there() {
    let world = world(None);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    daemon.settle().await;
    daemon.put(asks).await;
    daemon.settle().await;
    let (reason, message) = stands(&daemon).await;
    assert_eq!((reason.as_str(), daemon.last_state().await), ("Ready Degraded", Some(OperationState::Failed)));
    assert!(message.starts_with("Revision 1 still serves. Secret db is not there"), "{message}");
    hold(&world, Some("one"));
    daemon.settle().await;
    assert_eq!(stands(&daemon).await.0, "Ready StartCompleted");
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().revision, Some(2));
}

#[tokio::test]
async fn bytes_that_cannot_be_a_variable_are_a_failure_that_says_what_can_be_done() {
    let world = world(None);
    let bytes = BTreeMap::from([("password".to_owned(), vec![0xff])]);
    world.held.lock().unwrap().insert((SourceKind::Secret, "db".to_owned()), bytes);
    let (_dir, daemon) = installed(&world).await;
    let (reason, message) = stands(&daemon).await;
    assert_eq!(reason, "SecretsProvisioned SecretsFailed");
    assert!(message.contains("key password of Secret db is no text") && message.contains("volumeMounts"), "{message}");
}

#[tokio::test]
async fn a_unit_that_crashed_while_something_is_missing_waits_for_it() {
    let world = world(Some("one"));
    let (_dir, daemon) = installed(&world).await;
    hold(&world, None);
    let down = Observed {
        state: UnitState::Failed,
        ending: Some(ending(false, "exit-code", "exited", "1")),
        ..Observed::default()
    };
    world.units.lock().unwrap().insert("default.web.r1".into(), down);
    daemon.settle().await;
    let (reason, _) = stands(&daemon).await;
    assert_eq!(reason, "SecretsProvisioned SecretsPending");
    assert_eq!(*world.starts.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_bundle_with_another_name_waits_until_the_old_one_is_gone() {
    let world = world(None);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    let mut view = daemon.view(jiff::SignedDuration::ZERO).await;
    assert_eq!(decide(&view), Wish::Now(OperationKind::Install));
    view.old_name_leaves = true;
    assert_eq!(decide(&view), Wish::Nothing);
}
