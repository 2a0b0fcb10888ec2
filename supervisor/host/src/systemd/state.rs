//! What systemd says about a unit, as plain values.

use std::collections::HashMap;
use std::fmt::Write;

use zbus::OwnedVariant;

use crate::cmd::Ended;

/// Whether a unit runs. The finer sub state is for people; this is what to decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActiveState {
    /// Runs.
    Active,
    /// Runs and reads its configuration again.
    Reloading,
    /// Does not run, and ended well if it ever ran.
    Inactive,
    /// Does not run and ended badly.
    Failed,
    /// Is being started, or waits for its next start after a failure.
    Activating,
    /// Is being stopped.
    Deactivating,
    /// A state that this version does not know.
    Other(String),
}

impl ActiveState {
    pub(super) fn parse(text: &str) -> ActiveState {
        match text {
            "active" => ActiveState::Active,
            "reloading" | "refreshing" => ActiveState::Reloading,
            "inactive" => ActiveState::Inactive,
            "failed" => ActiveState::Failed,
            "activating" => ActiveState::Activating,
            "deactivating" => ActiveState::Deactivating,
            other => ActiveState::Other(other.to_owned()),
        }
    }
}

/// A unit in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSummary {
    /// Full name with suffix.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Whether it runs.
    pub active: ActiveState,
    /// The finer state, for people.
    pub sub: String,
    /// The job that is queued for it, if any.
    pub job: Option<u32>,
}

/// A service unit at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Whether it runs.
    pub active: ActiveState,
    /// The finer state, for people.
    pub sub: String,
    /// `success`, `exit-code`, `signal`, `oom-kill`, `timeout`, `start-limit-hit`, ... of the
    /// last run.
    pub result: String,
    /// The main process while it runs.
    pub main_pid: Option<u32>,
    /// How the last main process ended, once it has.
    pub main_ended: Option<Ended>,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// 32 hexadecimal digits, new for every start; absent before the first.
    pub invocation: Option<String>,
    /// Last change of [`UnitState::active`] in microseconds since 1970; 0 for never.
    pub changed_us: u64,
    /// What the service last said about itself (`STATUS=`), empty for nothing.
    pub status_text: String,
    /// The job that is queued for it, if any.
    pub job: Option<u32>,
}

/// What a property should have been and was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("property {0} is missing or of another type")]
pub struct BadProperty(&'static str);

/// The properties of one interface of one object, as `GetAll` returns them.
pub(super) type Properties = HashMap<String, OwnedVariant>;

impl UnitState {
    pub(super) fn read(unit: &Properties, service: &Properties) -> Result<UnitState, BadProperty> {
        let (job, _): (u32, zbus::OwnedObjectPath) = get(unit, "Job")?;
        let main_pid: u32 = get(service, "MainPID")?;
        Ok(UnitState {
            active: ActiveState::parse(&get::<String>(unit, "ActiveState")?),
            sub: get(unit, "SubState")?,
            result: get(service, "Result")?,
            main_pid: (main_pid != 0).then_some(main_pid),
            main_ended: ended(get(service, "ExecMainCode")?, get(service, "ExecMainStatus")?),
            restarts: get(service, "NRestarts")?,
            invocation: hex(&get::<Vec<u8>>(unit, "InvocationID")?),
            changed_us: get(unit, "StateChangeTimestamp")?,
            status_text: get(service, "StatusText")?,
            job: (job != 0).then_some(job),
        })
    }
}

fn get<T: TryFrom<OwnedVariant>>(properties: &Properties, name: &'static str) -> Result<T, BadProperty> {
    properties.get(name).and_then(|value| value.clone().try_into().ok()).ok_or(BadProperty(name))
}

/// `si_code` and `si_status` of the child's last message, as waitid(2) has them.
fn ended(code: i32, status: i32) -> Option<Ended> {
    match code {
        libc::CLD_EXITED => Some(Ended::Code(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Some(Ended::Signal(status)),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use zbus::{ObjectPath, Variant};

    use super::*;

    fn properties(pairs: Vec<(&str, Variant<'_>)>) -> Properties {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.try_into().unwrap())).collect()
    }

    fn unit(active: &str, job: u32) -> Properties {
        properties(vec![
            ("ActiveState", active.into()),
            ("SubState", "x".into()),
            ("InvocationID", vec![0xabu8; 16].into()),
            ("StateChangeTimestamp", 12u64.into()),
            ("Job", (job, ObjectPath::try_from("/").unwrap()).into()),
        ])
    }

    fn service(result: &str, pid: u32, code: i32, status: i32) -> Properties {
        properties(vec![
            ("Result", result.into()),
            ("MainPID", pid.into()),
            ("ExecMainCode", code.into()),
            ("ExecMainStatus", status.into()),
            ("NRestarts", 2u32.into()),
            ("StatusText", "".into()),
        ])
    }

    #[test]
    fn a_running_service_has_a_main_process_and_no_end() {
        let state = UnitState::read(&unit("active", 0), &service("success", 42, 0, 0)).unwrap();
        assert_eq!(state.active, ActiveState::Active);
        assert_eq!((state.main_pid, state.main_ended, state.job), (Some(42), None, None));
        assert_eq!(state.invocation, Some("ab".repeat(16)));
    }

    #[test]
    fn a_killed_service_tells_the_signal_and_a_failed_one_its_exit_code() {
        let killed = UnitState::read(&unit("failed", 7), &service("signal", 0, 2, 9)).unwrap();
        assert_eq!(killed.main_ended, Some(Ended::Signal(9)));
        assert_eq!((killed.main_pid, killed.job), (None, Some(7)));
        let ended = UnitState::read(&unit("failed", 0), &service("exit-code", 0, 1, 3)).unwrap();
        assert_eq!(ended.main_ended, Some(Ended::Code(3)));
    }

    #[test]
    fn a_unit_that_never_ran_has_no_invocation() {
        assert_eq!(hex(&[0; 16]), None);
        assert_eq!(hex(&[]), None);
    }

    #[test]
    fn a_missing_property_is_named() {
        let error = UnitState::read(&unit("active", 0), &Properties::new()).unwrap_err();
        assert_eq!(error.to_string(), "property MainPID is missing or of another type");
    }
}
