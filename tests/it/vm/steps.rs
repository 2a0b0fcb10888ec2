//! The supervisor is killed at the steps of its operations: each comes to the end that was asked for.

use berth_model::resource::operation::OperationKind;

use super::{eventually, holdings, own, page, property, ready};

/// Points tried when not all are: an early, a middle and a late one, and one on the way out.
const SAMPLE: [&str; 4] = [
    "Install/PullImage/applied",
    "Install/StartUnit/applied",
    "Install/Promote/recorded",
    "Uninstall/StopUnit/applied",
];

/// Makes the supervisor look for a point to die at in a file.
const ARM: &str = "mkdir -p /run/systemd/system/berthd.service.d && \
     printf '[Service]\\nEnvironment=BERTH_ABORT_FILE=/run/berth/abort\\n' >/run/systemd/system/berthd.service.d/abort.conf && \
     systemctl daemon-reload && systemctl restart berthd";

/// Every point of installing and uninstalling, made of the steps' own names.
fn points() -> Vec<String> {
    if std::env::var_os("BERTH_LONG").is_none() {
        return SAMPLE.map(str::to_owned).to_vec();
    }
    let of = |kind: OperationKind| {
        let moments = ["begun", "applied", "recorded"];
        kind.steps().iter().flat_map(move |step| moments.map(|moment| format!("{kind:?}/{step:?}/{moment}")))
    };
    [OperationKind::Install, OperationKind::Uninstall].into_iter().flat_map(of).collect()
}

#[test]
fn an_operation_goes_on_when_the_supervisor_is_killed_at_its_steps() {
    let (mut machine, _alone) = own("steps");
    machine.ok(ARM).unwrap();
    let before = holdings(&machine);
    for point in points() {
        eprintln!("killed at {point}");
        let kills: u32 = property(&machine, "berthd.service", "NRestarts").parse().unwrap();
        machine.ok(&format!("echo {point} >/run/berth/abort")).unwrap();
        // The command may lose its connection with the supervisor: what counts is the end.
        let _lost =
            machine.sh("berth install 127.0.0.1:5000/nginx:1 --name web --publish 8081:80 --timeout 5m").unwrap();
        eventually(&"True StartCompleted".into(), || ready_if_any(&machine));
        assert_eq!(page(&machine, 8081), "nginx under Berth, image 1", "{point}");
        let units = machine.ok("systemctl list-units --plain --no-legend 'berth.default.*.service' | wc -l").unwrap();
        assert_eq!(units, "1", "{point}");
        let _lost = machine.sh("berth uninstall web --timeout 5m").unwrap();
        eventually(&3, || machine.sh("berth get bundle web").unwrap().code());
        assert_eq!(property(&machine, "berthd.service", "NRestarts"), (kills + 1).to_string(), "{point} was reached");
        eventually(&before, || holdings(&machine));
    }
    machine.power_off().unwrap();
}

fn ready_if_any(machine: &berth_tests::machine::Machine) -> String {
    match machine.sh("berth get bundle web -o json").unwrap().success() {
        true => ready(machine, "web"),
        false => "none".into(),
    }
}
