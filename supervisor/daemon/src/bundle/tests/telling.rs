//! What a user is told.

use std::sync::Arc;

use berth_model::allocation::Pool;
use berth_model::plan::{Ending, SystemCalls};
use berth_model::resource::bundle::{Phase, RestartPolicy, SeccompProfile, SeccompProfileType, Termination};
use berth_model::resource::operation::{OperationKind, OperationState, OperationStatus};
use berth_model::resource::revision::Revision;
use tokio_util::sync::CancellationToken;

use super::scripted::{Daemon, World, clock, ending};
use crate::bundle::decide::Wish;
use crate::bundle::seams::{Observed, UnitState};
use crate::bundle::status::status;
use crate::bundle::view::View;
use crate::bundle::{berthd, write};
use crate::operation::AbortPoints;

async fn installed(world: &Arc<World>) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new());
    daemon.put(|_| {}).await;
    daemon.settle().await;
    (dir, daemon)
}

async fn ready(daemon: &Daemon) -> (String, String) {
    let status = daemon.bundle().await.unwrap().status.unwrap();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    (format!("{} {}", ready.status, ready.reason), ready.message.clone())
}

fn set(world: &World, state: UnitState, seen: Observed) {
    world.units.lock().unwrap().insert("default.web.r1".into(), Observed { state, ..seen });
}

#[tokio::test]
async fn an_installed_bundle_is_ready_and_a_second_look_writes_nothing() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
    let before = *daemon.store.revision().borrow();
    daemon.settle().await;
    assert_eq!(*daemon.store.revision().borrow(), before);
    assert_eq!(*world.starts.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_look_does_not_write_over_what_a_step_has_noted_since_it_began() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    let view = daemon.view(jiff::SignedDuration::ZERO).await;
    let mut noted = daemon.bundle().await.unwrap();
    let end = Termination { reason: "OOMKilled".into(), ..Termination::default() };
    noted.status.as_mut().unwrap().last_termination = Some(end.clone());
    daemon.store.write(&berthd(), move |tx| tx.write_status(&noted)).await.unwrap();

    let mut late = status(&view, &Wish::Nothing);
    late.restarts = 7;
    daemon.store.write(&berthd(), move |tx| write(tx, &view, None, late)).await.unwrap();
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().last_termination, Some(end));
}

#[tokio::test]
async fn nobody_new_comes_to_addresses_that_overlap_others_and_whoever_has_them_goes_on() {
    let world = Arc::new(World::default());
    *world.overlapping.lock().unwrap() = vec![Pool::default()];
    let (_dir, daemon) = installed(&world).await;
    let operation = daemon.operations().await.pop().unwrap();
    let error = operation.status.unwrap().error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("AddressPoolOverlap", "10.213.0.0/16 overlaps link lan0")
    );
    assert!(error.suggestions[0].contains("set `pool` below `[network]` in /etc/berth/berthd.toml"), "{error:?}");
    assert_eq!(*world.starts.lock().unwrap(), 0);

    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    *world.overlapping.lock().unwrap() = vec![Pool::default()];
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
    assert_eq!(*world.starts.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_unit_stopped_by_systemctl_stays_stopped_and_says_who_stopped_it() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    let ending = Some(ending(true, "success", "killed", "TERM"));
    set(&world, UnitState::Inactive, Observed { ending, ..Observed::default() });
    daemon.settle().await;
    assert_eq!(ready(&daemon).await.0, "False StoppedByOperator");
    assert_eq!(*world.starts.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_unit_that_a_restart_has_stopped_is_being_started_and_was_stopped_by_nobody() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    let mut restart = daemon.operations().await.remove(0);
    restart.spec.kind = OperationKind::Restart;
    restart.status = Some(OperationStatus { state: OperationState::Running, ..OperationStatus::default() });
    let ending = Some(ending(true, "success", "exited", "0"));
    let down = Observed { state: UnitState::Inactive, ending, ..Observed::default() };
    let view = View {
        bundle: daemon.bundle().await.unwrap(),
        revisions: daemon.store.read(|tx| tx.list::<Revision>(None)).await.unwrap(),
        volumes: Vec::new(),
        operations: vec![restart],
        observed: [(1, down)].into(),
        survey: Ok(String::new()),
        old_name_leaves: false,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let status = status(&view, &Wish::Nothing);
    assert_eq!(status.phase, Phase::Progressing);
    assert_eq!(status.conditions.iter().find(|c| c.type_ == "Ready").unwrap().reason, "StartPending");
}

#[tokio::test]
async fn a_crash_of_a_service_that_is_never_restarted_is_no_loop() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    daemon.put(|spec| spec.restart = RestartPolicy::Never).await;
    daemon.settle().await;
    let ending = Some(Ending { id: "default.web.r2".into(), ..ending(false, "exit-code", "exited", "3") });
    let down = Observed { state: UnitState::Failed, ending, ..Observed::default() };
    world.units.lock().unwrap().insert("default.web.r2".into(), down);
    daemon.settle().await;
    let (stands, why) = ready(&daemon).await;
    assert_eq!(stands, "False Degraded");
    assert!(why.contains("exit code 3") && why.contains("stays down"), "{why}");
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().phase, Phase::Failed);
}

#[tokio::test]
async fn a_service_that_served_and_now_crashes_again_and_again_is_in_a_loop() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    let crashed = Some(ending(false, "exit-code", "exited", "7"));
    for restarts in [3, 4] {
        set(&world, UnitState::Activating, Observed { restarts, ending: crashed.clone(), ..Observed::default() });
        daemon.settle().await;
        let (stands, message) = ready(&daemon).await;
        assert_eq!(stands, "False CrashLooping");
        assert!(message.contains(&format!("{restarts} times. It ended with exit code 7.")), "{message}");
    }
    assert_eq!(daemon.bundle().await.unwrap().status.unwrap().phase, Phase::Failed);
}

#[tokio::test]
async fn a_service_killed_for_memory_says_so() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    let ending = Some(ending(false, "oom-kill", "killed", "KILL"));
    set(&world, UnitState::Active, Observed { ending, restarts: 1, ..Observed::default() });
    daemon.settle().await;
    let status = daemon.bundle().await.unwrap().status.unwrap();
    assert_eq!(status.last_termination.unwrap().reason, "OOMKilled");
    assert_eq!((status.restarts, status.phase), (1, Phase::Running));
}

#[tokio::test]
async fn an_image_that_cannot_be_had_fails_with_what_to_do_and_is_tried_again_later() {
    let world = Arc::new(World::default());
    *world.image_fails.lock().unwrap() = Some("the registry does not know registry/web:1".into());
    let (_dir, daemon) = installed(&world).await;
    let status = daemon.bundle().await.unwrap().status.unwrap();
    let profile = status.conditions.iter().find(|c| c.type_ == "ProfilePrepared").unwrap();
    assert_eq!(profile.reason, "ProfileFailed");
    assert!(profile.message.contains("does not know registry/web:1; check the name"), "{}", profile.message);
    assert!(status.next_try.is_some());
    assert_eq!(daemon.last_state().await, Some(OperationState::Failed));
    let error = daemon.operations().await.pop().unwrap().status.unwrap().error.unwrap();
    assert_eq!(error.code, "ImageNotFound");
}

#[tokio::test]
async fn a_clock_that_is_set_back_by_a_day_delays_no_try_and_mixes_up_no_operations() {
    let world = Arc::new(World::default());
    *world.image_fails.lock().unwrap() = Some("the registry does not know registry/web:1".into());
    let (_dir, daemon) = installed(&world).await;
    // It stands still as well, or the next try came while a busy machine reads what this one left.
    *world.stopped.lock().unwrap() = Some(clock() - jiff::SignedDuration::from_hours(24));
    daemon.settle().await;
    let operations = daemon.operations().await;
    assert_eq!(operations.len(), 2, "it was tried at once");
    let status = daemon.bundle().await.unwrap().status.unwrap();
    let [next, tried] = [status.next_try, operations[1].status.as_ref().unwrap().finished_at.clone()]
        .map(|time| time.unwrap().parse::<jiff::Timestamp>().unwrap());
    assert_eq!(next.duration_since(tried).as_secs(), 2, "and is tried again soon");

    *world.image_fails.lock().unwrap() = None;
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    assert_eq!(daemon.last_state().await, Some(OperationState::Succeeded));
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
}

#[tokio::test]
async fn a_failing_update_leaves_the_old_revision_serving() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = installed(&world).await;
    *world.start_fails.lock().unwrap() = Some("default.web.r2".into());
    daemon.put(|spec| spec.image = "registry/web:2".into()).await;
    daemon.settle().await;
    let status = daemon.bundle().await.unwrap().status.unwrap();
    assert_eq!((status.revision, status.phase), (Some(1), Phase::Running));
    let (state, message) = ready(&daemon).await;
    assert_eq!(state, "False Degraded");
    assert!(message.contains("Revision 1 still serves"), "{message}");
    assert!(message.contains("bind: permission denied"), "{message}");
}

#[tokio::test]
async fn a_port_that_the_machine_uses_itself_is_refused_by_name() {
    use berth_model::resource::bundle::{Expose, Port, Protocol};
    let world = Arc::new(World::default());
    world.occupied.lock().unwrap().push(22);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    let port =
        Port { name: "ssh".into(), container_port: 22, protocol: Protocol::Tcp, expose: Expose::Lan, host_port: None };
    daemon.put(move |spec| spec.ports = vec![port]).await;
    daemon.settle().await;
    let status = daemon.bundle().await.unwrap().status.unwrap();
    let said = &status.conditions[0].message;
    assert!(said.contains("port 22/TCP of the machine is already in use by a program"), "{said}");
    assert!(world.units.lock().unwrap().is_empty());
}

async fn looked_after(world: &Arc<World>) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), world, AbortPoints::default(), CancellationToken::new());
    daemon
        .put(|spec| {
            let health = serde_json::json!({
                "tcp": {"port": 80}, "interval": "500ms", "stableWindow": "0s", "startPeriod": "0s", "failAfter": 1
            });
            spec.health = Some(serde_json::from_value(health).unwrap());
        })
        .await;
    daemon.settle().await;
    (dir, daemon)
}

#[tokio::test]
async fn a_service_whose_health_check_fails_is_degraded_until_it_is_good_again() {
    let world = Arc::new(World::default());
    let (_dir, daemon) = looked_after(&world).await;
    daemon.news().await;
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
    *world.unhealthy.lock().unwrap() = Some("port 80: connection refused".into());
    daemon.news().await;
    let (reason, message) = ready(&daemon).await;
    assert_eq!(reason, "False Degraded");
    assert!(message.contains("port 80: connection refused"), "{message}");
    *world.unhealthy.lock().unwrap() = None;
    daemon.news().await;
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
    assert_eq!(*world.starts.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_start_of_the_supervisor_is_no_news_about_a_service_that_is_unhealthy() {
    let world = Arc::new(World::default());
    let (dir, daemon) = looked_after(&world).await;
    daemon.news().await;
    *world.unhealthy.lock().unwrap() = Some("it is ill".into());
    daemon.news().await;
    assert_eq!(ready(&daemon).await.0, "False Degraded");
    daemon.die().await;
    let again = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    again.settle().await;
    assert_eq!(ready(&again).await.0, "False Degraded");
}

#[tokio::test]
async fn after_a_start_of_the_machine_nobody_is_told_that_a_service_is_ready_before_it_is() {
    let world = Arc::new(World::default());
    let (dir, daemon) = installed(&world).await;
    daemon.die().await;
    let again = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    again.doubt().await;
    assert_eq!(ready(&again).await.0, "True StartCompleted", "its unit runs");
    world.units.lock().unwrap().clear();
    again.doubt().await;
    assert_eq!(ready(&again).await.0, "False StartPending");
    again.settle().await;
    assert_eq!(ready(&again).await.0, "True StartCompleted");
}

#[tokio::test]
async fn however_often_the_machine_starts_its_services_start_at_once() {
    let world = Arc::new(World::default());
    let (dir, mut daemon) = installed(&world).await;
    for boot in 1..=6 {
        daemon.die().await;
        world.units.lock().unwrap().clear();
        daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
        daemon.settle().await;
        assert_eq!(ready(&daemon).await.0, "True StartCompleted", "boot {boot}");
    }
}

#[tokio::test]
async fn a_revision_that_does_not_become_healthy_never_serves() {
    let world = Arc::new(World::default());
    *world.unhealthy.lock().unwrap() = Some("answered 503".into());
    let (_dir, daemon) = looked_after(&world).await;
    assert_eq!(daemon.last_state().await, Some(OperationState::Failed));
    let (reason, message) = ready(&daemon).await;
    assert_eq!(reason, "False StartFailed");
    assert!(message.contains("did not become healthy: answered 503"), "{message}");
    assert!(world.units.lock().unwrap().is_empty(), "its unit is stopped");
}

#[tokio::test]
async fn a_service_without_its_system_call_profile_says_so_and_starts_under_it_once_it_is_there() {
    let world = Arc::new(World::default());
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &world, AbortPoints::default(), CancellationToken::new());
    let profile = |kind, name: Option<&str>| SeccompProfile { kind, localhost_profile: name.map(str::to_owned) };
    let strict = profile(SeccompProfileType::Localhost, Some("strict"));
    daemon.put(|spec| spec.security.seccomp_profile = Some(strict)).await;
    daemon.settle().await;
    let error = daemon.operations().await.pop().unwrap().status.unwrap().error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str(), error.retryable),
        ("SeccompProfileNotFound", "this machine has no system call profile /profiles/strict.json", true)
    );
    assert!(error.suggestions[0].starts_with("write the profile there"), "{error:?}");
    assert_eq!((ready(&daemon).await.0.starts_with("False"), *world.starts.lock().unwrap()), (true, 0));

    world.profiles.lock().unwrap().insert("strict".into(), vec![6]);
    daemon.put(|spec| spec.args = vec!["again".into()]).await;
    daemon.settle().await;
    assert_eq!(ready(&daemon).await.0, "True StartCompleted");
    let calls = |revision: &str| world.plans.lock().unwrap()[revision].security.system_calls.clone();
    assert_eq!(calls("default.web.r1"), SystemCalls::Narrowed(vec![6]));

    let less = profile(SeccompProfileType::Baseline, None);
    daemon.put(|spec| spec.security.seccomp_profile = Some(less)).await;
    daemon.settle().await;
    assert_eq!(calls("default.web.r2"), SystemCalls::Baseline);
}
