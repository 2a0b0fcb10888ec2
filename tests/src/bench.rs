//! `just bench`: Berth beside a plain unit and a Quadlet, in one boot, in turns.
//!
//! Times are whole commands in the guest (`systemctl start` of a loaded, stopped unit), so all three pay for systemctl
//! and systemd alike. Ratios are of medians; the raw numbers are kept. Nothing here passes or fails.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::cache::{CacheError, at};
use crate::guest::Flavor;
use crate::machine::{Machine, MachineError, Plan};
use crate::saved::{Parts, SavedError};
use crate::tree;

/// Starts of each unit, unless `BERTH_BENCH_RUNS` says otherwise.
const RUNS: usize = 20;
/// The service: one shell that sleeps.
const BERTH: &str = "berth.default.box.r1.service";
const FLOOR: &str = "floor.service";
const QUADLET: &str = "peer.service";

/// The bench could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Building or waking the machine.
    #[error("getting a machine")]
    Saved(#[from] SavedError),
    /// A command in it.
    #[error("measuring")]
    Machine(#[from] MachineError),
    /// The results.
    #[error("writing the results")]
    Files(#[from] CacheError),
    /// A number that is none.
    #[error("`{0}` is no measurement")]
    NoNumber(String),
}

/// Measures, writes `tests/bench/results.json` and prints the rows.
pub fn run() -> Result<(), BenchError> {
    let machine = Parts::build(Flavor::Bench)?.ready(&Plan::new("bench"))?;
    prepare(&machine)?;
    let runs = std::env::var("BERTH_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    let times = starts(&machine, runs)?;
    let rows = rows(&machine, &times)?;
    for row in rows.as_array().into_iter().flatten() {
        println!("{} {}", row["name"].as_str().unwrap_or_default(), row["value"]);
    }
    let results = json!({ "runs": runs, "on": about(&machine)?, "start_microseconds": times, "rows": rows });
    let path = tree::top().join("tests/bench/results.json");
    let text = serde_json::to_string_pretty(&results).unwrap_or_default() + "\n";
    at(&path, fs::write(&path, text))?;
    Ok(machine.remove()?)
}

/// The same program three times: as a plain unit, in Berth, in a Quadlet; image present, no volume.
fn prepare(machine: &Machine) -> Result<(), MachineError> {
    let floor = "[Service]\nType=exec\nSlice=berth.slice\nExecStart=/bin/sh -c 'trap \"exit 0\" TERM; while :; do sleep 3600 & wait $!; done'\n";
    let quadlet = "[Container]\nImage=127.0.0.1:5000/testbox:latest\nExec=sleep\nNetwork=podman\n[Service]\nTimeoutStartSec=300\n";
    machine.put("/etc/systemd/system/floor.service", floor.as_bytes(), 0o644)?;
    machine.ok("mkdir -p /etc/containers/systemd")?;
    machine.put("/etc/containers/systemd/peer.container", quadlet.as_bytes(), 0o644)?;
    machine.ok("podman pull --quiet --tls-verify=false 127.0.0.1:5000/testbox:latest && systemctl daemon-reload")?;
    machine.ok("berth install 127.0.0.1:5000/testbox:latest --name box --cpu 2 --timeout 10m")?;
    machine.ok(&format!("systemctl start {FLOOR} {QUADLET}"))?;
    Ok(())
}

/// Microseconds of each start, by unit, in turns. The start limit counts starts by hand, so its count is reset.
fn starts(machine: &Machine, runs: usize) -> Result<BTreeMap<String, Vec<u64>>, BenchError> {
    let line = format!(
        "for i in $(seq {runs}); do for u in {FLOOR} {BERTH} {QUADLET}; do systemctl stop $u; systemctl reset-failed $u 2>/dev/null; a=$(date +%s%N); \
         systemctl start $u || exit 1; b=$(date +%s%N); echo $u $(((b - a) / 1000)); done; done"
    );
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in machine.ok(&line)?.lines() {
        let (unit, time) = line.split_once(' ').ok_or_else(|| BenchError::NoNumber(line.into()))?;
        times.entry(unit.into()).or_default().push(number(time)?);
    }
    Ok(times)
}

fn rows(machine: &Machine, times: &BTreeMap<String, Vec<u64>>) -> Result<Value, BenchError> {
    let of = |unit: &str| median(times.get(unit).map(Vec::as_slice).unwrap_or_default());
    let ratio = |peer: &str| (of(BERTH) / of(peer) * 1000.0).round() / 1000.0;
    let resident = number(&machine.ok(
        "for p in $(pgrep -x berth-run) $(pgrep -x berth); do awk '/^Pss:/ {print $2 * 1024}' /proc/$p/smaps_rollup; done \
         | awk '{s += $1} END {print s + 0}'",
    )?)?;
    let conmon =
        number(&machine.ok("awk '/^Pss:/ {print $2 * 1024}' /proc/$(pgrep -x conmon | head -n 1)/smaps_rollup")?)?;
    let rss = number(&machine.ok("awk '/^VmRSS:/ {print $2 * 1024}' /proc/$(pgrep -x berthd)/status")?)?;
    Ok(json!([
        { "name": "start_over_floor", "unit": "ratio", "value": ratio(FLOOR) },
        { "name": "start_over_quadlet", "unit": "ratio", "value": ratio(QUADLET) },
        { "name": "resident_per_service_bytes", "unit": "bytes", "value": resident, "quadlet": conmon },
        { "name": "supervisor_rss_1_bytes", "unit": "bytes", "value": rss },
    ]))
}

/// What it was measured on.
fn about(machine: &Machine) -> Result<Value, BenchError> {
    let said = |line: &str| machine.ok(line);
    Ok(json!({
        "kernel": said("uname -r")?,
        "systemd": said("systemctl --version | head -n 1")?,
        "podman": said("podman --version")?,
        "virtualization": said("systemd-detect-virt || true")?,
    }))
}

fn median(raw: &[u64]) -> f64 {
    let mut sorted = raw.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a start are far below 2^52")]
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default() as f64;
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

fn number(text: &str) -> Result<u64, BenchError> {
    text.trim().parse().map_err(|_| BenchError::NoNumber(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    #[allow(clippy::float_cmp, reason = "halves of small whole numbers are exact")]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[9, 1, 5]), 5.0);
        assert_eq!(median(&[1, 2, 3, 4]), 2.5);
    }
}
