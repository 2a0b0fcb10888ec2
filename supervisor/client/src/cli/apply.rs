//! `berth apply`: creates what is not there, changes what is.
//!
//! A change is a merge patch with the manifest itself: fields that the manifest leaves out stay as
//! they are, lists are replaced as a whole, `null` removes a field.

use berth_model::resource::Bundle;
use serde_json::Value;

use super::args::ApplyArgs;
use super::failure::Failure;
use super::follow::Wish;
use super::manifest::{self, Manifest};
use super::views::BundleView;
use super::{Context, follow};
use crate::client::{create_request, patch_request};
use crate::error::ClientError;
use crate::resource::ResourceType;

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    Created,
    Configured,
    Unchanged,
}

impl Applied {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

pub(super) async fn run(context: &Context, args: &ApplyArgs) -> Result<(), Failure> {
    let manifests = manifest::read_all(context, &args.file).await?;
    if context.is_printing() {
        return manifests.iter().try_for_each(|manifest| context.say(&command(context, manifest)));
    }
    let mut bundles = Vec::new();
    let mut failures = Vec::new();
    for manifest in &manifests {
        match one(context, manifest).await {
            Ok(done) if manifest.kind == ResourceType::of::<Bundle>() => bundles.push(done),
            Ok(_) => {}
            Err(failure) => failures.push(tell(context, manifest, failure, manifests.len())?),
        }
    }
    several(failures, manifests.len())?;
    match context.wait {
        Some(true) => wait(context, &bundles).await,
        _ => Ok(()),
    }
}

async fn one(context: &Context, manifest: &Manifest) -> Result<(Applied, Value), Failure> {
    let (applied, object) = apply(context, manifest).await?;
    let sentence = format!("{} {}", manifest.kind.shown(&manifest.name), applied.word());
    context.outcome(&manifest.kind, &object, &sentence)?;
    Ok((applied, object))
}

/// The only failure is told as it is; one of several is told at once, and summed up at the end.
fn tell(context: &Context, manifest: &Manifest, failure: Failure, total: usize) -> Result<Failure, Failure> {
    if total > 1 {
        let what = manifest.kind.shown(&manifest.name);
        context.note(&format!("{what}: {}", failure.report().trim_end()))?;
    }
    Ok(failure)
}

/// Several failures become one; the exit code is that of the first.
pub(super) fn several(mut failures: Vec<Failure>, total: usize) -> Result<(), Failure> {
    match (failures.len(), total) {
        (0, _) => Ok(()),
        (1, 1) => Err(failures.remove(0)),
        (failed, total) => {
            let code = failures[0].exit_code();
            Err(Failure::Several(format!("{failed} of {total} failed"), code))
        }
    }
}

/// Creates or patches one object.
pub(super) async fn apply(context: &Context, manifest: &Manifest) -> Result<(Applied, Value), ClientError> {
    let Manifest { kind, namespace, name, object } = manifest;
    let before = match context.client.get_dynamic(kind, namespace, name).await {
        Err(error) if error.is_not_found() => {
            let created = context.client.create_dynamic(kind, namespace, object.clone(), context.new_key()).await?;
            return Ok((Applied::Created, created));
        }
        answer => answer?,
    };
    let after = context.client.merge_patch_dynamic(kind, namespace, name, object.clone()).await?;
    let same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"];
    Ok((if same { Applied::Unchanged } else { Applied::Configured }, after))
}

/// The same without looking first: change it, and create it if that did not work.
fn command(context: &Context, manifest: &Manifest) -> String {
    let Manifest { kind, namespace, name, object } = manifest;
    let transport = context.client.transport();
    let patch = transport.command(&patch_request(kind, namespace, name, object.clone()));
    let create = transport.command(&create_request(kind, namespace, object.clone(), context.new_key()));
    format!("{patch} || {create}")
}

async fn wait(context: &Context, bundles: &[(Applied, Value)]) -> Result<(), Failure> {
    for (applied, bundle) in bundles {
        let bundle = BundleView::of(bundle);
        follow::ready(context, &Wish::of(&bundle, *applied != Applied::Unchanged)).await?;
        context.note(&format!("bundle/{} is ready", bundle.name()))?;
    }
    Ok(())
}
