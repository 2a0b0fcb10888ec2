//! What a container's network costs its start: namespace, pair of links, addresses, routes.

use serde_json::Value;

use super::{BenchError, number, ratio};
use crate::cache::at;
use crate::machine::Machine;
use crate::{spawn, tree};

const ROUNDS: usize = 40;

/// `netns_setup_ms`: the launcher's own code, in a network namespace with nothing in it but a bridge.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    let folder = at(std::path::Path::new("."), tree::programs())?;
    let stripped = machine.home().join("network");
    spawn::output(spawn::command("strip").arg("-o").arg(&stripped).arg(folder.join("examples/network")))?;
    machine.put("/run/network", &at(&stripped, std::fs::read(&stripped))?, 0o755)?;
    let times = machine.ok(&format!(
        "unshare --net sh -c 'ip link add bench type bridge && ip link set bench up && /run/network {ROUNDS}'"
    ))?;
    let times: Vec<u64> = times.lines().map(number).collect::<Result<_, _>>()?;
    Ok(vec![ratio::time("netns_setup_ms", &times)])
}
