//! A service's life: installed from the registry, served, limited, stopped, killed, updated, gone.

use super::{
    REGISTRY, bundle, eventually, holdings, install, nothing_is_left, page, property, ready, shared, uninstall, unit,
};

fn nginx(version: u8) -> String {
    format!("127.0.0.1:{REGISTRY}/nginx:{version}")
}

fn testbox(arguments: &str) -> String {
    format!("127.0.0.1:{REGISTRY}/testbox:latest --set 'args={arguments}'")
}

#[test]
fn nginx_serves_its_page_with_workers_that_dropped_their_rights() {
    let (_lock, machine) = shared();
    install(machine, "web", &format!("{} --publish 8081:80", nginx(1)));
    assert_eq!(page(machine, 8081), "nginx under Berth, image 1");
    let unit = unit(machine, "web");
    let master = machine.ok(&format!("pgrep -P {}", property(machine, &unit, "MainPID"))).unwrap();
    let owners = machine
        .ok(&format!("stat -c %u /proc/{master}; for p in $(pgrep -P {master}); do stat -c %u /proc/$p; done"))
        .unwrap();
    let owners: Vec<u32> = owners.lines().map(|line| line.parse().unwrap()).collect();
    assert!(owners[0] >= 65536, "root in the container is root outside: {owners:?}");
    assert_eq!(owners[1], owners[0] + 33, "the worker should be www-data of the container: {owners:?}");
    assert!(machine.ok(&format!("systemctl status {unit}")).unwrap().contains("active (running)"));

    machine.ok("berth update web --image 127.0.0.1:5000/nginx:2 --timeout 10m").unwrap();
    assert_eq!(page(machine, 8081), "nginx under Berth, image 2");
    uninstall(machine, "web");
    assert_ne!(page(machine, 8081), "nginx under Berth, image 2");
}

#[test]
fn limits_are_properties_of_the_unit_and_its_output_is_found_in_the_journal() {
    let (_lock, machine) = shared();
    let limits = "--memory 64Mi --cpu 0.5 --pids 50 --set resources.ioWeight=50";
    install(machine, "limited", &format!("{} {limits}", testbox(r#"["count"]"#)));
    let unit = unit(machine, "limited");
    let shown = [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "0"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TasksMax", "50"),
        ("IOWeight", "50"),
        ("Slice", "berth-default.slice"),
    ];
    for (name, value) in shown {
        assert_eq!(property(machine, &unit, name), value, "{name}");
    }
    let held = "cd /sys/fs/cgroup/berth.slice/berth-default.slice/$unit && cat memory.max cpu.max pids.max";
    assert_eq!(machine.ok(&format!("unit={unit}; {held}")).unwrap(), "67108864\n50000 100000\n50");
    assert!(machine.ok("systemd-cgtop --batch --iterations=1 --depth=4").unwrap().contains(&unit));

    let found = "journalctl --no-pager --output=json -u 'berth.default.limited.*' _TRANSPORT=stdout | head -n 1";
    let entry: serde_json::Value = serde_json::from_str(&machine.ok(found).unwrap()).unwrap();
    let digest = bundle(machine, "limited")["status"]["image"].as_str().unwrap().split_once('@').unwrap().1.to_owned();
    let fields = [
        ("MESSAGE", "line 1"),
        ("_SYSTEMD_UNIT", &unit),
        ("SYSLOG_IDENTIFIER", "limited"),
        ("BERTH_NAMESPACE", "default"),
        ("BERTH_BUNDLE", "limited"),
        ("BERTH_REVISION", "1"),
        ("BERTH_IMAGE_DIGEST", &digest),
    ];
    for (name, value) in fields {
        assert_eq!(entry[name], value, "{name} of {entry}");
    }
    uninstall(machine, "limited");
}

#[test]
fn systemctl_shows_stops_starts_restarts_and_signals_a_service_and_berth_follows() {
    let (_lock, machine) = shared();
    install(machine, "halted", &testbox(r#"["count"]"#));
    let name = unit(machine, "halted");
    let status = machine.ok(&format!("systemctl status --lines=0 {name}")).unwrap();
    assert!(status.contains("active (running)") && status.contains("Berth bundle halted (revision 1,"), "{status}");
    assert!(machine.ok("systemctl list-units --no-legend 'berth.default.*'").unwrap().contains(&name));

    machine.ok(&format!("systemctl stop {name}")).unwrap();
    eventually(&"False StoppedByOperator".into(), || ready(machine, "halted"));
    assert!(machine.ok("berth status halted").unwrap().contains("Stopped by systemctl; `berth start` starts it."));
    assert_eq!(machine.sh(&format!("systemctl status {name}")).unwrap().code(), 3, "it should still be known");
    machine.ok(&format!("systemctl start {name}")).unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "halted"));
    machine.ok(&format!("systemctl stop {name} && berth start halted --timeout 10m")).unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "halted"));

    let main = || property(machine, &name, "MainPID");
    let before = main();
    machine.ok(&format!("systemctl restart {name}")).unwrap();
    assert!(!["0", &before].contains(&main().as_str()), "it was not restarted");
    eventually(&"True StartCompleted".into(), || ready(machine, "halted"));
    let before = main();
    machine.ok(&format!("systemctl kill --signal=KILL {name}")).unwrap();
    eventually(&true, || !["0", &before].contains(&main().as_str()));
    eventually(&"True StartCompleted".into(), || ready(machine, "halted"));
    uninstall(machine, "halted");
}

#[test]
#[ignore = "long tier"]
fn a_killed_service_comes_back_with_its_network() {
    let (_lock, machine) = shared();
    install(machine, "hardy", &format!("{} --publish 8082:80", nginx(1)));
    let unit = unit(machine, "hardy");
    let before = property(machine, &unit, "MainPID");
    machine.ok(&format!("systemctl kill --kill-whom=main --signal=KILL {unit}")).unwrap();
    eventually(&true, || ![&before, "0"].contains(&property(machine, &unit, "MainPID").as_str()));
    eventually(&"nginx under Berth, image 1".into(), || page(machine, 8082));
    assert_eq!(property(machine, &unit, "NRestarts"), "1");
    uninstall(machine, "hardy");
}

#[test]
fn a_service_that_takes_too_much_memory_is_shown_as_oom_killed() {
    let (_lock, machine) = shared();
    let line = format!(
        "berth install --name greedy {} --memory 32Mi --set restart=never --no-wait",
        testbox(r#"["hog","200"]"#)
    );
    machine.ok(&line).unwrap();
    eventually(&"OOMKilled".into(), || {
        bundle(machine, "greedy")["status"]["lastTermination"]["reason"].as_str().unwrap_or_default().to_owned()
    });
    uninstall(machine, "greedy");
}

#[test]
fn an_uninstalled_service_leaves_nothing_behind() {
    let (_alone, machine) = super::disturbed();
    let before = holdings(machine);
    install(machine, "guest", &format!("{} --publish 8084:80", nginx(1)));
    assert_ne!(holdings(machine), before);
    uninstall(machine, "guest");
    nothing_is_left(machine, &before);
}
