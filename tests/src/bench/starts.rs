//! How long `systemctl start` of a stopped unit takes: whole commands in the guest, so that all pay for systemctl and
//! systemd alike. A target wants the peers all along, so that they stay loaded as Berth's unit does.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BenchError, IMAGE, number};
use crate::machine::{Machine, MachineError};

const BERTH: &str = "berth.default.box.r1.service";
const FLOOR: &str = "floor.service";
const QUADLET: &str = "peer.service";

const FLOOR_UNIT: &str =
    "[Service]\nType=exec\nExecStart=/bin/sh -c 'trap \"exit 0\" TERM; while :; do sleep 3600 & wait $!; done'\n";
const QUADLET_UNIT: &str =
    "[Container]\nImage=127.0.0.1:5000/testbox:latest\nExec=sleep\nNetwork=podman\n[Service]\nTimeoutStartSec=300\n";
const KEEPER: &str = "[Unit]\nWants=floor.service peer.service\n";

/// Microseconds of each start by unit; the same place in each list is the same round.
pub type Times = BTreeMap<String, Vec<u64>>;

/// The same program three times: as a plain unit, in Berth, in a Quadlet; image present, no volume.
pub fn prepare(machine: &Machine) -> Result<(), MachineError> {
    machine.put("/etc/systemd/system/floor.service", FLOOR_UNIT.as_bytes(), 0o644)?;
    machine.put("/etc/systemd/system/keeper.target", KEEPER.as_bytes(), 0o644)?;
    machine.ok("mkdir -p /etc/containers/systemd")?;
    machine.put("/etc/containers/systemd/peer.container", QUADLET_UNIT.as_bytes(), 0o644)?;
    machine.ok(&format!("podman pull --quiet --tls-verify=false {IMAGE} && systemctl daemon-reload"))?;
    machine.ok(&format!("berth install {IMAGE} --name box --cpu 2 --timeout 10m"))?;
    machine.ok(&format!("systemctl start keeper.target {FLOOR} {QUADLET}"))?;
    Ok(())
}

/// So many rounds; each begins with another unit, so that none always follows the same one.
pub fn measure(machine: &Machine, rounds: usize) -> Result<Times, BenchError> {
    let mut times = Times::new();
    let mut units = [FLOOR, BERTH, QUADLET];
    for _ in 0..rounds {
        for unit in units {
            times.entry(unit.into()).or_default().push(start(machine, unit)?);
        }
        units.rotate_left(1);
    }
    Ok(times)
}

/// systemd counts starts by hand against the start limit, so the count is reset.
fn start(machine: &Machine, unit: &str) -> Result<u64, BenchError> {
    number(&machine.ok(&format!(
        "systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null; a=$(date +%s%N); \
         systemctl start {unit} || exit 1; b=$(date +%s%N); echo $(((b - a) / 1000))"
    ))?)
}

/// The ratios, each with all that it was made from.
pub fn rows(times: &Times) -> [Value; 2] {
    let of = |unit: &str| times.get(unit).map(Vec::as_slice).unwrap_or_default();
    [row("start_over_floor", of(BERTH), of(FLOOR)), row("start_over_quadlet", of(BERTH), of(QUADLET))]
}

/// The value is the median of the rounds' own ratios: what else the machine does passes over both alike.
fn row(name: &str, ours: &[u64], theirs: &[u64]) -> Value {
    let rounds: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| float(*ours) / float(*theirs)).collect();
    let floats = |raw: &[u64]| raw.iter().copied().map(float).collect::<Vec<f64>>();
    let least = |raw: &[u64]| raw.iter().copied().min().map_or(f64::NAN, float);
    json!({
        "name": name,
        "unit": "ratio",
        "value": thousandth(median(rounds)),
        "of_medians": thousandth(median(floats(ours)) / median(floats(theirs))),
        "of_minima": thousandth(least(ours) / least(theirs)),
        "berth_microseconds": ours,
        "peer_microseconds": theirs,
    })
}

fn thousandth(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of a start are far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}

/// The one in the middle, or what lies between the two in the middle; not a number if there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "halves of small whole numbers are exact")]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![1.0, 4.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_rounds_and_keeps_its_numbers() {
        let row = row("x", &[20, 90, 30], &[10, 30, 10]);
        assert_eq!(row["value"], 3.0);
        assert_eq!(row["of_minima"], 2.0);
        assert_eq!(row["berth_microseconds"], json!([20, 90, 30]));
    }
}
