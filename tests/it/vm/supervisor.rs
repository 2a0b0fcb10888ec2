//! The supervisor may stop, die, be replaced, and the machine may reboot or lose power: services go on or come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{PARTS, eventually, install, own, page, property, ready, unit};
use berth_tests::http;

const PAGE: &str = "nginx under Berth, image 1";

/// Fetches the page over and over while `meanwhile` happens: what was served, and every failure.
pub(super) fn visits(port: u16, meanwhile: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut served, mut failures) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                match http::get(port, "/", Duration::from_secs(30)) {
                    Ok((200, body)) => served.push(body.trim().to_owned()),
                    other => failures.push(format!("{other:?}")),
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

#[test]
fn services_go_on_while_the_supervisor_is_stopped_killed_and_replaced() {
    let (mut machine, _alone) = own("supervisor");
    install(&machine, "web", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    install(&machine, "counter", r#"127.0.0.1:5000/testbox:latest --set 'args=["count"]'"#);
    let units = [unit(&machine, "web"), unit(&machine, "counter")];
    let before = units.clone().map(|unit| property(&machine, &unit, "MainPID"));

    let (served, failures) = visits(machine.forwarded(8081), || {
        machine.ok("systemctl stop berthd").unwrap();
        machine.ok("systemctl start berthd").unwrap();
        machine.ok("systemctl kill --signal=KILL berthd").unwrap();
        eventually(&"active".to_owned(), || machine.sh("systemctl is-active berthd").unwrap().text().trim().to_owned());
        machine.put("/run/again.deb", &std::fs::read(&PARTS.payload.path).unwrap(), 0o644).unwrap();
        machine.install("/run/again.deb").unwrap();
    });
    assert_eq!(failures, Vec::<String>::new());
    assert!(served.contains(&PAGE.to_owned()), "{served:?}");
    assert_eq!(units.clone().map(|unit| property(&machine, &unit, "MainPID")), before);
    eventually(&true, || ready(&machine, "web").starts_with("True"));

    let lines =
        machine.ok(&format!("journalctl --no-pager --output=cat _SYSTEMD_UNIT={} | grep '^line'", units[1])).unwrap();
    let numbers: Vec<usize> = lines.lines().map(|line| line["line ".len()..].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "lines are missing from the journal");
    machine.power_off().unwrap();
}

#[test]
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
