//! `berth changeset`: edits that are staged, looked at together, and made all at once.
//!
//! An edit of single fields is made from what was read, and so says which version of the set that
//! was: if somebody added to it meanwhile, it is read and made again. With `--curl` it is read, too, and the command that
//! is printed holds the whole edit with that version: run too late, it is refused and stages nothing.

mod settle;

use berth_model::changes::plan::{ChangePlan, FieldChange};
use berth_model::changes::{self, Key, followed};
use berth_model::kinds::Kind;
use berth_model::resource::change_set::{ChangeSetStatus, Entry};
use berth_model::resource::{Bundle, ChangeSet, Operation};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::{AddArgs, ChangeSetCommand, Preferred};
use super::failure::Failure;
use super::manifest::{self, Manifest};
use super::settings::{self, EnvFlag};
use super::sheet::{Sheet, since};
use super::views::OperationView;
use super::{Context, get};
use crate::client::Client;
use crate::error::ClientError;
use crate::resource::{ResourceType, Scope};

/// How often an edit is made again because somebody else was faster.
const TRIES: usize = 8;
/// Characters of a value in a table.
const VALUE: usize = 48;

pub(super) async fn run(context: &Context, command: &ChangeSetCommand) -> Result<(), Failure> {
    match command {
        ChangeSetCommand::New { name, description } => new(context, name, description).await,
        ChangeSetCommand::List { all_namespaces, watch } => list(context, *all_namespaces, *watch).await,
        ChangeSetCommand::Add(args) => add(context, args).await,
        ChangeSetCommand::Show { name } => show(context, name).await,
        ChangeSetCommand::Plan { name } => plan(context, name).await,
        ChangeSetCommand::Apply { name } => apply(context, name).await,
        ChangeSetCommand::Rebase { name, prefer } => rebase(context, name, *prefer).await,
        ChangeSetCommand::Discard { name } => discard(context, name).await,
    }
}

fn kind() -> ResourceType {
    ResourceType::of::<ChangeSet>()
}

async fn new(context: &Context, name: &str, description: &str) -> Result<(), Failure> {
    let (kind, namespace) = (kind(), &context.namespace);
    let body = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": {"description": description},
    });
    let made = context.client.create_dynamic(&kind, namespace, body, context.new_key()).await?;
    context.outcome(&kind, &made, &format!("changeset/{name} created"))
}

async fn list(context: &Context, all_namespaces: bool, watch: bool) -> Result<(), Failure> {
    let namespace = (!all_namespaces).then(|| context.namespace.clone());
    let scope = Scope { namespace, ..Scope::default() };
    match watch {
        true => get::watch(context, &kind(), scope).await,
        false => get::list(context, &kind(), &scope).await,
    }
}

async fn act(context: &Context, name: &str, action: &str, body: Value) -> Result<Value, ClientError> {
    context.client.change_set_action(&context.namespace, name, action, body, context.new_key()).await
}

async fn add(context: &Context, args: &AddArgs) -> Result<(), Failure> {
    let Some(object) = &args.object else { return add_files(context, args).await };
    let (kind, name) = match object.split_once('/') {
        Some((kind, name)) => (context.kind(kind).await?, name),
        None => (ResourceType::of::<Bundle>(), object.as_str()),
    };
    let edit = |verb: &str| json!({"verb": verb, "apiVersion": kind.api_version(), "kind": kind.kind, "name": name});
    let set = match (&args.rename, args.delete) {
        (Some(to), _) => {
            let mut edit = edit("rename");
            edit["to"] = to.clone().into();
            act(context, &args.name, "add", edit).await?
        }
        (None, true) => act(context, &args.name, "add", edit("delete")).await?,
        (None, false) if args.set.is_empty() && args.env.is_empty() => {
            return Err(Failure::Usage("nothing to stage: give --set, --env, --rename, --delete or -f FILE".into()));
        }
        (None, false) => add_fields(context, args, &kind, name, &edit("update")).await?,
    };
    context.outcome(&self::kind(), &set, &format!("{} staged in changeset/{}", kind.shown(name), args.name))
}

async fn add_files(context: &Context, args: &AddArgs) -> Result<(), Failure> {
    for Manifest { kind, namespace, name, object } in manifest::read_all(context, &args.file).await? {
        if kind.namespaced && namespace != context.namespace {
            let shown = kind.shown(&name);
            return Err(Failure::Usage(format!("{shown} is of namespace {namespace}, the change set of another")));
        }
        let edit = json!({"verb": "apply", "apiVersion": kind.api_version(), "kind": kind.kind, "name": name,
                          "object": object});
        let set = act(context, &args.name, "add", edit).await?;
        let sentence = format!("{} staged in changeset/{}", kind.shown(&name), args.name);
        context.outcome(&self::kind(), &set, &sentence)?;
    }
    Ok(())
}

/// Changes single fields of what is staged, or there.
async fn add_fields(
    context: &Context,
    args: &AddArgs,
    kind: &ResourceType,
    name: &str,
    edit: &Value,
) -> Result<Value, Failure> {
    if *kind != ResourceType::of::<Bundle>() {
        return Err(Failure::Usage("single fields are set of bundles; stage other kinds with -f FILE".to_owned()));
    }
    let reader = context.reader()?;
    for attempt in 1.. {
        let set = reader.get_dynamic(&self::kind(), &context.namespace, &args.name).await?;
        let mut spec = present(context, &reader, &set, name).await?;
        put_env(&mut spec, &args.env);
        settings::set(&mut spec, &args.set).map_err(Failure::Usage)?;
        let mut edit = edit.clone();
        edit["object"] = json!({ "spec": spec });
        edit["resourceVersion"] = set["metadata"]["resourceVersion"].clone();
        match act(context, &args.name, "add", edit).await {
            Err(ClientError::Refused(status)) if status.code == Some(409) && attempt < TRIES => {}
            answer => return Ok(answer?),
        }
    }
    Err(Failure::Usage("the change set changes faster than it can be read".to_owned()))
}

/// The spec of a bundle with all that is staged so far.
async fn present(context: &Context, reader: &Client, set: &Value, name: &str) -> Result<Value, Failure> {
    let entries = entries(set);
    let staged = changes::fold(&entries).map_err(|broken| Failure::Usage(broken.to_string()))?;
    if let Some(slot) = staged.slots.get(&Key::new(Bundle::registration(), name)) {
        let content = slot.now.as_ref();
        let gone = || Failure::Usage(format!("the change set deletes or renames bundle {name}"));
        return Ok(content.ok_or_else(gone)?["spec"].clone());
    }
    let stored = reader.get_dynamic(&ResourceType::of::<Bundle>(), &context.namespace, name).await?;
    Ok(followed(&changes::draft(&stored), &staged.renames)["spec"].clone())
}

fn entries(set: &Value) -> Vec<Entry> {
    ChangeSetStatus::deserialize(&set["status"]).map(|status| status.entries).unwrap_or_default()
}

/// A variable that is there is given another value; a new one comes last.
fn put_env(spec: &mut Value, flags: &[EnvFlag]) {
    let Some(spec) = spec.as_object_mut().filter(|_| !flags.is_empty()) else { return };
    let list = spec.entry("env").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for EnvFlag(var) in flags {
        let new = json!({"name": var.name, "value": var.value});
        match list.iter_mut().find(|one| one["name"] == var.name.as_str()) {
            Some(one) => *one = new,
            None => list.push(new),
        }
    }
}

async fn show(context: &Context, name: &str) -> Result<(), Failure> {
    let set = context.client.get_dynamic(&kind(), &context.namespace, name).await?;
    if !context.output.is_table() {
        return context.document(&kind(), &set);
    }
    let mut sheet = Sheet::new(&["Nr", "Age", "Author", "Edit", "Object", "Fields"]);
    for (index, entry) in entries(&set).iter().enumerate() {
        sheet.row(vec![
            (index + 1).to_string(),
            since(Some(&entry.time), context.now()),
            format!("{} ({})", entry.author.identity, entry.author.source),
            entry.verb.name().to_owned(),
            Key::of(entry).shown(),
            what(entry),
        ]);
    }
    context.sheet(&sheet, "nothing is staged")
}

fn what(entry: &Entry) -> String {
    let before = entry.before.as_ref().map(|before| &before.content);
    match (&entry.to, before, &entry.after) {
        (Some(to), ..) => format!("to {to}"),
        (None, Some(before), Some(after)) => {
            let fields = changes::differences(Some(before), Some(after));
            fields.into_iter().map(|(field, ..)| field).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

async fn plan(context: &Context, name: &str) -> Result<(), Failure> {
    let answer = act(context, name, "plan", json!({})).await?;
    if !context.output.is_table() {
        return context.document(&kind(), &answer);
    }
    let plan = ChangePlan::deserialize(&answer).unwrap_or_default();
    context.sheet(&table(&plan), "nothing would be different")?;
    match plan.restarts.as_slice() {
        [] => context.note("nothing restarts"),
        names => context.note(&format!("restarts, once each: {}", names.join(", "))),
    }
}

fn table(plan: &ChangePlan) -> Sheet {
    let mut sheet = Sheet::new(&["Change", "Object", "Field", "Before", "After"]);
    for change in &plan.changes {
        let (verb, object) = match &change.renamed_from {
            Some(old) => (change.verb.clone(), format!("{} (was {old})", change.shown())),
            None if change.follows => ("follow".to_owned(), change.shown()),
            None => (change.verb.clone(), change.shown()),
        };
        let shown: &[FieldChange] =
            if change.verb == "update" || change.verb == "rename" { &change.fields } else { &[] };
        let mut first = Some((verb, object));
        for field in shown {
            let (verb, object) = first.take().unwrap_or_default();
            sheet.row(vec![
                verb,
                object,
                field.field.clone(),
                value(field.before.as_ref()),
                value(field.after.as_ref()),
            ]);
        }
        if let Some((verb, object)) = first {
            sheet.row(vec![verb, object, String::new(), String::new(), String::new()]);
        }
    }
    sheet
}

fn value(value: Option<&Value>) -> String {
    let text = match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.chars().count() > VALUE {
        true => text.chars().take(VALUE - 3).chain("...".chars()).collect(),
        false => text,
    }
}

async fn apply(context: &Context, name: &str) -> Result<(), Failure> {
    let operation = act(context, name, "apply", json!({})).await?;
    let plan = ChangePlan::deserialize(&operation["status"]["result"]).unwrap_or_default();
    let done = format!("changeset/{name} applied by operation/{}", OperationView::of(&operation).name());
    context.outcome(&ResourceType::of::<Operation>(), &operation, &done)?;
    if context.output.is_table() {
        plan.changes.iter().try_for_each(|change| context.say(&format!("  {}", change.sentence())))?;
    }
    match context.wait {
        Some(true) => settle::all(context, name, &plan, &operation).await,
        _ => Ok(()),
    }
}

async fn rebase(context: &Context, name: &str, prefer: Option<Preferred>) -> Result<(), Failure> {
    let mut body = Map::new();
    let word = |prefer| if prefer == Preferred::Ours { "ours" } else { "theirs" };
    body.extend(prefer.map(|prefer| ("prefer".to_owned(), word(prefer).into())));
    let set = act(context, name, "rebase", Value::Object(body)).await?;
    context.outcome(&kind(), &set, &format!("changeset/{name} rebased; `berth changeset plan {name}` shows it"))
}

async fn discard(context: &Context, name: &str) -> Result<(), Failure> {
    let gone = context.client.delete_dynamic(&kind(), &context.namespace, name).await?;
    context.outcome(&kind(), &gone, &format!("changeset/{name} discarded"))
}
