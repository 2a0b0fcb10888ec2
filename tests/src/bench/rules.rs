//! What a new connection between two services costs when there are many others: the machine's own tables, with room
//! taken in their sets and maps as 500 more services take it, and without, in turns.

use std::fmt::Write;

use serde_json::Value;

use super::ratio::{self, Unit};
use super::{BenchError, IMAGE, number};
use crate::machine::{Machine, MachineError};

const SERVICES: usize = 500;
const ROUNDS: usize = 8;
/// Connections that are opened in one round.
const CONNECTIONS: usize = 200;

/// `nft_500_over_1`: the ratio of the times that a connection takes to open.
pub fn rows(machine: &Machine) -> Result<Vec<Value>, BenchError> {
    let connect = prepare(machine)?;
    let (mut many, mut few) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (table, times) in [("many", &mut many), ("few", &mut few)] {
            machine.ok(&format!("nft -f /run/{table}.nft"))?;
            times.push(number(&machine.ok(&connect)?)?);
        }
    }
    machine.ok("berth uninstall near far --timeout 10m")?;
    Ok(vec![ratio::row("nft_500_over_1", Unit::Microseconds, &many, &few)])
}

/// Two services, one of which may reach the other, and two files with the tables; the line that connects.
fn prepare(machine: &Machine) -> Result<String, MachineError> {
    machine.put("/run/connects.py", include_str!("connects.py").as_bytes(), 0o644)?;
    machine.ok(&format!(
        "berth install {IMAGE} --name far --set 'args=[\"http\",\"far\"]' --port http:80 --timeout 10m && \
         berth install {IMAGE} --name near --set 'dependsOn=[\"far\"]' --cpu 2 --timeout 10m"
    ))?;
    let swap = "(echo 'delete table inet berth'; echo 'delete table bridge berth'; \
                nft list table inet berth; nft list table bridge berth)";
    machine.put("/run/more.nft", more().as_bytes(), 0o644)?;
    machine.ok(&format!("{swap} >/run/few.nft && nft -f /run/more.nft && {swap} >/run/many.nft"))?;
    let address = machine.ok("berth get bundle far -o json | jq -r '.status.address'")?;
    let main = machine.ok("systemctl show -P MainPID berth.default.near.r1.service")?;
    Ok(format!("nsenter -t {main} -n python3 /run/connects.py {address} 80 {CONNECTIONS}"))
}

/// What so many more services add: an address of their own and of a revision, a published port, a declared one.
fn more() -> String {
    let mut text = String::new();
    for n in 0..SERVICES {
        let (net, host, port) = (n / 250, n % 250 + 2, 20_000 + n);
        let (own, service) = (format!("10.213.{}.{host}", 100 + net), format!("10.213.{}.{host}", 228 + net));
        for (object, element) in [
            ("service4", format!("{service} : {own}")),
            ("tcp_address4", format!("{port} : {own}")),
            ("tcp_port4", format!("{port} : 80")),
            ("declared4", format!("{own} . 10.213.100.2 . tcp . 80")),
            ("published4", format!("{own} . tcp . 80")),
            ("self4", format!("{own} . {own}")),
            ("internet4", own.clone()),
        ] {
            // A string takes whatever is written to it.
            let _ = writeln!(text, "add element inet berth {object} {{ {element} }}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_more_is_another_one() {
        let lines: std::collections::BTreeSet<String> = more().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), SERVICES * 7);
    }
}
