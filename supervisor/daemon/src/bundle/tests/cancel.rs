//! An operation that somebody cancels: what it did is undone, and it is not tried again by itself.

use std::sync::Arc;

use berth_model::resource::operation::{OperationState, OperationStatus, StepName, StepState};
use berth_model::resource::revision::RevisionState;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World};
use crate::bundle::decide::{Wish, decide};
use crate::bundle::seams::{Observed, UnitState};
use crate::bundle::view::state_of;
use crate::operation::AbortPoints;

fn start(dir: &tempfile::TempDir, world: &Arc<World>) -> Daemon {
    Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new())
}

/// A bundle that serves, and an update whose unit never gets ready.
async fn in_the_middle_of_an_update(dir: &tempfile::TempDir, world: &Arc<World>) -> Daemon {
    let daemon = start(dir, world);
    daemon.put(|_| {}).await;
    daemon.settle().await;
    let starting = Observed { state: UnitState::Activating, main_pid: 8, ..Observed::default() };
    world.courses.lock().unwrap().insert("default.web.r2".into(), starting);
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.until_begun(StepName::AwaitReady).await;
    daemon
}

async fn last(daemon: &Daemon) -> OperationStatus {
    daemon.operations().await.pop().unwrap().status.unwrap()
}

/// The update is undone, told, and not tried again.
async fn nothing_came_of_it(daemon: &Daemon, world: &World) {
    let status = last(daemon).await;
    assert_eq!(status.state, OperationState::Cancelled);
    let at_work = status.steps.iter().find(|step| step.state == StepState::Running);
    assert_eq!(at_work, None, "a step of an operation that has ended");
    let error = status.error.unwrap();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("Cancelled", "owner (cli) asked for its end"));
    assert!(error.suggestions[0].contains("berth operation retry web-"), "{:?}", error.suggestions);
    let states: Vec<RevisionState> = daemon.revisions().await.iter().map(state_of).collect();
    assert_eq!(states, [RevisionState::Active, RevisionState::Failed]);
    assert_eq!(world.units.lock().unwrap().keys().collect::<Vec<_>>(), ["default.web.r1"]);
    let operations = daemon.operations().await.len();
    daemon.settle().await;
    assert_eq!(daemon.operations().await.len(), operations, "it was tried again");
    assert_eq!(decide(&daemon.view(SignedDuration::from_hours(24)).await), Wish::Nothing);
}

#[tokio::test]
async fn a_cancelled_update_leaves_the_old_revision_serving_and_is_tried_again_for_another_wish_only() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = in_the_middle_of_an_update(&dir, &world).await;
    daemon.cancel().await;
    daemon.settle().await;
    nothing_came_of_it(&daemon, &world).await;
    daemon.put(|spec| spec.image = "registry/web:3".into()).await;
    daemon.settle().await;
    assert_eq!(last(&daemon).await.state, OperationState::Succeeded);
}

#[tokio::test]
async fn what_was_cancelled_before_the_daemon_died_does_not_go_on() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = in_the_middle_of_an_update(&dir, &world).await;
    // Written by the API in the last moment; nobody has acted on it.
    let store = daemon.store.clone();
    daemon.die().await;
    let operations: Vec<berth_model::resource::Operation> = store.read(|tx| tx.list(None)).await.unwrap();
    let mut at_work = operations.into_iter().find(|op| !crate::bundle::view::operation_state(op).finished()).unwrap();
    let owner = berth_model::resource::operation::Actor { identity: "owner".into(), source: "cli".into() };
    at_work.status.as_mut().unwrap().cancelled_by = Some(owner.clone());
    store.write(&owner, move |tx| tx.update_status(&at_work).map(drop)).await.unwrap();
    drop(store);
    let daemon = start(&dir, &world);
    daemon.settle().await;
    nothing_came_of_it(&daemon, &world).await;
}
