//! Services that misbehave stay inside their limits and say why they ended.

use super::{berth, install, namespace, ready, shared, until};

/// A bundle of the testbox with these arguments and limits, as a manifest.
fn manifest(name: &str, args: &str, more: &str) -> String {
    format!(
        r#"{{"apiVersion":"berth.dev/v1","kind":"Bundle","metadata":{{"name":"{name}","namespace":"limits"}},"spec":{{"image":"127.0.0.1:5000/testbox:latest","args":{args}{more}}}}}"#
    )
}

#[test]
fn a_memory_hog_is_killed_and_named_and_its_neighbour_runs_on() {
    let machine = shared();
    namespace(machine, "limits");
    install(machine, "limits", "neighbour", "testbox:latest", "");
    let pid = "systemctl show berth.limits.neighbour.r1.service -P MainPID";
    let before = machine.ok(pid).unwrap();

    let hog = manifest("hog", r#"["hog","64"]"#, r#","resources":{"memory":"32Mi"},"restart":"never""#);
    machine.ok(&format!("echo '{hog}' | berth apply -f -")).unwrap();
    until(machine, "berth get bundle hog -n limits -o json | jq -e \".status.lastTermination.reason == \\\"OOMKilled\\\"\" >/dev/null || berth events -n limits | grep -q OOMKilled");

    let forks = manifest("forks", r#"["forks"]"#, r#","resources":{"pids":32},"restart":"never""#);
    machine.ok(&format!("echo '{forks}' | berth apply -f -")).unwrap();
    until(machine, "journalctl --no-pager -o cat BERTH_BUNDLE=forks | grep -Eq \"(2[0-9]|3[0-9]) processes\"");
    let most = machine.ok("journalctl --no-pager -o cat BERTH_BUNDLE=forks | grep -c ' processes' || true").unwrap();
    assert!(most.parse::<u32>().unwrap() <= 32, "{most} processes were counted");

    assert_eq!(machine.ok(pid).unwrap(), before, "the neighbour was not touched");
    for name in ["hog", "forks", "neighbour"] {
        assert!(berth(machine, &format!("uninstall {name} -n limits")).success());
    }
}

#[test]
fn a_service_that_ends_is_told_with_its_exit_code_and_its_last_words() {
    let machine = shared();
    namespace(machine, "ends");
    let words = "install 127.0.0.1:5000/testbox:latest --name ends -n ends --set spec.args='[\"exit\",\"3\"]' --timeout 3m";
    let out = berth(machine, words);
    assert_eq!(out.code(), 1, "{}{}", out.text(), out.errors());
    for word in ["exit code 3", "ending with 3", "journalctl"] {
        assert!(out.errors().contains(word), "{word} is not in\n{}", out.errors());
    }
    until(machine, &ready("ends", "ends", "False", "StartFailed"));
    let events = machine.ok("berth events -n ends").unwrap();
    assert!(events.contains("exit code 3"), "{events}");
    assert!(berth(machine, "uninstall ends -n ends").success());
}
