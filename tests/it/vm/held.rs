//! Operations that wait for others or for somebody's word, and steps that are tried again.

use berth_tests::machine::Machine;

use super::{disturbed, eventually, install, property, uninstall, unit};

const SLEEPS: &str = r#"127.0.0.1:5000/testbox:latest --set 'command=["/usr/bin/sleep","1000000"]'"#;

/// Asks for it without waiting; the name of the operation.
fn asked(machine: &Machine, line: &str) -> String {
    machine.ok(&format!("berth {line} --no-wait -o json 2>/dev/null | jq -r .metadata.name")).unwrap()
}

fn operation(machine: &Machine, name: &str, field: &str) -> String {
    machine.ok(&format!("berth get operation {name} -o json | jq -r '{field} // empty'")).unwrap()
}

fn settings(machine: &Machine, operations: &str) {
    let settings = "kind: Settings, apiVersion: berth.dev/v1, metadata: {name: berth}";
    machine.ok(&format!("echo '{{{settings}, spec: {{operations: {operations}}}}}' | berth apply -f -")).unwrap();
}

#[test]
#[ignore = "long tier"]
fn what_is_held_waits_for_a_word_through_a_restart_with_what_comes_after_it_and_a_registry_is_asked_again() {
    let (_alone, machine) = disturbed();
    ["one", "two"].iter().for_each(|name| install(machine, name, SLEEPS));
    settings(machine, "{hold: [Restart]}");
    let run = |name: &str| property(machine, &unit(machine, name), "InvocationID");
    let before = run("one");
    let held = asked(machine, "restart one");
    let after = asked(machine, &format!("update two --after {held}"));
    eventually(&format!("{held} has to succeed first"), || operation(machine, &after, ".status.waiting"));
    machine.ok("systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth operations").unwrap().success());
    assert_eq!(operation(machine, &held, ".status.state"), "Held");
    let shown = machine.ok(&format!("berth operation show {held}")).unwrap();
    assert!(shown.contains(&format!("berth operation release {held}")), "{shown}");
    assert!(machine.ok(&format!("berth operation show {after}")).unwrap().contains(&held));
    assert_eq!(run("one"), before, "nothing is restarted yet");
    machine.ok(&format!("berth operation release {held} --wait")).unwrap();
    eventually(&"Succeeded".to_owned(), || operation(machine, &after, ".status.state"));
    assert_ne!(run("one"), before);

    let rejected = asked(machine, "restart one");
    let stop = asked(machine, &format!("stop two --after {rejected}"));
    machine.ok(&format!("berth operation reject {rejected} --reason 'not today'")).unwrap();
    assert_eq!(operation(machine, &rejected, ".status.state"), "Cancelled");
    assert!(operation(machine, &rejected, ".status.error.message").ends_with("rejected it: not today"));
    eventually(&"Failed".to_owned(), || operation(machine, &stop, ".status.state"));
    let starts = machine.ok("berth get bundle two -o json | jq .spec.start").unwrap();
    assert_eq!(starts, "true", "what requires another wants nothing before that has succeeded");
    settings(machine, "{hold: []}");

    // Nobody listens there.
    machine.ok("berth install 127.0.0.1:5999/testbox:latest --name flaps --no-wait").unwrap();
    let attempts = "berth get operations -o json | jq -r \
                    '[.items[] | select(.spec.target.name == \"flaps\").status.steps[]?.attempt] | max'";
    eventually(&"4".to_owned(), || machine.ok(attempts).unwrap());
    uninstall(machine, "one two flaps");
}
