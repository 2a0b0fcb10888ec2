//! Who reaches whom over the machine's network.

use berth_tests::machine::Machine;

use super::{bundle, eventually, install, property, ready, shared, uninstall, unit};

/// A service that answers with one line on port 80.
fn line(text: &str) -> String {
    format!(r#"127.0.0.1:5000/testbox:latest --set 'args=["http","{text}"]'"#)
}

/// Whether whoever stands on the left is answered by what stands on the right: the asker has declared that it depends
/// on the neighbour, whichever way it goes there. Every pair and port is tried in `network`.
const REACHES: [(&str, &str, bool); 5] = [
    ("the machine", "the neighbour", true),
    ("the machine", "the stranger", true),
    ("the asker", "the neighbour", true),
    ("the asker", "the neighbour's published port", true),
    ("the asker", "the stranger", false),
];

#[test]
fn a_service_reaches_those_it_depends_on_and_none_of_another_namespace() {
    let (_lock, machine) = shared();
    machine
        .ok(r#"echo '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "abroad"}}' | berth apply -f -"#)
        .unwrap();
    installed_in_order(machine);
    install(machine, "stranger", &format!("{} --port http:80 -n abroad", line("the stranger")));
    let neighbour = bundle(machine, "neighbour")["status"]["address"].as_str().unwrap().to_owned();
    let stranger = machine.ok("berth -n abroad get bundle stranger -o json | jq -r .status.address").unwrap();
    for (who, whom, reached) in REACHES {
        let (url, answer) = match whom {
            "the neighbour" => (format!("http://{neighbour}/"), whom),
            "the stranger" => (format!("http://{stranger}/"), whom),
            _ => ("http://10.0.2.15:8085/".to_owned(), "the neighbour"),
        };
        let got = visit(machine, who, &url);
        assert_eq!(got == answer, reached, "{who} asks {whom} at {url} and gets {got:?}");
    }
    uninstall(machine, "asker neighbour");
    machine.ok("berth -n abroad uninstall stranger && berth delete namespace abroad").unwrap();
}

/// The asker depends on the neighbour, and starts when that answers, not when it runs.
fn installed_in_order(machine: &Machine) {
    let script = "until [ -e /tmp/go ]; do busybox sleep 0.2; done; echo the neighbour >/tmp/index.html; \
                  exec busybox httpd -f -p 80 -h /tmp";
    let slow = format!(r#"127.0.0.1:5000/testbox:latest --set 'command=["/usr/bin/sh","-c","{script}"]'"#);
    install(machine, "neighbour", &format!("--no-wait {slow} --publish 8085:80"));
    let asker = format!("{} --port http:80 --set 'dependsOn=[\"neighbour\"]'", line("the asker"));
    install(machine, "asker", &format!("--no-wait {asker}"));
    let waits = "berth describe bundle asker | grep -o 'waits until bundle neighbour is ready' | head -n 1";
    eventually(&"waits until bundle neighbour is ready".to_owned(), || machine.ok(waits).unwrap());
    let runs = "systemctl list-units --no-legend --plain 'berth.default.asker.*' | grep -c service; true";
    assert_eq!(machine.ok(runs).unwrap(), "0", "the asker does not wait");
    eventually(&true, || {
        machine.sh("/usr/lib/berth/berth-run exec default.neighbour.r1 -- sh -c ': >/tmp/go'").unwrap().success()
    });
    for name in ["neighbour", "asker"] {
        eventually(&"True StartCompleted".to_owned(), || ready(machine, name));
    }
    assert_eq!(property(machine, &unit(machine, "asker"), "NRestarts"), "0");
}

/// The page, or why there is none. What is dropped on the way is known only by waiting in vain.
fn visit(machine: &Machine, who: &str, url: &str) -> String {
    let way = if who == "the machine" { "" } else { "/usr/lib/berth/berth-run exec default.asker.r1 -- " };
    let out = machine.sh(&format!("{way}busybox wget -T 5 -q -O - {url}")).unwrap();
    if out.success() { out.text().trim().to_owned() } else { out.errors() }
}
