//! The supervisor is killed at the steps of its operations: each comes to the end that was asked for.

use berth_model::resource::operation::OperationKind;
use berth_tests::machine::Machine;

use super::{disturbed, eventually, holdings, page, property, ready};

/// Makes the supervisor look for a point to die at in a file.
const ARM: &str = "mkdir -p /run/systemd/system/berthd.service.d && \
     printf '[Service]\\nEnvironment=BERTH_ABORT_FILE=/run/abort\\n' >/run/systemd/system/berthd.service.d/abort.conf && \
     systemctl daemon-reload && systemctl restart berthd";
const DISARM: &str =
    "rm -r /run/systemd/system/berthd.service.d && systemctl daemon-reload && systemctl restart berthd";

/// A service's life: what is asked for, how its bundle stands then, and what its port answers.
const LIFE: [(OperationKind, &str, &str, &str); 6] = [
    (OperationKind::Install, "install 127.0.0.1:5000/nginx:1 --name web --publish 8081:80", UP, FIRST),
    (OperationKind::Update, "update web --image 127.0.0.1:5000/nginx:2", UP, SECOND),
    (OperationKind::Stop, "stop web", "False StartSkipped", NOBODY),
    (OperationKind::Start, "start web", UP, SECOND),
    (OperationKind::Restart, "restart web", UP, SECOND),
    (OperationKind::Uninstall, "uninstall web", "none", NOBODY),
];
const UP: &str = "True StartCompleted";
const FIRST: &str = "nginx under Berth, image 1";
const SECOND: &str = "nginx under Berth, image 2";
const NOBODY: &str = "nobody";

/// Lives that are tried when not all are: one dies early and in the middle of a step, the other late and between two.
const SAMPLE: [usize; 2] = [4, 20];

/// Every point of an operation, made of its steps' own names.
fn points(kind: OperationKind) -> Vec<String> {
    let moments = ["begun", "applied", "recorded"];
    let of = |step| moments.map(|moment| format!("{kind:?}/{step:?}/{moment}"));
    kind.steps().iter().flat_map(of).collect()
}

/// For each life, the point at which each operation of it is disturbed. As many lives as the longest operation has
/// points; the others begin again.
fn lives() -> Vec<Vec<String>> {
    let all = LIFE.map(|(kind, ..)| points(kind));
    let most = all.iter().map(Vec::len).max().unwrap();
    let lives = (0..most).map(|life| all.iter().map(|points| points[life % points.len()].clone()).collect()).collect();
    match std::env::var_os("BERTH_LONG") {
        Some(_) => lives,
        None => SAMPLE.map(|life| lives[life].clone()).to_vec(),
    }
}

#[test]
fn an_operation_goes_on_when_the_supervisor_is_killed_at_its_steps() {
    let (_alone, machine) = disturbed();
    assert!(
        LIFE.map(|(kind, ..)| kind).iter().all(|kind| OperationKind::ALL.contains(kind))
            && LIFE.len() == OperationKind::ALL.len()
    );
    let before = holdings(machine);
    machine.ok(ARM).unwrap();
    for points in lives() {
        for ((_, line, stands, answers), point) in LIFE.iter().zip(&points) {
            eprintln!("killed at {point}");
            killed_at(machine, point, line);
            eventually(&(*stands).to_owned(), || ready_if_any(machine));
            eventually(&(*answers).to_owned(), || answer(machine));
            let units = "systemctl list-units --plain --no-legend 'berth.default.*.service' | wc -l";
            let wanted = if *answers == NOBODY { "0" } else { "1" };
            assert_eq!(machine.ok(units).unwrap(), wanted, "{point}");
        }
        eventually(&before, || holdings(machine));
    }
    machine.ok(DISARM).unwrap();
}

/// Asks for it with the point armed, and waits until the supervisor has died there and is up again.
fn killed_at(machine: &Machine, point: &str, line: &str) {
    let kills: u32 = property(machine, "berthd.service", "NRestarts").parse().unwrap();
    machine.ok(&format!("echo {point} >/run/abort")).unwrap();
    // The command may lose its connection with the supervisor: what counts is the end.
    let lost = machine.sh(&format!("berth {line} --timeout 5m")).unwrap();
    let told = lost.text() + &lost.errors();
    eventually(&(kills + 1).to_string(), || {
        let seen = property(machine, "berthd.service", "NRestarts");
        if seen == kills.to_string() { format!("{seen}: {point} was not reached: {told}") } else { seen }
    });
    eventually(&true, || machine.sh("systemctl is-active --quiet berthd").unwrap().success());
}

fn ready_if_any(machine: &Machine) -> String {
    match machine.sh("berth get bundle web").unwrap().code() {
        0 => ready(machine, "web"),
        3 => "none".into(),
        code => format!("exit code {code}"),
    }
}

/// The page, or that nobody answers.
fn answer(machine: &Machine) -> String {
    let page = page(machine, 8081);
    if page.starts_with("nginx") { page } else { NOBODY.to_owned() }
}
