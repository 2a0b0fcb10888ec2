//! `berth status`: all services in a table, or one in full.

use berth_model::resource::bundle::Termination;
use berth_model::resource::{Bundle, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::args::StatusArgs;
use super::failure::Failure;
use super::install::port_line;
use super::sheet::{Sheet, since};
use super::views::BundleView;
use super::{Context, events, get};
use crate::resource::{ResourceType, Scope};

/// So many of the latest events are shown.
const EVENTS: usize = 5;

pub(super) async fn run(context: &Context, args: StatusArgs) -> Result<(), Failure> {
    let kind = ResourceType::of::<Bundle>();
    let namespace = (!args.all_namespaces).then(|| context.namespace.clone());
    let fields = args.name.as_ref().map(|name| format!("metadata.name={name}"));
    match args.name {
        Some(name) if args.env => environment(context, &kind, &name).await,
        Some(name) if !args.watch => one(context, &kind, &name).await,
        _ if args.watch => get::watch(context, &kind, Scope { namespace, fields, labels: None }).await,
        _ => get::list(context, &kind, &Scope { namespace, ..Scope::default() }).await,
    }
}

async fn one(context: &Context, kind: &ResourceType, name: &str) -> Result<(), Failure> {
    let object = context.client.get_dynamic(kind, &context.namespace, name).await?;
    if !context.output.is_table() {
        return context.document(kind, &object);
    }
    context.say(&page(context, &object))?;
    let events = events::about(context, "Bundle", name).await?;
    match events.len() {
        0 => Ok(()),
        all => {
            context.say(&format!("Events:\n{}", indent(&events::table(context, &events[all.saturating_sub(EVENTS)..]))))
        }
    }
}

/// Of the revision that serves.
async fn environment(context: &Context, kind: &ResourceType, name: &str) -> Result<(), Failure> {
    let object = context.client.get_dynamic(kind, &context.namespace, name).await?;
    let Some(revision) = BundleView::of(&object).status.revision else {
        return context.note(&format!("no revision of {name} serves yet"));
    };
    let revisions = ResourceType::of::<Revision>();
    let revision = context.client.get_dynamic(&revisions, &context.namespace, &format!("{name}-r{revision}")).await?;
    if !context.output.is_table() {
        return context.document(&revisions, &revision["spec"]["environment"]);
    }
    let mut sheet = Sheet::new(&["Variable", "From"]);
    for origin in revision["spec"]["environment"].as_array().into_iter().flatten() {
        let text = |field: &str| origin[field].as_str().unwrap_or_default().to_owned();
        sheet.row(vec![text("name"), text("from")]);
    }
    context.sheet(&sheet, "it has no variables")
}

fn page(context: &Context, object: &Value) -> String {
    let bundle = BundleView::of(object);
    let mut text: Vec<String> = facts(&bundle).into_iter().map(|(name, value)| format!("{name:<13}{value}")).collect();
    if !bundle.status.conditions.is_empty() {
        text.push(format!("Conditions:\n{}", indent(&conditions(context, &bundle))));
    }
    text.join("\n")
}

/// What there is to say, in the order of interest.
fn facts(bundle: &BundleView) -> Vec<(&'static str, String)> {
    let status = &bundle.status;
    let ready = bundle.condition("Ready").map_or("Unknown", |ready| ready.status.as_str());
    let mut facts = vec![
        ("Name:", bundle.name().to_owned()),
        ("Namespace:", bundle.metadata.namespace.clone().unwrap_or_default()),
        ("Phase:", shown(&status.phase)),
        ("Ready:", format!("{ready}{}", why(bundle))),
        ("Image:", status.image.clone().unwrap_or_else(|| bundle.spec.image.clone())),
    ];
    facts.extend(status.revision.map(|revision| ("Revision:", revision.to_string())));
    facts.extend(status.unit.clone().map(|unit| ("Unit:", unit)));
    facts.extend(status.address.clone().map(|address| ("Address:", address)));
    facts.extend(bundle.spec.ports.iter().map(|port| ("Port:", port_line(port))));
    facts.push(("Restarts:", status.restarts.to_string()));
    facts.extend(status.last_termination.as_ref().map(|end| ("Last end:", ending(end))));
    facts.extend(status.next_try.clone().map(|time| ("Next try:", time)));
    facts.push(("Can do:", status.available_actions.join(", ")));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn shown(phase: &str) -> String {
    if phase.is_empty() { "Pending".to_owned() } else { phase.to_owned() }
}

/// The first condition that does not hold says why.
fn why(bundle: &BundleView) -> String {
    match bundle.obstacle() {
        Some(condition) if condition.message.is_empty() => format!(" ({})", condition.reason),
        Some(condition) => format!(" ({}: {})", condition.reason, condition.message),
        None => String::new(),
    }
}

pub(super) fn ending(end: &Termination) -> String {
    match (&end.signal, end.exit_code) {
        (Some(signal), _) => format!("{} (signal {signal})", end.reason),
        (None, Some(code)) => format!("{} (exit code {code})", end.reason),
        (None, None) => end.reason.clone(),
    }
}

fn conditions(context: &Context, bundle: &BundleView) -> String {
    let mut sheet = Sheet::new(&["Type", "Status", "Reason", "Age", "Message"]);
    for condition in &bundle.status.conditions {
        let age = since(Some(&condition.last_transition_time.0.to_string()), context.now());
        let Condition { type_, status, reason, message, .. } = condition.clone();
        sheet.row(vec![type_, status, reason, age, message]);
    }
    sheet.render(false, &mut Vec::new(), true)
}

pub(super) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(object: &Value) -> Vec<String> {
        facts(&BundleView::of(object)).into_iter().map(|(name, value)| format!("{name} {value}")).collect()
    }

    #[test]
    fn a_service_that_hangs_says_where_and_why() {
        let shown = lines(&json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"image": "r/web:1"},
            "status": {"phase": "Failed", "nextTry": "2026-11-21T00:05:00Z",
                "lastTermination": {"reason": "OOMKilled", "signal": "KILL"},
                "conditions": [
                    {"type": "ProfilePrepared", "status": "True", "reason": "ProfilePersisted", "message": "",
                     "lastTransitionTime": "2026-11-21T00:00:00Z"},
                    {"type": "Bound", "status": "False", "reason": "WorkloadFailed", "message": "check the registry",
                     "lastTransitionTime": "2026-11-21T00:00:00Z"},
                    {"type": "Ready", "status": "False", "reason": "StartPending", "message": "waits for Bound",
                     "lastTransitionTime": "2026-11-21T00:00:00Z"}]}
        }));
        assert_eq!(
            shown,
            [
                "Name: web",
                "Namespace: default",
                "Phase: Failed",
                "Ready: False (WorkloadFailed: check the registry)",
                "Image: r/web:1",
                "Restarts: 0",
                "Last end: OOMKilled (signal KILL)",
                "Next try: 2026-11-21T00:05:00Z",
            ]
        );
    }
}
