//! Many services: what looking at them costs when nothing is to be done, and how soon they are all up after a boot.

use serde_json::{Value, json};

use super::lives::fill;
use super::{BenchError, IMAGE, number, ratio};
use crate::machine::Machine;

/// Services whose boot is measured, of each kind.
const BOOTED: usize = 20;
/// Rounds of looks that are counted.
const ROUNDS: u64 = 10;

/// `reconcile_noop_<services>_cpu_ms`: processor time of the supervisor for one look at each service, all of which are
/// as they should be, with what it spends on its own upkeep meanwhile.
pub fn looks(machine: &Machine, services: usize) -> Result<Value, BenchError> {
    machine.ok(
        "mkdir -p /etc/berth && echo 'reconcile_interval = 1' >/etc/berth/berthd.toml && systemctl restart berthd",
    )?;
    let said = machine.ok(&format!(
        r"looks() {{ curl --silent --fail --unix-socket /run/berth/api.sock http://localhost/metrics |
              awk '/^berth_reconciles_total/ {{s += $2}} END {{print s + 0}}'; }}
          spent() {{ awk '{{print ($14 + $15) * 1000 / '$(getconf CLK_TCK)'}}' /proc/$(pgrep -x berthd)/stat; }}
          until [ $(looks) -ge {warm} ]; do sleep 1; done
          a=$(looks) b=$(spent); until [ $(looks) -ge $((a + {many})) ]; do sleep 1; done
          echo $(($(looks) - a)) $(($(spent) - b))",
        warm = 2 * services,
        many = ROUNDS * u64::try_from(services).unwrap_or(u64::MAX),
    ))?;
    machine.ok("rm /etc/berth/berthd.toml && systemctl restart berthd")?;
    let (looks, spent) = said.trim().split_once(' ').ok_or_else(|| BenchError::NoNumber(said.clone()))?;
    let (looks, spent) = (number(looks)?, number(spent)?);
    Ok(json!({
        "name": format!("reconcile_noop_{services}_cpu_ms"),
        "unit": "ms",
        "value": spent * u64::try_from(services).unwrap_or(u64::MAX) / looks.max(1),
        "looks": looks,
        "milliseconds": spent,
    }))
}

/// `boot20_over_quadlet20`: seconds from the kernel's start until the last of so many services is active. One boot of
/// each kind: what the other kind had is away.
pub fn boots(machine: &mut Machine) -> Result<Value, BenchError> {
    fill(machine, 1, BOOTED)?;
    let ours = booted(machine, "berth.default.box*.service")?;
    machine.ok("berth uninstall $(berth get bundles -o json | jq -r '.items[].metadata.name') --timeout 20m")?;
    for number in 1..=BOOTED {
        let unit = format!(
            "[Container]\nImage={IMAGE}\nExec=sleep\nNetwork=podman\n[Service]\nTimeoutStartSec=900\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        machine.put(&format!("/etc/containers/systemd/many{number}.container"), unit.as_bytes(), 0o644)?;
    }
    machine.ok("systemctl daemon-reload")?;
    let theirs = booted(machine, "many*.service")?;
    Ok(ratio::row("boot20_over_quadlet20", ratio::Unit::Microseconds, &[ours], &[theirs]))
}

/// Microseconds.
fn booted(machine: &mut Machine, units: &str) -> Result<u64, BenchError> {
    machine.reboot()?;
    number(&machine.ok(&format!(
        "until [ $(systemctl list-units --plain --no-legend --state active '{units}' | wc -l) -ge {BOOTED} ]; do sleep 1; done
         systemctl show -P ActiveEnterTimestampMonotonic '{units}' | sort -n | tail -n 1"
    ))?)
}
