//! What stays in memory: of ours per service, and the supervisor itself.

use serde_json::{Value, json};

use super::{BenchError, SERVICES, number};
use crate::machine::Machine;

/// The processes in a unit's control group that are not in a container (they share the machine's own process
/// namespace): how many, and their proportional memory in KiB.
const OUTSIDE: &str = r#"
outside() {
    host=$(readlink /proc/1/ns/pid)
    for unit in "$@"; do
        group=/sys/fs/cgroup$(systemctl show --property ControlGroup --value "$unit")
        find "$group" -name cgroup.procs -exec cat {} + | while read -r process; do
            [ "$(readlink "/proc/$process/ns/pid")" = "$host" ] && awk '/^Pss:/ {print $2}' "/proc/$process/smaps_rollup"
        done
    done | awk '{n += 1; s += $1} END {print n + 0, s * 1024}'
}
"#;

/// `resident_per_service_bytes`: beside it what the Quadlet keeps, counted in the same way.
pub fn resident(machine: &Machine) -> Result<Value, BenchError> {
    let (processes, ours) =
        outside(machine, "$(systemctl list-units --plain --no-legend 'berth.*.service' | cut -d ' ' -f 1)")?;
    // Nothing starts it at a boot, and there was one.
    machine.ok("systemctl start peer.service")?;
    let (theirs, monitor) = outside(machine, "peer.service")?;
    let services = u64::try_from(SERVICES).unwrap_or(u64::MAX);
    Ok(json!({
        "name": "resident_per_service_bytes",
        "unit": "bytes",
        "value": ours / services,
        "services": SERVICES,
        "processes": processes,
        "quadlet_bytes": monitor,
        "quadlet_processes": theirs,
    }))
}

fn outside(machine: &Machine, units: &str) -> Result<(u64, u64), BenchError> {
    let said = machine.ok(&format!("{OUTSIDE} outside {units}"))?;
    let (processes, bytes) = said.trim().split_once(' ').ok_or_else(|| BenchError::NoNumber(said.clone()))?;
    Ok((number(processes)?, number(bytes)?))
}

/// `supervisor_rss_<services>_bytes` after two minutes of rest, the largest of ten looks: its own memory, and the pages
/// of its program, which are the kernel's to drop. It gives back every minute what it does not need.
pub fn supervisor(machine: &Machine, services: usize) -> Result<Value, BenchError> {
    let said = machine.ok(
        "sleep 120; for i in $(seq 10); do \
         awk '/^Rss(Anon|File):/ {printf \"%d \", $2 * 1024} END {print \"\"}' /proc/$(pgrep -x berthd)/status; sleep 7; \
         done | awk '$1 + $2 > most {most = $1 + $2; line = $0} END {print line}'",
    )?;
    let (own, program) = said.trim().split_once(' ').ok_or_else(|| BenchError::NoNumber(said.clone()))?;
    let (own, program) = (number(own)?, number(program)?);
    Ok(json!({
        "name": format!("supervisor_rss_{services}_bytes"),
        "unit": "bytes",
        "value": own + program,
        "own": own,
        "program": program,
    }))
}
