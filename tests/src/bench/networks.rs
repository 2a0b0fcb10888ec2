//! What a container's network costs its start: namespace, pair of links, addresses, routes.

use serde_json::Value;

use super::{BenchError, number, put_example, ratio};
use crate::machine::Machine;

const ROUNDS: usize = 40;

/// `netns_setup_ms`: the launcher's own code, in a network namespace with nothing in it but a bridge.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    put_example(machine, "network")?;
    let times = machine.ok(&format!(
        "unshare --net sh -c 'ip link add bench type bridge && ip link set bench up && /run/network {ROUNDS}'"
    ))?;
    let times: Vec<u64> = times.lines().map(number).collect::<Result<_, _>>()?;
    Ok(vec![ratio::time("netns_setup_ms", &times)])
}
