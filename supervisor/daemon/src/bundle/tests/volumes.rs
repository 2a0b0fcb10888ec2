//! Bundles with volumes: what becomes of disks, keys and records, and what a user is told.

use std::sync::Arc;

use berth_model::resource::operation::{OperationError, OperationKind, OperationState};
use berth_model::resource::volume::VolumeState;
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World, wish};
use crate::operation::AbortPoints;

const MIB: u64 = 1 << 20;

async fn with_data(world: &Arc<World>) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
    daemon.settle().await;
    (dir, daemon)
}

async fn error(daemon: &Daemon) -> OperationError {
    let all = daemon.operations().await;
    all.into_iter().rev().find_map(|operation| operation.status.unwrap().error).unwrap()
}

#[tokio::test]
async fn a_bundle_gets_its_volume_open_before_its_unit_starts_and_closed_when_it_is_stopped() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    let disk = world.disks.only();
    assert_eq!((disk.size, disk.finished, disk.open), (32 * MIB, true, true));
    assert_eq!(daemon.volume("web-data").await.state, VolumeState::Ready);
    let plan = world.plans.lock().unwrap()["default.web.r1"].clone();
    let uid = daemon.volumes().await[0].metadata.uid.clone().unwrap();
    assert_eq!(plan.volumes[0].device.to_str(), Some(format!("/dev/mapper/berth-{uid}").as_str()));
    assert_eq!(plan.volumes[0].mount_path.to_str(), Some("/data"));
    daemon.put(|spec| spec.start = false).await;
    daemon.settle().await;
    assert!(!world.disks.only().open);
}

#[tokio::test]
async fn a_writable_layer_on_disk_is_there_before_the_unit_and_gone_with_it() {
    let world = Arc::new(World::default());
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|spec| spec.resources.ephemeral_storage = Some("64Mi".into())).await;
    daemon.settle().await;
    let disk = world.disks.only();
    assert_eq!((disk.size, disk.finished, disk.open, disk.key), (64 * MIB, false, true, Vec::new()));
    let uid = world.disks.disks.lock().unwrap().keys().next().unwrap().clone();
    let plan = world.plans.lock().unwrap()["default.web.r1"].clone();
    assert_eq!(plan.root.writable_device, Some(format!("/dev/mapper/berth-{uid}").into()));

    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    let after: Vec<String> = world.disks.disks.lock().unwrap().keys().cloned().collect();
    assert!(after.len() == 1 && after[0] != uid, "the new revision has its own, and the old one's is gone: {after:?}");
    daemon.put(|spec| spec.start = false).await;
    daemon.settle().await;
    assert!(world.disks.disks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_writable_layer_that_does_not_fit_is_refused_with_what_fits_and_leaves_nothing() {
    let world = Arc::new(World::default());
    *world.disks.free.lock().unwrap() = Some(32 * MIB);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|spec| spec.resources.ephemeral_storage = Some("64Mi".into())).await;
    daemon.settle().await;
    let error = error(&daemon).await;
    assert_eq!(error.code, "VolumeDoesNotFit");
    assert!(
        error.message.starts_with("the ephemeral storage of web does not fit: 64.0Mi more are wanted"),
        "{error:?}"
    );
    assert!(world.disks.disks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn data_outlives_its_bundle_and_is_found_again_by_one_of_the_same_name() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    let before = daemon.volumes().await[0].metadata.uid.clone();
    daemon.remove().await;
    daemon.settle().await;
    assert!(daemon.bundle().await.is_none());
    assert!(!world.disks.only().open);
    daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
    daemon.settle().await;
    assert_eq!(daemon.volumes().await[0].metadata.uid, before);
    assert!(world.disks.only().open);
}

#[tokio::test]
async fn another_name_is_another_volume_and_the_old_one_is_kept() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.put(|spec| spec.volumes = vec![wish("other", "32Mi")]).await;
    daemon.settle().await;
    let names: Vec<_> = daemon.volumes().await.into_iter().map(|one| one.metadata.name.unwrap()).collect();
    assert_eq!(names, ["web-data", "web-other"]);
    let of = |name: &str| names.iter().position(|one| one == name).unwrap();
    let uids: Vec<_> = daemon.volumes().await.into_iter().map(|one| one.metadata.uid.unwrap()).collect();
    let is_open = |name: &str| world.disks.disks.lock().unwrap()[&uids[of(name)]].open;
    assert!(!is_open("web-data") && is_open("web-other"));
}

#[tokio::test]
async fn an_update_never_has_two_revisions_on_one_volume() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    let steps = daemon.operations().await.pop().unwrap().status.unwrap().steps;
    let said = |name: &str| {
        let step = steps.iter().find(|step| format!("{:?}", step.name) == name).unwrap();
        step.message.clone()
    };
    assert_eq!(said("StopOld"), "revisions stopped that use the same volumes: 1");
    assert_eq!(world.units.lock().unwrap().keys().collect::<Vec<_>>(), ["default.web.r2"]);
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_old_revision_running_on_its_volume() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    *world.start_fails.lock().unwrap() = Some("default.web.r2".into());
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert_eq!(daemon.last_state().await, Some(OperationState::Failed));
    assert_eq!(world.units.lock().unwrap().keys().collect::<Vec<_>>(), ["default.web.r1"]);
    assert!(world.disks.only().open);
    let status = daemon.bundle().await.unwrap().status.unwrap();
    assert_eq!((status.revision, status.next_try), (Some(1), None), "the service is not stopped again by itself");
}

#[tokio::test]
async fn a_volume_grows_while_the_service_runs_on() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.put(|spec| spec.volumes = vec![wish("data", "64Mi")]).await;
    daemon.settle().await;
    let disk = world.disks.only();
    assert_eq!((disk.size, disk.filesystem), (64 * MIB, 64 * MIB));
    let status = daemon.volume("web-data").await;
    assert_eq!((status.state, status.size, status.target), (VolumeState::Ready, 64 * MIB, None));
    assert_eq!(*world.starts.lock().unwrap(), 1, "it was started again");
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().volumes[0].size, "64Mi");
}

#[tokio::test]
async fn a_volume_that_does_not_fit_is_refused_with_what_is_free_and_leaves_nothing_behind() {
    let world = Arc::new(World::default());
    *world.disks.free.lock().unwrap() = Some(80 * MIB);
    let (_dir, daemon) = with_data(&world).await;
    let error = error(&daemon).await;
    assert_eq!(error.code, "VolumeDoesNotFit");
    assert_eq!(
        error.message,
        "volume web-data does not fit: 32.0Mi more are wanted and 80.0Mi are free on the data disk, of which 64.0Mi \
         are kept back"
    );
    assert_eq!(error.suggestions[0], "ask for 16Mi at most");
    assert!(world.disks.disks.lock().unwrap().is_empty() && world.disks.keys.lock().unwrap().is_empty());
    assert_eq!(daemon.volumes().await, []);
}

#[tokio::test]
async fn a_growth_that_does_not_fit_leaves_the_service_running_with_what_it_has() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    *world.disks.free.lock().unwrap() = Some(80 * MIB);
    daemon.put(|spec| spec.volumes = vec![wish("data", "1Gi")]).await;
    daemon.settle().await;
    let status = daemon.volume("web-data").await;
    assert_eq!((status.state, status.size), (VolumeState::Ready, 32 * MIB));
    let error = error(&daemon).await;
    assert_eq!(error.code, "VolumeDoesNotFit");
    let back = "to stay with what it has: berth volume grow web-data 32Mi";
    assert_eq!(error.suggestions.last().map(String::as_str), Some(back));
    let degraded =
        || async { daemon.bundle().await.unwrap().status.unwrap().conditions.last().unwrap().reason.clone() };
    assert_eq!(degraded().await, "Degraded");
    daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
    daemon.settle().await;
    assert_eq!(degraded().await, "StartCompleted");
    assert_eq!(world.units.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_smaller_volume_of_a_name_that_has_data_is_refused() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.remove().await;
    daemon.settle().await;
    daemon.put(|spec| spec.volumes = vec![wish("data", "16Mi")]).await;
    daemon.settle().await;
    let error = error(&daemon).await;
    assert_eq!(error.message, "volume web-data has 32Mi and never shrinks; 16Mi is less");
    assert_eq!(world.disks.only().size, 32 * MIB);
}

#[tokio::test]
async fn what_is_not_the_volume_it_should_be_is_noted_and_nothing_is_formatted() {
    type Harm = fn(&World, &str);
    let harms: [(Harm, &str); 4] = [
        (|world, uid| world.disks.disks.lock().unwrap().get_mut(uid).unwrap().foreign = true, "no ext4 filesystem"),
        (|world, uid| world.disks.disks.lock().unwrap().get_mut(uid).unwrap().size = MIB, "and had 33554432"),
        (|world, uid| drop(world.disks.disks.lock().unwrap().remove(uid)), "its file is not there"),
        (|world, uid| drop(world.disks.keys.lock().unwrap().remove(uid)), "there is no key"),
    ];
    for (harm, said) in harms {
        let world = Arc::new(World::default());
        let (_dir, daemon) = with_data(&world).await;
        daemon.put(|spec| spec.start = false).await;
        daemon.settle().await;
        harm(&world, daemon.volumes().await[0].metadata.uid.as_ref().unwrap());
        let before = world.disks.disks.lock().unwrap().clone();
        daemon.put(|spec| spec.start = true).await;
        daemon.settle().await;
        let status = daemon.volume("web-data").await;
        assert_eq!(status.state, VolumeState::Damaged, "{said}");
        assert!(status.message.contains(said), "{}", status.message);
        assert_eq!(error(&daemon).await.code, "VolumeDamaged");
        assert_eq!(*world.disks.disks.lock().unwrap(), before);
        assert_eq!(world.units.lock().unwrap().len(), 0, "it was started");
    }
}

#[tokio::test]
async fn without_the_master_key_nothing_starts_and_no_volume_is_said_to_be_damaged() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.put(|spec| spec.start = false).await;
    daemon.settle().await;
    *world.disks.locked.lock().unwrap() = true;
    daemon.put(|spec| spec.start = true).await;
    daemon.settle().await;
    assert_eq!(daemon.volume("web-data").await.state, VolumeState::Ready);
    let error = error(&daemon).await;
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("KeysLocked", "secrets are locked"));
    assert!(world.units.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_volume_whose_name_another_bundles_volume_has_is_refused() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    daemon.put(|spec| spec.volumes = vec![wish("data", "32Mi"), wish("x-y", "32Mi")]).await;
    daemon.settle().await;
    let other = berth_model::resource::Bundle {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("web-x".into()),
            ..super::scripted::fresh().metadata
        },
        spec: berth_model::resource::bundle::BundleSpec {
            volumes: vec![wish("y", "32Mi")],
            ..super::scripted::fresh().spec
        },
        status: None,
    };
    let actor = crate::bundle::berthd();
    daemon.store.write(&actor, move |tx| tx.create(&other)).await.unwrap();
    daemon.settle().await;
    let failed = daemon.operations().await.into_iter().find(|op| op.spec.target.name == "web-x").unwrap();
    assert_eq!(failed.status.unwrap().error.unwrap().message, "the name web-x-y is taken by volume x-y of bundle web");
}

#[tokio::test]
async fn a_locked_volume_keeps_its_service_from_starting_until_it_is_unlocked() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    let refused = daemon.ask_of_volume("web-data", OperationKind::Lock).await;
    assert_eq!(refused.error.unwrap().suggestions, ["stop it first: berth stop web"]);
    daemon.put(|spec| spec.start = false).await;
    daemon.settle().await;
    let locked = daemon.ask_of_volume("web-data", OperationKind::Lock).await;
    assert_eq!(locked.state, OperationState::Succeeded);
    daemon.put(|spec| spec.start = true).await;
    daemon.settle().await;
    let error = error(&daemon).await;
    assert_eq!(error.message, "volume web-data is locked");
    assert_eq!(error.suggestions, ["berth volume unlock web-data"]);
    assert_eq!(daemon.ask_of_volume("web-data", OperationKind::Unlock).await.state, OperationState::Succeeded);
    assert_eq!(daemon.volume("web-data").await.state, VolumeState::Ready);
}

#[tokio::test]
async fn a_volume_is_erased_with_key_file_and_record_but_not_while_a_bundle_wants_it() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = with_data(&world).await;
    let refused = daemon.ask_of_volume("web-data", OperationKind::Erase).await.error.unwrap();
    assert_eq!(refused.message, "volume web-data belongs to bundle web, which wants it");
    assert!(world.disks.only().open);
    daemon.remove().await;
    daemon.settle().await;
    let erased = daemon.ask_of_volume("web-data", OperationKind::Erase).await;
    assert_eq!(erased.state, OperationState::Succeeded);
    assert!(world.disks.disks.lock().unwrap().is_empty() && world.disks.keys.lock().unwrap().is_empty());
    assert_eq!(daemon.volumes().await, []);
}

/// What does not outlive the machine's own start.
fn lose_power(world: &World) {
    world.disks.disks.lock().unwrap().values_mut().for_each(|disk| disk.open = false);
    world.units.lock().unwrap().clear();
    world.plans.lock().unwrap().clear();
}

#[tokio::test]
async fn an_operation_that_a_power_cut_met_while_it_started_a_unit_opens_the_devices_and_starts_it_again() {
    for at in ["Install/StartUnit/begun", "Install/AwaitReady/begun", "Install/AwaitReady/applied"] {
        let (world, dir) = (Arc::new(World::default()), tempfile::tempdir().unwrap());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let abort = AbortPoints::calling(move |point| {
            if point == at {
                token.cancel();
                panic!("the power goes");
            }
        });
        let first = Daemon::start(dir.path(), &world, abort, stop);
        first.put(|spec| spec.volumes = vec![wish("data", "32Mi")]).await;
        first.settle().await;
        first.die().await;
        lose_power(&world);
        let second = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
        second.settle().await;
        assert!(world.disks.only().open, "{at}: the unit was started without its device");
        assert!(world.units.lock().unwrap().contains_key("default.web.r1"), "{at}: it was not started again");
        let states: Vec<_> = second.operations().await.into_iter().map(|one| one.status.unwrap().state).collect();
        assert!(states.iter().all(|state| *state == OperationState::Succeeded), "{at}: {states:?}");
    }
}
