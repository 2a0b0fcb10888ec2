//! A service's life: installed, looked at, steered by systemd, updated, removed.

use berth_tests::http;
use berth_tests::pace;

use super::{baseline, berth, install, namespace, ready, served_throughout, shared, until};

const UNIT: &str = "berth.life.nginx.r1.service";

#[test]
fn nginx_is_pulled_confined_steered_by_systemd_and_removed_without_a_trace() {
    let machine = shared();
    namespace(machine, "life");
    let before = baseline(machine);
    install(machine, "life", "nginx", "nginx:1", "--publish 8001:80 --memory 128Mi --cpu 1 --pids 64");
    let port = machine.forwarded(8001);
    let (code, page) = http::get(port, "/", pace::boots(1.0)).unwrap();
    assert_eq!(code, 200, "{page}");

    // systemd knows what it is, what it may use, and who runs in it.
    let status = machine.ok(&format!("systemctl status --no-pager {UNIT}")).unwrap();
    for word in ["active (running)", "payload", "nginx: master", "nginx: worker"] {
        assert!(status.contains(word), "{word} is not in\n{status}");
    }
    let shown = machine.ok(&format!("systemctl show {UNIT} -P MemoryMax -P CPUQuotaPerSecUSec -P TasksMax -P Slice")).unwrap();
    assert_eq!(shown.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), ["berth-life.slice", "1s", "134217728", "64"]);
    let top = machine.ok("systemd-cgtop --batch --iterations=1 --order=path -m").unwrap();
    assert!(top.contains(&format!("berth.slice/berth-life.slice/{UNIT}")), "{top}");

    // The init is confined as promised; its workers dropped to www-data of the image.
    let pid = machine.ok(&format!("systemctl show {UNIT} -P MainPID")).unwrap();
    let proc = machine.ok(&format!("cat /proc/{pid}/status /proc/{pid}/uid_map")).unwrap();
    for word in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(proc.contains(word), "{word} is not in\n{proc}");
    }
    let map: Vec<&str> = proc.lines().last().unwrap_or_default().split_whitespace().collect();
    assert_eq!((map[0], map[2]), ("0", "65536"), "{proc}");
    let base: u32 = map[1].parse().unwrap();
    let owners = machine.ok(&format!("ps -o uid= --ppid {pid}")).unwrap();
    assert_eq!(owners.trim(), (base + 33).to_string(), "workers are www-data inside");

    // Steered by hand: stopped stays stopped and says so, started runs, killed comes back.
    machine.ok(&format!("systemctl stop {UNIT}")).unwrap();
    until(machine, &ready("life", "nginx", "False", "StoppedByOperator"));
    machine.ok(&format!("systemctl start {UNIT}")).unwrap();
    until(machine, &ready("life", "nginx", "True", "StartCompleted"));
    machine.ok(&format!("systemctl restart {UNIT}")).unwrap();
    machine.ok(&format!("systemctl kill --signal=KILL {UNIT}")).unwrap();
    until(machine, &format!("test \"$(systemctl show {UNIT} -P NRestarts)\" = 1"));
    until(machine, &ready("life", "nginx", "True", "StartCompleted"));
    until(machine, "curl --silent --fail --output /dev/null http://10.0.2.15:8001/");
    let said = machine.ok(&format!("journalctl --no-pager -o cat -u {UNIT}")).unwrap();
    assert!(said.contains("start worker process"), "{said}");
    let fields = machine.ok("journalctl --no-pager -o json -n 1 BERTH_NAMESPACE=life BERTH_BUNDLE=nginx BERTH_REVISION=1").unwrap();
    assert!(fields.contains("_SYSTEMD_UNIT"), "{fields}");

    let out = berth(machine, "uninstall nginx -n life --timeout 3m");
    assert!(out.success(), "{}", out.errors());
    assert_eq!(berth(machine, "status nginx -n life").code(), 3, "it is not found any more");
    until(machine, "! ip link show dev bv1-2 2>/dev/null");
    assert_eq!(baseline(machine), before);
}

#[test]
fn an_update_switches_to_the_new_page_without_a_failed_visit() {
    let machine = shared();
    namespace(machine, "switch");
    install(machine, "switch", "site", "nginx:1", "--publish 8002:80 --cpu 1");
    let port = machine.forwarded(8002);
    let (_, first) = http::get(port, "/", pace::boots(1.0)).unwrap();
    served_throughout(port, || {
        let out = berth(machine, "update site -n switch --image 127.0.0.1:5000/nginx:2 --timeout 5m");
        assert!(out.success(), "{}{}", out.text(), out.errors());
    });
    let (_, second) = http::get(port, "/", pace::boots(1.0)).unwrap();
    assert_ne!(first, second);
    let revisions = machine.ok("berth get revisions -n switch -o json | jq -r '.items[] | .metadata.name + \" \" + .status.state'").unwrap();
    assert_eq!(revisions, "site-r1 Superseded\nsite-r2 Active");
    let units = machine.ok("systemctl list-units --plain --no-legend 'berth.switch.*' | awk '{print $1}'").unwrap();
    assert_eq!(units, "berth.switch.site.r2.service");
}

#[test]
fn a_stopped_bundle_stays_stopped_until_it_is_started_and_the_same_install_changes_nothing() {
    let machine = shared();
    namespace(machine, "wish");
    install(machine, "wish", "box", "testbox:latest", "");
    let again = berth(machine, "install 127.0.0.1:5000/testbox:latest --name box -n wish");
    assert!(again.success() && again.text().contains("unchanged"), "{}{}", again.text(), again.errors());
    assert!(berth(machine, "stop box -n wish").success());
    until(machine, &ready("wish", "box", "False", "StartSkipped"));
    assert!(berth(machine, "start box -n wish").success());
    until(machine, &ready("wish", "box", "True", "StartCompleted"));
    let pid = machine.ok("systemctl show berth.wish.box.r1.service -P MainPID").unwrap();
    assert!(berth(machine, "restart box -n wish").success());
    assert_ne!(machine.ok("systemctl show berth.wish.box.r1.service -P MainPID").unwrap(), pid);
    assert!(berth(machine, "uninstall box -n wish").success());
}
