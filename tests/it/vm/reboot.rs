//! The machine itself goes down.

use berth_tests::{http, pace};

use super::{install, own, ready, until};

#[test]
fn a_reboot_and_a_power_cut_bring_the_services_back_by_themselves() {
    let mut machine = own("reboot");
    install(&machine, "default", "nginx", "nginx:1", "--publish 8001:80 --cpu 1");
    machine.ok("systemctl stop berth.default.nginx.r1.service").unwrap();
    until(&machine, &ready("default", "nginx", "False", "StoppedByOperator"));
    machine.reboot().unwrap();
    until(&machine, &ready("default", "nginx", "True", "StartCompleted"));
    assert_eq!(http::get(machine.forwarded(8001), "/", pace::boots(1.0)).unwrap().0, 200);
    machine.ok("sync").unwrap();
    machine.pull_the_plug().unwrap();
    machine.power_on().unwrap();
    until(&machine, &ready("default", "nginx", "True", "StartCompleted"));
    assert_eq!(http::get(machine.forwarded(8001), "/", pace::boots(1.0)).unwrap().0, 200);
    let failed = machine.ok("systemctl list-units --failed --plain --no-legend").unwrap();
    assert_eq!(failed, "");
}
