//! The machine examines itself, tidies up after itself, and tells of itself without telling secrets.

use std::io::Read;

use berth_tests::machine::Machine;
use serde_json::Value;

use super::{REGISTRY, disturbed, eventually, holdings, install, nothing_is_left, refused, shared, uninstall};

/// Exit code and findings of `berth diagnostics`.
fn examined(machine: &Machine, flags: &str) -> (i32, Vec<Value>) {
    let out = machine.sh(&format!("berth diagnostics {flags} -o json --timeout 10m")).unwrap();
    let diagnosis: Value = serde_json::from_str(&out.text()).unwrap_or_else(|_| panic!("{}", out.errors()));
    (out.code(), diagnosis["findings"].as_array().cloned().unwrap_or_default())
}

/// What was found that is not well, as `leftovers/links: message`.
fn problems(findings: &[Value]) -> Vec<String> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("-").to_owned();
    let shown = |one: &Value| format!("{}/{}: {}", text(one, "area"), text(one, "name"), text(one, "message"));
    findings.iter().filter(|finding| finding["result"] == "problem").map(shown).collect()
}

#[test]
#[ignore = "long tier"]
fn a_healthy_machine_is_found_so_and_what_was_leaked_is_named_and_removed() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    let (code, findings) = examined(machine, "");
    assert_eq!((problems(&findings), code), (Vec::new(), 0));
    let tried: Vec<&str> =
        findings.iter().filter(|one| one["area"] == "loopback").filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(tried, ["image", "installation", "readiness", "volume", "network", "names", "log", "tidy up"]);
    nothing_is_left(machine, &before);

    machine.ok("ip link add bv200-9 type veth peer name leaked").unwrap();
    let disk = machine.ok("truncate -s 16M /run/leaked.img; losetup --find --show /run/leaked.img").unwrap();
    let open = "cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --hash sha256";
    machine.ok(&format!("echo -n left | {open} {disk} berth-nobody")).unwrap();
    machine.ok("echo '{}' >/run/berth/plan/default.nobody.r1.json; nft delete table bridge berth").unwrap();
    let leaked = [
        "berth/packet filter: table bridge berth is gone",
        "leftovers/links: bv200-9",
        "leftovers/mappers: berth-nobody",
        "leftovers/plans: /run/berth/plan/default.nobody.r1.json",
    ];
    for (flags, code) in [("--no-loopback", 1), ("--no-loopback --repair", 1), ("--no-loopback", 0)] {
        let (ended, findings) = examined(machine, flags);
        let expected: &[&str] = if code == 1 { &leaked } else { &[] };
        assert_eq!((problems(&findings), ended), (expected.iter().map(ToString::to_string).collect(), code), "{flags}");
    }
    machine.ok(&format!("losetup -d {disk}; rm /run/leaked.img")).unwrap();
    nothing_is_left(machine, &before);
    a_trial_that_was_cut_short(machine, &before);
    a_setup_that_failed_goes_on(machine);
    nothing_is_left(machine, &before);
}

/// A step that cannot be done is named, and the same command goes on where it was; nothing that is there is replaced.
fn a_setup_that_failed_goes_on(machine: &Machine) {
    let keys = "cd /var/lib/berth && sha256sum token ca.crt keys/ca.key keys/master.cred";
    let before = machine.ok(keys).unwrap();
    machine.ok("systemctl stop berth-dns && systemctl mask --quiet --runtime berth-dns").unwrap();
    let said = refused(machine, "setup");
    assert!(said.contains("name server: ") && said.contains("and then the same command again"), "{said}");
    machine.ok("systemctl unmask --quiet --runtime berth-dns && berth setup && berth setup --repair").unwrap();
    assert_eq!(machine.ok("systemctl is-active berthd berth-dns berth-exec.socket").unwrap(), "active\nactive\nactive");
    assert_eq!(machine.ok(keys).unwrap(), before);
}

/// The supervisor is killed in the middle: the next one removes what was made.
fn a_trial_that_was_cut_short(machine: &Machine, before: &str) {
    let examining = machine.start("berth diagnostics").unwrap();
    let unit = "systemctl list-units --plain --no-legend 'berth.berth-diagnostics.*.service' | wc -l";
    eventually(&"1".to_owned(), || machine.ok(unit).unwrap());
    machine.ok("systemctl kill --signal KILL berthd").unwrap();
    let ended = examining.finish(berth_tests::pace::boots(4.0)).unwrap();
    assert_eq!(ended.code(), 1, "{}", ended.text() + &ended.errors());
    eventually(&true, || {
        let gone = machine.sh("berth get namespace berth-diagnostics").unwrap();
        gone.code() == 3
    });
    nothing_is_left(machine, before);
}

#[test]
#[ignore = "long tier"]
fn an_archive_for_helpers_tells_of_everything_but_secrets() {
    let (_lock, machine) = shared();
    let canary = || machine.ok("od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'").unwrap();
    let canaries = [canary(), canary(), canary(), canary()];
    let [secret, config, variable, argument] = &canaries;
    machine.ok(&format!("printf {secret} | berth secret create helped --from-file key=-")).unwrap();
    machine.ok(&format!("berth configmap create helped --from-literal key={config}")).unwrap();
    let spec = format!(
        "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {{name: helped}}\nspec:\n  \
         image: 127.0.0.1:{REGISTRY}/testbox:latest\n  env: [{{name: VARIABLE, value: {variable}}}]\n  \
         envFrom: [{{secretRef: {{name: helped}}}}, {{configMapRef: {{name: helped}}, prefix: C_}}]\n  \
         command: [/bin/sh, -c, 'echo wrote $VARIABLE $key; sleep 1000000', --token={argument}]\n"
    );
    machine.put("/run/helped.yaml", spec.as_bytes(), 0o644).unwrap();
    install(machine, "helped", "-f /run/helped.yaml");
    machine.ok("rm -f /run/helped.tar.zst && berth support-bundle /run/helped.tar.zst").unwrap();
    assert_eq!(machine.ok("stat -c '%U %a' /run/helped.tar.zst").unwrap(), "root 600");
    let files = unpacked(&machine.get("/run/helped.tar.zst").unwrap());
    for (name, text) in &files {
        for canary in &canaries {
            assert!(!text.contains(canary.as_str()), "{name} holds {canary}");
        }
        assert!(!text.contains("\"error\":") || name.contains("objects/"), "{name}: {text}");
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in ["README.txt", "versions.json", "usage.json", "diagnostics.json", "units.json", "disks.json"] {
        assert!(names.contains(&format!("berth-support/{wanted}").as_str()), "{wanted} is not in {names:?}");
    }
    let of = |wanted: &str| &files.iter().find(|(name, _)| name.ends_with(wanted)).unwrap().1;
    assert!(of("objects/secrets.json").contains("\"key\": \"(redacted)\""));
    assert!(of("objects/bundles.json").contains("VARIABLE") && of("units.json").contains("berth.default.helped.r1"));
    assert!(of("journal/supervisor.txt").contains("is up and listens") && of("rules.json").contains("inet berth"));

    machine.ok("rm /run/helped.tar.zst && berth support-bundle --with-service-logs /run/helped.tar.zst").unwrap();
    let files = unpacked(&machine.get("/run/helped.tar.zst").unwrap());
    let holds: Vec<&str> =
        files.iter().filter(|(_, text)| text.contains(variable.as_str())).map(|(name, _)| name.as_str()).collect();
    assert_eq!(holds, ["berth-support/journal/services.txt"], "what a service wrote is where it was asked for");
    machine.ok("rm /run/helped.tar.zst /run/helped.yaml").unwrap();
    uninstall(machine, "helped");
    machine.ok("berth delete secret helped && berth delete configmap helped").unwrap();
}

/// Names and texts of the files in the archive.
fn unpacked(archive: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(zstd::stream::read::Decoder::new(archive).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let (name, mut text) = (entry.path().unwrap().display().to_string(), String::new());
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}
