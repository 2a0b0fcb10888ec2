//! systemd and the journal, for real: needs systemd as PID 1, and root.
//!
//! Run in the booted guest, where this binary is copied to. Elsewhere every test says that it
//! was skipped. Each test has units of its own; the one that takes the bus away from all of them
//! waits until it is alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::time::Duration;

use berth_host::cmd::Command;
use berth_host::journal::{Entry, Query, Record};
use berth_host::systemd::{
    ActiveState, Change, Changes, Exec, JobResult, Known, Outcome, Restart, ServiceType, Systemd, UnitProperties,
    UnitState, Whom,
};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static BUS: RwLock<()> = RwLock::const_new(());
/// Far beyond what anything here takes; reached only when an event never comes.
const NEVER: Duration = Duration::from_secs(300);
const DONE: Outcome = Outcome::Ended(JobResult::Done);

fn skipped() -> bool {
    let skipped = !std::path::Path::new("/run/systemd/system").exists();
    if skipped {
        // Past the test harness, which keeps what a test that passes has printed.
        std::io::stderr().write_all(b"skipped: needs systemd as PID 1\n").unwrap();
    }
    skipped
}

/// The bus, shared with other tests, and a handle.
async fn bus() -> (RwLockReadGuard<'static, ()>, Systemd) {
    (BUS.read().await, Systemd::connect().await.unwrap())
}

/// Takes away what a run before this one may have left.
async fn clear(systemd: &Systemd, unit: &str) {
    let _stopped_or_absent = systemd.stop(unit).await.unwrap();
    systemd.reset_failed(unit).await.unwrap();
}

fn shell(script: &str) -> UnitProperties {
    UnitProperties::new()
        .service_type(ServiceType::Exec)
        .collect_when_inactive()
        .exec_start(Exec::new("/bin/sh", ["-c", script]))
}

async fn systemctl(args: &[&str]) -> String {
    let output = Command::new("/usr/bin/systemctl").args(args.iter().copied()).run().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// How systemd says it ended: code and status of its main process as waitid(2) has them, and the result.
async fn ended(unit: &str) -> String {
    let values = systemctl(&["show", "-p", "Result", "-p", "ExecMainCode", "-p", "ExecMainStatus", unit]).await;
    let mut values: Vec<&str> = values.lines().collect();
    values.sort_unstable();
    values.join(" ")
}

/// The state of the unit as soon as it is as asked for.
async fn until(systemd: &Systemd, changes: &mut Changes, unit: &str, wanted: impl Fn(&UnitState) -> bool) -> UnitState {
    let seen = async {
        loop {
            if let Some(state) = systemd.state(unit).await.unwrap().filter(&wanted) {
                return state;
            }
            changes.next().await;
        }
    };
    tokio::time::timeout(NEVER, seen).await.expect("the unit never came to the wanted state")
}

/// The next entry with this text.
async fn until_said(query: &Query, said: &str) -> Entry {
    let mut entries = query.clone().follow().read().unwrap();
    let found = async {
        while let Some(record) = entries.next().await.unwrap() {
            if let Record::Entry(entry) = record
                && entry.message == said.as_bytes()
            {
                return *entry;
            }
        }
        panic!("the journal ended without {said:?}");
    };
    tokio::time::timeout(NEVER, found).await.expect("the entry never came")
}

#[tokio::test]
async fn vm_a_unit_is_started_seen_and_stopped() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.life.service";
    clear(&systemd, unit).await;
    let properties = shell("exec sleep 1000").description("a life");
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    let state = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!(state.active, ActiveState::Active);
    assert!(state.main_pid.is_some() && state.invocation.is_some(), "{state:?}");
    let listed = systemd.list(&["hosttest.life.*"]).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].description.as_str()), (unit, "a life"));
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    assert_eq!(systemd.state(unit).await.unwrap(), None);
    assert_eq!(systemd.list(&["hosttest.life.*"]).await.unwrap(), []);
}

#[tokio::test]
async fn vm_a_name_that_is_taken_is_told_and_its_holder_left_alone() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.taken.service";
    clear(&systemd, unit).await;
    let properties = shell("exec sleep 1000");
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    let before = systemd.state(unit).await.unwrap();
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), Outcome::UnitExists);
    assert_eq!(systemd.state(unit).await.unwrap(), before);
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
}

#[tokio::test]
async fn vm_a_unit_that_is_not_there_is_no_error() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.absent.service";
    clear(&systemd, unit).await;
    assert_eq!(systemd.start(unit).await.unwrap(), Outcome::NoSuchUnit);
    assert_eq!(systemd.stop(unit).await.unwrap(), Outcome::NoSuchUnit);
    for known in [
        systemd.ref_unit(unit).await,
        systemd.reset_failed(unit).await,
        systemd.kill(unit, Whom::All, 9).await,
        systemd.set_properties(unit, &UnitProperties::new().memory_max(1 << 30)).await,
    ] {
        assert_eq!(known.unwrap(), Known::NotLoaded);
    }
    assert!(!systemd.unref_unit(unit).await.unwrap());
}

#[tokio::test]
async fn vm_a_start_that_fails_tells_why_until_it_is_reset() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.fails.service";
    clear(&systemd, unit).await;
    let properties = shell("").service_type(ServiceType::Oneshot).exec_start(Exec::new("/bin/sh", ["-c", "exit 3"]));
    let outcome = systemd.start_transient(unit, &properties).await.unwrap();
    assert_eq!(outcome, Outcome::Ended(JobResult::Failed));
    let state = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!(state.active, ActiveState::Failed);
    assert_eq!(ended(unit).await, "ExecMainCode=1 ExecMainStatus=3 Result=exit-code");
    assert_eq!(systemd.reset_failed(unit).await.unwrap(), Known::Loaded);
    assert_eq!(systemd.state(unit).await.unwrap(), None);
}

#[tokio::test]
async fn vm_a_referenced_unit_can_be_read_after_its_end_and_started_again() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.referenced.service";
    clear(&systemd, unit).await;
    let properties = shell("exec sleep 1000").add_ref().success_statuses(vec![], vec![15]);
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    let state = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!(state.active, ActiveState::Inactive);
    assert_eq!(ended(unit).await, "ExecMainCode=2 ExecMainStatus=15 Result=success");
    assert_eq!(systemd.start(unit).await.unwrap(), DONE);
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    assert!(systemd.unref_unit(unit).await.unwrap());
    assert_eq!(systemd.state(unit).await.unwrap(), None);
}

#[tokio::test]
async fn vm_a_reference_taken_later_keeps_a_unit_of_somebody_else() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.adopted.service";
    clear(&systemd, unit).await;
    let maker = Systemd::connect().await.unwrap();
    assert_eq!(maker.start_transient(unit, &shell("exec sleep 1000")).await.unwrap(), DONE);
    drop(maker);
    assert_eq!(systemd.ref_unit(unit).await.unwrap(), Known::Loaded);
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    assert!(systemd.state(unit).await.unwrap().is_some());
    assert!(systemd.unref_unit(unit).await.unwrap());
    assert!(!systemd.unref_unit(unit).await.unwrap());
}

#[tokio::test]
async fn vm_a_killed_service_is_started_again_and_every_step_is_a_change() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.restarted.service";
    clear(&systemd, unit).await;
    let mut changes = systemd.changes("hosttest.restarted.");
    assert_eq!(changes.next().await, Change::Everything);
    let properties = shell("exec sleep 1000").restart(Restart::OnFailure, Duration::from_millis(200));
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    assert_eq!(changes.next().await, Change::Unit(unit.to_owned()));
    let first = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!(systemd.kill(unit, Whom::Main, 9).await.unwrap(), Known::Loaded);
    let again = |state: &UnitState| state.restarts == 1 && state.active == ActiveState::Active;
    let second = until(&systemd, &mut changes, unit, again).await;
    assert_ne!((first.main_pid, first.invocation), (second.main_pid, second.invocation));
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
}

#[tokio::test]
async fn vm_restarting_gives_a_new_main_process() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.restart.service";
    clear(&systemd, unit).await;
    assert_eq!(systemd.start_transient(unit, &shell("exec sleep 1000")).await.unwrap(), DONE);
    let first = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!(systemd.restart(unit).await.unwrap(), DONE);
    let second = systemd.state(unit).await.unwrap().unwrap();
    assert_ne!(first.main_pid, second.main_pid);
    assert_eq!((second.active, second.restarts), (ActiveState::Active, 0));
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
}

#[tokio::test]
async fn vm_all_properties_arrive_as_they_were_given() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.properties.service";
    clear(&systemd, unit).await;
    let properties = shell("exec sleep 1000")
        .slice(r"hosttest-my\x2dteam.slice")
        .exec_stop(Exec::new("/bin/true", ["--asked"]))
        .exec_stop_post(Exec::new("/bin/true", Vec::<String>::new()))
        .environment([("A", "1")])
        .restart(Restart::Always, Duration::from_millis(300))
        .start_limit(7, Duration::from_secs(60))
        .start_timeout(Duration::from_secs(91))
        .stop_timeout(Duration::from_secs(31))
        .kill(3)
        .success_statuses(vec![143], vec![15])
        .delegate()
        .private_mounts()
        .oom_kills_unit()
        .devices([("/dev/fuse", "rw")])
        .memory_max(64 << 20)
        .memory_swap_max(0)
        .tasks_max(64)
        .cpu_quota(Duration::from_millis(500))
        .io_weight(50)
        .syslog_identifier("tester")
        .log_fields([("TEAM", "my team")]);
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    for (name, expected) in [
        ("Slice", r"hosttest-my\x2dteam.slice"),
        ("Environment", "A=1"),
        ("Restart", "always"),
        ("RestartUSec", "300ms"),
        ("StartLimitBurst", "7"),
        ("StartLimitIntervalUSec", "1min"),
        ("TimeoutStartUSec", "1min 31s"),
        ("TimeoutStopUSec", "31s"),
        ("KillMode", "mixed"),
        ("KillSignal", "3"),
        ("SuccessExitStatus", "143 TERM"),
        ("Delegate", "yes"),
        ("PrivateMounts", "yes"),
        ("OOMPolicy", "kill"),
        ("DevicePolicy", "closed"),
        ("DeviceAllow", "/dev/fuse rw"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "0"),
        ("TasksMax", "64"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("IOWeight", "50"),
        ("SyslogIdentifier", "tester"),
        ("LogExtraFields", "TEAM=my team"),
    ] {
        let shown = systemctl(&["show", "--value", "-p", name, unit]).await;
        assert_eq!(shown.trim_end().trim_matches('"'), expected, "{name}");
    }
    let more = UnitProperties::new().memory_max(128 << 20);
    assert_eq!(systemd.set_properties(unit, &more).await.unwrap(), Known::Loaded);
    assert_eq!(systemctl(&["show", "--value", "-p", "MemoryMax", unit]).await, "134217728\n");
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
}

#[tokio::test]
async fn vm_many_units_at_once_each_get_their_own_answer() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let starts = (0..20).map(|number| {
        let systemd = systemd.clone();
        tokio::spawn(async move {
            let unit = format!("hosttest.many-{number}.service");
            let code = number % 2;
            let properties = UnitProperties::new()
                .service_type(ServiceType::Oneshot)
                .exec_start(Exec::new("/bin/sh", ["-c".to_owned(), format!("exit {code}")]));
            let outcome = systemd.start_transient(&unit, &properties).await.unwrap();
            let expected = if code == 0 { JobResult::Done } else { JobResult::Failed };
            assert_eq!(outcome, Outcome::Ended(expected), "{unit}");
            systemd.reset_failed(&unit).await.unwrap();
        })
    });
    for start in futures_util::future::join_all(starts).await {
        start.unwrap();
    }
}

#[tokio::test]
async fn vm_a_machine_that_runs_is_not_stopping() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    assert!(!systemd.is_stopping().await.unwrap());
}

#[tokio::test]
async fn vm_what_a_unit_says_is_found_by_unit_by_field_and_from_a_cursor() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.says.r1.service";
    clear(&systemd, unit).await;
    let own = format!("{}", std::process::id());
    let script = r"echo one; printf 'two\377\n'; echo three; exec sleep 1000";
    let properties = shell(script).syslog_identifier("says").log_fields([("HOSTTEST", own.as_str())]);
    assert_eq!(systemd.start_transient(unit, &properties).await.unwrap(), DONE);
    let ours = Query::new().field("HOSTTEST", own.as_str()).field("SYSLOG_IDENTIFIER", "says");
    let third = until_said(&ours, "three").await;
    assert_eq!(third.unit.as_deref(), Some(unit));
    assert_eq!(third.priority, Some(6));
    let first = until_said(&ours, "one").await;
    let state = systemd.state(unit).await.unwrap().unwrap();
    assert_eq!((first.pid, first.time_us <= third.time_us), (state.main_pid, true));
    assert_eq!(all(&ours.clone().after(first.cursor.as_str())).await, [&b"two\xff"[..], b"three"]);
    assert_eq!(all(&ours.clone().last(1)).await, [b"three"]);
    assert_eq!(all(&ours.clone().since_us(first.time_us)).await.len(), 3);
    assert_eq!(all(&ours.clone().since_us(third.time_us + 1)).await, Vec::<Vec<u8>>::new());
    let by_unit = ours.unit("hosttest.says.*");
    assert_eq!(all(&by_unit).await.len(), 3);
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    assert_eq!(all(&by_unit).await.len(), 3);
}

#[tokio::test]
async fn vm_a_pattern_that_matches_no_unit_finds_nothing() {
    if skipped() {
        return;
    }
    assert_eq!(all(&Query::new().unit("hosttest.never-was.*")).await, Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn vm_the_journal_tells_an_asked_for_stop() {
    if skipped() {
        return;
    }
    let (_bus, systemd) = bus().await;
    let unit = "hosttest.asked.service";
    clear(&systemd, unit).await;
    assert_eq!(systemd.start_transient(unit, &shell("exec sleep 1000")).await.unwrap(), DONE);
    let invocation = systemd.state(unit).await.unwrap().unwrap().invocation.unwrap();
    assert_eq!(systemd.stop(unit).await.unwrap(), DONE);
    let stopped = Query::new()
        .field("INVOCATION_ID", invocation)
        .field("MESSAGE_ID", "9d1aaa27d60140bd96365438aad20286")
        .with("JOB_TYPE")
        .follow();
    let mut entries = stopped.read().unwrap();
    let Some(Record::Entry(entry)) = entries.next().await.unwrap() else { panic!("the journal ended") };
    assert_eq!(entry.fields["JOB_TYPE"], b"stop");
}

async fn all(query: &Query) -> Vec<Vec<u8>> {
    let mut entries = query.read().unwrap();
    let mut messages = Vec::new();
    while let Some(record) = entries.next().await.unwrap() {
        let Record::Entry(entry) = record else { panic!("dropped") };
        messages.push(entry.message);
    }
    messages
}

#[tokio::test]
async fn vm_a_lost_bus_is_found_again_and_a_new_manager_noticed() {
    if skipped() {
        return;
    }
    let _bus: RwLockWriteGuard<'static, ()> = BUS.write().await;
    let systemd = Systemd::connect().await.unwrap();
    let unit = "hosttest.survivor.service";
    clear(&systemd, unit).await;
    let mut changes = systemd.changes("hosttest.survivor.");
    assert_eq!(changes.next().await, Change::Everything);
    assert_eq!(systemd.start_transient(unit, &shell("exec sleep 1000").add_ref()).await.unwrap(), DONE);
    let before = systemd.state(unit).await.unwrap().unwrap();

    for disturbance in [["restart", "dbus.service"].as_slice(), &["daemon-reexec"]] {
        systemctl(disturbance).await;
        let everything = async { while changes.next().await != Change::Everything {} };
        tokio::time::timeout(NEVER, everything).await.expect("nothing was told");
        let after = systemd.state(unit).await.unwrap().unwrap();
        assert_eq!((after.main_pid, &after.invocation), (before.main_pid, &before.invocation));
        assert_eq!(systemd.ref_unit(unit).await.unwrap(), Known::Loaded);
    }

    assert_eq!(systemd.kill(unit, Whom::Main, 9).await.unwrap(), Known::Loaded);
    let failed = |state: &UnitState| state.active == ActiveState::Failed;
    until(&systemd, &mut changes, unit, failed).await;
    assert_eq!(ended(unit).await, "ExecMainCode=2 ExecMainStatus=9 Result=signal");
    assert_eq!(systemd.reset_failed(unit).await.unwrap(), Known::Loaded);
}
