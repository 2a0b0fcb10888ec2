//! What happens to a machine over the years: its bus, its journal and its systemd are restarted, its clock is set.
//! Services take no notice, and the supervisor does its work as before.

use berth_tests::machine::Machine;

use super::supervisor::COUNTER;
use super::{
    REGISTRY, disturbed, eventually, holdings, install, nothing_is_left, page, property, ready, uninstall, unit,
};

const FAULTS: [(&str, &str); 8] = [
    ("the bus is restarted", "systemctl restart dbus"),
    ("the bus is killed", "systemctl kill --signal=KILL dbus"),
    ("systemd reads its units again", "systemctl daemon-reload"),
    ("systemd executes itself again", "systemctl daemon-reexec"),
    ("the journal is restarted", "systemctl restart systemd-journald"),
    ("the journal is killed", "systemctl kill --signal=KILL systemd-journald"),
    ("the clock goes on by a day", "date --set '1 day'"),
    ("the clock goes back by two days", "date --set '2 days ago'"),
];

#[test]
#[ignore = "long tier"]
fn services_take_no_notice_of_the_restart_of_what_they_stand_on_nor_of_a_clock_that_is_set() {
    let (_alone, machine) = disturbed();
    let before = holdings(machine);
    install(machine, "lasting", &format!("127.0.0.1:{REGISTRY}/nginx:1 --publish 8081:80 --volume data:/data:16Mi"));
    install(machine, "telling", COUNTER);
    let mains = || ["lasting", "telling"].map(|name| property(machine, &unit(machine, name), "MainPID"));
    let running = mains();
    for (number, (what, fault)) in FAULTS.into_iter().enumerate() {
        machine.ok(&format!("{fault} >/dev/null")).unwrap();
        eventually(&true, || machine.sh("berth get bundles").unwrap().success());
        works(machine, &format!("during{number}"), what);
        assert_eq!(mains(), running, "{what}: a service was started again");
        assert_eq!(page(machine, 8081), "nginx under Berth, image 1", "{what}");
        for name in ["lasting", "telling"] {
            eventually(&"True StartCompleted".to_owned(), || ready(machine, name));
        }
    }
    machine.ok("date --set '1 day' >/dev/null").unwrap();
    assert_eq!(machine.ok("systemctl --failed --no-legend --plain").unwrap(), "");
    uninstall(machine, "telling");
    machine.ok("berth uninstall lasting --erase-volumes --timeout 10m").unwrap();
    nothing_is_left(machine, &before);
}

/// All that the supervisor needs the rest of the machine for: units, output, commands, and who ended how.
fn works(machine: &Machine, name: &str, what: &str) {
    install(machine, name, COUNTER);
    eventually(&true, || machine.ok(&format!("berth logs {name}")).unwrap().contains("line 1\n"));
    assert_eq!(machine.ok(&format!("berth exec {name} -- echo inside")).unwrap(), "inside", "{what}");
    let main = || property(machine, &unit(machine, name), "MainPID");
    let first = main();
    machine.ok(&format!("kill -KILL {first}")).unwrap();
    eventually(&true, || ![first.as_str(), "0"].contains(&main().as_str()));
    eventually(&"True StartCompleted".to_owned(), || ready(machine, name));
    uninstall(machine, name);
}
