//! Schedule: work that begins by itself, at times of day or again and again.
//!
//! ```text
//!  nextRun comes --> an Operation begins (actor source `schedule`) --> lastRun, lastOperation, lastResult
//!        ^                                                                   |
//!        +-------------------- crate::schedule::turn ------------------------+
//! ```
//!
//! A cleanup that failed for a reason that may pass is tried again soon: `nextRun` is then that time, and `message` says
//! why. A bundle that could not be restarted or updated is its own operations' to try again.
//!
//! One is always there: [`CLEANUP`], in the namespace that is. It can be changed and suspended, not deleted.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::DEFAULT_NAMESPACE;
use crate::meta;
use crate::schedule::Timetable;

/// The schedule of the daily cleanup.
pub const CLEANUP: &str = "cleanup";

crate::resource::object! {
    /// Work that begins by itself.
    Schedule, "schedules", ScheduleSpec, ScheduleStatus
}

/// When, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// Minute, hour, day of the month, month, day of the week: `30 4 * * *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// From one run to the next, counted from the creation: `6h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Where the clock hangs that `cron` is about: a name of the IANA database.
    #[serde(default = "utc")]
    pub timezone: String,
    /// All runs come later by a time that is drawn once and less than this: `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// What becomes of runs that were missed, as the machine was off.
    #[serde(default)]
    pub missed_runs: MissedRuns,
    /// Nothing begins, and nothing counts as missed.
    #[serde(default)]
    pub suspend: bool,
    /// What begins.
    pub action: Action,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What becomes of runs that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MissedRuns {
    /// One run makes up for all of them.
    #[default]
    RunOnce,
    /// They are passed over.
    Skip,
}

/// What begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// One of a closed list.
    pub kind: ActionKind,
    /// The bundle of the same namespace that it is done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

/// What a schedule can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ActionKind {
    /// What nothing needs any more and is old enough is removed.
    Cleanup,
    /// A bundle that runs is stopped and started.
    Restart,
    /// A bundle that runs is made anew from what its image's name means by then.
    Update,
    /// A newer version of the machine's system is fetched, and the machine started anew with it, if there is one.
    UpdateSystem,
}

impl ActionKind {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cleanup => "cleanup",
            Self::Restart => "restart",
            Self::Update => "update",
            Self::UpdateSystem => "update-system",
        }
    }
}

/// How it stands. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleStatus {
    /// The generation that the next run was reckoned from.
    pub observed_generation: i64,
    /// When it runs next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run: Option<String>,
    /// When it last ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// What began then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<String>,
    /// The state of that operation, or `Skipped` if nothing could begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,
    /// How often in a row that was tried again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Why it was skipped, or failed and is tried again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Schedule {
    /// The schedule that is always there, as it is at first.
    pub fn cleanup() -> Self {
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            namespace: Some(DEFAULT_NAMESPACE.to_owned()),
            name: Some(CLEANUP.to_owned()),
            ..Default::default()
        };
        let spec = ScheduleSpec {
            cron: Some("20 3 * * *".to_owned()),
            interval: None,
            timezone: utc(),
            jitter: Some("30m".to_owned()),
            missed_runs: MissedRuns::RunOnce,
            suspend: false,
            action: Action { kind: ActionKind::Cleanup, bundle: None },
        };
        Self { metadata, spec, status: None }
    }

    /// Its times.
    ///
    /// # Errors
    /// As [`Timetable::new`]; none for one that was admitted.
    pub fn timetable(&self) -> Result<Timetable, Vec<FieldError>> {
        let from = self.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
        Timetable::new(&self.spec, self.metadata.uid.as_deref().unwrap_or_default(), from)
    }
}

/// The rules of an object of this kind.
pub fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    // What is not even of the right type has been told already.
    let Ok(spec) = ScheduleSpec::deserialize(&new["spec"]) else { return Vec::new() };
    let mut errors = Timetable::new(&spec, "", Timestamp::UNIX_EPOCH).err().unwrap_or_default();
    errors.extend(action(&spec.action, meta::namespace(new), meta::name(new)));
    errors
}

fn action(action: &Action, namespace: &str, name: &str) -> Option<FieldError> {
    let kind = action.kind.name();
    match (action.kind, &action.bundle) {
        (ActionKind::Cleanup, Some(_)) => {
            Some(FieldError::invalid("spec.action.bundle", "a cleanup is about the whole machine; leave it out"))
        }
        (ActionKind::Cleanup, None) if namespace != DEFAULT_NAMESPACE => {
            let message = format!("a cleanup is about the whole machine: put it into namespace {DEFAULT_NAMESPACE}");
            Some(FieldError::invalid("spec.action.kind", message))
        }
        (ActionKind::Cleanup, None) => None,
        _ if (namespace, name) == (DEFAULT_NAMESPACE, CLEANUP) => {
            let message = format!("the schedule {CLEANUP} of namespace {namespace} cleans up; make another for {kind}");
            Some(FieldError::invalid("spec.action.kind", message))
        }
        (_, None) => Some(FieldError::required("spec.action.bundle", format!("name the bundle to {kind}"))),
        (_, Some(bundle)) => {
            let wrong = crate::id::dns_label(bundle).err();
            wrong.map(|error| FieldError::invalid("spec.action.bundle", error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{Request, SCHEDULE};

    fn admitted(namespace: &str, name: &str, spec: Value) -> Result<Value, Vec<String>> {
        let body = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        let admitted = SCHEDULE.admit(body, &Request::Create);
        let shown = |errors: Vec<FieldError>| errors.iter().map(ToString::to_string).collect();
        admitted.map_err(shown).map(|admitted| admitted.object["spec"].clone())
    }

    fn wrong(spec: Value) -> String {
        admitted("default", "nightly", spec).unwrap_err().join("; ")
    }

    #[test]
    fn what_is_left_out_is_shown_with_its_default() {
        let spec = json!({"interval": "6h", "action": {"kind": "restart", "bundle": "web"}});
        let whole = json!({
            "interval": "6h", "timezone": "UTC", "missedRuns": "runOnce", "suspend": false,
            "action": {"kind": "restart", "bundle": "web"},
        });
        assert_eq!(admitted("team", "nightly", spec), Ok(whole));
    }

    #[test]
    fn what_is_wrong_is_named_by_field_and_says_what_to_write() {
        let cleanup = json!({"kind": "cleanup"});
        for (spec, said) in [
            (json!({"action": cleanup}), "spec.cron: say when: cron"),
            (json!({"cron": "* * * * *", "interval": "6h", "action": cleanup}), "spec.interval: give either cron"),
            (json!({"cron": "* * * *", "action": cleanup}), "spec.cron: `* * * *`: has five fields"),
            (json!({"cron": "61 * * * *", "action": cleanup}), "spec.cron: `61 * * * *`: "),
            (json!({"cron": "0 0 30 2 *", "action": cleanup}), "spec.cron: `0 0 30 2 *`: never comes"),
            (json!({"interval": "soon", "action": cleanup}), "spec.interval: `soon` is no time"),
            (json!({"interval": "5s", "action": cleanup}), "spec.interval: `5s` must be 1m to "),
            (json!({"interval": "90.5s", "action": cleanup}), "in whole seconds"),
            (json!({"interval": "6h", "jitter": "25h", "action": cleanup}), "spec.jitter: `25h` must be 0s to 24h"),
            (json!({"interval": "6h", "timezone": "Mars", "action": cleanup}), "spec.timezone: `Mars` is no timezone"),
            (
                json!({"interval": "6h", "action": {"kind": "cleanup", "bundle": "web"}}),
                "spec.action.bundle: a cleanup",
            ),
            (
                json!({"interval": "6h", "action": {"kind": "restart"}}),
                "spec.action.bundle: name the bundle to restart",
            ),
            (json!({"interval": "6h", "action": {"kind": "update", "bundle": "A b"}}), "spec.action.bundle: "),
            (json!({"interval": "6h", "action": {"kind": "dance"}}), "spec.action.kind: unknown variant `dance`"),
        ] {
            let told = wrong(spec);
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn cleaning_up_belongs_to_the_namespace_that_is_always_there() {
        let spec = json!({"interval": "6h", "action": {"kind": "cleanup"}});
        assert!(admitted("default", "hourly", spec.clone()).is_ok());
        let told = admitted("team", "hourly", spec).unwrap_err();
        assert!(told[0].contains("put it into namespace default"), "{told:?}");
        let other = json!({"interval": "6h", "action": {"kind": "restart", "bundle": "web"}});
        let told = admitted("default", "cleanup", other).unwrap_err();
        assert!(told[0].contains("make another for restart"), "{told:?}");
        assert!(Schedule::cleanup().timetable().is_ok());
    }
}
