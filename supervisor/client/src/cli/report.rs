//! `berth audit report`: what stands between this machine and whoever means it no good, each with what was found and what
//! to do. What cannot be looked at is told as not known, and never as good.

use berth_model::diagnostics::{Diagnosis, Outcome};
use berth_model::resource::user::UserStatus;
use berth_model::resource::{ApiKey, User, Volume};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use crate::client::berth;
use crate::error::ClientError;
use crate::resource::{ResourceType, Scope};
use crate::yaml;

/// A key that was not used for so long is nobody's, or forgotten.
const UNUSED: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Good,
    Finding,
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// The same in every report.
    name: &'static str,
    state: State,
    /// What was seen.
    found: String,
    /// What to do; empty where all is well.
    remedy: String,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), remedy: String::new() }
    }

    fn finding(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self { name, state: State::Finding, found: found.into(), remedy: remedy.to_owned() }
    }

    fn unknown(name: &'static str, why: impl Into<String>, remedy: &str) -> Self {
        Self { name, state: State::Unknown, found: why.into(), remedy: remedy.to_owned() }
    }
}

/// What an answer was, or why there is none.
type Looked<T> = Result<T, String>;

/// What the checks are made from.
struct Seen {
    diagnosis: Looked<Diagnosis>,
    volumes: Looked<Vec<Value>>,
    users: Looked<Vec<Value>>,
    keys: Looked<Vec<Value>>,
    version: Looked<Value>,
    now: Timestamp,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let checks = checks(&look(context).await?);
    show(context, &checks)?;
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    match (count(State::Finding), count(State::Unknown)) {
        (0, 0) => Ok(()),
        (findings, unknown) => Err(Failure::Several(format!("{findings} findings, {unknown} not known"), 1)),
    }
}

async fn look(context: &Context) -> Result<Seen, Failure> {
    let examine = berth(&["system", "diagnostics"], Method::POST);
    let transport = context.client.transport();
    Ok(Seen {
        diagnosis: looked(transport.upload(&examine, reqwest::Body::default()).await)?
            .and_then(|told| serde_json::from_value(told).map_err(|_| "the examination is not understood".to_owned())),
        volumes: listed(context, &ResourceType::of::<Volume>()).await?,
        users: listed(context, &ResourceType::of::<User>()).await?,
        keys: listed(context, &ResourceType::of::<ApiKey>()).await?,
        version: looked(transport.json(&crate::request::Request::get(&["version"])).await)?,
        now: context.now(),
    })
}

async fn listed(context: &Context, kind: &ResourceType) -> Result<Looked<Vec<Value>>, Failure> {
    let list = looked(context.client.list_dynamic(kind, &Scope::default()).await)?;
    Ok(list.map(|list| list.items))
}

/// What one may not see is told as that; where nobody answers, there is no report.
fn looked<T>(answer: Result<T, ClientError>) -> Result<Looked<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error @ ClientError::Unreachable { .. }) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn checks(seen: &Seen) -> Vec<Check> {
    vec![
        examined(
            seen,
            "encryption of secrets",
            "master key",
            "`berth setup` checks the keys and says what is wrong with them",
        ),
        volumes(&seen.volumes),
        examined(seen, "TLS", "certificate", "`systemctl restart berthd` renews it; `berth diagnostics` says more"),
        second_factor(&seen.users),
        keys(&seen.keys, seen.now),
        updates(&seen.version),
        Check::finding("backups", "no backups yet: not there", "copy what matters out of the services by hand"),
    ]
}

const ASK: &str = "ask somebody who may, or as local root: `sudo berth audit report`";

/// What an examination of the machine found about one thing.
fn examined(seen: &Seen, name: &'static str, of: &str, remedy: &str) -> Check {
    let diagnosis = match &seen.diagnosis {
        Ok(diagnosis) => diagnosis,
        Err(why) => return Check::unknown(name, why, ASK),
    };
    match diagnosis.findings.iter().find(|finding| finding.name == of) {
        None => Check::unknown(name, format!("the examination says nothing of its {of}"), "`berth diagnostics`"),
        Some(found) if found.result == Outcome::Ok => Check::good(name, &found.message),
        Some(found) if found.result == Outcome::Skipped => Check::unknown(name, &found.message, remedy),
        Some(found) => Check::finding(name, &found.message, remedy),
    }
}

fn volumes(volumes: &Looked<Vec<Value>>) -> Check {
    let name = "encryption of volumes";
    let volumes = match volumes {
        Ok(volumes) => volumes,
        Err(why) => return Check::unknown(name, why, ASK),
    };
    // There is no volume without a key of its own; one that is damaged was found to be something else.
    let damaged: Vec<&str> =
        volumes.iter().filter(|one| one["status"]["state"] == "Damaged").map(berth_model::meta::name).collect();
    match damaged.is_empty() {
        true => Check::good(name, format!("each of {} has a key of its own", volumes.len())),
        false => {
            Check::finding(name, format!("damaged: {}", damaged.join(", ")), "`berth volume show` says what is wrong")
        }
    }
}

fn second_factor(users: &Looked<Vec<Value>>) -> Check {
    let (name, users) = ("second factors", users);
    let users = match users {
        Ok(users) => users,
        Err(why) => return Check::unknown(name, why, ASK),
    };
    let enabled = users.iter().filter(|user| user["spec"]["disabled"] != true);
    let without: Vec<&str> = enabled.filter(|user| !has_second_factor(user)).map(berth_model::meta::name).collect();
    match without.is_empty() {
        true => Check::good(name, format!("every one of {} users who can log in has one", users.len())),
        false => Check::finding(name, format!("none for {}", without.join(", ")), "have each of them set one up"),
    }
}

fn has_second_factor(user: &Value) -> bool {
    let status = serde_json::from_value::<UserStatus>(user["status"].clone());
    status.is_ok_and(|status| status.has_second_factor())
}

fn keys(keys: &Looked<Vec<Value>>, now: Timestamp) -> Check {
    let name = "unused API keys";
    let keys = match keys {
        Ok(keys) => keys,
        Err(why) => return Check::unknown(name, why, ASK),
    };
    let unused: Vec<&str> = keys.iter().filter(|key| is_unused(key, now)).map(berth_model::meta::name).collect();
    match unused.is_empty() {
        true => Check::good(name, format!("each of {} was made or used in the last 90 days", keys.len())),
        false => Check::finding(
            name,
            format!("not used for 90 days: {}", unused.join(", ")),
            "`berth delete apikey <name>`, if nobody needs it",
        ),
    }
}

/// A key that never was used counts from when it was made.
fn is_unused(key: &Value, now: Timestamp) -> bool {
    let time = |path| key.pointer(path).and_then(Value::as_str)?.parse::<Timestamp>().ok();
    let last = time("/status/lastUsed").or_else(|| time("/metadata/creationTimestamp"));
    last.is_none_or(|last| now.duration_since(last) >= UNUSED)
}

fn updates(version: &Looked<Value>) -> Check {
    let name = "updates";
    let remedy = "see for yourself whether there is a newer one";
    match version {
        Ok(version) => {
            let runs = version["berthVersion"].as_str().unwrap_or("unknown");
            Check::unknown(name, format!("{runs} runs; how old it is is not kept here"), remedy)
        }
        Err(why) => Check::unknown(name, why, remedy),
    }
}

fn show(context: &Context, checks: &[Check]) -> Result<(), Failure> {
    let document = json!({ "apiVersion": "berth.dev/v1", "kind": "AuditReport", "checks": checks });
    match context.output {
        Output::Json => context.say(&format!("{document:#}")),
        Output::Yaml => context.say(&yaml::to_string(&document)?),
        Output::Name => context.say(&checks.iter().map(|check| check.name).collect::<Vec<_>>().join("\n")),
        Output::Table | Output::Wide => {
            let mut sheet = Sheet::new(&["What", "State", "Found", "Remedy"]);
            for Check { name, state, found, remedy } in checks {
                let state = match state {
                    State::Good => "good",
                    State::Finding => "finding",
                    State::Unknown => "not known",
                };
                sheet.row(vec![(*name).to_owned(), state.to_owned(), found.clone(), remedy.clone()]);
            }
            context.sheet(&sheet, "nothing was looked at")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(made: &str, used: Option<&str>) -> Value {
        json!({ "metadata": { "name": "k", "creationTimestamp": made }, "status": { "lastUsed": used } })
    }

    #[test]
    fn a_key_is_unused_ninety_days_after_its_last_use_or_its_making() {
        let now = "2026-04-01T00:00:00Z".parse().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        assert!(is_unused(&key(old, None), now) && is_unused(&key("2025-01-01T00:00:00Z", Some(old)), now));
        assert!(!is_unused(&key(new, None), now) && !is_unused(&key(old, Some(new)), now));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_called_good() {
        let why = || "user:ada may not".to_owned();
        let seen = Seen {
            diagnosis: Err(why()),
            volumes: Err(why()),
            users: Err(why()),
            keys: Err(why()),
            version: Err(why()),
            now: Timestamp::UNIX_EPOCH,
        };
        assert!(checks(&seen).iter().all(|check| check.state != State::Good && !check.remedy.is_empty()));
        let seen = Seen { diagnosis: Ok(Diagnosis::default()), ..seen };
        assert_eq!(checks(&seen)[0].state, State::Unknown);
    }
}
