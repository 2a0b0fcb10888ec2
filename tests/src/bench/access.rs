//! The door over TLS: one object asked for at a steady rate, beside axum with SQLite and nothing of ours; `kubectl get`
//! beside `kubectl` that asks nobody; a login with its Argon2id; what a watcher keeps in memory that nothing happens to.

use serde_json::{Value, json};

use super::{BenchError, number, put_example, ratio};
use crate::machine::Machine;

/// Requests a second, and seconds: what the contract wants to be known of, and what two emulated processors can do.
const RATES: [(u32, u32); 2] = [(500, 10), (50, 20)];
/// How often each is asked, in turns.
const ROUNDS: usize = 3;
const FLOOR: u16 = 7443;

/// `api_get_over_floor_<rate>`, `kubectl_get_ms`, `login_ms`, `bytes_per_idle_watcher`.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    machine.put("/run/access.py", include_str!("access.py").as_bytes(), 0o644)?;
    let said = machine.ok("python3 /run/access.py")?;
    let of = |what: &str| -> Result<Vec<u64>, BenchError> {
        said.lines().filter_map(|line| line.strip_prefix(what)).map(number).collect()
    };
    let mut rows = rates(machine)?;
    let mut asked = ratio::time("kubectl_get_ms", &of("kubectl ")?);
    asked["client_alone"] = ratio::time("kubectl version --client", &of("client ")?)["value"].take();
    let mut login = ratio::time("login_ms", &of("login ")?);
    login["argon2id"] = json!({ "memory_kib": 19 * 1024, "passes": 2, "lanes": 1 });
    rows.extend([asked, login]);
    let bytes = of("watcher ")?.first().copied();
    rows.push(json!({ "name": "bytes_per_idle_watcher", "unit": "bytes", "value": bytes, "watchers": 200 }));
    machine.ok("berth user delete bench && berth delete configmap kept-7 && rm /run/access.py /run/bench.config")?;
    Ok(rows)
}

fn rates(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    put_example(machine, "floor")?;
    put_example(machine, "load")?;
    let floor = machine.start(&format!("exec /run/floor {FLOOR} /run/floor.pem"));
    machine.ok("until [ -s /run/floor.pem ]; do sleep 0.2; done")?;
    let rows = RATES.iter().map(|(rate, seconds)| at_rate(machine, *rate, *seconds)).collect();
    drop(floor?);
    machine.ok("pkill -x floor; rm /run/floor /run/load /run/floor.pem")?;
    rows
}

fn at_rate(machine: &Machine, rate: u32, seconds: u32) -> Result<Value, BenchError> {
    let ours =
        "https://localhost:6443/api/v1/namespaces/default/configmaps/kept-7 /var/lib/berth/ca.crt /var/lib/berth/token";
    let theirs = format!("https://localhost:{FLOOR}/kept /run/floor.pem -");
    let (mut all, mut late) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (index, whom) in [ours, theirs.as_str()].into_iter().enumerate() {
            let said = machine.ok(&format!("/run/load {whom} {rate} {seconds}"))?;
            let round = said.lines().map(number).collect::<Result<Vec<_>, _>>()?;
            late[index].push(ratio::hundredth(&round));
            all[index].extend(round);
        }
    }
    let mut row = ratio::row(&format!("api_get_p99_over_floor_{rate}"), ratio::Unit::Microseconds, &late[0], &late[1]);
    for (name, of) in ["berth", "floor"].iter().zip(&all) {
        row[format!("{name}_median_ms")] = ratio::time("", of)["value"].take();
        row[format!("{name}_p99_ms")] = ratio::late("", of)["value"].take();
    }
    Ok(row)
}
