//! How a bundle says that it is healthy.

use std::time::Duration;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::FieldError;
use crate::readiness::Rules;

/// Shortest and longest pause between two looks.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_hours(1));
/// Shortest and longest time for one look.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(5));
/// Longest times around a start.
const PERIOD: (Duration, Duration) = (Duration::ZERO, Duration::from_hours(1));
/// Most bad looks in a row.
const MOST_FAILURES: u32 = 100;

/// What is looked at, and how often. One of `http`, `tcp` and `exec`; times as `10s`, `500ms`, `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// A GET that is answered with 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpLook>,
    /// A connection that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpLook>,
    /// A command in the container that ends with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecLook>,
    /// From one look to the next; default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one look may take; default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// After a start, so long bad looks before the first good one do not count; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<String>,
    /// How long a new revision must be healthy before it serves; default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_window: Option<String>,
    /// So many bad looks in a row make it unhealthy; default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_after: Option<u32>,
}

/// A GET.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpLook {
    /// Path with query; default `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The container's port.
    pub port: u16,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpLook {
    /// The container's port.
    pub port: u16,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecLook {
    /// Program and arguments; no shell is between.
    pub command: Vec<String>,
}

/// The one thing that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a> {
    /// A GET.
    Http(&'a HttpLook),
    /// A connection.
    Tcp(&'a TcpLook),
    /// A command.
    Exec(&'a ExecLook),
}

impl Health {
    /// What is looked at, in a valid one.
    pub fn look(&self) -> Option<Look<'_>> {
        let http = self.http.as_ref().map(Look::Http);
        let tcp = self.tcp.as_ref().map(Look::Tcp);
        http.or(tcp).or_else(|| self.exec.as_ref().map(Look::Exec))
    }

    /// The rules, with defaults for what is not said.
    pub fn rules(&self) -> Rules {
        let default = Rules::default();
        let time = |text: &Option<String>, otherwise| text.as_deref().and_then(duration).unwrap_or(otherwise);
        Rules {
            interval: time(&self.interval, default.interval),
            timeout: time(&self.timeout, default.timeout),
            start_period: time(&self.start_period, default.start_period),
            stable_window: time(&self.stable_window, default.stable_window),
            fail_after: self.fail_after.unwrap_or(default.fail_after),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// What is wrong with it.
pub(super) fn validate(health: &Health) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kinds = [health.http.is_some(), health.tcp.is_some(), health.exec.is_some()];
    if kinds.into_iter().filter(|given| *given).count() != 1 {
        errors.push(FieldError::invalid("spec.health", "name one of http, tcp and exec"));
    }
    if let Some(http) = &health.http
        && !(http.path.is_empty() || http.path.starts_with('/'))
    {
        errors.push(FieldError::invalid("spec.health.http.path", format!("`{}` must begin with a slash", http.path)));
    }
    for (kind, port) in
        [("http", health.http.as_ref().map(|it| it.port)), ("tcp", health.tcp.as_ref().map(|it| it.port))]
    {
        if port == Some(0) {
            errors.push(FieldError::invalid(format!("spec.health.{kind}.port"), "must be 1 to 65535"));
        }
    }
    if health.exec.as_ref().is_some_and(|exec| exec.command.first().is_none_or(String::is_empty)) {
        errors.push(FieldError::required("spec.health.exec.command", "name the program to run"));
    }
    let times = [
        ("interval", &health.interval, INTERVAL),
        ("timeout", &health.timeout, TIMEOUT),
        ("startPeriod", &health.start_period, PERIOD),
        ("stableWindow", &health.stable_window, PERIOD),
    ];
    errors.extend(times.into_iter().filter_map(|(field, text, bounds)| time(field, text.as_deref()?, bounds)));
    if health.fail_after.is_some_and(|count| !(1..=MOST_FAILURES).contains(&count)) {
        errors.push(FieldError::invalid("spec.health.failAfter", format!("must be 1 to {MOST_FAILURES}")));
    }
    errors
}

fn time(field: &str, text: &str, (least, most): (Duration, Duration)) -> Option<FieldError> {
    let field = format!("spec.health.{field}");
    match duration(text) {
        None => Some(FieldError::invalid(field, format!("`{text}` is no time: write e.g. `10s`, `500ms` or `1m30s`"))),
        Some(time) if time < least || time > most => {
            Some(FieldError::invalid(field, format!("`{text}` must be {least:?} to {most:?}")))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn health(value: serde_json::Value) -> Health {
        serde_json::from_value(value).unwrap()
    }

    fn fields(value: serde_json::Value) -> Vec<String> {
        validate(&health(value)).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let named = health(json!({"tcp": {"port": 80}, "interval": "500ms", "stableWindow": "1m30s", "failAfter": 1}));
        let rules = Rules {
            interval: Duration::from_millis(500),
            stable_window: Duration::from_secs(90),
            fail_after: 1,
            ..Rules::default()
        };
        assert_eq!(named.rules(), rules);
        assert_eq!(named.look(), Some(Look::Tcp(&TcpLook { port: 80 })));
    }

    #[test]
    fn exactly_one_thing_is_looked_at() {
        assert_eq!(fields(json!({})), ["spec.health"]);
        assert_eq!(fields(json!({"tcp": {"port": 1}, "exec": {"command": ["true"]}})), ["spec.health"]);
        assert_eq!(fields(json!({"exec": {"command": ["true"]}})), [""; 0]);
    }

    #[test]
    fn a_mistake_is_told_by_its_field() {
        assert_eq!(
            fields(json!({"http": {"port": 0, "path": "x"}, "interval": "soon", "timeout": "1ms", "startPeriod": "2h",
                          "stableWindow": "-1s", "failAfter": 0})),
            [
                "spec.health.http.path",
                "spec.health.http.port",
                "spec.health.interval",
                "spec.health.timeout",
                "spec.health.startPeriod",
                "spec.health.stableWindow",
                "spec.health.failAfter",
            ]
        );
        assert_eq!(fields(json!({"exec": {"command": []}})), ["spec.health.exec.command"]);
    }
}
