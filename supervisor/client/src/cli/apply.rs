//! `berth apply`: creates what is not there, changes what is.
//!
//! A change is a merge patch with the manifest itself: fields that the manifest leaves out stay as
//! they are, lists are replaced as a whole, `null` removes a field.

use berth_model::projection::source_of;
use berth_model::reference::{Reference, references};
use berth_model::resource::Bundle;
use berth_model::resource::bundle::BundleSpec;
use serde::Deserialize;
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
    let manifests = in_order(manifest::read_all(context, &args.file).await?);
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

/// Bundles come behind what their variables refer to; all else, and a ring of references, stays in its order.
fn in_order(mut rest: Vec<Manifest>) -> Vec<Manifest> {
    let mut ordered = Vec::new();
    while !rest.is_empty() {
        let ready = rest.iter().position(|one| !rest.iter().any(|other| other != one && refers(one, other)));
        ordered.push(rest.remove(ready.unwrap_or_default()));
    }
    ordered
}

fn refers(one: &Manifest, other: &Manifest) -> bool {
    let spec = BundleSpec::deserialize(&one.object["spec"]).ok().filter(|_| one.kind == ResourceType::of::<Bundle>());
    let leads_there = |(_, reference): (usize, Reference)| {
        let (kind, name) = source_of(&reference);
        kind.to_string() == other.kind.kind && name == other.name && one.namespace == other.namespace
    };
    spec.is_some_and(|spec| references(&spec).into_iter().any(leads_there))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bundle(name: &str, value: &str) -> Manifest {
        let env = json!([{"name": "URL", "value": value}]);
        Manifest {
            kind: ResourceType::of::<Bundle>(),
            namespace: "default".into(),
            name: name.into(),
            object: json!({"spec": {"image": "r/x:1", "env": env}}),
        }
    }

    #[test]
    fn what_is_referred_to_is_applied_first_and_nothing_else_changes_its_place() {
        let all = vec![
            bundle("app", "${{web.HOST}}"),
            bundle("first", ""),
            bundle("web", "${{db.HOST}} ${{web.HOST}} ${{elsewhere.HOST}}"),
            bundle("db", ""),
        ];
        let names: Vec<String> = in_order(all).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["first", "db", "web", "app"]);
        let ring = vec![bundle("a", "${{b.HOST}}"), bundle("b", "${{a.HOST}}")];
        assert_eq!(in_order(ring).len(), 2);
    }
}
