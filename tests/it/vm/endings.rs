//! How a service ended, told right whoever ended it, and whether or not the supervisor was there to see it.

use berth_tests::machine::Machine;
use serde_json::Value;

use super::{bundle, disturbed, eventually, holdings, install, nothing_is_left, ready, uninstall};

const TESTBOX: &str = "127.0.0.1:5000/testbox:latest --memory 48Mi --set restart=never";

/// A service, what is done to its `$unit` with the plan `$plan` and the first process `$pid`, and how its end is then
/// told: the reason of `Ready`; the reason, exit code and signal of the last end.
const ENDINGS: [(&str, &str, &str, &str); 8] = [
    ("stopped", "systemctl stop $unit", "False StoppedByOperator", "StoppedByOperator 0 -"),
    ("finished", "kill -TERM $pid", "False Degraded", "Completed 0 -"),
    ("failed", "kill -USR1 $pid", "False Degraded", "Error 3 -"),
    ("killed", "kill -KILL $pid", "False Degraded", "Error - KILL"),
    ("signalled", "systemctl kill --signal=KILL $unit", "False Degraded", "Error - KILL"),
    ("greedy", "/usr/lib/berth/berth-run exec $id -- testbox hog 200; true", "False Degraded", "OOMKilled - KILL"),
    ("restarted", "systemctl restart $unit", "True StartCompleted", "StoppedByOperator 0 -"),
    (
        "unstartable",
        "mv $plan $plan.away; systemctl restart $unit; mv $plan.away $plan",
        "False Degraded",
        "Error 78 -",
    ),
];

#[test]
#[ignore = "long tier"]
fn an_end_is_told_by_who_asked_for_it_and_how_it_came_seen_or_unseen() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    let names = ENDINGS.map(|(name, ..)| name);
    for pair in names.chunks(2) {
        std::thread::scope(|scope| pair.iter().for_each(|name| drop(scope.spawn(|| install(machine, name, TESTBOX)))));
    }
    end_all(machine);
    all_are_told(machine);
    let seen = names.map(|name| last_end(machine, name)["invocation"].clone());

    machine.ok(&format!("berth start {} --timeout 10m", names.join(" "))).unwrap();
    names.iter().for_each(|name| eventually(&"True StartCompleted".to_owned(), || ready(machine, name)));
    machine.ok("systemctl stop berthd").unwrap();
    end_all(machine);
    machine.ok("systemctl start berthd").unwrap();
    all_are_told(machine);
    let unseen = names.map(|name| last_end(machine, name)["invocation"].clone());
    assert!(seen.iter().zip(&unseen).all(|(seen, unseen)| seen != unseen), "{seen:?} and again {unseen:?}");
    uninstall(machine, &names.join(" "));
    nothing_is_left(machine, &before);
}

fn end_all(machine: &Machine) {
    machine.ok(&ENDINGS.map(|(name, what, ..)| what_ends(name, what)).join("\n")).unwrap();
}

/// Ends the service and waits until its first process is gone.
fn what_ends(name: &str, what: &str) -> String {
    format!(
        "id=default.{name}.r1; unit=berth.$id.service; plan=/run/berth/plan/$id.json; \
         pid=$(systemctl show -P MainPID $unit); {what}; tail --pid=$pid -f /dev/null"
    )
}

fn all_are_told(machine: &Machine) {
    for (name, _, stands, ended) in ENDINGS {
        eventually(&format!("{name}: {stands}, {ended}"), || {
            let end = last_end(machine, name);
            let [reason, code, signal] = ["reason", "exitCode", "signal"].map(|part| shown(&end[part]));
            format!("{name}: {}, {reason} {code} {signal}", ready(machine, name))
        });
    }
}

fn last_end(machine: &Machine, name: &str) -> Value {
    bundle(machine, name)["status"]["lastTermination"].clone()
}

/// `-` for what there is not.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
