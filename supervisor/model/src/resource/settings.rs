//! Settings: all that an administrator may change while Berth runs, in one object.
//!
//! There is exactly one, named [`NAME`]. The store makes it with its defaults and it cannot be deleted:
//! whoever wants the defaults back leaves its fields out. What has to be known before anything runs is
//! in `berthd.toml` instead.

mod audit;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::allocation::SERVICES;
use crate::cleanup::Rules;
use crate::field::{FieldError, Rule};
use crate::id::dns_label;
use crate::pressure::Thresholds;
use crate::resource::operation::OperationKind;

pub use audit::{AuditSettings, GitMirror, MirrorSettings, SecretName, SyslogMirror, SyslogTransport};

/// The name of the only one.
pub const NAME: &str = "berth";

crate::resource::object! {
    /// All that an administrator may change while Berth runs.
    Settings, "settings", SettingsSpec, NoStatus
}

/// What is set. What is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SettingsSpec {
    /// Who reaches whom, and who hears of this machine.
    pub network: NetworkSettings,
    /// What is removed by itself.
    pub cleanup: CleanupSettings,
    /// How long work is carried out.
    pub operations: OperationSettings,
    /// Who gets in, and how much he may ask.
    pub api: ApiSettings,
    /// New versions of the machine's own system.
    pub updates: UpdateSettings,
    /// The record of who did what.
    pub audit: AuditSettings,
}

/// New versions of the machine's own system. When they are fetched is a Schedule's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateSettings {
    /// URL of a folder with a folder for each channel.
    pub source: String,
    /// Which of these, e.g. `stable` or `testing`.
    pub channel: String,
    /// How long a new version may take until everything serves that should. One that takes longer is given up for the
    /// version before.
    pub health_timeout_seconds: u32,
}

impl Default for UpdateSettings {
    fn default() -> Self {
        Self { source: String::new(), channel: "stable".to_owned(), health_timeout_seconds: 120 }
    }
}

/// Who gets in, and how much he may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSettings {
    /// Over the network, everything but `/livez` and enrolling is closed to clients without a client certificate of this
    /// machine. It is turned on by somebody who comes with one, or by root on the machine, whose socket stays open.
    pub require_client_certificate: bool,
    /// How much may be asked over the network. Local root and questions about health are not limited.
    pub limits: ApiLimits,
}

/// How much may be asked; more is answered with 429 and when to ask again. Whoever is not known counts by his address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiLimits {
    /// Requests a second of all together.
    pub requests_per_second: u32,
    /// Requests a second of one user or service account, by whatever keys and sessions.
    pub requests_per_second_per_subject: u32,
    /// Watches, followed logs, commands and forwarded ports that one user or service account has open at a time.
    pub streams_per_subject: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self { requests_per_second: 2000, requests_per_second_per_subject: 1000, streams_per_subject: 500 }
    }
}

/// How long work is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationSettings {
    /// Operations that are at work at the same time, at most. Most of their time they wait: for a registry, a disk, a
    /// service that is starting.
    pub parallel: u16,
    /// Kinds of operations that do not begin before somebody has released them. What only keeps running what is meant to
    /// run, as after a start of the machine, is not held.
    pub hold: Vec<OperationKind>,
}

impl Default for OperationSettings {
    fn default() -> Self {
        Self { parallel: 16, hold: Vec::new() }
    }
}

/// How long what nothing needs is kept, and when the data disk counts as filling up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CleanupSettings {
    /// Days an image is kept after nothing needed it any more.
    pub unused_image_days: u16,
    /// Days an operation is kept after it finished.
    pub finished_operation_days: u16,
    /// Days an event is kept after it last happened.
    pub event_days: u16,
    /// What is done when the data disk fills up.
    pub disk: Thresholds,
}

impl Default for CleanupSettings {
    fn default() -> Self {
        let disk = Thresholds::default();
        Self { unused_image_days: 7, finished_operation_days: 30, event_days: 7, disk }
    }
}

impl CleanupSettings {
    /// The ages as a cleanup reads them.
    pub fn rules(&self) -> Rules {
        let days = |days: u16| SignedDuration::from_hours(i64::from(days) * 24);
        Rules {
            images: days(self.unused_image_days),
            operations: days(self.finished_operation_days),
            events: days(self.event_days),
        }
    }
}

/// Who reaches whom, and who hears of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkSettings {
    /// Namespaces whose bundles reach one another on every port, without a declared dependency. One
    /// that does not exist yet is open as soon as it does.
    pub open_namespaces: Vec<String>,
    /// Tell the machine's neighbours `<hostname>.local` and where its API is, by multicast DNS.
    pub multicast_dns: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self { open_namespaces: Vec::new(), multicast_dns: true }
    }
}

/// What is set holds at once: there is nothing to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoStatus {}

/// The rules of an object of this kind.
pub fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.pointer("/metadata/name").is_some_and(|name| name != NAME) {
        errors.push(FieldError::invalid("metadata.name", format!("there is one Settings, and it is named {NAME}")));
    }
    errors.extend(cleanup_rules(&new["spec"]["cleanup"]));
    errors.extend(operation_rules(&new["spec"]["operations"]));
    errors.extend(limit_rules(&new["spec"]["api"]["limits"]));
    errors.extend(update_rules(&new["spec"]["updates"]));
    errors.extend(audit::rules(&new["spec"]["audit"]["mirror"]));
    let open = new.pointer("/spec/network/openNamespaces").and_then(Value::as_array);
    let names: Vec<&str> = open.into_iter().flatten().filter_map(Value::as_str).collect();
    if names.len() > usize::from(SERVICES) {
        let message = format!("has {} names; at most {SERVICES} namespaces have a network", names.len());
        errors.push(FieldError::new(Rule::TooLong, "spec.network.openNamespaces", message));
        return errors;
    }
    let mut seen = BTreeSet::new();
    for (at, name) in names.into_iter().enumerate() {
        let field = format!("spec.network.openNamespaces[{at}]");
        match dns_label(name) {
            Err(error) => errors.push(FieldError::invalid(field, error.to_string())),
            Ok(()) if !seen.insert(name) => errors.push(FieldError::duplicate(field, format!("{name} is named twice"))),
            Ok(()) => {}
        }
    }
    errors
}

/// The most operations that may be at work at the same time.
const MOST_PARALLEL: u16 = 256;

fn operation_rules(new: &Value) -> Vec<FieldError> {
    let Ok(set) = OperationSettings::deserialize(new) else { return Vec::new() };
    let mut errors = Vec::new();
    if !(1..=MOST_PARALLEL).contains(&set.parallel) {
        let message = format!("use 1 to {MOST_PARALLEL} operations at the same time");
        errors.push(FieldError::invalid("spec.operations.parallel", message));
    }
    for (at, kind) in set.hold.iter().enumerate() {
        let field = format!("spec.operations.hold[{at}]");
        if *kind == OperationKind::ApplyChanges {
            errors.push(FieldError::invalid(field, "a change set is applied at once and cannot be held"));
        } else if set.hold.iter().take(at).any(|before| before == kind) {
            errors.push(FieldError::duplicate(field, format!("{kind:?} is named twice")));
        }
    }
    errors
}

/// The least and the most requests a second: with fewer, nobody could set it right again over the network.
const RATES: (u32, u32) = (10, 100_000);
/// The most streams of one subject.
const MOST_STREAMS: u32 = 10_000;

fn limit_rules(new: &Value) -> Vec<FieldError> {
    let Ok(set) = ApiLimits::deserialize(new) else { return Vec::new() };
    let checked = [
        ("requestsPerSecond", set.requests_per_second, RATES, "requests a second"),
        ("requestsPerSecondPerSubject", set.requests_per_second_per_subject, RATES, "requests a second"),
        ("streamsPerSubject", set.streams_per_subject, (1, MOST_STREAMS), "streams"),
    ];
    let wrong = checked.into_iter().filter(|(_, set, (least, most), _)| !(least..=most).contains(&set));
    let told = |(field, _, (least, most), what): (&str, u32, (u32, u32), &str)| {
        FieldError::invalid(format!("spec.api.limits.{field}"), format!("use {least} to {most} {what}"))
    };
    wrong.map(told).collect()
}

/// The least and the most seconds that a new version gets.
const TRIALS: (u32, u32) = (30, 3600);

fn update_rules(new: &Value) -> Vec<FieldError> {
    let Ok(set) = UpdateSettings::deserialize(new) else { return Vec::new() };
    let mut errors = Vec::new();
    if !set.source.is_empty() && !["https://", "http://"].iter().any(|scheme| set.source.starts_with(scheme)) {
        let message = "use the http or https URL of a folder that has a folder for each channel";
        errors.push(FieldError::invalid("spec.updates.source", message));
    }
    let host = set.source.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if host.contains('@') {
        let message = "a name and a password in a URL would be shown to whoever reads settings and operations; use a source without";
        errors.push(FieldError::invalid("spec.updates.source", message));
    }
    if let Err(error) = dns_label(&set.channel) {
        errors.push(FieldError::invalid("spec.updates.channel", error.to_string()));
    }
    if !(TRIALS.0..=TRIALS.1).contains(&set.health_timeout_seconds) {
        let message = format!("use {} to {} seconds", TRIALS.0, TRIALS.1);
        errors.push(FieldError::invalid("spec.updates.healthTimeoutSeconds", message));
    }
    errors
}

/// The longest that anything unneeded can be kept, in days: ten years.
const LONGEST: u16 = 3650;

fn cleanup_rules(new: &Value) -> Vec<FieldError> {
    // What is not even of the right type has been told already.
    let Ok(set) = CleanupSettings::deserialize(new) else { return Vec::new() };
    let mut errors = Vec::new();
    let ages = [
        ("unusedImageDays", set.unused_image_days),
        ("finishedOperationDays", set.finished_operation_days),
        ("eventDays", set.event_days),
    ];
    for (field, _) in ages.into_iter().filter(|(_, days)| *days > LONGEST) {
        errors.push(FieldError::invalid(format!("spec.cleanup.{field}"), format!("use 0 to {LONGEST} days")));
    }
    let Thresholds { warn_percent, clean_percent, pause_percent } = set.disk;
    let order = [("warnPercent", 1, warn_percent), ("cleanPercent", warn_percent, clean_percent)];
    for (field, least, percent) in order.into_iter().chain([("pausePercent", clean_percent, pause_percent)]) {
        if !(least..=100).contains(&percent) || percent == 0 {
            let message =
                format!("use {} to 100: warn, clean and pause rise in this order, and 100 is never", least.max(1));
            errors.push(FieldError::invalid(format!("spec.cleanup.disk.{field}"), message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{Request, SETTINGS};

    pub(super) fn admitted(spec: Value) -> Result<Value, Vec<String>> {
        let body = json!({"metadata": {"name": "berth"}, "spec": spec});
        let admitted = SETTINGS.admit(body, &Request::Create);
        let shown = |errors: Vec<FieldError>| errors.iter().map(|error| error.field.clone()).collect();
        admitted.map_err(shown).map(|admitted| json!([admitted.object["spec"], admitted.unknown]))
    }

    #[test]
    fn what_is_left_out_is_shown_with_its_default_and_what_is_unknown_is_named() {
        let disk = json!({"warnPercent": 80, "cleanPercent": 90, "pausePercent": 95});
        let cleanup = json!({"unusedImageDays": 7, "finishedOperationDays": 30, "eventDays": 7, "disk": disk});
        let operations = json!({"parallel": 16, "hold": []});
        let network = json!({"openNamespaces": [], "multicastDns": true});
        let limits = json!({"requestsPerSecond": 2000, "requestsPerSecondPerSubject": 1000, "streamsPerSubject": 500});
        let api = json!({ "requireClientCertificate": false, "limits": limits });
        let updates = json!({"source": "", "channel": "stable", "healthTimeoutSeconds": 120});
        let default = json!({"network": network, "cleanup": cleanup, "operations": operations, "api": api,
            "updates": updates, "audit": {"mirror": {}}});
        assert_eq!(admitted(json!({})), Ok(json!([default, []])));
        assert_eq!(admitted(json!({"network": {"nosuch": 1}})), Ok(json!([default, ["spec.network.nosuch"]])));
    }

    #[test]
    fn names_are_those_of_namespaces_and_there_is_one_object() {
        let open = |names: Value| admitted(json!({"network": {"openNamespaces": names}})).map(|_| ());
        assert_eq!(open(json!(["team", "later"])), Ok(()));
        let wrong = open(json!(["team", "Bad_Name", "team"]));
        assert_eq!(wrong, Err(["[1]", "[2]"].map(|at| format!("spec.network.openNamespaces{at}")).to_vec()));
        let many: Vec<String> = (0..129).map(|number| format!("n{number}")).collect();
        assert_eq!(open(json!(many)), Err(vec!["spec.network.openNamespaces".to_owned()]));
        assert_eq!(open(json!("team")), Err(vec!["spec.network.openNamespaces".to_owned()]));
        let other = json!({"metadata": {"name": "other"}, "spec": {}});
        assert_eq!(SETTINGS.admit(other, &Request::Create).unwrap_err()[0].field, "metadata.name");
    }

    #[test]
    fn ages_have_bounds_and_thresholds_rise_in_their_order() {
        let set = |cleanup: Value| admitted(json!({"cleanup": cleanup})).map(|_| ());
        let wrong = |field: &str| Err(vec![format!("spec.cleanup.{field}")]);
        assert_eq!(set(json!({"unusedImageDays": 0, "disk": {"warnPercent": 2, "cleanPercent": 2}})), Ok(()));
        assert_eq!(set(json!({"eventDays": 3651})), wrong("eventDays"));
        assert_eq!(set(json!({"disk": {"warnPercent": 0}})), wrong("disk.warnPercent"));
        assert_eq!(set(json!({"disk": {"pausePercent": 89}})), wrong("disk.pausePercent"));
        assert_eq!(set(json!({"disk": {"cleanPercent": 70}})), wrong("disk.cleanPercent"));
        assert_eq!(set(json!({"disk": {"pausePercent": 101}})), wrong("disk.pausePercent"));
    }

    #[test]
    fn at_least_one_operation_is_at_work_and_not_any_number() {
        let set = |parallel: u16| admitted(json!({"operations": {"parallel": parallel}})).is_ok();
        assert_eq!([0, 1, 256, 257].map(set), [false, true, true, false]);
        let hold = |kinds: Value| admitted(json!({"operations": {"hold": kinds}})).map(|_| ());
        let wrong = |at: &str| Err(vec![format!("spec.operations.hold{at}")]);
        assert_eq!(hold(json!(["Update", "Uninstall"])), Ok(()));
        assert_eq!(hold(json!(["Update", "ApplyChanges"])), wrong("[1]"));
        assert_eq!(hold(json!(["Update", "Update"])), wrong("[1]"));
        assert!(hold(json!(["Dance"])).is_err());
    }

    #[test]
    fn limits_leave_enough_to_set_them_right_again() {
        let set = |limits: Value| admitted(json!({"api": {"limits": limits}})).map(|_| ());
        let wrong = |field: &str| Err(vec![format!("spec.api.limits.{field}")]);
        assert_eq!(set(json!({"requestsPerSecond": 10, "streamsPerSubject": 1})), Ok(()));
        assert_eq!(set(json!({"requestsPerSecond": 9})), wrong("requestsPerSecond"));
        assert_eq!(set(json!({"requestsPerSecondPerSubject": 100_001})), wrong("requestsPerSecondPerSubject"));
        assert_eq!(set(json!({"streamsPerSubject": 0})), wrong("streamsPerSubject"));
    }

    #[test]
    fn a_source_of_updates_is_a_url_and_a_trial_has_bounds() {
        let set = |updates: Value| admitted(json!({"updates": updates})).map(|_| ());
        let wrong = |field: &str| Err(vec![format!("spec.updates.{field}")]);
        assert_eq!(set(json!({"source": "https://updates.example/berth", "channel": "testing"})), Ok(()));
        assert_eq!(set(json!({"source": "/srv"})), wrong("source"));
        assert_eq!(set(json!({"source": "https://a:secret@updates.example"})), wrong("source"));
        assert_eq!(set(json!({"channel": "../stable"})), wrong("channel"));
        assert_eq!(set(json!({"healthTimeoutSeconds": 29})), wrong("healthTimeoutSeconds"));
    }

    #[test]
    fn days_are_days() {
        let rules = CleanupSettings { event_days: 2, ..CleanupSettings::default() }.rules();
        assert_eq!((rules.events.as_hours(), rules.images.as_hours(), rules.operations.as_hours()), (48, 168, 720));
    }
}
