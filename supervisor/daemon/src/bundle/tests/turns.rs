//! Bundles that depend on others, when all of them begin at once.

use std::sync::Arc;
use std::time::Duration;

use berth_model::resource::Bundle;
use berth_model::resource::operation::OperationKind;
use k8s_openapi::api::core::v1::Event;
use tokio_util::sync::CancellationToken;

use super::held::hold_only;
use super::scripted::{Daemon, World, fresh};
use crate::bundle::berthd;
use crate::bundle::seams::{Observed, UnitState};
use crate::operation::AbortPoints;

fn start(dir: &std::path::Path, world: &Arc<World>) -> Daemon {
    Daemon::start(dir, world, AbortPoints::default(), CancellationToken::new())
}

/// Another bundle, without ports.
async fn add(daemon: &Daemon, name: &str, depends_on: &[&str]) {
    let mut bundle = fresh();
    bundle.metadata.name = Some(name.into());
    bundle.spec.ports.clear();
    bundle.spec.depends_on = depends_on.iter().map(|one| (*one).to_owned()).collect();
    daemon.store.write(&berthd(), move |tx| tx.create(&bundle)).await.unwrap();
}

/// Starts, and is not up yet.
fn slow(world: &World, id: &str) {
    let seen = Observed { state: UnitState::Activating, ..Observed::default() };
    world.courses.lock().unwrap().insert(id.into(), seen);
}

fn runs(world: &World, id: &str) -> bool {
    world.units.lock().unwrap().contains_key(id)
}

/// Reconciles until it is so.
async fn until(daemon: &Daemon, is_so: impl Fn(&Bundle) -> bool) {
    let mut newest = daemon.store.revision();
    loop {
        newest.mark_unchanged();
        daemon.look().await;
        if daemon.bundle().await.is_some_and(|bundle| is_so(&bundle)) {
            return;
        }
        newest.changed().await.unwrap();
    }
}

fn says(bundle: &Bundle, words: &str) -> bool {
    bundle.status.iter().flat_map(|status| &status.conditions).any(|one| one.message.contains(words))
}

async fn warned(daemon: &Daemon) -> Vec<String> {
    let events: Vec<Event> = daemon.store.read(|tx| tx.list(None)).await.unwrap();
    let of_it = |event: &Event| event.reason.as_deref() == Some("DependencyNotReady");
    events.into_iter().filter(of_it).filter_map(|event| event.message).collect()
}

#[tokio::test]
async fn a_bundle_starts_when_what_it_depends_on_is_ready_and_says_whom_it_waits_for() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    slow(&world, "default.db.r1");
    let daemon = start(dir.path(), &world);
    add(&daemon, "db", &[]).await;
    daemon.put(|spec| spec.depends_on = vec!["db".into()]).await;
    until(&daemon, |web| says(web, "waits until bundle db is ready")).await;
    assert!(!runs(&world, "default.web.r1"));
    let up = Observed { state: UnitState::Active, main_pid: 7, ..Observed::default() };
    world.units.lock().unwrap().insert("default.db.r1".into(), up);
    daemon.settle().await;
    assert!(runs(&world, "default.web.r1"));
    assert_eq!(warned(&daemon).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bundle_starts_anyway_when_what_it_depends_on_takes_too_long_and_tells_that() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.patience.lock().unwrap() = Some(Duration::ZERO);
    slow(&world, "default.db.r1");
    let daemon = start(dir.path(), &world);
    add(&daemon, "db", &[]).await;
    daemon.put(|spec| spec.depends_on = vec!["db".into()]).await;
    until(&daemon, |web| says(web, "The service is up.")).await;
    assert_eq!(warned(&daemon).await, ["it starts after 0 s though bundle db is not ready, on which it depends"]);
    daemon.die().await;
}

#[tokio::test]
async fn a_bundle_does_not_wait_for_one_whose_installation_is_held_until_somebody_releases_it() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(dir.path(), &world);
    hold_only(&daemon, &[OperationKind::Install]).await;
    add(&daemon, "db", &[]).await;
    daemon.settle().await;
    hold_only(&daemon, &[]).await;
    daemon.put(|spec| spec.depends_on = vec!["db".into()]).await;
    daemon.settle().await;
    assert!(runs(&world, "default.web.r1") && !runs(&world, "default.db.r1"));
    assert_eq!(warned(&daemon).await, Vec::<String>::new());
}

#[tokio::test]
async fn bundles_that_depend_on_one_another_do_not_wait_for_one_another() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let daemon = start(dir.path(), &world);
    add(&daemon, "db", &["web"]).await;
    daemon.put(|spec| spec.depends_on = vec!["db".into()]).await;
    daemon.settle().await;
    assert!(runs(&world, "default.web.r1") && runs(&world, "default.db.r1"));
    assert_eq!(warned(&daemon).await, Vec::<String>::new());
}
