//! Schedules on a machine whose supervisor is restarted and whose clock is set.

use berth_tests::machine::Machine;

use super::{disturbed, eventually, refused};

const HOURLY: &str = "{kind: Schedule, apiVersion: berth.dev/v1, metadata: {name: hourly, namespace: default}, \
                      spec: {interval: 1h, action: {kind: cleanup}}}";

#[test]
#[ignore = "long tier"]
fn a_schedule_survives_restarts_and_runs_when_the_clock_is_set_past_its_time() {
    let (_alone, machine) = disturbed();
    machine.ok(&format!("echo '{HOURLY}' | berth apply -f -")).unwrap();
    eventually(&true, || !status(machine, "nextRun").is_empty());
    let next = status(machine, "nextRun");
    let told = machine.ok("berth get schedules").unwrap();
    assert!(told.contains("every 1h") && told.contains("never") && told.contains("20 3 * * * UTC"), "{told}");
    machine.ok("systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth get schedules").unwrap().success());
    assert_eq!((status(machine, "nextRun"), status(machine, "lastRun")), (next, String::new()));
    machine.ok("date --set '3 hours' >/dev/null").unwrap();
    eventually(&"Succeeded".to_owned(), || status(machine, "lastResult"));
    let operation = status(machine, "lastOperation");
    let actor = machine.ok(&format!("berth get operation {operation} -o json | jq -r .spec.actor.source")).unwrap();
    assert_eq!(actor, "schedule");
    let events = machine.ok("berth describe schedule hourly").unwrap();
    assert!(events.contains("MissedRun") && events.contains("3 runs were missed"), "{events}");
    machine.ok("date --set '3 hours ago' >/dev/null").unwrap();
    machine.ok("berth delete schedule hourly").unwrap();
    let said = refused(machine, "delete schedule cleanup");
    assert!(said.contains("suspend it instead"), "{said}");
}

fn status(machine: &Machine, field: &str) -> String {
    machine.ok(&format!("berth get schedule hourly -o json | jq -r '.status.{field} // empty'")).unwrap()
}
