//! The supervisor may stop, die, be replaced, and the machine may reboot or lose power: services go on or come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_tests::channel::Output;
use berth_tests::machine::Machine;
use berth_tests::{http, pace};

use super::{
    PARTS, breathe, bundle, disturbed, eventually, holdings, install, is_long, nothing_is_left, own, page, property,
    ready, uninstall, unit,
};

const PAGE: &str = "nginx under Berth, image 1";
pub const COUNTER: &str = r#"127.0.0.1:5000/testbox:latest --set 'args=["count"]'"#;

/// Between two visits: who comes as fast as he can leaves little of the machine's one processor for what happens
/// meanwhile. The long tier does not spare it.
const PAUSE: Duration = Duration::from_millis(100);

/// Fetches the page over and over while `meanwhile` happens: what was served, and every failure.
pub(super) fn visits(port: u16, meanwhile: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut served, mut failures) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                match http::get(port, "/", pace::boots(2.0)) {
                    Ok((200, body)) => served.push(body.trim().to_owned()),
                    other => failures.push(format!("{other:?}")),
                }
                if !is_long() {
                    breathe(PAUSE);
                }
            }
            (served, failures)
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        let seen = client.join().unwrap();
        done.map_or_else(|panic| std::panic::resume_unwind(panic), |()| seen)
    })
}

const STARTED: &str = "systemctl is-active --quiet berthd && systemctl show -P MainPID berthd";

/// What can happen to a supervisor. Each ends with another one up.
const FATES: [(&str, &str); 3] = [
    ("stopped", "systemctl stop berthd && systemctl start berthd"),
    ("killed", "systemctl kill --signal=KILL berthd"),
    ("replaced", "DEBIAN_FRONTEND=noninteractive dpkg --install /run/again.deb && rm /run/again.deb"),
];

#[test]
fn services_go_on_while_the_supervisor_is_stopped_killed_and_replaced() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    install(machine, "web", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    install(machine, "counter", COUNTER);
    let units = [unit(machine, "web"), unit(machine, "counter")];
    let main_processes = || units.clone().map(|unit| property(machine, &unit, "MainPID"));
    let undisturbed = main_processes();
    machine.put("/run/again.deb", &std::fs::read(&PARTS.payload.path).unwrap(), 0o644).unwrap();
    for (fate, how) in FATES {
        let supervisor = machine.ok(STARTED).unwrap();
        let lines = counted(machine).len();
        let (served, failures) = visits(machine.forwarded(8081), || {
            machine.ok(how).unwrap();
            let another = |now: Output| now.success() && now.text().trim() != supervisor;
            eventually(&true, || another(machine.sh(STARTED).unwrap()));
        });
        assert_eq!(failures, Vec::<String>::new(), "{fate}");
        assert!(!served.is_empty() && served.iter().all(|page| page == PAGE), "{fate}: {served:?}");
        assert_eq!(main_processes(), undisturbed, "{fate}");
        eventually(&true, || ready(machine, "web").starts_with("True"));
        let numbers = counted(machine);
        assert!(numbers.len() > lines, "{fate}: nothing was written meanwhile");
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{fate}: lines are missing from the journal");
    }
    machine.ok("berth stop counter --timeout 10m && systemctl restart berthd").unwrap();
    comes_to_rest(machine);
    uninstall(machine, "web counter");
    nothing_is_left(machine, &before);
}

/// Numbers of the lines that the counter has written, as the journal has them.
fn counted(machine: &Machine) -> Vec<usize> {
    let run = property(machine, &unit(machine, "counter"), "InvocationID");
    let lines = format!("journalctl --no-pager --output=cat _TRANSPORT=stdout _SYSTEMD_INVOCATION_ID={run}");
    let lines = machine.ok(&lines).unwrap();
    lines.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

#[test]
fn killed_services_come_back_with_their_network_while_no_supervisor_lives_and_nothing_of_ours_stays_in_them() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    install(machine, "web", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    install(machine, "other", "127.0.0.1:5000/nginx:2 --publish 8082:80");
    install(machine, "counter", COUNTER);
    let units = ["web", "other", "counter"].map(|name| unit(machine, name));
    machine.ok("systemctl stop berthd").unwrap();
    nobody_of_ours_is_resident(machine, &units);

    let first = units.each_ref().map(|unit| property(machine, unit, "MainPID"));
    machine.ok(&format!("kill -KILL {}", first.join(" "))).unwrap();
    for (unit, first) in units.iter().zip(&first) {
        let another = || ![first, "0"].contains(&property(machine, unit, "MainPID").as_str());
        eventually(&true, another);
        eventually(&"active".to_owned(), || property(machine, unit, "ActiveState"));
        assert_eq!(property(machine, unit, "NRestarts"), "1", "{unit}");
    }
    eventually(&PAGE.to_owned(), || page(machine, 8081));
    eventually(&"nginx under Berth, image 2".to_owned(), || page(machine, 8082));
    nobody_of_ours_is_resident(machine, &units);
    assert_eq!(property(machine, "berthd.service", "ActiveState"), "inactive");

    machine.ok("systemctl start berthd").unwrap();
    for name in ["web", "other", "counter"] {
        eventually(&"True StartCompleted, 1 restarts, Error by KILL".to_owned(), || {
            let status = bundle(machine, name)["status"].clone();
            let end = &status["lastTermination"];
            let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            format!(
                "{}, {} restarts, {} by {}",
                ready(machine, name),
                status["restarts"],
                word(&end["reason"]),
                word(&end["signal"])
            )
        });
    }
    looks_without_a_reason_change_nothing(machine);
    uninstall(machine, "web other counter");
    nothing_is_left(machine, &before);
}

/// What the supervisor counts, by the names of the counters without their prefix.
fn metrics(machine: &Machine, names: &str) -> String {
    let scrape = "curl --silent --fail --unix-socket /run/berth/api.sock http://localhost/metrics";
    machine.ok(&format!("{scrape} | grep -E '^berth_({names})'; true")).unwrap()
}

/// How often the supervisor has looked at something since it started.
fn looks(machine: &Machine) -> u64 {
    let told = metrics(machine, "reconciles_total");
    told.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A supervisor that finds a service stopped and another one running looks at both, and then at next to nothing: what a
/// look asks of systemd is no news that calls for another one.
fn comes_to_rest(machine: &Machine) {
    eventually(&true, || {
        let before = looks(machine);
        machine.ok("sleep 10").unwrap();
        before >= 2 && looks(machine) - before <= 4
    });
}

/// A supervisor that looks at everything each second finds all as it should be, from its first look on: it pulls,
/// starts, stops and writes nothing.
fn looks_without_a_reason_change_nothing(machine: &Machine) {
    machine.ok("mkdir -p /etc/berth && echo 'reconcile_interval = 1' >/etc/berth/berthd.toml").unwrap();
    machine.ok("systemctl restart berthd").unwrap();
    let read = |names: &str| metrics(machine, names);
    let looks = || looks(machine);
    eventually(&true, || looks() >= 6);
    assert_eq!(read("image_pulls_total|unit_starts_total|unit_stops_total|operations_total"), "");
    let changes = || read("network_applies_total|store_revision|bundle_restarts_total");
    let (before, seen) = (changes(), looks());
    assert!(before.contains("berth_network_applies_total{result=\"done\"} 1\n"), "{before}");
    assert!(before.contains("berth_store_revision "), "{before}");
    eventually(&true, || looks() >= seen + 12);
    assert_eq!(changes(), before);
    let used = read("bundle_(cpu_seconds_total|memory_bytes|network_sent_bytes_total)");
    for name in ["web", "other", "counter"] {
        let of = used.lines().filter(|line| line.contains(&format!("bundle=\"{name}\"")) && !line.ends_with(" 0.0"));
        assert_eq!(of.count(), 3, "{used}");
    }
    machine.ok("rm /etc/berth/berthd.toml && systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
}

/// With the supervisor stopped, no program of ours runs on the machine but the one name server, which serves all and
/// none in particular, and the containers' own first processes. Every process in a service's control group is inside
/// the container: below its first process, in the pid namespace where that is number 1.
fn nobody_of_ours_is_resident(machine: &Machine, units: &[String]) {
    let ours = "ps -e -o comm= | grep '^berth' | grep -vE '^berth-(agent|init)$'; true";
    assert_eq!(machine.ok(ours).unwrap(), "berth-dns");
    for unit in units {
        let look = format!(
            "main=$(systemctl show -P MainPID {unit}); grep NSpid /proc/$main/status | awk '{{print \"first\", NF, $NF}}'; \
             for pid in $(find /sys/fs/cgroup$(systemctl show -P ControlGroup {unit}) -name cgroup.procs -exec cat {{}} +); do \
             in=$(readlink /proc/$pid/ns/pid) || continue; \
             [ $in = $(readlink /proc/$main/ns/pid) ] && echo inside || echo outside: $(cat /proc/$pid/cmdline); \
             done | sort -u"
        );
        assert_eq!(machine.ok(&look).unwrap(), "first 3 1\ninside", "{unit}");
    }
}

#[test]
#[ignore = "long tier"]
fn a_reboot_and_a_power_cut_bring_services_back() {
    let (mut machine, _alone) = own("reboot");
    install(&machine, "web", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    machine.reboot().unwrap();
    eventually(&PAGE.to_owned(), || page(&machine, 8081));
    eventually(&true, || ready(&machine, "web").starts_with("True"));

    machine.ok("sync").unwrap();
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    eventually(&PAGE.to_owned(), || page(&machine, 8081));
    assert_eq!(machine.ok("systemctl --failed --no-legend --plain").unwrap(), "");
    machine.power_off().unwrap();
}
