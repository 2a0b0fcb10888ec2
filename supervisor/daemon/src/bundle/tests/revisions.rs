//! The history of a bundle: back to earlier revisions, what is kept of them, and of those that failed.

use std::sync::Arc;

use berth_model::resource::bundle::{EnvVar, Phase};
use berth_model::resource::operation::{OperationKind, OperationState, OperationStatus, StepName};
use berth_model::resource::revision::{Failure, Revision, RevisionState};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World, ending, wish};
use crate::bundle::decide::{Wish, decide};
use crate::bundle::seams::{Observed, UnitState};
use crate::bundle::view::{operation_state, state_of};
use crate::bundle::{berthd, fetch};
use crate::operation::AbortPoints;

/// A daemon with a bundle that was installed from one image and updated to another.
async fn updated(world: &Arc<World>) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    daemon.settle().await;
    to_image(&daemon, 2).await;
    (dir, daemon)
}

async fn to_image(daemon: &Daemon, tag: u32) {
    daemon.put(move |spec| spec.image = format!("registry/web:{tag}")).await;
    daemon.settle().await;
}

/// Number, state and image's name of every revision.
async fn history(daemon: &Daemon) -> Vec<String> {
    let told = |one: &Revision| format!("{} {:?} {}", one.spec.number, state_of(one), one.spec.bundle_spec.image);
    daemon.revisions().await.iter().map(told).collect()
}

async fn serving(daemon: &Daemon) -> Revision {
    let all = daemon.revisions().await;
    all.into_iter().find(|one| state_of(one) == RevisionState::Active).unwrap()
}

async fn last(daemon: &Daemon) -> (OperationKind, OperationStatus) {
    let last = daemon.operations().await.pop().unwrap();
    (last.spec.kind, last.status.unwrap())
}

fn units(world: &World) -> Vec<String> {
    world.units.lock().unwrap().keys().cloned().collect()
}

async fn said_at_the_switch(daemon: &Daemon) -> String {
    let (_, status) = last(daemon).await;
    status.steps.iter().find(|step| step.name == StepName::RetireOld).unwrap().message.clone()
}

#[tokio::test]
async fn who_is_replaced_ends_when_nobody_is_connected_to_it_any_more() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    let old = serving(&daemon).await.spec.allocation.addresses();
    assert_eq!(old.len(), 2, "one of each family");
    world.connected.lock().unwrap().insert(*old.first().unwrap(), vec![1, 2]);
    to_image(&daemon, 3).await;
    assert!(world.connected.lock().unwrap().values().all(Vec::is_empty), "it was stopped while it still served");
    assert_eq!(said_at_the_switch(&daemon).await, "earlier revisions stopped: 1");
    assert!(old.is_subset(&world.forgotten.lock().unwrap()), "what still comes would lead to nobody");
    assert_eq!(units(&world), ["default.web.r3"]);
}

#[tokio::test]
async fn a_connection_that_does_not_end_is_cut_off_after_a_while_and_it_is_told() {
    let world = Arc::new(World::default());
    *world.drain.lock().unwrap() = Some(std::time::Duration::from_millis(1));
    let (_dir, daemon) = updated(&world).await;
    let old = serving(&daemon).await.spec.allocation.addresses();
    world.connected.lock().unwrap().insert(*old.first().unwrap(), vec![4; 100]);
    to_image(&daemon, 3).await;
    let told = "earlier revisions stopped: 1, with connections that were still open: 4";
    assert_eq!(said_at_the_switch(&daemon).await, told);
    assert_eq!(units(&world), ["default.web.r3"]);
}

#[tokio::test]
async fn nobody_waits_for_connections_to_a_revision_that_is_down() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    let old = serving(&daemon).await.spec.allocation.addresses();
    world.connected.lock().unwrap().insert(*old.first().unwrap(), vec![4; 100]);
    world.units.lock().unwrap().clear();
    to_image(&daemon, 3).await;
    assert_eq!(said_at_the_switch(&daemon).await, "earlier revisions stopped: 1");
}

#[tokio::test]
async fn a_rollback_makes_a_new_revision_of_what_an_earlier_one_was() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    daemon.roll_back(None).await;
    daemon.settle().await;
    let told = ["1 Superseded registry/web:1", "2 Superseded registry/web:2", "3 Active registry/web:1"];
    assert_eq!(history(&daemon).await, told);
    let all = daemon.revisions().await;
    assert_eq!((&all[2].spec.image, all[2].spec.restores), (&all[0].spec.image, Some(1)));
    assert_eq!(units(&world), ["default.web.r3"]);
    let (kind, status) = last(&daemon).await;
    assert_eq!((kind, status.state), (OperationKind::Rollback, OperationState::Succeeded));
    assert_eq!(status.result["revision"], 3);
}

#[tokio::test]
async fn a_rollback_is_undone_neither_by_the_next_look_nor_by_the_manifest_of_that_time() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    daemon.roll_back(None).await;
    daemon.settle().await;
    let before = *daemon.store.revision().borrow();
    to_image(&daemon, 1).await;
    assert_eq!(*daemon.store.revision().borrow(), before);
}

#[tokio::test]
async fn a_tag_that_means_something_else_by_now_keeps_its_digest_in_a_rollback_and_after_it() {
    let world = Arc::new(World::default());
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    daemon.settle().await;
    let first = serving(&daemon).await.spec.image.reference;
    *world.pushed.lock().unwrap() = 1;
    daemon.ask(OperationKind::Update).await;
    daemon.settle().await;
    assert_ne!(serving(&daemon).await.spec.image.reference, first);
    daemon.roll_back(None).await;
    daemon.settle().await;
    assert_eq!(serving(&daemon).await.spec.image.reference, first);
    daemon.put(|spec| spec.env = vec![EnvVar { name: "MODE".into(), ..EnvVar::default() }]).await;
    daemon.settle().await;
    let now = serving(&daemon).await.spec;
    assert_eq!((now.number, now.image.reference), (4, first));
}

#[tokio::test]
async fn a_rollback_that_fails_leaves_what_serves_and_is_tried_again_as_one() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    *world.pushed.lock().unwrap() = 1;
    // However often it is tried until somebody looks.
    *world.start_fails.lock().unwrap() = Some("default.web.r".into());
    daemon.roll_back(Some(1)).await;
    daemon.settle().await;
    assert_eq!((serving(&daemon).await.spec.number, units(&world)), (2, vec!["default.web.r2".to_owned()]));
    *world.start_fails.lock().unwrap() = None;
    let view = daemon.view(SignedDuration::from_mins(10)).await;
    assert_eq!(decide(&view), Wish::Now(OperationKind::Rollback));
    let again = move |tx: &mut crate::store::Tx<'_>| fetch::begin(tx, &view.bundle, OperationKind::Rollback);
    daemon.store.write(&berthd(), again).await.unwrap();
    daemon.settle().await;
    let all = daemon.revisions().await;
    let now = all.last().unwrap();
    assert_eq!((state_of(now), now.spec.restores), (RevisionState::Active, Some(1)));
    assert_eq!(now.spec.image.reference, all[0].spec.image.reference, "the tag was looked up anew");
}

#[tokio::test]
async fn a_rollback_after_a_failed_update_takes_the_wish_back_and_touches_nothing() {
    let world = Arc::new(World::default());
    *world.start_fails.lock().unwrap() = Some("default.web.r2".into());
    let (_dir, daemon) = updated(&world).await;
    let ready = || async { daemon.bundle().await.unwrap().status.unwrap().conditions.pop().unwrap().reason };
    assert_eq!(ready().await, "Degraded");
    let starts = *world.starts.lock().unwrap();
    daemon.roll_back(None).await;
    daemon.settle().await;
    assert_eq!(ready().await, "StartCompleted");
    assert_eq!(*world.starts.lock().unwrap(), starts, "it was started again");
    assert_eq!(history(&daemon).await, ["1 Active registry/web:1", "2 Failed registry/web:2"]);
    assert_eq!(daemon.bundle().await.unwrap().spec.image, "registry/web:1");
}

#[tokio::test]
async fn a_rollback_does_not_wait_for_an_update_that_hangs() {
    let world = Arc::new(World::default());
    let starting = Observed { state: UnitState::Activating, ..Observed::default() };
    world.courses.lock().unwrap().insert("default.web.r2".into(), starting);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    daemon.settle().await;
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    let mut changes = daemon.store.revision();
    daemon.look().await;
    while !units(&world).contains(&"default.web.r2".to_owned()) {
        changes.changed().await.unwrap();
    }
    daemon.roll_back(None).await;
    daemon.settle().await;
    let ended: Vec<_> = daemon.operations().await.iter().map(|op| (op.spec.kind, operation_state(op))).collect();
    let cancelled = (OperationKind::Update, OperationState::Cancelled);
    assert_eq!(ended[1..], [cancelled, (OperationKind::Rollback, OperationState::Succeeded)]);
    assert_eq!((serving(&daemon).await.spec.number, units(&world)), (1, vec!["default.web.r1".to_owned()]));
    let failure = daemon.revisions().await[1].status.clone().unwrap().failure.unwrap();
    assert_eq!(failure.reason, "Cancelled");
}

#[tokio::test]
async fn a_rollback_of_a_bundle_with_a_volume_stops_one_before_it_starts_the_other_and_keeps_the_data() {
    let world = Arc::new(World::default());
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
    daemon.settle().await;
    to_image(&daemon, 2).await;
    let disks = world.disks.disks.lock().unwrap().clone();
    daemon.roll_back(None).await;
    daemon.settle().await;
    let (kind, status) = last(&daemon).await;
    let stopped = status.steps.iter().find(|step| format!("{:?}", step.name) == "StopOld").unwrap();
    assert_eq!(
        (kind, stopped.message.as_str()),
        (OperationKind::Rollback, "revisions stopped that use the same volumes: 1")
    );
    assert_eq!(*world.disks.disks.lock().unwrap(), disks);
    assert_eq!(units(&world), ["default.web.r3"]);
}

#[tokio::test]
async fn a_revision_that_failed_keeps_why_its_exit_code_and_what_it_said() {
    let world = Arc::new(World::default());
    let ended = ending(false, "exit-code", "exited", "3");
    let failed = Observed { state: UnitState::Failed, ending: Some(ended), ..Observed::default() };
    world.courses.lock().unwrap().insert("default.web.r2".into(), failed);
    let (_dir, daemon) = updated(&world).await;
    let all = daemon.revisions().await;
    let status = all[1].status.clone().unwrap();
    assert_eq!(status.state, RevisionState::Failed);
    let Failure { reason, message, termination, output } = status.failure.unwrap();
    assert_eq!(reason, "StartFailed");
    assert_eq!(message, "the service failed to start. It ended with exit code 3.");
    assert_eq!(termination.unwrap().exit_code, Some(3));
    assert_eq!(output, ["bind: permission denied"]);
    let status = daemon.bundle().await.unwrap().status.unwrap();
    assert_eq!((status.revision, status.phase), (Some(1), Phase::Running));
}

#[tokio::test]
async fn an_image_that_changes_while_another_is_fetched_makes_no_revision_of_both() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    let mut changes = daemon.store.revision();
    daemon.put(|spec| spec.image = "registry/web:3".into()).await;
    daemon.look().await;
    loop {
        let begun = daemon.operations().await.pop().and_then(|op| op.status).unwrap_or_default();
        if begun.result["image"].is_string() {
            break;
        }
        changes.changed().await.unwrap();
    }
    to_image(&daemon, 4).await;
    let mixed = |one: &Revision| !one.spec.image.reference.starts_with(&one.spec.bundle_spec.image);
    assert_eq!(daemon.revisions().await.iter().filter(|one| mixed(one)).count(), 0);
    assert_eq!(serving(&daemon).await.spec.bundle_spec.image, "registry/web:4");
}

#[tokio::test]
async fn ten_revisions_are_kept_and_what_a_rollback_goes_back_to_is_among_them() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = updated(&world).await;
    for tag in 3..=12 {
        to_image(&daemon, tag).await;
    }
    let numbers = || async { daemon.revisions().await.iter().map(|one| one.spec.number).collect::<Vec<_>>() };
    assert_eq!(numbers().await, (3..=12).collect::<Vec<_>>());
    daemon.roll_back(Some(3)).await;
    daemon.settle().await;
    assert_eq!(numbers().await, (4..=13).collect::<Vec<_>>());
    assert_eq!(serving(&daemon).await.spec.bundle_spec.image, "registry/web:3");
}
