//! A service's life beside a Quadlet's: fetched, crashed, brought back to what it was, written down.

use serde_json::{Value, json};

use super::ratio::{self, Unit};
use super::{BenchError, IMAGE, number};
use crate::machine::Machine;

/// The image that is fetched: one layer of Debian's packages.
const FETCHED: &str = "127.0.0.1:5000/nginx:1";
const FETCHES: usize = 6;
const CRASHES: usize = 8;
const ROLLBACKS: usize = 4;
/// Lines that a service writes as fast as it can.
const LINES: u64 = 20_000;

/// `pull_over_podman`, `crash_to_restarted_ms`, `rollback_s`, `logs_lines_per_s`.
pub fn rows(machine: &Machine) -> impl Iterator<Item = Result<Value, BenchError>> {
    [fetched, crashed, rolled_back, logged].into_iter().map(|row| row(machine))
}

/// From an empty store of images to the unpacked image: whole commands of both, in turns.
fn fetched(machine: &Machine) -> Result<Value, BenchError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..FETCHES {
        machine.ok(&format!("berth install {FETCHED} --name fetched --timeout 10m"))?;
        ours.push(steps(machine, "Install", "fetched", "ResolveImage PullImage")?);
        machine.ok("berth uninstall fetched --timeout 10m && berth image prune")?;
        theirs.push(timed(machine, &format!("podman pull --quiet --tls-verify=false {FETCHED}"))?);
        machine.ok(&format!("podman rmi {FETCHED}"))?;
    }
    Ok(ratio::row("pull_over_podman", Unit::Microseconds, &ours, &theirs))
}

/// From the kill of the first process until the unit is active with another one; the Quadlet restarts, too.
fn crashed(machine: &Machine) -> Result<Value, BenchError> {
    machine.put("/run/lives.py", include_str!("lives.py").as_bytes(), 0o644)?;
    machine.ok("mkdir -p /run/systemd/system/peer.service.d")?;
    machine.put(
        "/run/systemd/system/peer.service.d/again.conf",
        b"[Service]\nRestart=always\nRestartSec=100ms\n",
        0o644,
    )?;
    machine.ok("systemctl daemon-reload && systemctl start peer.service")?;
    let times = |unit: &str| -> Result<Vec<u64>, BenchError> {
        machine.ok(&format!("python3 /run/lives.py {unit} {CRASHES}"))?.lines().map(number).collect()
    };
    let mut row = ratio::time("crash_to_restarted_ms", &times("berth.default.box.r1.service")?);
    row["pause_before_restart"] =
        machine.ok("systemctl show -P RestartUSec berth.default.box.r1.service")?.trim().into();
    row["quadlet_microseconds"] = times("peer.service")?.into();
    row["quadlet_pause_before_restart"] = "100ms".into();
    Ok(row)
}

/// The whole command; a gibibyte of volume goes from the one revision to the other.
fn rolled_back(machine: &Machine) -> Result<Value, BenchError> {
    machine.ok(&format!(
        "berth install {IMAGE} --name back --volume data:/data:1Gi --timeout 10m && berth get bundle back -o json | \
         jq '.spec.env = [{{name: \"TRY\", value: \"2\"}}]' | berth apply -f - --wait --timeout 10m"
    ))?;
    let times: Vec<u64> =
        (0..ROLLBACKS).map(|_| timed(machine, "berth rollback back --timeout 10m")).collect::<Result<_, _>>()?;
    machine.ok("berth uninstall back --erase-volumes --timeout 10m")?;
    let mut row = ratio::time("rollback_s", &times);
    row["unit"] = "s".into();
    for figure in ["value", "least"] {
        row[figure] = (row[figure].as_f64().unwrap_or(f64::NAN) / 1000.0).into();
    }
    Ok(row)
}

/// Lines that came through the journal and the API to a follower, in a second, and how many did not come at all.
fn logged(machine: &Machine) -> Result<Value, BenchError> {
    let script = format!("until [ -e /tmp/go ]; do sleep 0.1; done; seq {LINES}; echo over; exec sleep 1000000");
    machine.ok(&format!(
        "berth install {IMAGE} --name loud --cpu 2 --set 'command=[\"/usr/bin/sh\",\"-c\",\"{script}\"]' --timeout 10m"
    ))?;
    let said = machine.ok(
        "berth logs -f loud >/run/loud & follower=$!; berth exec loud -- sh -c ': >/tmp/go'; a=$(date +%s%N); \
         until grep -q over /run/loud; do sleep 0.1; done; b=$(date +%s%N); kill $follower; \
         echo $(((b - a) / 1000)) $(grep -cE '^[0-9]+$' /run/loud)",
    )?;
    let (time, came) = said.trim().split_once(' ').ok_or_else(|| BenchError::NoNumber(said.clone()))?;
    let (time, came) = (number(time)?, number(came)?);
    machine.ok("berth uninstall loud --timeout 10m; rm /run/loud")?;
    Ok(json!({
        "name": "logs_lines_per_s",
        "unit": "lines_per_second",
        "value": came * 1_000_000 / time.max(1),
        "lines": LINES,
        "lost": LINES - came,
        "microseconds": time,
    }))
}

/// Microseconds of a whole command.
fn timed(machine: &Machine, line: &str) -> Result<u64, BenchError> {
    number(
        &machine
            .ok(&format!("a=$(date +%s%N); {line} >/dev/null || exit 1; b=$(date +%s%N); echo $(((b - a) / 1000))"))?,
    )
}

/// How long these steps of the newest such operation took together, as the operation has it.
pub(super) fn steps(machine: &Machine, kind: &str, target: &str, names: &str) -> Result<u64, BenchError> {
    number(&machine.ok(&format!(
        r#"berth get operations -o json | jq -r --arg kind {kind} --arg target {target} --arg names "{names}" '
             [.items[] | select(.spec.kind == $kind and .spec.target.name == $target)] | sort_by(.status.startedAt) | last
             | .status.steps[] | select(.name | IN($names | split(" ")[])) | "\(.finishedAt) \(.startedAt)"' |
           while read -r end start; do echo $((($(date -d $end +%s%N) - $(date -d $start +%s%N)) / 1000)); done |
           awk '{{s += $1}} END {{print s}}'"#
    ))?)
}
