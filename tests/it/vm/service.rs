//! A service's life: installed from the registry, served, limited, stopped, killed, updated, gone.

use super::{REGISTRY, bundle, eventually, holdings, install, page, property, ready, shared, uninstall, unit};

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
    let master = property(machine, &unit, "MainPID");
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
fn limits_are_properties_of_the_unit() {
    let (_lock, machine) = shared();
    install(machine, "limited", &format!("{} --memory 64Mi --cpu 0.5 --pids 50", testbox(r#"["count"]"#)));
    let unit = unit(machine, "limited");
    assert_eq!(property(machine, &unit, "MemoryMax"), (64 << 20).to_string());
    assert_eq!(property(machine, &unit, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(property(machine, &unit, "TasksMax"), "50");
    assert!(machine.ok("systemd-cgtop --batch --iterations=1 --depth=4").unwrap().contains(&unit));
    let lines =
        machine.ok(&format!("journalctl --no-pager --output=cat _SYSTEMD_UNIT={unit} BERTH_BUNDLE=limited")).unwrap();
    assert!(lines.contains("line 1"), "{lines}");
    uninstall(machine, "limited");
}

#[test]
fn an_operators_stop_is_respected_and_a_start_undoes_it() {
    let (_lock, machine) = shared();
    install(machine, "halted", &testbox(r#"["count"]"#));
    let name = unit(machine, "halted");
    machine.ok(&format!("systemctl stop {name}")).unwrap();
    eventually(&"False StoppedByOperator".into(), || ready(machine, "halted"));
    machine.ok("berth start halted --timeout 10m").unwrap();
    eventually(&true, || ready(machine, "halted").starts_with("True"));
    machine.ok(&format!("systemctl restart {}", unit(machine, "halted"))).unwrap();
    eventually(&true, || ready(machine, "halted").starts_with("True"));
    uninstall(machine, "halted");
}

#[test]
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
    let (mut machine, _alone) = super::own("tidy");
    let before = holdings(&machine);
    install(&machine, "guest", &format!("{} --publish 8084:80", nginx(1)));
    assert_ne!(holdings(&machine), before);
    uninstall(&machine, "guest");
    eventually(&before, || holdings(&machine));
    machine.power_off().unwrap();
}
