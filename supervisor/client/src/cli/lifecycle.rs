//! `berth start`, `stop`, `restart`, `uninstall` and `update`.

use berth_model::quantity;
use berth_model::resource::{Bundle, Operation};
use serde_json::{Value, json};

use super::apply::{Applied, several};
use super::args::{NamesArgs, RelationArgs, UninstallArgs, UpdateArgs};
use super::failure::Failure;
use super::follow::Wish;
use super::install::summary;
use super::views::{BundleView, OperationView};
use super::{Context, follow, volume};
use crate::resource::ResourceType;

/// An action, and what to say when it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    name: &'static str,
    done: &'static str,
}

pub(super) const START: Action = Action { name: "start", done: "started" };
pub(super) const STOP: Action = Action { name: "stop", done: "stopped" };
pub(super) const RESTART: Action = Action { name: "restart", done: "restarted" };
const UNINSTALL: Action = Action { name: "uninstall", done: "uninstalled" };
const UPDATE: Action = Action { name: "update", done: "updated" };

pub(super) async fn run(context: &Context, action: Action, args: &NamesArgs) -> Result<(), Failure> {
    all(context, action, &args.names, &args.relations).await
}

async fn all(context: &Context, action: Action, names: &[String], relations: &RelationArgs) -> Result<(), Failure> {
    if let [name] = names {
        return one(context, action, name, relations).await;
    }
    let mut failures = Vec::new();
    for name in names {
        match one(context, action, name, relations).await {
            Err(failure) if !is_final(context, &failure) => {
                context.note(&format!("bundle/{name}: {}", failure.report().trim_end()))?;
                failures.push(failure);
            }
            outcome => outcome?,
        }
    }
    several(failures, names.len())
}

/// Volumes are kept unless it is said otherwise, and then it is told which.
pub(super) async fn uninstall(context: &Context, args: &UninstallArgs) -> Result<(), Failure> {
    all(context, UNINSTALL, &args.names, &args.relations).await?;
    if context.is_printing() || context.wait == Some(false) {
        return Ok(());
    }
    for name in &args.names {
        for (volume, size) in volume::of_bundle(context, name).await? {
            match args.erase_volumes {
                true => volume::erase(context, &volume).await?,
                false if args.keep_volumes => {}
                false => context.note(&format!(
                    "volume/{volume} with {} is kept; berth volume erase {volume} destroys it",
                    quantity::show_bytes(size)
                ))?,
            }
        }
    }
    Ok(())
}

/// After this there is no point in going on with the next name.
fn is_final(context: &Context, failure: &Failure) -> bool {
    context.is_printing() || matches!(failure, Failure::Interrupted { .. } | Failure::Output(_))
}

async fn one(context: &Context, action: Action, name: &str, relations: &RelationArgs) -> Result<(), Failure> {
    let (client, key) = (&context.client, context.new_key());
    let asked = client.action_with(&context.namespace, name, action.name, relations.body(), key).await?;
    let operation = OperationView::of(&asked);
    let kind = ResourceType::of::<Operation>();
    if context.wait == Some(false) {
        let follow = format!("follow it with: berth operation show {} -w", operation.name());
        context.outcome(&kind, &asked, &format!("operation/{}", operation.name()))?;
        return context.note(&follow);
    }
    let last = follow::operation(context, operation.name()).await?.unwrap_or(asked);
    context.outcome(&kind, &last, &format!("bundle/{name} {}", action.done))
}

/// With an image it is a change of the bundle's wish; without one it asks what the tag means now.
pub(super) async fn update(context: &Context, args: &UpdateArgs) -> Result<(), Failure> {
    match &args.image {
        Some(image) => change(context, &args.name, image).await,
        None => one(context, UPDATE, &args.name, &args.relations).await,
    }
}

async fn change(context: &Context, name: &str, image: &str) -> Result<(), Failure> {
    let kind = ResourceType::of::<Bundle>();
    let namespace = &context.namespace;
    let before = match context.is_printing() {
        true => Value::Null,
        false => context.client.get_dynamic(&kind, namespace, name).await?,
    };
    let patch = json!({"spec": {"image": image}});
    let after = context.client.merge_patch_dynamic(&kind, namespace, name, patch).await?;
    let view = BundleView::of(&after);
    let applied = match BundleView::of(&before).generation() == view.generation() {
        true => Applied::Unchanged,
        false => Applied::Configured,
    };
    if context.wait == Some(false) {
        context.outcome(&kind, &after, &format!("bundle/{name} {}", applied.word()))?;
        return context.note(&format!("follow it with: berth status {name} -w"));
    }
    let last = follow::ready(context, &Wish::of(&view, applied != Applied::Unchanged)).await?;
    let done = if applied == Applied::Unchanged { "unchanged" } else { UPDATE.done };
    context.outcome(&kind, &last, &summary(&last, done))
}
