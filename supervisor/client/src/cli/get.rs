//! `berth get`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Context;
use super::args::GetArgs;
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use crate::request::{JSON, TABLE};
use crate::resource::{ResourceType, Scope};
use crate::watch::{News, Watcher};

pub(super) async fn run(context: &Context, args: GetArgs) -> Result<(), Failure> {
    let (word, mut names) = (args.kind.clone(), args.names.clone());
    let word = split(&word, &mut names)?;
    let kind = context.kind(word).await?;
    let namespace = (!args.all_namespaces).then(|| context.namespace.clone());
    let mut scope = Scope { namespace, labels: args.selector, fields: args.field_selector };
    match (names.as_slice(), args.watch) {
        (names, false) if !names.is_empty() => objects(context, &kind, names).await,
        ([], false) => list(context, &kind, &scope).await,
        ([], true) => watch(context, &kind, scope).await,
        ([name], true) => {
            scope.fields = Some(format!("metadata.name={name}"));
            watch(context, &kind, scope).await
        }
        _ => Err(Failure::Usage("only one name can be watched at a time".to_owned())),
    }
}

/// `KIND/NAME` as one word.
pub(super) fn split<'a>(word: &'a str, names: &mut Vec<String>) -> Result<&'a str, Failure> {
    match word.split_once('/') {
        None => Ok(word),
        Some((kind, name)) if !name.is_empty() && !name.contains('/') && names.is_empty() => {
            names.push(name.to_owned());
            Ok(kind)
        }
        Some(_) => Err(Failure::Usage(format!("{word:?} names no resource; write KIND/NAME or KIND NAME"))),
    }
}

/// Prints what a scope selects.
pub(super) async fn list(context: &Context, kind: &ResourceType, scope: &Scope) -> Result<(), Failure> {
    let request = kind.list(scope).accept(accept(context.output));
    let answer: Value = context.client.transport().json(&request).await?;
    if !context.output.is_table() {
        return context.document(kind, &answer);
    }
    let sheet = Sheet::of_answer(kind, &answer, context.now(), scope.namespace.is_none());
    context.sheet(&sheet, &nothing(kind, scope))
}

fn accept(output: Output) -> &'static str {
    if output.is_table() { TABLE } else { JSON }
}

fn nothing(kind: &ResourceType, scope: &Scope) -> String {
    match &scope.namespace {
        Some(namespace) if kind.namespaced => format!("no {} in namespace {namespace}", kind.plural),
        _ => format!("no {}", kind.plural),
    }
}

pub(super) async fn objects(context: &Context, kind: &ResourceType, names: &[String]) -> Result<(), Failure> {
    let mut found = Vec::new();
    for name in names {
        found.push(context.client.get_dynamic(kind, &context.namespace, name).await?);
    }
    if context.output.is_table() {
        return context.sheet(&Sheet::of_objects(kind, &found, context.now(), false), "");
    }
    match found.as_slice() {
        [one] => context.document(kind, one),
        many => context.document(kind, &json!({"apiVersion": "v1", "kind": "List", "items": many})),
    }
}

/// Prints what a scope selects, then every change until somebody ends it.
pub(super) async fn watch(context: &Context, kind: &ResourceType, scope: Scope) -> Result<(), Failure> {
    let mut printer = Printer { with_namespace: scope.namespace.is_none(), ..Printer::default() };
    let mut watcher = Watcher::new(&context.client, kind, scope);
    let mut first = Vec::new();
    loop {
        match (watcher.next().await?, printer.started) {
            (News::Present(object), false) => first.push(object),
            (News::Synced, _) => printer.print(context, kind, &std::mem::take(&mut first))?,
            (News::Present(object), _) => printer.print(context, kind, &[object])?,
            (News::Absent(object), _) => printer.gone(context, kind, object)?,
            (News::Lost(why), _) => context.note(&format!("connection lost ({why}); trying again"))?,
        }
    }
}

/// Prints rows as they come, under one header. A change that shows in no column is not printed.
#[derive(Debug, Default)]
struct Printer {
    with_namespace: bool,
    started: bool,
    header_shown: bool,
    widths: Vec<u16>,
    shown: HashMap<String, String>,
}

impl Printer {
    fn print(&mut self, context: &Context, kind: &ResourceType, objects: &[Value]) -> Result<(), Failure> {
        self.started = true;
        if !context.output.is_table() {
            return objects.iter().try_for_each(|object| context.document(kind, object));
        }
        let fresh: Vec<Value> = objects.iter().filter(|object| self.is_fresh(context, kind, object)).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let sheet = Sheet::of_objects(kind, &fresh, context.now(), self.with_namespace);
        let with_header = !std::mem::replace(&mut self.header_shown, true);
        context.say(&sheet.render(context.output == Output::Wide, &mut self.widths, with_header))
    }

    /// The last state of what vanished is printed even if it looks as before.
    fn gone(&mut self, context: &Context, kind: &ResourceType, object: Value) -> Result<(), Failure> {
        self.shown.remove(&identity(&object));
        self.print(context, kind, &[object])
    }

    /// Whether any column but the age differs from what was shown of the object.
    fn is_fresh(&mut self, context: &Context, kind: &ResourceType, object: &Value) -> bool {
        let mut ageless = object.clone();
        ageless["metadata"]["creationTimestamp"] = Value::Null;
        let sheet = Sheet::of_objects(kind, &[ageless], context.now(), true);
        let text = sheet.render(context.output == Output::Wide, &mut Vec::new(), false);
        self.shown.insert(identity(object), text.clone()) != Some(text)
    }
}

fn identity(object: &Value) -> String {
    format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"])
}
