//! Many services at once, and a supervisor that is replaced by another while it is at work on all of them.

use berth_tests::machine::Machine;

use super::{PARTS, bundle, disturbed, eventually, holdings, nothing_is_left, ready, uninstall_all, unit};

const REPLACE: &str = "DEBIAN_FRONTEND=noninteractive dpkg --install /run/again.deb >/dev/null && rm /run/again.deb";

/// As `Pending 2 Running 1`.
fn operations(machine: &Machine) -> String {
    let count = "sort | uniq -c | awk '{print $2, $1}' | paste -sd' '";
    machine.ok(&format!("berth get operations -o json | jq -r '.items[].status.state' | {count}")).unwrap()
}

/// Every service is there once, from one operation and one start.
fn is_there_once(machine: &Machine, name: &str) {
    eventually(&"True StartCompleted".to_owned(), || ready(machine, name));
    let status = bundle(machine, name)["status"].clone();
    assert_eq!((&status["revision"], &status["restarts"]), (&1.into(), &0.into()), "{name}");
    let own = format!(".items[] | select(.spec.target.name == \"{name}\") | .spec.kind + \" \" + .status.state");
    let all = format!("berth get operations -o json | jq -r '{own}'");
    eventually(&"Install Succeeded".to_owned(), || machine.ok(&all).unwrap());
    let starts = format!("journalctl --output=cat _PID=1 UNIT={} | grep -c '^Started '", unit(machine, name));
    assert_eq!(machine.ok(&starts).unwrap(), "1", "starts of {name}");
}

#[test]
#[ignore = "long tier"]
fn a_crowd_of_services_is_installed_at_once_by_a_supervisor_that_is_replaced_meanwhile() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    let count = if super::is_long() { 200 } else { 5 };
    let names: Vec<String> = (1..=count).map(|number| format!("crowd-{number}")).collect();
    let manifests: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "{{apiVersion: berth.dev/v1, kind: Bundle, metadata: {{name: {name}}}, spec: {{\
                 image: '127.0.0.1:5000/testbox:latest', command: [/usr/bin/sleep, '1000000'], \
                 resources: {{memory: 16Mi}}}}}}"
            )
        })
        .collect();
    machine.put("/run/crowd.yaml", manifests.join("\n---\n").as_bytes(), 0o600).unwrap();
    machine.put("/run/again.deb", &std::fs::read(&PARTS.payload.path).unwrap(), 0o644).unwrap();
    machine.ok("berth apply -f /run/crowd.yaml").unwrap();
    eventually(&true, || operations(machine).contains("Running"));
    machine.ok(REPLACE).unwrap();

    names.iter().for_each(|name| is_there_once(machine, name));
    uninstall_all(machine, names.iter().map(String::as_str));
    nothing_is_left(machine, &before);
}
