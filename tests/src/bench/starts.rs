//! How long `systemctl start` of a stopped unit takes: whole commands in the guest, so that all pay for systemctl and
//! systemd alike. A target wants the peers all along, so that they stay loaded as Berth's unit does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ratio::{self, Unit};
use super::{BenchError, IMAGE, number};
use crate::machine::{Machine, MachineError};

const BERTH: &str = "berth.default.box.r1.service";
/// The same with a volume, which is open as it is between any two starts.
const FULL: &str = "berth.default.full.r1.service";
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

/// The same program a fourth time, with a volume.
pub fn add_volume(machine: &Machine) -> Result<(), MachineError> {
    machine.ok(&format!("berth install {IMAGE} --name full --cpu 2 --volume data:/data:64Mi --timeout 10m")).map(drop)
}

/// So many rounds; each begins with another unit, so that none always follows the same one.
pub fn measure(machine: &Machine, rounds: usize) -> Result<Times, BenchError> {
    let mut times = Times::new();
    let mut units = [FLOOR, BERTH, QUADLET, FULL];
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

/// The ratios, each with all that it was made from, and what a start with a volume takes.
pub fn rows(times: &Times) -> [Value; 3] {
    let of = |unit: &str| times.get(unit).map(Vec::as_slice).unwrap_or_default();
    let ratio = |name: &str, peer: &str| ratio::row(name, Unit::Microseconds, of(BERTH), of(peer));
    [ratio("start_over_floor", FLOOR), ratio("start_over_quadlet", QUADLET), ratio::time("start_full_ms", of(FULL))]
}
