//! Steps that fail, and what becomes of their operations.

use std::sync::Arc;

use berth_model::resource::operation::{OperationState, OperationStatus, Step, StepName, StepState};
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World};
use crate::operation::AbortPoints;

fn start(dir: &tempfile::TempDir, world: &Arc<World>) -> Daemon {
    Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new())
}

async fn last(daemon: &Daemon) -> OperationStatus {
    daemon.operations().await.pop().unwrap().status.unwrap()
}

fn step(status: &OperationStatus, name: StepName) -> Step {
    status.steps.iter().find(|step| step.name == name).unwrap().clone()
}

#[tokio::test]
async fn a_registry_that_flaps_is_asked_again_and_the_tries_are_shown() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.flaps.lock().unwrap() = 2;
    let daemon = start(&dir, &world);
    daemon.put(|_| {}).await;
    daemon.settle().await;
    assert_eq!(daemon.operations().await.len(), 1);
    let status = last(&daemon).await;
    assert_eq!(status.state, OperationState::Succeeded);
    let resolved = step(&status, StepName::ResolveImage);
    assert_eq!((resolved.state, resolved.attempt, resolved.next_try), (StepState::Succeeded, 3, None));
    assert_eq!(step(&status, StepName::PullImage).attempt, 1);
}

#[tokio::test]
async fn a_registry_that_stays_away_is_given_up_after_some_tries() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.flaps.lock().unwrap() = 9;
    let daemon = start(&dir, &world);
    daemon.put(|_| {}).await;
    daemon.settle().await;
    // It is begun again after a while, as a new one.
    let status = daemon.operations().await.remove(0).status.unwrap();
    let failed = step(&status, StepName::ResolveImage);
    assert_eq!((failed.state, failed.attempt, failed.next_try), (StepState::Failed, 4, None));
    assert_eq!((status.state, status.error.unwrap().message.as_str()), (OperationState::Failed, "nobody answers"));
}

#[tokio::test]
async fn what_waits_for_its_next_try_when_the_daemon_is_killed_waits_on_and_goes_on_counting() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.flaps.lock().unwrap() = 3;
    let stop = CancellationToken::new();
    let token = stop.clone();
    let abort = AbortPoints::calling(move |point| {
        if point == "Install/ResolveImage/paused" {
            token.cancel();
            panic!("killed at {point}");
        }
    });
    let first = Daemon::start(dir.path(), &world, abort, stop);
    first.put(|_| {}).await;
    first.settle().await;
    let paused = step(&last(&first).await, StepName::ResolveImage);
    assert_eq!((paused.state, paused.attempt, paused.message.as_str()), (StepState::Running, 1, "nobody answers"));
    assert!(paused.next_try.is_some());
    first.die().await;
    let second = start(&dir, &world);
    second.settle().await;
    let status = last(&second).await;
    let resolved = step(&status, StepName::ResolveImage);
    assert_eq!((status.state, resolved.attempt, resolved.failures), (OperationState::Succeeded, 4, 3));
    assert_eq!(second.operations().await.len(), 1);
}

#[tokio::test]
async fn rules_that_cannot_be_written_do_not_keep_a_service_from_being_removed() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    daemon.put(|_| {}).await;
    daemon.settle().await;
    *world.net_fails.lock().unwrap() = true;
    daemon.remove().await;
    daemon.settle().await;
    assert_eq!(daemon.bundle().await, None);
    let status = last(&daemon).await;
    let released = step(&status, StepName::ReleaseNetwork);
    assert_eq!((status.state, released.state), (OperationState::Succeeded, StepState::Failed));
    assert!(released.message.contains("the kernel is busy"), "{}", released.message);
}
