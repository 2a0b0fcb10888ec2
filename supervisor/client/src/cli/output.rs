//! `-o`: the same answer as a table, JSON, YAML or names.

use clap::ValueEnum;
use serde_json::Value;

use super::Context;
use super::failure::Failure;
use super::sheet::Sheet;
use crate::resource::ResourceType;
use crate::yaml;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// As the server sent it, indented.
    Json,
    /// As the server sent it, as YAML.
    Yaml,
    /// KIND/NAME, one per line.
    Name,
}

impl Output {
    /// Columns of some width.
    pub fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

impl Context {
    /// Prints the outcome of a command: a sentence for people, else the object itself.
    pub(super) fn outcome(&self, kind: &ResourceType, object: &Value, sentence: &str) -> Result<(), Failure> {
        match self.output.is_table() {
            true => self.say(sentence),
            false => self.document(kind, object),
        }
    }

    /// Prints one object or a whole list, not as a table.
    pub(super) fn document(&self, kind: &ResourceType, object: &Value) -> Result<(), Failure> {
        match self.output {
            Output::Json => self.say(&format!("{:#}", readable(object))),
            Output::Yaml => self.say(&yaml::to_string(&readable(object))?),
            _ => self.say(&names(kind, object)),
        }
    }

    /// Prints a table, or what to say if there is nothing in it.
    pub(super) fn sheet(&self, sheet: &Sheet, nothing: &str) -> Result<(), Failure> {
        match sheet.is_empty() {
            true => self.note(nothing),
            false => self.say(&sheet.render(self.output == Output::Wide, &mut Vec::new(), true)),
        }
    }
}

/// Without the record of who set which field: it is for programs, and longer than all the rest.
pub(super) fn readable(object: &Value) -> Value {
    let mut object = object.clone();
    let items = object.get_mut("items").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(hide_managed);
    hide_managed(&mut object);
    object
}

fn hide_managed(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
}

fn names(kind: &ResourceType, object: &Value) -> String {
    let name = |object: &Value| kind.shown(object["metadata"]["name"].as_str().unwrap_or_default());
    match object["items"].as_array() {
        Some(items) => items.iter().map(name).collect::<Vec<_>>().join("\n"),
        None => name(object),
    }
}
