//! After a change set was applied: waits until all that it touches has come to rest, and tells of each how.

use std::collections::BTreeSet;

use berth_model::changes::plan::{ChangePlan, PlannedChange};
use berth_model::kinds::BUNDLE;
use berth_model::resource::Bundle;
use serde_json::Value;

use crate::cli::apply::several;
use crate::cli::failure::Failure;
use crate::cli::follow::{self, Wish};
use crate::cli::views::{BundleView, OperationView};
use crate::cli::{Context, delete};
use crate::resource::ResourceType;

/// Waits for everything, not beyond the deadline. What fails keeps nothing else from being waited for; the exit code is
/// that of the first failure.
pub(super) async fn all(context: &Context, name: &str, plan: &ChangePlan, applied: &Value) -> Result<(), Failure> {
    let instead = format!("berth operations -w -n {}", context.namespace);
    follow::bounded(context, &format!("what changeset/{name} changes"), &instead, each(context, plan, applied)).await
}

async fn each(context: &Context, plan: &ChangePlan, applied: &Value) -> Result<(), Failure> {
    let (leaving, staying) = (leaving(plan), staying(plan));
    let mut failures = Vec::new();
    for name in &staying {
        let acts = plan.restarts.contains(name);
        let ended = one(context, name, OperationView::of(applied).spec.sequence, acts).await;
        failures.extend(told(context, name, ended)?);
    }
    for name in &leaving {
        let gone = delete::until_gone(context, &ResourceType::of::<Bundle>(), &context.namespace, name).await;
        failures.extend(told(context, name, gone.map(|()| "gone"))?);
    }
    several(failures, leaving.len() + staying.len())
}

fn bundles(plan: &ChangePlan) -> impl Iterator<Item = &PlannedChange> {
    plan.changes.iter().filter(|change| change.kind == BUNDLE.kind)
}

fn staying(plan: &ChangePlan) -> BTreeSet<String> {
    let changed = bundles(plan).filter(|change| change.verb != "delete").map(|change| &change.name);
    changed.chain(&plan.restarts).cloned().collect()
}

/// Those that are removed, and those that have another name.
fn leaving(plan: &ChangePlan) -> BTreeSet<String> {
    let removed = bundles(plan).filter(|change| change.verb == "delete").map(|change| &change.name);
    removed.chain(bundles(plan).filter_map(|change| change.renamed_from.as_ref())).cloned().collect()
}

async fn one(context: &Context, name: &str, sequence: u64, acts: bool) -> Result<&'static str, Failure> {
    let bundle = context.client.get_dynamic(&ResourceType::of::<Bundle>(), &context.namespace, name).await?;
    let wish = Wish::after(&BundleView::of(&bundle), sequence, acts);
    let settled = follow::watch_bundle(context, &wish).await?;
    let is_ready = BundleView::of(&settled).condition("Ready").is_some_and(|ready| ready.status == "True");
    Ok(if is_ready { "ready" } else { "stopped" })
}

/// Tells it; a failure is handed on.
fn told(context: &Context, name: &str, ended: Result<&str, Failure>) -> Result<Option<Failure>, Failure> {
    match ended {
        Ok(word) => context.note(&format!("bundle/{name} is {word}")).map(|()| None),
        Err(failure) => {
            context.note(&format!("bundle/{name}: {}", failure.report().trim_end()))?;
            Ok(Some(failure))
        }
    }
}
