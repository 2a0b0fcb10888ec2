//! `berth events`: what happened, the latest last.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::Context;
use super::args::EventsArgs;
use super::failure::Failure;
use super::get::split;
use super::sheet::{Sheet, since};
use crate::resource::{ResourceType, Scope};
use crate::watch::{News, Watcher};

pub(super) async fn run(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    let namespace = (!args.all_namespaces).then(|| context.namespace.clone());
    let fields = args.regarding.as_deref().map(|what| selector(context, what));
    let fields = match fields {
        Some(fields) => Some(fields.await?),
        None => None,
    };
    let fields = joined(fields, args);
    let scope = Scope { namespace, fields, labels: None };
    let from = args.since.and_then(|age| context.now().checked_sub(age).ok());
    if args.watch {
        return watch(context, scope, from).await;
    }
    let kind = ResourceType::of::<Event>();
    if !context.output.is_table() {
        let mut answer: Value = context.client.transport().json(&kind.list(&scope)).await?;
        if let Some(items) = answer["items"].as_array_mut() {
            items.retain(|event| is_from(event, from));
        }
        return context.document(&kind, &answer);
    }
    let mut events = context.client.list_dynamic(&kind, &scope).await?.items;
    events.retain(|event| is_from(event, from));
    sort(&mut events);
    match events.is_empty() {
        true => context.note("no events"),
        false => context.say(&table(context, &events)),
    }
}

/// `KIND/NAME` or a bare name.
async fn selector(context: &Context, what: &str) -> Result<String, Failure> {
    let mut names = Vec::new();
    let word = split(what, &mut names)?;
    match names.pop() {
        Some(name) => Ok(format!("involvedObject.kind={},involvedObject.name={name}", context.kind(word).await?.kind)),
        None => Ok(format!("involvedObject.name={word}")),
    }
}

/// What the server is to select by.
fn joined(about: Option<String>, args: &EventsArgs) -> Option<String> {
    let level = args.level.map(|level| format!("type={level:?}"));
    let reason = args.reason.as_ref().map(|reason| format!("reason={reason}"));
    let all: Vec<String> = [about, level, reason].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// Whether it was seen since then; one without any time is.
fn is_from(event: &Value, from: Option<Timestamp>) -> bool {
    let seen = time(event).and_then(|time| time.parse::<Timestamp>().ok());
    seen.zip(from).is_none_or(|(seen, from)| seen >= from)
}

/// Events about one object, the latest last.
pub(super) async fn about(context: &Context, kind: &str, name: &str) -> Result<Vec<Value>, Failure> {
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let scope = Scope { fields: Some(fields), ..Scope::namespace(&context.namespace) };
    let mut events = context.client.list_dynamic(&ResourceType::of::<Event>(), &scope).await?.items;
    sort(&mut events);
    Ok(events)
}

async fn watch(context: &Context, scope: Scope, from: Option<Timestamp>) -> Result<(), Failure> {
    let mut watcher = Watcher::new(&context.client, &ResourceType::of::<Event>(), scope);
    let (mut first, mut started, mut widths) = (Vec::new(), false, Vec::new());
    loop {
        match watcher.next().await? {
            News::Present(event) if !is_from(&event, from) => {}
            News::Present(event) if !started => first.push(event),
            News::Synced => {
                started = true;
                sort(&mut first);
                context.say(&sheet(context, &first).render(false, &mut widths, true))?;
            }
            News::Present(event) => context.say(&sheet(context, &[event]).render(false, &mut widths, false))?,
            News::Absent(_) => {}
            News::Lost(why) => context.note(&format!("connection lost ({why}); trying again"))?,
        }
    }
}

/// Events as a table.
pub(super) fn table(context: &Context, events: &[Value]) -> String {
    sheet(context, events).render(false, &mut Vec::new(), true)
}

fn sheet(context: &Context, events: &[Value]) -> Sheet {
    let mut sheet = Sheet::new(&["Last seen", "Type", "Reason", "Object", "Message"]);
    for event in events {
        sheet.row(row(context, event));
    }
    sheet
}

fn row(context: &Context, event: &Value) -> Vec<String> {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let about = &event["involvedObject"];
    let object = |field: &str| about[field].as_str().unwrap_or_default();
    let seen = since(time(event), context.now());
    let seen = match event["count"].as_i64() {
        Some(count) if count > 1 => format!("{seen} (x{count})"),
        _ => seen,
    };
    let object = format!("{}/{}", object("kind").to_lowercase(), object("name"));
    vec![seen, text("type"), text("reason"), object, text("message")]
}

/// When it was last seen; an event has up to four times.
fn time(event: &Value) -> Option<&str> {
    let times = [&event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]];
    times.into_iter().chain([&event["metadata"]["creationTimestamp"]]).find_map(Value::as_str)
}

fn sort(events: &mut [Value]) {
    events.sort_by_cached_key(|event| time(event).and_then(|time| time.parse::<Timestamp>().ok()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_latest_comes_last_by_whatever_time_it_has() {
        let mut events = vec![
            json!({"reason": "C", "lastTimestamp": "2026-11-21T00:00:03Z", "firstTimestamp": "2026-11-21T00:00:00Z"}),
            json!({"reason": "A", "metadata": {"creationTimestamp": "2026-11-21T00:00:01Z"}}),
            json!({"reason": "B", "lastTimestamp": null, "eventTime": "2026-11-21T00:00:02.5Z"}),
        ];
        sort(&mut events);
        let reasons: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
        assert_eq!(reasons, ["A", "B", "C"]);
    }
}
