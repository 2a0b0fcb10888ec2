//! Operations that are held: nothing of them is done, and the bundle is looked after meanwhile.

use std::sync::Arc;

use berth_model::resource::operation::{Actor, Operation, OperationKind, OperationState, OperationStatus, Target};
use berth_model::resource::revision::RevisionState;
use berth_model::resource::{Settings, settings};
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World};
use crate::bundle::berthd;
use crate::bundle::view::{operation_state, state_of};
use crate::operation::AbortPoints;
use crate::store::Tx;

fn start(dir: &tempfile::TempDir, world: &Arc<World>) -> Daemon {
    Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new())
}

/// A service that runs, and an update of it that is held.
async fn with_a_held_update(daemon: &Daemon) {
    daemon.put(|_| {}).await;
    daemon.settle().await;
    hold(daemon, OperationKind::Update).await;
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert_eq!(states(daemon).await, [(OperationKind::Install, "Succeeded"), (OperationKind::Update, "Held")]);
}

async fn hold(daemon: &Daemon, kind: OperationKind) {
    hold_only(daemon, &[kind]).await;
}

/// From now on no others are held. Those that are stay so.
pub(super) async fn hold_only(daemon: &Daemon, kinds: &[OperationKind]) {
    let kinds = kinds.to_vec();
    let hold = move |tx: &mut Tx<'_>| {
        let mut all = tx.get::<Settings>("", settings::NAME)?.unwrap();
        all.spec.operations.hold = kinds;
        tx.update(&all).map(drop)
    };
    daemon.store.write(&berthd(), hold).await.unwrap();
}

async fn states(daemon: &Daemon) -> Vec<(OperationKind, &'static str)> {
    let word = |op: &Operation| match operation_state(op) {
        OperationState::Succeeded => "Succeeded",
        OperationState::Held => "Held",
        OperationState::Cancelled => "Cancelled",
        _ => "other",
    };
    daemon.operations().await.iter().map(|op| (op.spec.kind, word(op))).collect()
}

async fn decide(daemon: &Daemon, decision: impl FnOnce(&mut OperationStatus, u64) + Send + 'static) {
    let write = |tx: &mut Tx<'_>| {
        let held = tx.list::<Operation>(None)?.into_iter().find(|op| operation_state(op) == OperationState::Held);
        let mut held = held.unwrap();
        decision(held.status.as_mut().unwrap(), tx.version()?);
        tx.update_status(&held).map(drop)
    };
    daemon.store.write(&berthd(), write).await.unwrap();
}

#[tokio::test]
async fn a_held_update_survives_a_start_of_the_machine_after_which_the_service_runs_as_before() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    with_a_held_update(&daemon).await;
    daemon.die().await;
    world.units.lock().unwrap().clear();
    let daemon = start(&dir, &world);
    daemon.settle().await;
    use OperationKind as K;
    let expected = [(K::Install, "Succeeded"), (K::Update, "Held"), (K::Start, "Succeeded")];
    assert_eq!(states(&daemon).await, expected);
    assert_eq!(world.units.lock().unwrap().keys().collect::<Vec<_>>(), ["default.web.r1"]);
    decide(&daemon, |status, version| {
        (status.state, status.sequence) = (OperationState::Pending, Some(version));
        status.waiting.clear();
    })
    .await;
    daemon.settle().await;
    assert_eq!(states(&daemon).await.last(), Some(&(K::Update, "Succeeded")), "its place is that of its release");
    let revisions: Vec<RevisionState> = daemon.revisions().await.iter().map(state_of).collect();
    assert_eq!(revisions, [RevisionState::Superseded, RevisionState::Active]);
}

#[tokio::test]
async fn a_rejected_update_is_not_asked_for_again_before_something_else_is_wanted() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    with_a_held_update(&daemon).await;
    decide(&daemon, |status, _| {
        status.state = OperationState::Cancelled;
        status.cancelled_by = Some(Actor { identity: "owner".into(), source: "cli".into() });
        status.error = Some(Default::default());
    })
    .await;
    daemon.settle().await;
    assert_eq!(states(&daemon).await.last(), Some(&(OperationKind::Update, "Cancelled")));
    assert_eq!(daemon.operations().await.len(), 2);
    daemon.put(|spec| spec.image = "registry/web:3".into()).await;
    daemon.settle().await;
    assert_eq!(states(&daemon).await.last(), Some(&(OperationKind::Update, "Held")));
}

#[tokio::test]
async fn a_service_whose_installation_is_held_says_what_it_waits_for_and_is_removed_without_it() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    hold(&daemon, OperationKind::Install).await;
    daemon.put(|_| {}).await;
    daemon.settle().await;
    let status = daemon.bundle().await.unwrap().status.unwrap();
    let message = &status.conditions[0].message;
    assert!(message.starts_with("Install waits: operations of kind Install are held"), "{message}");
    assert!(message.contains("`berth operation release web-install-"), "{message}");
    daemon.remove().await;
    daemon.settle().await;
    assert_eq!(daemon.bundle().await, None);
    use OperationKind as K;
    assert_eq!(states(&daemon).await, [(K::Install, "Cancelled"), (K::Uninstall, "Succeeded")]);
}

/// A stop of the service that requires an operation which is held, and is nobody's here.
async fn with_a_stop_after_another(daemon: &Daemon) {
    daemon.put(|_| {}).await;
    daemon.settle().await;
    let elsewhere = Target { kind: "Volume".into(), namespace: "default".into(), name: "else".into(), uid: "u".into() };
    daemon
        .ask_with(OperationKind::Unlock, Some(elsewhere), |operation| {
            operation.metadata.name = Some("first".into());
            operation.status.as_mut().unwrap().state = OperationState::Held;
        })
        .await;
    daemon.ask_with(OperationKind::Stop, None, |stop| stop.spec.relations.requires = vec!["first".into()]).await;
    daemon.settle().await;
}

async fn the_stop_ended(daemon: &Daemon) -> Operation {
    let mut newest = daemon.store.revision();
    loop {
        newest.mark_unchanged();
        let stop = daemon.operations().await.into_iter().find(|op| op.spec.kind == OperationKind::Stop);
        match stop.filter(|stop| operation_state(stop).finished()) {
            Some(stop) => return stop,
            None => newest.changed().await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_service_runs_on_through_changes_until_what_its_stop_requires_has_succeeded() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    with_a_stop_after_another(&daemon).await;
    let units = || world.units.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert_eq!(units(), ["default.web.r2"], "it is looked after as if nobody had asked for its stop");
    decide(&daemon, |first, _| first.state = OperationState::Succeeded).await;
    assert_eq!(operation_state(&the_stop_ended(&daemon).await), OperationState::Succeeded);
    daemon.settle().await;
    assert!(!daemon.bundle().await.unwrap().spec.start, "what it wants is noted now");
    assert_eq!(units(), Vec::<String>::new(), "and nobody starts it again");
}

#[tokio::test]
async fn a_stop_whose_requirement_fails_leaves_the_service_as_it_is_for_good() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    with_a_stop_after_another(&daemon).await;
    decide(&daemon, |first, _| first.state = OperationState::Failed).await;
    assert_eq!(operation_state(&the_stop_ended(&daemon).await), OperationState::Failed);
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert!(daemon.bundle().await.unwrap().spec.start);
    assert_eq!(world.units.lock().unwrap().keys().collect::<Vec<_>>(), ["default.web.r2"]);
}

#[tokio::test]
async fn a_stop_that_was_to_come_after_another_fails_if_the_bundle_is_gone_by_then() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(&dir, &world);
    with_a_stop_after_another(&daemon).await;
    daemon.remove().await;
    daemon.settle().await;
    daemon.put(|_| {}).await;
    daemon.settle().await;
    decide(&daemon, |first, _| first.state = OperationState::Succeeded).await;
    let error = the_stop_ended(&daemon).await.status.unwrap().error.unwrap();
    assert_eq!(error.message, "the bundle web that it was asked for is gone");
    assert_eq!(world.units.lock().unwrap().len(), 1, "another bundle of that name is not touched");
}
