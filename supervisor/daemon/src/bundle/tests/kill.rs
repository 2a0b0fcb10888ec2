//! The daemon is killed at every point of every operation; the end is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_model::resource::Volume;
use berth_model::resource::bundle::{Bundle, BundleSpec, RENAMED_FROM};
use berth_model::resource::operation::OperationKind;

use tokio_util::sync::CancellationToken;

use super::provided::{asks, world};
use super::scripted::{Daemon, World, fresh, wish};
use crate::bundle::berthd;
use crate::operation::AbortPoints;
use crate::store::{Deletion, StoreError, Tx};

/// Every point that an operation of this kind passes.
fn points(kind: OperationKind) -> Vec<String> {
    let moments = ["begun", "applied", "recorded"];
    kind.steps().iter().flat_map(|step| moments.map(|moment| format!("{kind:?}/{step:?}/{moment}"))).collect()
}

/// Brings the world to where `kind` begins, then wishes for it.
async fn wish_for(daemon: &Daemon, kind: OperationKind) {
    if kind != OperationKind::Install {
        daemon.put(with_all).await;
        daemon.settle().await;
    }
    match kind {
        OperationKind::Install => daemon.put(with_all).await,
        OperationKind::Update => daemon.put(|spec| spec.image = "registry/web:2".into()).await,
        OperationKind::Rollback => {
            daemon.put(|spec| spec.image = "registry/web:2".into()).await;
            daemon.settle().await;
            daemon.roll_back(None).await;
        }
        OperationKind::Stop => daemon.put(|spec| spec.start = false).await,
        OperationKind::Uninstall => daemon.remove().await,
        OperationKind::Start => {
            daemon.put(|spec| spec.start = false).await;
            daemon.settle().await;
            daemon.put(|spec| spec.start = true).await;
        }
        OperationKind::Grow => {
            daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
            daemon.settle().await;
            daemon.put(|spec| spec.volumes = vec![wish("data", "64Mi")]).await;
        }
        OperationKind::Lock | OperationKind::Unlock | OperationKind::Erase => {
            daemon.remove().await;
            daemon.settle().await;
            if kind == OperationKind::Unlock {
                daemon.ask_of_volume("web-data", OperationKind::Lock).await;
            }
            daemon.ask_of_volume("web-data", kind).await;
        }
        OperationKind::Restart | OperationKind::Cleanup | OperationKind::UpdateSystem => {
            unreachable!("only people and schedules ask for it")
        }
        OperationKind::ApplyChanges => unreachable!("it is one transaction"),
    }
}

fn with_all(spec: &mut BundleSpec) {
    spec.volumes = vec![wish("data", "32Mi")];
    asks(spec);
}

async fn end_of(kind: OperationKind, killed_at: Option<String>) -> Vec<String> {
    // Nothing here outlives the process: memory will do.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let world = world(Some("hunter2"));
    let stop = CancellationToken::new();
    let token = stop.clone();
    let abort = AbortPoints::calling(move |point| {
        if Some(point) == killed_at.as_deref() {
            token.cancel();
            panic!("killed at {point}");
        }
    });
    let first = Daemon::start(dir.path(), &world, abort, stop);
    wish_for(&first, kind).await;
    first.settle().await;
    first.die().await;
    let second = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    second.settle().await;
    let state = second.end_state().await;
    second.die().await;
    state
}

#[tokio::test]
async fn a_daemon_killed_at_any_point_of_any_operation_comes_to_the_same_end() {
    let others = [OperationKind::Restart, OperationKind::Cleanup, OperationKind::UpdateSystem];
    let kinds = OperationKind::ALL.into_iter().filter(|kind| !others.contains(kind));
    for kind in kinds {
        let undisturbed = end_of(kind, None).await;
        for point in points(kind) {
            assert_eq!(end_of(kind, Some(point.clone())).await, undisturbed, "killed at {point}");
        }
    }
}

/// What a change set does that gives the bundle and its volume another name.
fn rename(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let mut heir = fresh();
    heir.metadata.name = Some("heir".into());
    heir.metadata.annotations = Some([(RENAMED_FROM.to_owned(), "web".to_owned())].into());
    heir.spec.volumes = vec![wish("data", "32Mi")];
    tx.create(&heir)?;
    tx.delete::<Bundle>("default", "web", &Deletion::default())?;
    let handed = tx.rename::<Volume>("default", "web-data", |volume| {
        volume.metadata.name = Some("heir-data".into());
        volume.spec.bundle = "heir".into();
    });
    handed.map(drop)
}

async fn handed_over(killed_at: Option<&str>) -> Vec<String> {
    let (dir, world) = (tempfile::tempdir_in("/dev/shm").unwrap(), Arc::new(World::default()));
    let (stop, armed) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let (token, is_armed, point) = (stop.clone(), armed.clone(), killed_at.map(str::to_owned));
    let abort = AbortPoints::calling(move |reached| {
        if is_armed.load(Ordering::SeqCst) && Some(reached) == point.as_deref() {
            token.cancel();
            panic!("killed at {reached}");
        }
    });
    let first = Daemon::start(dir.path(), &world, abort, stop);
    first.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
    first.settle().await;
    let uid = first.volumes().await[0].metadata.uid.clone().unwrap();
    let before = world.disks.only();
    armed.store(true, Ordering::SeqCst);
    first.store.write(&berthd(), rename).await.unwrap();
    first.settle().await;
    first.die().await;
    let second = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    second.settle().await;
    assert!(second.bundle().await.is_none());
    assert_eq!(world.disks.only(), before, "the very same disk, open again");
    let plan = world.plans.lock().unwrap()["default.heir.r1"].clone();
    assert_eq!(plan.volumes[0].device.to_str(), Some(format!("/dev/mapper/berth-{uid}").as_str()));
    let state = second.end_state().await;
    second.die().await;
    state
}

#[tokio::test]
async fn data_goes_over_to_the_new_name_of_its_bundle_wherever_the_daemon_is_killed() {
    let undisturbed = handed_over(None).await;
    for point in points(OperationKind::Uninstall).into_iter().chain(points(OperationKind::Install)) {
        assert_eq!(handed_over(Some(&point)).await, undisturbed, "killed at {point}");
    }
}
