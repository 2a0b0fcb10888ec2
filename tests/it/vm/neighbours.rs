//! Who reaches whom over the machine's network.

use berth_tests::machine::Machine;

use super::{bundle, install, shared, uninstall};

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
    install(machine, "asker", &format!("{} --port http:80 --set 'dependsOn=[\"neighbour\"]'", line("the asker")));
    install(machine, "neighbour", &format!("{} --publish 8085:80", line("the neighbour")));
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

/// The page, or why there is none. What is dropped on the way is known only by waiting in vain.
fn visit(machine: &Machine, who: &str, url: &str) -> String {
    let way = if who == "the machine" { "" } else { "/usr/lib/berth/berth-run exec default.asker.r1 -- " };
    let out = machine.sh(&format!("{way}busybox wget -T 5 -q -O - {url}")).unwrap();
    if out.success() { out.text().trim().to_owned() } else { out.errors() }
}
