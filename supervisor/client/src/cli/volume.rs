//! `berth volume list`, `grow`, `lock`, `unlock` and `erase`.

use berth_model::resource::{Operation, Volume};
use serde_json::Value;

use super::args::VolumeCommand;
use super::failure::Failure;
use super::sheet::Sheet;
use super::views::OperationView;
use super::{Context, follow, get};
use crate::resource::{ResourceType, Scope};

pub(super) async fn run(context: &Context, command: &VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::List { all_namespaces } => list(context, *all_namespaces).await,
        VolumeCommand::Grow { name, size, relations } => {
            let mut body = relations.body();
            body["size"] = size.as_str().into();
            act(context, name, "grow", body, "grown").await
        }
        VolumeCommand::Lock { name, relations } => act(context, name, "lock", relations.body(), "locked").await,
        VolumeCommand::Unlock { name, relations } => act(context, name, "unlock", relations.body(), "unlocked").await,
        VolumeCommand::Erase { name, yes: true, relations } => {
            act(context, name, "erase", relations.body(), "erased").await
        }
        VolumeCommand::Erase { name, yes: false, .. } => Err(Failure::Usage(format!(
            "this destroys all data of volume {name} for good, in every copy of its disk too; say --yes to do it"
        ))),
    }
}

async fn list(context: &Context, all_namespaces: bool) -> Result<(), Failure> {
    let kind = ResourceType::of::<Volume>();
    let namespace = (!all_namespaces).then(|| context.namespace.clone());
    let scope = Scope { namespace, ..Scope::default() };
    if !context.output.is_table() {
        return get::list(context, &kind, &scope).await;
    }
    let all = context.client.list_dynamic(&kind, &scope).await?.items;
    context.sheet(&Sheet::of_objects(&kind, &all, context.now(), all_namespaces), "no volumes")
}

/// Destroys a volume with its key.
pub(super) async fn erase(context: &Context, name: &str) -> Result<(), Failure> {
    act(context, name, "erase", Value::Null, "erased").await
}

async fn act(context: &Context, name: &str, action: &str, body: Value, done: &str) -> Result<(), Failure> {
    let asked = context.client.volume_action(&context.namespace, name, action, body, context.new_key()).await?;
    let operation = OperationView::of(&asked);
    let kind = ResourceType::of::<Operation>();
    if context.wait == Some(false) {
        context.outcome(&kind, &asked, &format!("operation/{}", operation.name()))?;
        return context.note(&format!("follow it with: berth operation show {} -w", operation.name()));
    }
    let last = follow::operation(context, operation.name()).await?.unwrap_or(asked);
    context.outcome(&kind, &last, &format!("volume/{name} {done}"))
}

/// Names and sizes of the volumes that were made for a bundle.
pub(super) async fn of_bundle(context: &Context, bundle: &str) -> Result<Vec<(String, u64)>, Failure> {
    let kind = ResourceType::of::<Volume>();
    let fields = Some(format!("spec.bundle={bundle}"));
    let scope = Scope { fields, ..Scope::namespace(&context.namespace) };
    let found = match context.client.list_dynamic(&kind, &scope).await {
        // A server that knows no volumes has none.
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        found => found?,
    };
    let named = |volume: &Value| {
        let size = volume["status"]["size"].as_u64().unwrap_or_default();
        Some((volume["metadata"]["name"].as_str()?.to_owned(), size))
    };
    Ok(found.items.iter().filter_map(named).collect())
}
