//! Edits that are made together: a service gets another name, its data goes over, and who refers to it follows.

use berth_tests::machine::Machine;

use super::{REGISTRY, bundle, install, refused, shared, uninstall};

/// What makes the test image a service that answers with one line.
fn says(text: &str) -> String {
    let script = format!("echo {text} >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp");
    format!(r#"--set 'command=["/usr/bin/sh","-c","{script}"]'"#)
}

/// What the service finds where its variable leads.
fn visited(machine: &Machine) -> String {
    let script = r#"busybox wget -T 5 -q -O - "$URL""#;
    machine.ok(&format!("berth exec refers -- sh -c '{script}'")).unwrap().trim().to_owned()
}

#[test]
#[ignore = "long tier"]
fn a_service_that_is_changed_and_renamed_is_followed_by_who_refers_to_it_and_each_starts_once() {
    let (_lock, machine) = shared();
    let referred = format!("127.0.0.1:{REGISTRY}/testbox:latest --port http:80 {}", says("before"));
    install(machine, "referred", &format!("{referred} --volume data:/data:16Mi"));
    machine.ok("berth exec referred -- sh -c 'echo precious >/data/kept && sync'").unwrap();
    let uid = "berth get volumes -o json | jq -r '.items[] | select(.spec.volume == \"data\") | .metadata.name + \" \" + .metadata.uid' | grep -E '^(referred|followed)-'";
    let before = machine.ok(uid).unwrap();
    let refers = format!(
        r#"127.0.0.1:{REGISTRY}/testbox:latest --set 'command=["/usr/bin/sleep","1000000"]' --env 'URL=http://${{{{referred.HOST}}}}:${{{{referred.PORT}}}}/'"#
    );
    install(machine, "refers", &refers);
    assert_eq!(visited(machine), "before");
    let told = refused(machine, "changeset add nothing referred --rename other");
    assert!(told.contains("not found"), "{told}");

    machine.ok("berth changeset new together").unwrap();
    machine.ok(&format!("berth changeset add together referred {}", says("after"))).unwrap();
    machine.ok("berth changeset add together referred --rename followed").unwrap();
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: together}, stringData: {word: canary-5d1f}}";
    machine.ok(&format!("echo '{secret}' | berth changeset add together -f -")).unwrap();
    machine.ok("berth changeset add together refers --env MODE=new --env 'WORD=${{secret.together}}'").unwrap();
    assert_eq!(visited(machine), "before", "what is staged does not act");
    let plan = machine.ok("berth changeset plan together 2>&1").unwrap();
    assert!(plan.contains("bundle/followed (was referred)") && plan.contains("once each: followed, refers"), "{plan}");
    assert!(plan.contains("volume/followed-data (was referred-data)"), "{plan}");
    machine.ok("berth changeset apply together --wait").unwrap();
    assert_eq!(visited(machine), "after");
    assert_eq!(machine.ok("berth exec refers -- sh -c 'echo $WORD'").unwrap().trim(), "canary-5d1f");
    let shown = machine.ok("berth get changeset together -o json; berth get operations -o json; berth events").unwrap();
    assert!(!shown.contains("canary-5d1f") && !shown.contains("Y2FuYXJ5LTVkMWY"), "{shown}");
    let kept = machine.ok("berth exec followed -- cat /data/kept").unwrap();
    assert_eq!((kept.trim(), machine.ok(uid).unwrap()), ("precious", before.replace("referred-", "followed-")));

    for (name, revision) in [("followed", 1), ("refers", 2)] {
        let status = &bundle(machine, name)["status"];
        assert_eq!((status["revision"].as_u64(), status["restarts"].as_u64()), (Some(revision), Some(0)), "{name}");
        let kinds =
            format!("berth get operations -o json | jq -r '.items[].spec | select(.target.name == \"{name}\").kind'");
        let kinds = machine.ok(&kinds).unwrap();
        let mut kinds: Vec<&str> = kinds.split_whitespace().collect();
        kinds.sort_unstable();
        assert_eq!(kinds, if name == "refers" { vec!["Install", "Update"] } else { vec!["Install"] });
    }
    assert!(refused(machine, "get bundle referred").contains("not found"));
    machine.ok("berth changeset discard together").unwrap();
    uninstall(machine, "refers followed --erase-volumes");
    machine.ok("berth delete secret together").unwrap();
}
