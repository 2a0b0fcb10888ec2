//! How a service ended, told right whoever ended it, and whether or not the supervisor was there to see it.

use berth_tests::machine::Machine;

use super::{bundle, eventually, install, own, ready, uninstall, unit};

const TESTBOX: &str = "127.0.0.1:5000/testbox:latest --set restart=never";

/// What is done to a running service's `$unit` with the first process `$pid`, and how its end is then told: the reason
/// of `Ready`, the reason, exit code and signal of the last end.
const ENDINGS: [(&str, &str, &str); 6] = [
    ("systemctl stop $unit", "False StoppedByOperator", "StoppedByOperator 0 -"),
    ("kill -TERM $pid", "False Degraded", "Completed 0 -"),
    ("kill -USR1 $pid", "False Degraded", "Error 3 -"),
    ("kill -KILL $pid", "False Degraded", "Error - KILL"),
    ("systemctl kill --signal=KILL $unit", "False Degraded", "Error - KILL"),
    ("systemctl restart $unit", "True StartCompleted", "StoppedByOperator 0 -"),
];

/// The same while there is no supervisor to see it; what ends it comes first, so that only systemd and the unit's own
/// records know.
fn unseen(what: &str) -> String {
    let gone = "timeout 60 sh -c 'while [ -e /proc/'$pid' ]; do sleep 0.1; done'";
    format!("systemctl stop berthd; {what}; {gone}; systemctl start berthd")
}

#[test]
fn an_end_is_told_by_who_asked_for_it_and_how_it_came_whether_or_not_the_supervisor_saw_it() {
    let (mut machine, _alone) = own("endings");
    for (what, stands, ended) in ENDINGS {
        check(&machine, what, stands, ended);
        check(&machine, &unseen(what), stands, ended);
    }
    machine.power_off().unwrap();
}

fn check(machine: &Machine, what: &str, stands: &str, ended: &str) {
    eprintln!("{what}");
    install(machine, "ending", TESTBOX);
    let unit = unit(machine, "ending");
    machine.ok(&format!("unit={unit}; pid=$(systemctl show -P MainPID $unit); {what}")).unwrap();
    eventually(&format!("{stands}, {ended}"), || format!("{}, {}", ready(machine, "ending"), last_end(machine)));
    uninstall(machine, "ending");
}

/// Reason, exit code and signal; `-` for what there is not.
fn last_end(machine: &Machine) -> String {
    let end = bundle(machine, "ending")["status"]["lastTermination"].clone();
    let part = |name: &str| match &end[name] {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("{} {} {}", part("reason"), part("exitCode"), part("signal"))
}
