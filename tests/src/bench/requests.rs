//! What the API takes for single requests, for a list of a thousand objects, for telling a watcher, and for fifty
//! changes that one command makes.

use serde_json::Value;

use super::{BenchError, number, ratio};
use crate::machine::Machine;

/// `api_get_p99_ms`, `api_list_1000_ms`, `watch_latency_p99_ms` (from the request that changes an object to the line a
/// watcher reads), `apply_50_changes_ms`.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    machine.put("/run/requests.py", include_str!("requests.py").as_bytes(), 0o644)?;
    let said = machine.ok("python3 /run/requests.py")?;
    let of = |what: &str| -> Result<Vec<u64>, BenchError> {
        said.lines().filter_map(|line| line.strip_prefix(what)).map(number).collect()
    };
    Ok(vec![
        ratio::late("api_get_p99_ms", &of("get ")?),
        ratio::time("api_list_1000_ms", &of("list ")?),
        ratio::late("watch_latency_p99_ms", &of("watch ")?),
        ratio::time("apply_50_changes_ms", &of("apply ")?),
    ])
}
