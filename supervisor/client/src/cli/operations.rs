//! `berth operations` and `berth operation show`, `cancel`, `retry`, `release` and `reject`.

use berth_model::resource::Operation;
use berth_model::resource::operation::Actor;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{OperationCommand, OperationsArgs};
use super::failure::Failure;
use super::sheet::{Sheet, since};
use super::status::indent;
use super::views::{OperationView, StepView, words};
use super::{Context, follow, get};
use crate::resource::{ResourceType, Scope};

pub(super) async fn list(context: &Context, args: &OperationsArgs) -> Result<(), Failure> {
    let kind = ResourceType::of::<Operation>();
    let namespace = (!args.all_namespaces).then(|| context.namespace.clone());
    let scope = Scope { namespace, ..Scope::default() };
    match args.watch {
        true => get::watch(context, &kind, scope).await,
        false if context.output.is_table() => table(context, &kind, &scope).await,
        false => get::list(context, &kind, &scope).await,
    }
}

async fn table(context: &Context, kind: &ResourceType, scope: &Scope) -> Result<(), Failure> {
    let mut all = context.client.list_dynamic(kind, scope).await?.items;
    all.sort_by_cached_key(|object| OperationView::of(object).order());
    let sheet = Sheet::of_objects(kind, &all, context.now(), scope.namespace.is_none());
    context.sheet(&sheet, "no operations")
}

pub(super) async fn run(context: &Context, command: &OperationCommand) -> Result<(), Failure> {
    match command {
        OperationCommand::Show { name, watch } => show(context, name, *watch).await,
        OperationCommand::Cancel { name } => cancel(context, name).await,
        OperationCommand::Retry { name } => retry(context, name).await,
        OperationCommand::Release { name } => release(context, name).await,
        OperationCommand::Reject { name, reason } => reject(context, name, reason).await,
    }
}

async fn release(context: &Context, name: &str) -> Result<(), Failure> {
    let asked = context.client.operation_action(&context.namespace, name, "release", Value::Null).await?;
    let last = match context.wait {
        Some(true) => follow::operation(context, name).await?,
        _ => None,
    };
    let kind = ResourceType::of::<Operation>();
    context.outcome(&kind, &last.unwrap_or(asked), &format!("operation/{name} released"))
}

async fn reject(context: &Context, name: &str, reason: &str) -> Result<(), Failure> {
    let body = json!({"reason": reason});
    let ended = context.client.operation_action(&context.namespace, name, "reject", body).await?;
    context.outcome(&ResourceType::of::<Operation>(), &ended, &format!("operation/{name} rejected"))
}

async fn cancel(context: &Context, name: &str) -> Result<(), Failure> {
    let asked = context.client.operation_action(&context.namespace, name, "cancel", Value::Null).await?;
    let last = match context.wait {
        Some(false) => None,
        _ => match follow::operation(context, name).await {
            Err(Failure::Cancelled { .. }) => None,
            Err(failure) => return Err(failure),
            Ok(_) => return Err(Failure::TooLate(format!("operation/{name}"))),
        },
    };
    context.outcome(&ResourceType::of::<Operation>(), &last.unwrap_or(asked), &format!("operation/{name} cancelled"))
}

async fn retry(context: &Context, name: &str) -> Result<(), Failure> {
    let asked = context.client.operation_action(&context.namespace, name, "retry", Value::Null).await?;
    let (kind, again) = (ResourceType::of::<Operation>(), OperationView::of(&asked));
    if context.wait == Some(false) {
        context.outcome(&kind, &asked, &format!("operation/{}", again.name()))?;
        return context.note(&format!("follow it with: berth operation show {} -w", again.name()));
    }
    let last = follow::operation(context, again.name()).await?.unwrap_or(asked);
    context.outcome(&kind, &last, &format!("operation/{} succeeded", again.name()))
}

async fn show(context: &Context, name: &str, watch: bool) -> Result<(), Failure> {
    let kind = ResourceType::of::<Operation>();
    let mut object = context.client.get_dynamic(&kind, &context.namespace, name).await?;
    if watch {
        object = follow::operation(context, name).await?.unwrap_or(object);
    }
    match context.output.is_table() {
        true => context.say(&page(&object, context.now())),
        false => context.document(&kind, &object),
    }
}

fn page(object: &Value, now: Timestamp) -> String {
    let operation = OperationView::of(object);
    let mut lines: Vec<String> =
        facts(&operation, now).iter().map(|(name, value)| format!("{name:<10}{value}")).collect();
    lines.push("Steps:".to_owned());
    lines.push(indent(&steps(&operation, now)));
    if let Some(error) = &operation.status.error {
        lines.push(format!("Error:    [{}] {}", error.code, error.message));
        lines.extend(error.detail.lines().map(|line| format!("          {line}")));
        lines.extend(error.suggestions.iter().map(|advice| format!("          try: {advice}")));
    }
    lines.join("\n")
}

fn facts(operation: &OperationView, now: Timestamp) -> Vec<(&'static str, String)> {
    let (spec, status) = (&operation.spec, &operation.status);
    let created = operation.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    let target = format!("{}/{}", spec.target.kind.to_lowercase(), spec.target.name);
    let mut facts = vec![
        ("Name:", operation.name().to_owned()),
        ("Kind:", spec.kind.clone()),
        ("Target:", format!("{target} in {}", spec.target.namespace)),
        ("State:", status.state.clone()),
        (
            "Asked:",
            format!("{} ago by {} ({})", since(created.as_deref(), now), spec.actor.identity, spec.actor.source),
        ),
        ("Reason:", spec.reason.clone()),
        ("Priority:", spec.priority.clone()),
        ("After:", spec.relations.requires.join(", ")),
        ("Before:", spec.relations.prefers_before.join(", ")),
        ("Not with:", spec.relations.conflicts_with.join(", ")),
        ("Waits:", operation.waits()),
        ("Released:", status.released_by.as_ref().map(by).unwrap_or_default()),
        ("Took:", took(status.started_at.as_deref(), status.finished_at.as_deref())),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn by(actor: &Actor) -> String {
    format!("by {} ({})", actor.identity, actor.source)
}

fn steps(operation: &OperationView, now: Timestamp) -> String {
    let mut sheet = Sheet::new(&["Step", "State", "Progress", "Attempt", "Took", "Message"]);
    for step in &operation.status.steps {
        sheet.row(row(step, now));
    }
    sheet.render(false, &mut Vec::new(), true)
}

fn row(step: &StepView, now: Timestamp) -> Vec<String> {
    let next = step.next_try.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let next = next.map(|next| format!("tried again in {}s: ", next.duration_since(now).as_secs().max(0)));
    let message = next.unwrap_or_default() + &step.message;
    let progress = format!("{}%", if step.state == "Succeeded" { 100 } else { step.progress });
    let took = took(step.started_at.as_deref(), step.finished_at.as_deref());
    vec![words(&step.name), step.state.clone(), progress, step.attempt.to_string(), took, message]
}

/// Time between two RFC 3339 times; empty if one is missing.
fn took(from: Option<&str>, to: Option<&str>) -> String {
    let parse = |time: Option<&str>| time.and_then(|time| time.parse::<Timestamp>().ok());
    match (parse(from), parse(to)) {
        (Some(from), Some(to)) => format!("{:.1}s", to.duration_since(from).as_secs_f64()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_between_two_tries_shows_how_many_there_were_and_when_the_next_is() {
        let object = json!({
            "metadata": {"name": "install-web-1"}, "spec": {"kind": "Install"},
            "status": {"state": "Running", "steps": [
                {"name": "PullImage", "state": "Running", "attempt": 2, "progress": 40, "message": "nobody answers",
                 "nextTry": "2026-11-21T00:00:04Z"}]}
        });
        let page = page(&object, "2026-11-21T00:00:02Z".parse().unwrap());
        let last: Vec<&str> = page.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last.join(" "), "pull image Running 40% 2 tried again in 2s: nobody answers");
    }

    #[test]
    fn a_failed_operation_shows_its_steps_and_what_to_do() {
        let object = json!({
            "metadata": {"name": "install-web-1", "creationTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"kind": "Install", "target": {"kind": "Bundle", "namespace": "default", "name": "web"},
                     "actor": {"identity": "owner", "source": "cli"}, "priority": "interactive",
                     "relations": {"requires": ["update-db-1"], "conflictsWith": ["grow-x-1", "grow-y-1"]}},
            "status": {"state": "Failed", "startedAt": "2026-11-21T00:00:01Z", "finishedAt": "2026-11-21T00:00:03.5Z",
                "steps": [
                    {"name": "ResolveImage", "state": "Succeeded", "attempt": 1, "startedAt": "2026-11-21T00:00:01Z",
                     "finishedAt": "2026-11-21T00:00:02Z", "message": "sha256:abc"},
                    {"name": "PullImage", "state": "Failed", "attempt": 3, "progress": 40}],
                "error": {"code": "WorkloadFailed", "message": "no such blob", "suggestions": ["push it again"]}}
        });
        let now = "2026-11-21T00:01:00Z".parse().unwrap();
        let expected = "\
Name:     install-web-1
Kind:     Install
Target:   bundle/web in default
State:    Failed
Asked:    60s ago by owner (cli)
Priority: interactive
After:    update-db-1
Not with: grow-x-1, grow-y-1
Took:     2.5s
Steps:
  STEP            STATE       PROGRESS   ATTEMPT   TOOK   MESSAGE
  resolve image   Succeeded   100%       1         1.0s   sha256:abc
  pull image      Failed      40%        3
Error:    [WorkloadFailed] no such blob
          try: push it again";
        assert_eq!(page(&object, now), expected);
    }
}
