//! The supervisor is stopped, killed and upgraded under running services.

use berth_model::resource::operation::OperationKind;
use berth_tests::machine::Machine;
use berth_tests::{http, pace};

use super::{baseline, berth, install, own, ready, served_throughout, until};

/// Points tried when not all are: one of each moment, early, in the middle and late.
const SAMPLE: [&str; 4] =
    ["Install/PullImage/applied", "Install/StartUnit/applied", "Install/Promote/recorded", "Uninstall/StopUnit/applied"];

#[test]
fn services_do_not_notice_that_the_supervisor_is_stopped_killed_or_upgraded() {
    let machine = own("faults");
    install(&machine, "default", "nginx", "nginx:1", "--publish 8001:80 --cpu 1");
    install(&machine, "default", "count", "testbox:latest", "--set spec.args='[\"count\"]'");
    let port = machine.forwarded(8001);
    served_throughout(port, || {
        machine.ok("systemctl stop berthd && test ! -e /run/berth/none && systemctl start berthd").unwrap();
        machine.ok("systemctl kill --signal=KILL berthd").unwrap();
        until(&machine, "systemctl is-active --quiet berthd");
        machine.ok("dpkg -i /run/berth-tools/berth.deb && systemctl restart berthd").unwrap();
        until(&machine, &ready("default", "nginx", "True", "StartCompleted"));
    });
    let lines = machine.ok("journalctl --no-pager -o cat _SYSTEMD_UNIT=berth.default.count.r1.service | sed -n 's/^line //p'").unwrap();
    let numbers: Vec<u32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 20, "{numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap in {numbers:?}");
    a_killed_init_comes_back_with_no_supervisor_alive(&machine, port);
}

/// Nothing of ours is there but what systemd starts.
fn a_killed_init_comes_back_with_no_supervisor_alive(machine: &Machine, port: u16) {
    let unit = "berth.default.nginx.r1.service";
    machine.ok("systemctl stop berthd").unwrap();
    let ours = machine.ok("ps -eo args= | grep -E '/usr/lib/berth/|/usr/bin/berth' | grep -v grep || true").unwrap();
    assert_eq!(ours, "", "nothing of ours is resident");
    let pid = machine.ok(&format!("systemctl show {unit} -P MainPID")).unwrap();
    machine.ok(&format!("kill -9 {pid}")).unwrap();
    until(machine, &format!("test \"$(systemctl show {unit} -P ActiveState,NRestarts | tr \"\\\\n\" \" \")\" = \"active 1 \""));
    until(machine, "curl --silent --fail --output /dev/null http://10.0.2.15:8001/");
    assert_eq!(http::get(port, "/", pace::boots(1.0)).unwrap().0, 200);
    machine.ok("systemctl start berthd").unwrap();
    until(machine, &ready("default", "nginx", "True", "StartCompleted"));
}

/// Every point of installing and uninstalling, as the supervisor itself names them.
fn points() -> Vec<String> {
    if std::env::var_os("BERTH_LONG").is_none() {
        return SAMPLE.map(str::to_owned).to_vec();
    }
    let moments = ["begun", "applied", "recorded"];
    let kinds = [OperationKind::Install, OperationKind::Uninstall];
    let of = |kind: OperationKind| {
        kind.steps().iter().flat_map(move |step| moments.map(|moment| format!("{kind:?}/{step:?}/{moment}")))
    };
    kinds.into_iter().flat_map(of).collect()
}

#[test]
fn an_operation_goes_on_after_the_supervisor_is_killed_at_any_of_its_steps() {
    let machine = own("steps");
    machine.ok("mkdir -p /run/systemd/system/berthd.service.d && printf '[Service]\\nEnvironment=BERTH_ABORT_FILE=/run/berth/abort\\n' >/run/systemd/system/berthd.service.d/abort.conf && systemctl daemon-reload && systemctl restart berthd").unwrap();
    let before = baseline(&machine);
    for point in points() {
        let kills = machine.ok("systemctl show berthd -P NRestarts").unwrap().parse::<u32>().unwrap();
        machine.ok(&format!("echo {point} >/run/berth/abort")).unwrap();
        let installed = berth(&machine, "install 127.0.0.1:5000/nginx:1 --name web --publish 8001:80 --cpu 1 --timeout 5m");
        until(&machine, &ready("default", "web", "True", "StartCompleted"));
        assert!(installed.success() || point.starts_with("Install"), "{point}: {}", installed.errors());
        assert_eq!(http::get(machine.forwarded(8001), "/", pace::boots(1.0)).unwrap().0, 200, "{point}");
        let units = machine.ok("systemctl list-units --plain --no-legend 'berth.default.*.service' | wc -l").unwrap();
        assert_eq!(units, "1", "{point}");
        let removed = berth(&machine, "uninstall web --timeout 5m");
        until(&machine, "! berth get bundle web >/dev/null 2>&1");
        assert!(removed.success() || point.starts_with("Uninstall"), "{point}: {}", removed.errors());
        until(&machine, &format!("test \"$(systemctl show berthd -P NRestarts)\" = {}", kills + 1));
        until(&machine, "! ip -br link | grep -q ^bv");
        assert_eq!(baseline(&machine), before, "{point}");
    }
}
