//! A bundle's unit in systemd's property names.

use std::time::Duration;

use berth_host::systemd::{Exec, NotifyAccess, Restart, ServiceType, UnitProperties, escape};
use berth_model::resource::bundle::RestartPolicy;

use crate::bundle::unit::UnitRequest;

/// The launcher.
const LAUNCHER: &str = "/usr/lib/berth/berth-run";
/// Pause before systemd starts a crashed service again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Five crashes within a minute, and systemd gives up; `berthd` tries again later and later.
const START_LIMIT: (u32, Duration) = (5, Duration::from_secs(60));
/// How long the launcher may take.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a service may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// HUP, INT, PIPE and TERM in a shell's counting, which is how a container's first process reports a
/// program that ended by one of them: it was stopped, not broken. (systemd's own list for signals.)
const TERMINATED: [i32; 4] = [129, 130, 141, 143];

/// Everything systemd is told about a unit. Its namespaces, mounts and system calls are the
/// launcher's business; systemd holds the limits, the restarts and the devices.
pub(super) fn of(unit: &UnitRequest) -> UnitProperties {
    let launcher = |words: &[&str]| {
        let words = words.iter().copied().chain([unit.id.as_str()]);
        Exec::new(LAUNCHER, words)
    };
    let properties = UnitProperties::new()
        .description(&unit.description)
        .slice(slice(&unit.namespace))
        .service_type(ServiceType::Notify)
        .notify_access(NotifyAccess::Main)
        .exec_start(launcher(&["start"]))
        .exec_stop(launcher(&["stopped", "--asked"]))
        .exec_stop_post(launcher(&["stopped"]))
        .restart(restart(unit.restart), RESTART_PAUSE)
        .start_limit(START_LIMIT.0, START_LIMIT.1)
        .start_timeout(START_TIMEOUT)
        .stop_timeout(STOP_TIMEOUT)
        .kill(unit.stop_signal)
        .success_statuses(TERMINATED.to_vec(), Vec::new());
    confine(limit(properties, unit), unit)
}

fn limit(properties: UnitProperties, unit: &UnitRequest) -> UnitProperties {
    properties
        .cpu_quota(Duration::from_micros(unit.limits.cpu_usec))
        .memory_max(unit.limits.memory)
        .memory_swap_max(0)
        .tasks_max(unit.limits.pids)
        .io_weight(unit.limits.io_weight)
        .oom_kills_unit()
}

fn confine(properties: UnitProperties, unit: &UnitRequest) -> UnitProperties {
    let devices = unit.devices.iter().map(|device| (device.display().to_string(), "rwm".to_owned()));
    properties
        .delegate()
        .private_mounts()
        .devices(devices)
        .collect_when_inactive()
        .add_ref()
        .syslog_identifier(&unit.bundle)
        .log_fields([
            ("BERTH_NAMESPACE", unit.namespace.clone()),
            ("BERTH_BUNDLE", unit.bundle.clone()),
            ("BERTH_REVISION", unit.revision.to_string()),
            ("BERTH_IMAGE_DIGEST", unit.digest.clone()),
        ])
}

/// `my-team` has its units in `berth-my\x2dteam.slice`, below `berth.slice`.
pub(super) fn slice(namespace: &str) -> String {
    format!("berth-{}.slice", escape(namespace))
}

fn restart(policy: RestartPolicy) -> Restart {
    match policy {
        RestartPolicy::OnFailure => Restart::OnFailure,
        RestartPolicy::Always => Restart::Always,
        RestartPolicy::Never => Restart::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::unit::Limits;

    #[test]
    fn a_unit_is_told_to_systemd_as_in_the_golden_file() {
        let unit = UnitRequest {
            id: "my-team.web.r3".into(),
            name: "berth.my-team.web.r3.service".into(),
            description: "Berth bundle web (revision 3, registry/web@sha256:00)".into(),
            namespace: "my-team".into(),
            bundle: "web".into(),
            revision: 3,
            digest: "sha256:00".into(),
            stop_signal: 3,
            restart: RestartPolicy::OnFailure,
            limits: Limits { cpu_usec: 500_000, memory: 64 << 20, pids: 512, io_weight: 100 },
            devices: vec!["/dev/mapper/berth-00".into()],
        };
        let golden = include_str!("../../tests/golden/unit.txt");
        assert_eq!(of(&unit).to_string().trim_end(), golden.trim_end());
    }
}
