//! Many services: what looking at them costs when nothing is to be done, and how soon they are all up after a boot.

use serde_json::{Value, json};

use super::{BenchError, IMAGE, SERVICES, number, ratio};
use crate::machine::{Machine, MachineError};

/// Services whose boot is measured, of each kind.
pub(super) const BOOTED: usize = 20;
/// Looks that are counted, more or less; before them, one at each service.
const LOOKS: usize = 300;
/// As many at most, so that there is one look at the network for each round of looks, as there always is.
const LOOKS_PER_SECOND: usize = 10;

/// `reconcile_noop_<services>_cpu_ms`: processor time of the supervisor for one look at each service, all of which are
/// as they should be, with what it spends on its own upkeep meanwhile.
pub fn looks(machine: &Machine, services: usize) -> Result<Value, BenchError> {
    machine.ok(&format!(
        "mkdir -p /etc/berth && echo 'reconcile_interval = {}' >/etc/berth/berthd.toml && systemctl restart berthd",
        services.div_ceil(LOOKS_PER_SECOND)
    ))?;
    // Nobody asks while it is counted: to tell how all services fare takes longer the more there are.
    let said = machine.ok(&format!(
        r"looks() {{ curl --silent --fail --unix-socket /run/berth/api.sock http://localhost/metrics |
              awk '/^berth_reconciles_total/ {{s += $2}} END {{print s + 0}}'; }}
          spent() {{ awk '{{print ($14 + $15) * 1000 / '$(getconf CLK_TCK)'}}' /proc/$(pgrep -x berthd)/stat; }}
          until [ $(looks) -ge {services} ]; do sleep 5; done
          sleep {round}; a=$(looks) b=$(spent); sleep {rounds}; c=$(spent) d=$(looks); echo $((d - a)) $((c - b))",
        round = services.div_ceil(LOOKS_PER_SECOND),
        rounds = LOOKS.max(services).div_ceil(LOOKS_PER_SECOND),
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

/// `boot20_over_quadlet20`, with as many services installed: from the kernel's start until so many services are active.
/// One boot of each kind, in which those of the other kind are stopped.
pub fn boots(machine: &mut Machine) -> Result<Value, BenchError> {
    let ours = booted(machine, "berth.default.box*.service")?;
    let all = "$(berth get bundles -o json | jq -r '.items[].metadata.name')";
    machine.ok(&format!("for one in {all}; do berth stop $one --timeout 10m || exit 1; done"))?;
    for number in 1..=BOOTED {
        let unit = format!(
            "[Container]\nImage={IMAGE}\nExec=sleep\nNetwork=podman\n[Service]\nTimeoutStartSec=900\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        machine.put(&format!("/etc/containers/systemd/many{number}.container"), unit.as_bytes(), 0o644)?;
    }
    machine.ok("systemctl daemon-reload")?;
    let theirs = booted(machine, "many*.service")?;
    machine.ok(
        "systemctl stop 'many*.service' && rm /etc/containers/systemd/many*.container && systemctl daemon-reload",
    )?;
    machine.ok(&format!("for one in {all}; do berth start $one --timeout 10m || exit 1; done"))?;
    Ok(ratio::row("boot20_over_quadlet20", ratio::Unit::Microseconds, &[ours], &[theirs]))
}

/// Microseconds.
fn booted(machine: &mut Machine, units: &str) -> Result<u64, BenchError> {
    machine.reboot()?;
    number(&machine.ok(&format!(
        "until [ $(systemctl list-units --plain --no-legend --state active '{units}' | wc -l) -ge {BOOTED} ]; do sleep 1; done
         systemctl show -P ActiveEnterTimestampMonotonic '{units}' | grep -v '^0$' | sort -n | sed -n {BOOTED}p"
    ))?)
}

/// Bundles that are looked at like all others and have nothing to do, as their installation is held: an emulated machine
/// does not run hundreds of services.
pub fn rest(machine: &Machine, from: usize, to: usize) -> Result<(), MachineError> {
    let head = "apiVersion: berth.dev/v1";
    let mut all = vec![format!(
        "{{{head}, kind: Settings, metadata: {{name: berth}}, spec: {{operations: {{hold: [Install]}}}}}}"
    )];
    all.extend((from..=to).map(|number| {
        format!("{{{head}, kind: Bundle, metadata: {{name: rests{number}, namespace: default}}, spec: {{image: '{IMAGE}'}}}}")
    }));
    machine.put("/run/rest.yaml", all.join("\n---\n").as_bytes(), 0o600)?;
    machine.ok("berth apply -f /run/rest.yaml >/dev/null")?;
    let held = "berth get operations -o json | jq '[.items[] | select(.status.state == \"Held\")] | length'";
    machine.ok(&format!("until [ $({held}) -ge {} ]; do sleep 1; done", to - SERVICES)).map(drop)
}

/// As many services as there are of ours, with nothing to do.
pub(super) fn fill(machine: &Machine, from: usize, to: usize) -> Result<(), MachineError> {
    for number in from..=to {
        machine.ok(&format!("berth install {IMAGE} --name box{number} --timeout 10m"))?;
    }
    Ok(())
}
