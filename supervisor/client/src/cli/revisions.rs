//! `berth revisions` and `berth rollback`: the history of a service, and the way back in it.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::resource::bundle::Termination;
use berth_model::resource::{Bundle, Operation, Revision};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{RevisionsArgs, RollbackArgs};
use super::failure::Failure;
use super::output::Output;
use super::sheet::{Sheet, since};
use super::status::ending;
use super::views::OperationView;
use super::{Context, follow};
use crate::resource::{ResourceType, Scope};

/// Digits of a digest that tell one from another.
const DIGITS: usize = 12;

pub(super) async fn list(context: &Context, args: &RevisionsArgs) -> Result<(), Failure> {
    let kind = ResourceType::of::<Revision>();
    let scope = Scope { fields: Some(format!("spec.bundle={}", args.name)), ..Scope::namespace(&context.namespace) };
    let mut all = context.client.list_dynamic(&kind, &scope).await?.items;
    if all.is_empty() {
        // No bundle, or none that has come so far.
        context.client.get_dynamic(&ResourceType::of::<Bundle>(), &context.namespace, &args.name).await?;
    }
    all.sort_by_key(number);
    match context.output.is_table() {
        true => context.sheet(&table(&all, context.now(), context.output == Output::Wide), "no revisions"),
        false => context.document(&kind, &json!({"apiVersion": "v1", "kind": "List", "items": all})),
    }
}

pub(super) async fn roll_back(context: &Context, args: &RollbackArgs) -> Result<(), Failure> {
    let (name, client) = (args.name.as_str(), &context.client);
    let mut body = args.relations.body();
    if let Some(to) = args.to {
        body["to"] = to.into();
    }
    let asked = client.action_with(&context.namespace, name, "rollback", body, context.new_key()).await?;
    let operation = OperationView::of(&asked);
    let kind = ResourceType::of::<Operation>();
    if context.wait == Some(false) {
        context.outcome(&kind, &asked, &format!("operation/{}", operation.name()))?;
        return context.note(&format!("follow it with: berth operation show {} -w", operation.name()));
    }
    let last = follow::operation(context, operation.name()).await?.unwrap_or(asked);
    context.outcome(&kind, &last, &format!("bundle/{name} rolled back{}", came_to(&last)))
}

/// Which revision serves now, and what it was made from.
fn came_to(operation: &Value) -> String {
    let made = OperationView::of(operation).revision();
    match (made, operation["spec"]["rollbackTo"].as_u64()) {
        (Some(made), Some(to)) if made == to => format!(": revision {made} stays, and nothing else is wanted"),
        (Some(made), Some(to)) => format!(": revision {made} serves, as revision {to} did"),
        _ => String::new(),
    }
}

fn table(revisions: &[Value], now: Timestamp, wide: bool) -> Sheet {
    let mut headers = vec!["Number", "State", "Image", "Age", "Made by", "Why not"];
    if wide {
        headers.extend(["Operation", "Changed", "Message"]);
    }
    let mut sheet = Sheet::new(&headers);
    let mut before = None;
    for revision in revisions {
        sheet.row(row(revision, before, now));
        before = Some(revision);
    }
    sheet
}

fn row(revision: &Value, before: Option<&Value>, now: Timestamp) -> Vec<String> {
    let text = |pointer: &str| revision.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    vec![
        number(revision).to_string(),
        text("/status/state"),
        image(revision),
        since(revision["metadata"]["creationTimestamp"].as_str(), now),
        made_by(revision),
        why_not(&revision["status"]["failure"]),
        text("/spec/operation"),
        before.map(|before| changes(before, revision).join(", ")).unwrap_or_default(),
        text("/status/failure/message"),
    ]
}

fn number(revision: &Value) -> u64 {
    revision["spec"]["number"].as_u64().unwrap_or_default()
}

/// As it was named, with the beginning of its digest: a tag means one thing today and another tomorrow.
fn image(revision: &Value) -> String {
    let named = revision["spec"]["bundleSpec"]["image"].as_str().unwrap_or_default();
    let reference = revision["spec"]["image"]["reference"].as_str().unwrap_or_default();
    match reference.split_once("@sha256:") {
        Some((_, digest)) if !named.contains('@') => {
            format!("{named} ({})", digest.chars().take(DIGITS).collect::<String>())
        }
        _ => named.to_owned(),
    }
}

/// The kind of the operation, which is in its name: the record itself may be gone by now.
fn made_by(revision: &Value) -> String {
    let spec = &revision["spec"];
    if let Some(to) = spec["restores"].as_u64() {
        return format!("rollback to {to}");
    }
    let own = format!("{}-", spec["bundle"].as_str().unwrap_or_default());
    let kind = spec["operation"].as_str().and_then(|name| name.strip_prefix(&own)?.rsplit_once('-'));
    kind.map(|(kind, _)| kind.to_owned()).unwrap_or_default()
}

fn why_not(failure: &Value) -> String {
    let reason = failure["reason"].as_str().unwrap_or_default();
    match Termination::deserialize(&failure["termination"]) {
        Ok(end) => format!("{reason}: {}", ending(&end)),
        Err(_) => reason.to_owned(),
    }
}

/// The fields in which a revision differs from the one before it.
fn changes(before: &Value, after: &Value) -> Vec<String> {
    let (old, new) = (fields(&before["spec"]["bundleSpec"]), fields(&after["spec"]["bundleSpec"]));
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changed: Vec<String> = all.into_iter().filter(|path| old.get(*path) != new.get(*path)).cloned().collect();
    let moved = before["spec"]["image"]["reference"] != after["spec"]["image"]["reference"];
    if moved && !changed.iter().any(|path| path == "image") {
        changed.push("what the image's tag means".to_owned());
    }
    if before["spec"]["provided"] != after["spec"]["provided"] {
        changed.push("values of secrets or configmaps".to_owned());
    }
    changed
}

/// Every value by its path; what is in a list goes by its name, where it has one.
fn fields(value: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(value, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| collect(value, &below(name), found)),
        Value::Array(items) if items.iter().all(|item| item["name"].is_string()) => {
            for item in items {
                let mut rest = item.clone();
                let name = rest.as_object_mut().and_then(|fields| fields.shift_remove("name"));
                let name = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                collect(&rest, &format!("{path}[{name}]"), found);
            }
        }
        other => {
            found.insert(path.to_owned(), other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: u64, digest: &str, spec: Value) -> Value {
        json!({
            "metadata": {"creationTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"bundle": "web", "number": number, "operation": format!("web-update-x{number}"),
                     "bundleSpec": spec, "image": {"reference": format!("r/web@sha256:{digest}")}},
            "status": {"state": "Superseded"},
        })
    }

    #[test]
    fn what_changed_is_told_by_field_and_by_name_in_lists() {
        let port = |host: u16| json!([{"name": "http", "containerPort": 80, "hostPort": host}]);
        let old = json!({"image": "r/web:1", "env": [{"name": "MODE", "value": "a"}], "ports": port(80)});
        let new = json!({"image": "r/web:1", "env": [{"name": "LANG", "value": "C"}], "ports": port(81)});
        let (one, other) = (revision(1, "aa", old.clone()), revision(2, "aa", new));
        let expected = ["env[LANG].value", "env[MODE].value", "ports[http].hostPort"];
        assert_eq!(changes(&one, &other), expected);
        assert_eq!(changes(&one, &revision(2, "bb", old)), ["what the image's tag means"]);
        assert_eq!(changes(&one, &one), Vec::<String>::new());
    }

    #[test]
    fn a_history_shows_what_ran_who_made_it_and_why_it_did_not_come_up() {
        let first = revision(1, "0123456789abcdef", json!({"image": "r/web:1"}));
        let mut failed = revision(2, "bb", json!({"image": "r/web:2"}));
        failed["status"] = json!({"state": "Failed", "failure": {"reason": "StartFailed", "message": "it ended",
                                  "termination": {"reason": "Error", "exitCode": 3}}});
        let mut back = revision(3, "0123456789abcdef", json!({"image": "r/web:1"}));
        back["spec"]["restores"] = 1.into();
        let now = "2026-11-21T00:01:00Z".parse().unwrap();
        let shown = table(&[first, failed, back], now, true).render(true, &mut Vec::new(), true);
        let expected = "\
NUMBER   STATE        IMAGE                    AGE   MADE BY         WHY NOT                          OPERATION       CHANGED   MESSAGE
1        Superseded   r/web:1 (0123456789ab)   60s   update                                           web-update-x1
2        Failed       r/web:2 (bb)             60s   update          StartFailed: Error (exit code 3)   web-update-x2   image     it ended
3        Superseded   r/web:1 (0123456789ab)   60s   rollback to 1                                    web-update-x3   image";
        let squeezed = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&shown), squeezed(expected));
    }
}
