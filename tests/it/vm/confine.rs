//! What holds a service in: its first process, its streams, and everything it may not do, seen in the container's own
//! processes and in commands that are run in it.

use berth_tests::machine::Machine;

use super::{REGISTRY, bundle, eventually, install, page, property, ready, refused, shared, uninstall, unit};

/// What a container that begins as root has, and no bit more.
const CAPABILITIES: &str = "00000000000005fb";

fn testbox(command: &str) -> String {
    format!("127.0.0.1:{REGISTRY}/testbox:latest --set 'command={command}'")
}

/// Runs a script in the container of a service; what it said, whether it ended well or not.
fn inside(machine: &Machine, unit: &str, script: &str) -> String {
    let id = unit.trim_start_matches("berth.").trim_end_matches(".service");
    machine.ok(&format!("/usr/lib/berth/berth-run exec {id} -- sh -c '{script}' 2>&1; true")).unwrap()
}

fn output(machine: &Machine, unit: &str) -> String {
    machine.ok(&format!("journalctl --no-pager --output=cat _TRANSPORT=stdout _SYSTEMD_UNIT={unit}")).unwrap()
}

fn termination(machine: &Machine, name: &str) -> (i64, String) {
    let last = &bundle(machine, name)["status"]["lastTermination"];
    (last["exitCode"].as_i64().unwrap_or(-1), last["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_first_process_is_small_reaps_what_others_leave_and_ends_when_it_is_asked() {
    let (_lock, machine) = shared();
    install(machine, "plain", &testbox(r#"["/usr/bin/sleep","1000000"]"#));
    let unit = unit(machine, "plain");
    let first = property(machine, &unit, "MainPID");
    assert_eq!(machine.ok(&format!("cat /proc/{first}/comm")).unwrap(), "berth-init");
    let resident = machine.ok(&format!("awk '/^VmRSS/ {{print $2}}' /proc/{first}/status")).unwrap();
    assert!(resident.parse::<u64>().unwrap() < 100, "{resident} kB are resident");

    inside(machine, &unit, "(true & sleep 0.2 &)");
    let processes = format!(
        "ps -o stat=,comm= --pid $(paste -sd, /sys/fs/cgroup$(systemctl show --property ControlGroup --value {unit})/payload/cgroup.procs)"
    );
    eventually(&2, || machine.ok(&processes).unwrap().lines().count());
    assert!(!machine.ok(&processes).unwrap().contains('Z'));

    // `sleep` knows nothing of SIGTERM: as the first process itself it would not hear it.
    machine.ok(&format!("systemctl stop {unit}")).unwrap();
    assert_eq!(property(machine, &unit, "Result"), "success");
    assert_eq!(property(machine, &unit, "ExecMainStatus"), "143");
    eventually(&"False StoppedByOperator".into(), || ready(machine, "plain"));
    uninstall(machine, "plain");
}

#[test]
#[ignore = "long tier"]
fn how_a_program_ended_is_told_through_its_first_process() {
    let (_lock, machine) = shared();
    for (name, script, code) in [("ends", "exit 3", 3), ("dies", "kill -SEGV $$", 139)] {
        let command = testbox(&format!(r#"["/usr/bin/sh","-c","{script}"]"#));
        machine.ok(&format!("berth install --name {name} {} --set restart=never --no-wait", command)).unwrap();
        eventually(&(code, "Error".to_owned()), || termination(machine, name));
        uninstall(machine, name);
    }
}

#[test]
#[ignore = "long tier"]
fn a_web_server_writes_to_its_streams_by_name_even_after_it_dropped_its_rights() {
    let (_lock, machine) = shared();
    let script = "busybox sed -i \"s, off;, /dev/stdout;,; s, stderr , /dev/stderr ,\" /etc/nginx/nginx.conf; exec nginx -g \"daemon off;\"";
    let command = format!(r#"["/usr/bin/busybox","sh","-c",{}]"#, serde_json::Value::from(script));
    install(machine, "named", &format!("127.0.0.1:{REGISTRY}/nginx:1 --publish 8083:80 --set 'command={command}'"));
    let unit = unit(machine, "named");
    assert_eq!(page(machine, 8083), "nginx under Berth, image 1");
    eventually(&1, || output(machine, &unit).matches("GET / HTTP").count());

    // Now the workers, who are www-data, open the names themselves.
    let master = property(machine, &unit, "MainPID");
    machine.ok(&format!("kill -USR1 $(pgrep -P {master})")).unwrap();
    eventually(&true, || {
        page(machine, 8083);
        output(machine, &unit).matches("GET / HTTP").count() >= 3
    });
    assert!(!output(machine, &unit).contains("failed"), "{}", output(machine, &unit));
    uninstall(machine, "named");
}

#[test]
#[ignore = "long tier"]
fn output_is_whole_to_its_last_line_and_a_user_that_is_not_root_opens_its_streams_too() {
    let (_lock, machine) = shared();
    let script = "echo named >/dev/stdout; echo other >/proc/self/fd/2; seq 1 5000; echo the last line";
    let command = testbox(&format!(r#"["/usr/bin/sh","-c","{script}"]"#));
    machine.ok(&format!("berth install --name whole {command} --set user=33 --set restart=never --no-wait")).unwrap();
    eventually(&(0, "Completed".to_owned()), || termination(machine, "whole"));
    // A service that ends is tried again; the first of its runs is looked at.
    let first = "berth logs whole | head -n 5003";
    eventually(&"5003".to_owned(), || machine.ok(&format!("{first} | wc -l")).unwrap().trim().to_owned());
    let lines = machine.ok(first).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        (lines[0], lines[1], lines[2], lines[5001], lines[5002]),
        ("named", "other", "1", "5000", "the last line")
    );
    uninstall(machine, "whole");
}

#[test]
fn the_containers_processes_and_commands_in_it_are_held_alike() {
    let (_lock, machine) = shared();
    install(
        machine,
        "held",
        &testbox(r#"["/usr/bin/sh","-c","unshare -U true; mount -t tmpfs none /mnt; sleep 1000000 & wait"]"#),
    );
    let unit = unit(machine, "held");
    let main = property(machine, &unit, "MainPID");
    let program = machine.ok(&format!("pgrep -P {main}")).unwrap();
    let base = machine.ok(&format!("awk '{{print $2}}' /proc/{main}/uid_map")).unwrap();
    assert!(base.parse::<u64>().unwrap() >= 65536, "root inside is {base} outside");

    let held =
        "grep -E \"^(Seccomp|NoNewPrivs|CapEff|CapPrm|CapBnd|CapAmb):\" /proc/self/status; cat /proc/self/uid_map";
    let wanted = inside(machine, &unit, held);
    for line in
        ["Seccomp:\t2", "NoNewPrivs:\t1", &format!("CapEff:\t{CAPABILITIES}"), &format!("CapBnd:\t{CAPABILITIES}")]
    {
        assert!(wanted.contains(line), "{wanted}");
    }
    let fields: Vec<&str> = wanted.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(fields, ["0", base.as_str(), "65536"]);
    for pid in [&main, &program] {
        let own = machine.ok(&format!("sh -c '{}'", held.replace("/self/", &format!("/{pid}/")))).unwrap();
        assert_eq!(own.split_whitespace().collect::<Vec<_>>(), wanted.split_whitespace().collect::<Vec<_>>());
    }

    let said = output(machine, &unit);
    assert_eq!(
        said.matches("Operation not permitted").count() + said.matches("permission denied").count(),
        2,
        "{said}"
    );
    for (script, answer) in [
        ("unshare -U true", "Operation not permitted"),
        ("mount -t tmpfs none /mnt", "permission denied"),
        ("mknod /tmp/null c 1 3", "Operation not permitted"),
        ("echo 1 >/proc/sys/vm/drop_caches", "Read-only file system"),
        ("echo h >/proc/sysrq-trigger", "Read-only file system"),
        ("dmesg", "not permitted"),
        ("hostname elsewhere", "not permitted"),
    ] {
        let said = inside(machine, &unit, script);
        assert!(said.contains(answer), "{script}: {said}");
    }
    assert_eq!(inside(machine, &unit, "cat /proc/kcore /proc/keys /proc/timer_list; ls /sys/firmware"), "");
    let devices = inside(machine, &unit, "find /dev -type b -o -type c");
    let known = ["null", "zero", "full", "random", "urandom", "tty", "console", "pts/ptmx", "pts/0"];
    let name = |device: &str| device.trim_start_matches("/dev/").to_owned();
    assert!(devices.lines().all(|device| known.contains(&name(device).as_str())), "{devices}");
    uninstall(machine, "held");
}

#[test]
#[ignore = "long tier"]
fn a_device_is_given_to_who_asked_for_it_and_to_nobody_else() {
    let (_lock, machine) = shared();
    let asking = |device: &str, user: &str| {
        testbox(r#"["/usr/bin/sleep","1000000"]"#)
            + &format!(" --set 'security.devices=[\"{device}\"]' --set user={user}")
    };
    install(machine, "given", &asking("/dev/cpu_dma_latency", "1000"));
    let given = unit(machine, "given");
    let read = "head -c 4 /dev/cpu_dma_latency | wc -c";
    assert_eq!(inside(machine, &given, read), "4");
    let denied = inside(machine, &given, "mkdir -p /tmp/x; mknod /tmp/x/rtc c 254 0; cat /dev/rtc0");
    assert!(denied.contains("not permitted") && denied.contains("No such file"), "{denied}");
    machine.ok(&format!("systemctl restart {given}")).unwrap();
    assert_eq!(inside(machine, &given, read), "4", "after a restart by systemd");

    let error = refused(machine, &format!("install {} --name without", asking("/dev/nosuch", "0")));
    assert!(error.contains("looking for the device /dev/nosuch on this machine"), "{error}");
    let error = refused(machine, &format!("install {} --name everything", asking("/dev/mem", "0")));
    assert!(error.contains("spec.security.devices[0]") && error.contains("never given"), "{error}");
    let disk = machine.ok("basename $(ls /dev/[sv]d[a-z] | head -n 1)").unwrap();
    let error = refused(machine, &format!("install {} --name disk", asking(&format!("/dev/{disk}"), "0")));
    assert!(error.contains("is no character device"), "{error}");
    for name in ["given", "without", "disk"] {
        uninstall(machine, name);
    }
}

/// A profile without `mkdir`, which every container could do without.
const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    {"names": ["unshare"], "action": "SCMP_ACT_ALLOW"}]}"#;

#[test]
fn a_profile_of_the_machine_holds_for_first_process_and_commands_and_takes_away_alone() {
    let (_lock, machine) = shared();
    let file = "/etc/berth/seccomp/no-directories.json";
    let under = |profile: &str| {
        let command = r#"["/usr/bin/sh","-c","mkdir /tmp/first || echo refused; sleep 1000000 & wait"]"#;
        testbox(command) + &format!(" --set 'security.seccompProfile={profile}'")
    };
    let ours = under(r#"{"type": "Localhost", "localhostProfile": "no-directories"}"#);
    let said = refused(machine, &format!("install --name profiled {ours} --timeout 5m"));
    for part in ["SeccompProfileNotFound", file, "write the profile there"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(ready(machine, "profiled").starts_with("False"), "{}", ready(machine, "profiled"));
    // It is tried again meanwhile, and says so then.
    eventually(&true, || {
        let described = machine.ok("berth describe bundle/profiled").unwrap();
        described.contains("localhostProfile: no-directories") && described.contains(file)
    });

    // It goes on by itself once the file is there, and a file that is none is told.
    machine.ok(&format!("mkdir -p /etc/berth/seccomp && echo '{{}}' >{file}")).unwrap();
    eventually(&true, || {
        machine.ok("berth describe bundle/profiled").unwrap().contains("missing field `defaultAction`")
    });
    machine.ok(&format!("printf '%s' '{PROFILE}' >{file}")).unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "profiled"));
    let unit = unit(machine, "profiled");
    eventually(&true, || output(machine, &unit).contains("refused"));
    let denied = "Operation not permitted";
    assert!(inside(machine, &unit, "mkdir /tmp/second").contains(denied));
    let through_the_daemon = machine.sh("berth exec profiled -- mkdir /tmp/third").unwrap();
    assert!(through_the_daemon.errors().contains(denied), "{}", through_the_daemon.errors());
    assert!(inside(machine, &unit, "unshare -U true").contains(denied), "a profile has opened what the list shuts");
    assert_eq!(inside(machine, &unit, "grep Seccomp_filters: /proc/self/status").split_whitespace().last(), Some("2"));

    // A restart by systemd needs no file.
    machine.ok(&format!("rm {file} && systemctl restart {unit}")).unwrap();
    assert!(inside(machine, &unit, "mkdir /tmp/fourth").contains(denied), "after a restart by systemd");
    uninstall(machine, "profiled");
}

#[test]
#[ignore = "long tier"]
fn a_service_of_the_baseline_cannot_change_its_root_and_a_word_without_effect_is_refused() {
    let (_lock, machine) = shared();
    let sleeping = testbox(r#"["/usr/bin/sleep","1000000"]"#);
    let capable = format!("{sleeping} --set 'security.extraCapabilities=[\"CAP_SYS_CHROOT\"]'");
    for (name, kind, answer) in [("plain", "RuntimeDefault", "changed"), ("less", "Baseline", "not permitted")] {
        install(machine, name, &format!("{capable} --set 'security.seccompProfile={{\"type\": \"{kind}\"}}'"));
        let said = inside(machine, &unit(machine, name), "chroot / echo changed");
        assert!(said.contains(answer), "{kind}: {said}");
        uninstall(machine, name);
    }

    let said = refused(machine, &format!("install --name word {sleeping} --set security.allowPrivileged=true"));
    assert!(said.contains("spec.security.allowPrivileged") && said.contains("has no effect here"), "{said}");
    let raw = format!("install --name word {sleeping} --set 'security.extraCapabilities=[\"CAP_NET_RAW\"]'");
    let said = refused(machine, &raw);
    assert!(said.contains("spec.security.extraCapabilities[0]") && said.contains("allowPrivileged: true"), "{said}");
    let said =
        refused(machine, &format!("install --name word {sleeping} --set security.seccompProfile.type=Unconfined"));
    assert!(said.contains("spec.security.seccompProfile.type"), "{said}");
    let missing = machine.sh("berth get bundle word").unwrap();
    assert_ne!(missing.code(), 0, "what was refused is there: {}", missing.text());
}

#[test]
#[ignore = "long tier"]
fn a_root_that_is_read_only_leaves_what_is_meant_to_be_written() {
    let (_lock, machine) = shared();
    install(
        machine,
        "sealed",
        &format!("{} --set security.readOnlyRootFilesystem=true", testbox(r#"["/usr/bin/sleep","1000000"]"#)),
    );
    let unit = unit(machine, "sealed");
    assert!(inside(machine, &unit, "touch /etc/x").contains("Read-only file system"));
    assert_eq!(inside(machine, &unit, "touch /tmp/x /run/x /dev/shm/x && echo written"), "written");
    uninstall(machine, "sealed");
}

#[test]
fn a_fork_bomb_and_a_memory_hog_trouble_nobody_else() {
    let (_lock, machine) = shared();
    install(machine, "quiet", &testbox(r#"["/usr/bin/sleep","1000000"]"#));
    let quiet = unit(machine, "quiet");
    let before = property(machine, &quiet, "MainPID");
    let own = machine.ok("systemctl show --property MainPID --value berthd").unwrap();
    install(machine, "bomb", &(testbox(r#"["/usr/bin/sleep","1000000"]"#) + " --pids 40"));
    let bomb = machine.sh("berth exec bomb -- testbox forks").unwrap();
    let said = bomb.text() + &bomb.errors();
    assert!(said.contains("30 processes") && said.contains("Resource temporarily unavailable"), "{said}");
    assert!(!said.contains("40 processes"), "{said}");
    // Its processes are still there, and the others do not feel them.
    let tasks: u32 = property(machine, &unit(machine, "bomb"), "TasksCurrent").parse().unwrap();
    assert!((30..=40).contains(&tasks), "{tasks}");
    assert!(inside(machine, &quiet, "head -c 5 /dev/zero | wc -c").contains('5'));
    machine.ok(&format!("berth install --name eater 127.0.0.1:{REGISTRY}/testbox:latest --memory 32Mi --set restart=never --no-wait --set 'args=[\"hog\",\"200\"]'")).unwrap();
    eventually(&"OOMKilled".into(), || termination(machine, "eater").1);
    assert_eq!(property(machine, &quiet, "MainPID"), before);
    assert_eq!(property(machine, &quiet, "NRestarts"), "0");
    assert_eq!(machine.ok("systemctl show --property MainPID --value berthd").unwrap(), own);
    for name in ["quiet", "bomb", "eater"] {
        uninstall(machine, name);
    }
}
