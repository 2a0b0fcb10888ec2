//! `berth describe`: one resource as YAML, and its events.

use super::args::ResourceArgs;
use super::failure::Failure;
use super::output::readable;
use super::status::indent;
use super::{Context, events, get};
use crate::resource::ResourceType;
use crate::yaml;

/// The one resource that is meant.
pub(super) async fn named(context: &Context, args: &ResourceArgs) -> Result<(ResourceType, String), Failure> {
    let mut names: Vec<String> = args.name.iter().cloned().collect();
    let word = get::split(&args.kind, &mut names)?;
    let kind = context.kind(word).await?;
    let name = names.pop().ok_or_else(|| Failure::Usage("say which one: KIND/NAME or KIND NAME".to_owned()))?;
    Ok((kind, name))
}

pub(super) async fn run(context: &Context, args: &ResourceArgs) -> Result<(), Failure> {
    let (kind, name) = named(context, args).await?;
    let object = context.client.get_dynamic(&kind, &context.namespace, &name).await?;
    if !context.output.is_table() {
        return context.document(&kind, &object);
    }
    context.say(&yaml::to_string(&readable(&object))?)?;
    let events = events::about(context, &kind.kind, &name).await?;
    match events.is_empty() {
        true => context.say("events: []"),
        false => context.say(&format!("events:\n{}", indent(&events::table(context, &events)))),
    }
}
