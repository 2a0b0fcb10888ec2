//! The supervisor is killed at the steps of its operations: each comes to the end that was asked for.

use std::collections::BTreeSet;

use berth_model::resource::operation::OperationKind::{
    self, Cleanup, Erase, Grow, Install, Lock, Restart, Rollback, Start, Stop, Uninstall, Unlock, Update, UpdateSystem,
};
use berth_tests::machine::Machine;
use berth_tests::{http, pace};

use super::{disturbed, eventually, holdings, nothing_is_left, property, ready};

/// Makes the supervisor look for a point to die at in a file.
const ARM: &str = "mkdir -p /run/systemd/system/berthd.service.d && \
     printf '[Service]\\nEnvironment=BERTH_ABORT_FILE=/run/abort\\n' >/run/systemd/system/berthd.service.d/abort.conf && \
     systemctl daemon-reload && systemctl restart berthd";
const DISARM: &str =
    "rm -r /run/systemd/system/berthd.service.d && systemctl daemon-reload && systemctl restart berthd";

/// A service's life: what is asked for, how its bundle stands then, and what its port answers.
const LIFE: [(OperationKind, &str, &str, &str); 11] = [
    (Install, "install 127.0.0.1:5000/nginx:1 --name web --publish 8081:80 --volume data:/data:16Mi", UP, FIRST),
    (Update, "update web --image 127.0.0.1:5000/nginx:2", UP, SECOND),
    (Rollback, "rollback web", UP, FIRST),
    (Grow, "volume grow web-data 32Mi", UP, FIRST),
    (Stop, "stop web", DOWN, NOBODY),
    (Lock, "volume lock web-data", DOWN, NOBODY),
    (Unlock, "volume unlock web-data", DOWN, NOBODY),
    (Start, "start web", UP, FIRST),
    (Restart, "restart web", UP, FIRST),
    (Uninstall, "uninstall web", "none", NOBODY),
    (Erase, "volume erase web-data --yes", "none", NOBODY),
];
const UP: &str = "True StartCompleted";
const DOWN: &str = "False StartSkipped";
const FIRST: &str = "nginx under Berth, image 1";
const SECOND: &str = "nginx under Berth, image 2";
const NOBODY: &str = "nobody";

/// What is tried when not everything is: a point of each operation, early ones and late ones.
const SAMPLE: [&str; 11] = [
    "Install/Promote/recorded",
    "Update/StopOld/applied",
    "Rollback/StartUnit/applied",
    "Grow/GrowImages/applied",
    "Stop/StopUnit/applied",
    "Lock/LockVolume/applied",
    "Unlock/UnlockVolume/begun",
    "Start/AwaitReady/begun",
    "Restart/StartUnit/recorded",
    "Uninstall/ReleaseNetwork/applied",
    "Erase/DestroyKey/applied",
];

/// What a step has come to when the supervisor dies after it: its effect is there, and its record may be.
const AFTER: [&str; 2] = ["applied", "recorded"];

/// For each life, the point at which each operation of it dies; `None` once it has died at each of its steps. Which of
/// the moments it is alternates: both are tried in process. `BERTH_LONG` is the number of the life to begin with:
/// 1, or that in which an earlier run was cut short.
fn lives() -> Vec<[Option<String>; 11]> {
    let Ok(first) = std::env::var("BERTH_LONG") else {
        return vec![SAMPLE.map(|point| Some(point.to_owned()))];
    };
    let first: usize = first.parse().unwrap();
    let all = LIFE.map(|(kind, ..)| {
        let moments = kind.steps().iter().zip(AFTER.iter().cycle());
        moments.map(|(step, moment)| format!("{kind:?}/{step:?}/{moment}")).collect::<Vec<_>>()
    });
    let most = all.iter().map(Vec::len).max().unwrap();
    (first - 1..most).map(|life| all.each_ref().map(|points| points.get(life).cloned())).collect()
}

#[test]
fn an_operation_goes_on_when_the_supervisor_is_killed_at_its_steps() {
    let (_alone, machine) = disturbed();
    // What schedules begin is killed in process, where time goes by at will.
    let asked_for = OperationKind::ALL.iter().filter(|kind| ![Cleanup, UpdateSystem].contains(kind));
    assert_eq!(LIFE.map(|(kind, ..)| kind).iter().collect::<BTreeSet<_>>(), asked_for.collect());
    let before = holdings(machine);
    machine.ok(ARM).unwrap();
    for (life, points) in lives().into_iter().enumerate() {
        eprintln!("life {} of this run", life + 1);
        let start = points[LIFE.iter().position(|(kind, ..)| *kind == Start).unwrap()].is_some();
        for ((kind, line, stands, answers), point) in LIFE.iter().zip(&points) {
            match point {
                Some(point) => killed_at(machine, point, line),
                // Nothing to see, but what comes next needs it.
                None if [Install, Uninstall, Erase].contains(kind) || (*kind == Stop && start) => {
                    machine.ok(&format!("berth {line} --timeout 10m")).unwrap();
                }
                None => continue,
            }
            eventually(&(*stands).to_owned(), || ready_if_any(machine));
            eventually(&(*answers).to_owned(), || answer(machine));
            let units = "systemctl list-units --plain --no-legend 'berth.default.*.service' | wc -l";
            let wanted = if *answers == NOBODY { "0" } else { "1" };
            assert_eq!(machine.ok(units).unwrap(), wanted, "{point:?}");
        }
        nothing_is_left(machine, &before);
    }
    machine.ok(DISARM).unwrap();
}

/// Asks for it with the point armed, and waits until the supervisor has died there and is up again.
fn killed_at(machine: &Machine, point: &str, line: &str) {
    eprintln!("killed at {point}");
    let kills: u32 = property(machine, "berthd.service", "NRestarts").parse().unwrap();
    machine.ok(&format!("echo {point} >/run/abort")).unwrap();
    // The command may lose its connection with the supervisor: what counts is the end.
    let lost = machine.sh(&format!("berth {line} --timeout 5m")).unwrap();
    let told = lost.text() + &lost.errors();
    eventually(&(kills + 1).to_string(), || {
        let seen = property(machine, "berthd.service", "NRestarts");
        if seen == kills.to_string() { format!("{seen}: {point} was not reached: {told}") } else { seen }
    });
    eventually(&true, || machine.sh("systemctl is-active --quiet berthd").unwrap().success());
}

fn ready_if_any(machine: &Machine) -> String {
    match machine.sh("berth get bundle web").unwrap().code() {
        0 => ready(machine, "web"),
        3 => "none".into(),
        code => format!("exit code {code}"),
    }
}

/// The page, or that nobody answers: the port of a service that is stopped leads to an address that is silent, and what
/// comes later than this is looked for again.
fn answer(machine: &Machine) -> String {
    match http::get(machine.forwarded(8081), "/", pace::boots(0.2)) {
        Ok((200, page)) if page.starts_with("nginx") => page.trim().to_owned(),
        _ => NOBODY.to_owned(),
    }
}
