//! `berth delete`.

use super::apply::several;
use super::args::DeleteArgs;
use super::failure::Failure;
use super::manifest::{self, Manifest};
use super::{Context, follow, get};
use crate::error::ClientError;
use crate::resource::{ResourceType, Scope};
use crate::watch::{News, Watcher};

/// One thing to delete.
#[derive(Clone, Debug)]
struct Target {
    kind: ResourceType,
    namespace: String,
    name: String,
}

pub(super) async fn run(context: &Context, args: &DeleteArgs) -> Result<(), Failure> {
    let targets = targets(context, args).await?;
    if let [target] = targets.as_slice() {
        return one(context, target, args.ignore_not_found).await;
    }
    let mut failures = Vec::new();
    for target in &targets {
        match one(context, target, args.ignore_not_found).await {
            Ok(()) => {}
            Err(Failure::Client(ClientError::Printed(command))) => context.say(&command)?,
            Err(failure) => {
                context.note(&format!("{}: {}", target.kind.shown(&target.name), failure.report().trim_end()))?;
                failures.push(failure);
            }
        }
    }
    several(failures, targets.len())
}

async fn targets(context: &Context, args: &DeleteArgs) -> Result<Vec<Target>, Failure> {
    let Some(word) = &args.kind else {
        let manifests = manifest::read_all(context, &args.file).await?;
        // What was made last may need what was made first.
        return Ok(manifests.into_iter().rev().map(Target::from).collect());
    };
    let mut names = args.names.clone();
    let word = get::split(word, &mut names)?;
    let kind = context.kind(word).await?;
    if names.is_empty() {
        return Err(Failure::Usage(format!("say which {} to delete", kind.singular)));
    }
    let target = |name| Target { kind: kind.clone(), namespace: context.namespace.clone(), name };
    Ok(names.into_iter().map(target).collect())
}

impl From<Manifest> for Target {
    fn from(manifest: Manifest) -> Self {
        Self { kind: manifest.kind, namespace: manifest.namespace, name: manifest.name }
    }
}

async fn one(context: &Context, target: &Target, ignore_not_found: bool) -> Result<(), Failure> {
    let Target { kind, namespace, name } = target;
    let what = kind.shown(name);
    let answer = match context.client.delete_dynamic(kind, namespace, name).await {
        Err(error) if error.is_not_found() && ignore_not_found => return context.say(&format!("{what} not found")),
        answer => answer?,
    };
    let is_going = answer["metadata"]["deletionTimestamp"].is_string();
    match (is_going, context.wait) {
        (true, Some(false)) => return context.say(&format!("{what} is being deleted")),
        (true, _) => gone(context, target).await?,
        (false, _) => {}
    }
    context.say(&format!("{what} deleted"))
}

/// Waits until the object is gone.
async fn gone(context: &Context, target: &Target) -> Result<(), Failure> {
    let Target { kind, namespace, name } = target;
    let what = format!("deletion of {}", kind.shown(name));
    let instead = format!("berth get {} {name} -w -n {namespace}; berth events --for {name}", kind.singular);
    follow::bounded(context, &what, &instead, until_gone(context, kind, namespace, name)).await
}

/// As long as that takes.
pub(super) async fn until_gone(
    context: &Context,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let mut watcher = Watcher::new(&context.client, kind, Scope::object(namespace, name));
    let is_it = |object: &serde_json::Value| object["metadata"]["name"] == name;
    let mut seen = false;
    loop {
        match watcher.next().await? {
            News::Present(object) if is_it(&object) => seen = true,
            News::Absent(object) if is_it(&object) => return Ok(()),
            News::Synced if !seen => return Ok(()),
            News::Lost(why) => context.note(&format!("connection lost ({why}); trying again"))?,
            _ => {}
        }
    }
}
