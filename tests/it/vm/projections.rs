//! What services take from ConfigMaps and Secrets: where it is seen, who may see it, and that it is nowhere else.

use berth_tests::machine::Machine;
use berth_tests::pace;

use super::{REGISTRY, bundle, disturbed, eventually, install, property, ready, refused, shared, uninstall, unit};

/// 128 bits from the guest's kernel, so that it is found where it is and nowhere else.
fn canary(machine: &Machine) -> String {
    machine.ok("od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'").unwrap()
}

/// A bundle of the test image that sleeps, with this in its spec.
fn manifest(machine: &Machine, name: &str, spec: &str) -> String {
    let path = format!("/run/{name}.yaml");
    let text = format!(
        "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {{name: {name}}}\nspec:\n  \
         image: 127.0.0.1:{REGISTRY}/testbox:latest\n  command: [/usr/bin/sleep, \"1000000\"]\n{spec}"
    );
    machine.put(&path, text.as_bytes(), 0o644).unwrap();
    format!("-f {path}")
}

/// Runs a script in a service as that user; what it said, whether it ended well or not.
fn inside(machine: &Machine, unit: &str, user: &str, script: &str) -> String {
    let id = unit.trim_start_matches("berth.").trim_end_matches(".service");
    let line = format!("/usr/lib/berth/berth-run exec --user {user} {id} -- sh -c '{script}' 2>&1; true");
    machine.ok(&line).unwrap()
}

/// The first condition that does not hold, as `SecretsProvisioned SecretsPending: message`.
fn stands(machine: &Machine, name: &str) -> String {
    let bundle = bundle(machine, name);
    let conditions = bundle["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let at = conditions.iter().find(|one| one["status"] != "True").cloned().unwrap_or_default();
    let text = |field: &str| at[field].as_str().unwrap_or("-").to_owned();
    format!("{} {}: {}", text("type"), text("reason"), text("message"))
}

#[test]
#[ignore = "long tier"]
fn files_have_the_owner_and_mode_of_the_bundle_and_can_be_read_by_those_alone() {
    let (_lock, machine) = shared();
    machine.ok("printf top | berth secret create keys --from-file key=- --from-literal other=2").unwrap();
    machine.ok("berth configmap create conf --from-literal app.conf='x = 1' --from-literal mode=fast").unwrap();
    let spec = r#"
  user: "33"
  volumeMounts:
  - {mountPath: /etc/app, configMap: {name: conf, items: [{key: app.conf, path: d/main.conf}]}}
  - {mountPath: /run/keys, secret: {name: keys}}
  - mountPath: /run/shared
    secret: {name: keys, items: [{key: key, path: key, mode: "0440"}], defaultMode: "0400"}
    owner: "0:33"
"#;
    install(machine, "files", &manifest(machine, "files", spec));
    let unit = unit(machine, "files");
    let listed =
        inside(machine, &unit, "33", "cd /; stat -c \"%u:%g %a %n\" etc/app/d/main.conf run/keys/* run/shared/*");
    let expected = [
        "33:33 444 etc/app/d/main.conf",
        "33:33 400 run/keys/key",
        "33:33 400 run/keys/other",
        "0:33 440 run/shared/key",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        inside(machine, &unit, "33", "cat /etc/app/d/main.conf; echo; cat /run/keys/key /run/shared/key"),
        "x = 1\ntoptop"
    );
    // Root without capabilities is anybody; so is another user.
    assert_eq!(inside(machine, &unit, "0", "cat /run/shared/key"), "top");
    for user in ["0", "1"] {
        let said = inside(machine, &unit, user, "cat /etc/app/d/main.conf; cat /run/keys/key");
        assert!(said.starts_with("x = 1") && said.contains("Permission denied"), "as {user}: {said}");
    }
    for place in ["/etc/app", "/run/keys"] {
        let options = inside(machine, &unit, "33", &format!("grep \" {place} \" /proc/mounts | cut -d\" \" -f3,4"));
        for option in ["tmpfs", "ro", "nosuid", "nodev", "noexec", "noswap"] {
            assert!(options.split([' ', ',']).any(|given| given == option), "{place}: {options}");
        }
    }
    assert!(inside(machine, &unit, "33", "touch /run/keys/x").contains("Read-only file system"));
    uninstall(machine, "files");

    // Root that drops its rights later is given the files of whom it becomes.
    let spec = "\n  volumeMounts: [{mountPath: /run/keys, secret: {name: keys}, owner: www-data}]\n";
    install(machine, "dropped", &manifest(machine, "dropped", spec));
    let unit = super::unit(machine, "dropped");
    assert_eq!(
        inside(machine, &unit, "www-data", "cat /run/keys/key; stat -c \" %U %a\" /run/keys/key"),
        "top www-data 400"
    );
    uninstall(machine, "dropped");
    machine.ok("berth delete secret keys && berth delete configmap conf").unwrap();
}

#[test]
#[ignore = "long tier"]
fn variables_reach_the_first_process_commands_and_probes_alike() {
    let (_lock, machine) = shared();
    machine.ok("printf s3cret | berth secret create vars --from-file PASSWORD=-").unwrap();
    machine.ok("berth configmap create vars --from-literal MODE=fast --from-literal LEVEL=low").unwrap();
    let spec = r#"
  envFrom: [{configMapRef: {name: vars}, prefix: APP_}, {secretRef: {name: vars}}]
  env:
  - {name: APP_LEVEL, value: high}
  - {name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: vars, key: PASSWORD}}}
  - {name: ABSENT, valueFrom: {secretKeyRef: {name: vars, key: nope, optional: true}}}
  health:
    exec: {command: [sh, -c, '[ "$APP_MODE $APP_LEVEL $PASSWORD $DB_PASSWORD" = "fast high s3cret s3cret" ]']}
    stableWindow: 0s
"#;
    // It becomes ready only if the probe sees them.
    install(machine, "vars", &manifest(machine, "vars", spec));
    let unit = unit(machine, "vars");
    let main = property(machine, &unit, "MainPID");
    let ours = "grep -E \"^(APP_|PASSWORD|DB_|ABSENT)\" | sort";
    let first = machine.ok(&format!("tr '\\0' '\\n' </proc/$(pgrep -P {main})/environ | {ours}")).unwrap();
    assert_eq!(
        first.lines().collect::<Vec<_>>(),
        ["APP_LEVEL=high", "APP_MODE=fast", "DB_PASSWORD=s3cret", "PASSWORD=s3cret"]
    );
    assert_eq!(machine.ok(&format!("berth exec vars -- sh -c 'env | {ours}'")).unwrap(), first);
    uninstall(machine, "vars");
    machine.ok("berth delete secret vars && berth delete configmap vars").unwrap();
}

#[test]
#[ignore = "long tier"]
fn a_missing_secret_is_told_and_the_service_starts_as_soon_as_it_is_there() {
    let (_lock, machine) = shared();
    let spec = "\n  env: [{name: A, valueFrom: {secretKeyRef: {name: later, key: a}}}]\n";
    let line = manifest(machine, "patient", spec);
    let said = refused(machine, &format!("install --name patient {line} --timeout 10m"));
    assert!(said.contains("SecretsPending") && said.contains("Secret later is not there"), "{said}");
    assert!(said.contains("berth secret create later") && said.contains("goes on by itself"), "{said}");
    let pending =
        "SecretsProvisioned SecretsPending: Secret later is not there; create it with `berth secret create later`";
    eventually(&pending.to_owned(), || stands(machine, "patient"));

    machine.ok("printf x | berth secret create later --from-file b=-").unwrap();
    eventually(&true, || stands(machine, "patient").contains("Secret later has no key a; add a to it"));
    machine.ok("berth secret set later --generate a=12").unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "patient"));
    assert_eq!(machine.ok("berth exec patient -- sh -c 'echo ${#A}'").unwrap(), "12");

    // What serves is left alone when its secret goes; a stop would then be for longer.
    machine.ok("berth delete secret later").unwrap();
    eventually(&true, || {
        stands(machine, "patient").starts_with("Ready Degraded: It serves, but could not start again")
    });
    let said = refused(machine, "restart patient --timeout 10m");
    assert!(said.contains("Secret later is not there"), "{said}");
    assert_eq!(machine.ok("berth exec patient -- sh -c 'echo ${#A}'").unwrap(), "12");
    uninstall(machine, "patient");
}

#[test]
#[ignore = "long tier"]
fn a_change_makes_a_new_revision_and_systemd_starts_it_again_with_the_same_values() {
    let (_alone, machine) = disturbed();
    let before = super::holdings(machine);
    machine.ok("printf one | berth secret create rotated --from-file key=-").unwrap();
    let line = manifest(machine, "turning", "\n  volumeMounts: [{mountPath: /k, secret: {name: rotated}}]\n");
    install(machine, "turning", &line);
    let read = || machine.sh("berth exec turning -- cat /k/key").unwrap().text();
    assert_eq!((read().as_str(), bundle(machine, "turning")["status"]["revision"].as_u64()), ("one", Some(1)));

    // What changes nothing of what it takes makes no revision.
    machine.ok("berth secret set rotated --from-literal key=one").unwrap();
    machine.ok("printf two | berth secret set rotated --from-file key=-").unwrap();
    eventually(&"two".to_owned(), read);
    eventually(&"True StartCompleted".into(), || ready(machine, "turning"));
    assert_eq!(bundle(machine, "turning")["status"]["revision"].as_u64(), Some(2));

    let unit = unit(machine, "turning");
    let main = property(machine, &unit, "MainPID");
    machine.ok("systemctl stop berthd").unwrap();
    machine.ok(&format!("systemctl kill --kill-whom=main --signal=KILL {unit}")).unwrap();
    eventually(&true, || ![&main, "0"].contains(&property(machine, &unit, "MainPID").as_str()));
    eventually(&"two".to_owned(), || inside(machine, &unit, "0", "cat /k/key"));
    machine.ok("systemctl start berthd").unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "turning"));
    uninstall(machine, "turning");
    machine.ok("berth delete secret rotated").unwrap();
    eventually(&before, || super::holdings(machine));
}

/// Lists where the lines of `/run/patterns` are found: files of the machine, arguments, variables, systemd, the
/// journal, and what the API tells whom.
const SEARCH: &str = r#"
    export LC_ALL=C
    found() { grep -aqFf /run/patterns && echo "$1"; }
    journalctl --sync; sync
    grep -raFlf /run/patterns --exclude=patterns /var/lib/berth /var/log /run /tmp /var/tmp /etc /dev/shm 2>/dev/null
    journalctl --no-pager --output=export --all | found journal
    for pid in /proc/[0-9]*; do
        found "arguments of $(cat $pid/comm 2>/dev/null)" <$pid/cmdline 2>/dev/null
        found "variables in $(sed 's|.*/berth.slice/||' $pid/cgroup 2>/dev/null)" <$pid/environ 2>/dev/null
    done
    systemctl show '*' --all --no-pager | found systemd
    for kind in bundles revisions operations events secrets configmaps; do
        berth get $kind -A -o yaml | found "berth get $kind"
        berth get $kind -A | found "berth get $kind"
    done
    for path in api/v1/secrets api/v1/events apis/berth.dev/v1/bundles apis/berth.dev/v1/revisions apis/berth.dev/v1/operations metrics; do
        curl -s --unix-socket /run/berth/api.sock http://x/$path | found $path
        curl -s -m 2 --unix-socket /run/berth/api.sock "http://x/$path?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan" | found "watch of $path"
    done
    berth describe bundle canaries | found describe; berth status canaries | found status
    true"#;

#[test]
fn a_secret_is_in_the_service_and_in_two_files_of_root_in_memory_and_nowhere_else() {
    let (_lock, machine) = shared();
    let (env, file, from) = (canary(machine), canary(machine), canary(machine));
    let made = [(&env, "env"), (&file, "file"), (&from, "from")];
    for (value, key) in made {
        let verb = if key == "env" { "create" } else { "set" };
        let words = ["berth", "secret", verb, "canaries", "--from-file", &format!("{key}=-")];
        let out = machine.channel().run(&words, value.as_bytes(), pace::boots(1.0)).unwrap();
        assert!(out.success(), "{}", out.errors());
    }
    let spec = r#"
  env: [{name: ENV, valueFrom: {secretKeyRef: {name: canaries, key: env}}}]
  envFrom: [{secretRef: {name: canaries}, prefix: FROM_}]
  volumeMounts: [{mountPath: /run/canaries, secret: {name: canaries, items: [{key: file, path: file}]}}]
"#;
    install(machine, "canaries", &manifest(machine, "canaries", spec));
    let unit = unit(machine, "canaries");
    assert_eq!(
        inside(machine, &unit, "0", "printf $ENV$FROM_from; cat /run/canaries/file"),
        format!("{env}{from}{file}")
    );
    assert!(machine.ok("findmnt --noheadings --output OPTIONS /run/berth").unwrap().contains("noswap"));

    let look = |texts: &[&str]| -> Vec<String> {
        let all = texts.iter().map(|text| format!("{text}\n{}\n", base64(machine, text))).collect::<String>();
        machine.put("/run/patterns", all.as_bytes(), 0o600).unwrap();
        let found = machine.ok(SEARCH).unwrap();
        machine.ok("rm /run/patterns").unwrap();
        let mut places: Vec<String> = found.lines().map(str::to_owned).collect();
        places.extend(on_disks(machine, &all));
        places.sort();
        places.dedup();
        places
    };
    // The search does find what is there: a name in the bundle is no secret.
    let open = look(&["FROM_"]);
    for place in ["data.qcow2", "berth get bundles", "apis/berth.dev/v1/revisions"] {
        assert!(open.iter().any(|found| found == place), "{place} was not searched: {open:?}");
    }
    let id = unit.trim_start_matches("berth.").trim_end_matches(".service");
    let (config, provided) =
        (format!("/run/berth/container/{id}/config.json"), format!("/run/berth/provided/{id}.json"));
    let own = format!("variables in berth-default.slice/{unit}/payload");
    assert_eq!(look(&[&env, &file, &from]), [config.clone(), provided.clone(), own]);
    for path in [config, provided] {
        assert_eq!(machine.ok(&format!("stat -c '%u %a' {path}")).unwrap(), "0 600");
    }

    // Nothing stays when it goes.
    uninstall(machine, "canaries");
    machine.ok("berth delete secret canaries").unwrap();
    assert_eq!(look(&[&env, &file, &from]), [""; 0]);
}

/// Looks through all that was ever written to the machine's disks, as somebody does who carries them away.
fn on_disks(machine: &Machine, patterns: &str) -> Vec<String> {
    let is_told = |disk: &&str| {
        let bytes = std::fs::read(machine.home().join(disk)).unwrap();
        patterns.lines().any(|pattern| holds(&bytes, pattern.as_bytes()))
    };
    ["root.qcow2", "data.qcow2"].into_iter().filter(is_told).map(str::to_owned).collect()
}

fn holds(bytes: &[u8], pattern: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return false };
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

fn base64(machine: &Machine, text: &str) -> String {
    machine.channel().run(&["base64", "-w0"], text.as_bytes(), pace::boots(1.0)).unwrap().text()
}
