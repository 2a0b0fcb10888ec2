//! Sets of fields, as Kubernetes writes them: `FieldsV1`, nested maps whose keys are steps.
//!
//! A step is `f:<name>` into a map, `k:{"<key>":...}` to an item of a list that is merged by a key, and `v:<value>` to
//! one of a set. Every other list is one field. An item is a field itself (`.`) beside those in it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use serde_json::{Map, Value};

use super::SERVER_METADATA;
use crate::patch::Lists;

/// A field, as the steps that lead to it.
pub type Path = Vec<String>;

/// The step that stands for what holds it.
const ITSELF: &str = ".";
/// What there is to an item itself, whatever is in it.
static PRESENT: Value = Value::Null;

/// Fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub(super) BTreeSet<Path>);

impl Fields {
    /// All fields of an object that can be owned.
    pub fn of(object: &Value, lists: Lists) -> Self {
        Self(leaves(object, lists).into_keys().collect())
    }

    /// As `managedFields` carry them.
    pub fn render(&self) -> FieldsV1 {
        let mut root = Map::new();
        for path in &self.0 {
            let mut node = &mut root;
            for step in path.iter().map(String::as_str).chain([ITSELF]) {
                let child = node.entry(step).or_insert_with(|| Map::new().into());
                match child {
                    Value::Object(map) => node = map,
                    _ => break,
                }
            }
        }
        root.values_mut().for_each(shorten);
        FieldsV1(Value::Object(root))
    }

    /// What [`Fields::render`] wrote; steps of other kinds are passed over.
    pub fn parse(fields: &FieldsV1) -> Self {
        let mut found = Self::default();
        if let Value::Object(root) = &fields.0 {
            found.walk(root, &mut Vec::new());
        }
        found
    }

    fn walk(&mut self, node: &Map<String, Value>, path: &mut Path) {
        if (node.is_empty() || node.contains_key(ITSELF)) && !path.is_empty() {
            self.0.insert(path.clone());
        }
        for (step, child) in node {
            if let (Some("f" | "k" | "v"), Value::Object(child)) = (step.split(':').next(), child) {
                path.push(step.clone());
                self.walk(child, path);
                path.pop();
            }
        }
    }

    /// Whether one of them is this field, or lies in it.
    pub fn has_at_or_below(&self, path: &[String]) -> bool {
        self.0.range(path.to_vec()..).next().is_some_and(|found| found.starts_with(path))
    }

    /// Those that are not among others, the deepest first.
    pub fn without<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = &'a Path> {
        self.0.iter().rev().filter(|path| !others.0.contains(*path))
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self(self.0.union(&others.0).cloned().collect())
    }
}

/// A field as people read it: `.spec.ports[name="web"].containerPort`.
pub fn shown(path: &[String]) -> String {
    path.iter().map(|step| shown_step(step)).collect()
}

fn shown_step(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => step.to_owned(),
    }
}

/// Leaves out what stands for a node that holds nothing else.
fn shorten(node: &mut Value) {
    let Value::Object(map) = node else { return };
    if map.len() == 1 && map.contains_key(ITSELF) {
        map.clear();
    }
    map.values_mut().for_each(shorten);
}

/// The fields of an object that can be owned, with their values.
pub(super) fn leaves(object: &Value, lists: Lists) -> BTreeMap<Path, &Value> {
    let mut found = Collector { lists, path: Vec::new(), names: Vec::new(), found: BTreeMap::new() };
    found.collect(object);
    found.found
}

struct Collector<'a> {
    lists: Lists,
    path: Path,
    /// The same as names of fields alone.
    names: Vec<&'a str>,
    found: BTreeMap<Path, &'a Value>,
}

impl<'a> Collector<'a> {
    fn collect(&mut self, value: &'a Value) {
        match value {
            Value::Object(map) if !map.is_empty() || self.path.is_empty() => self.map(map),
            Value::Array(items) => match self.lists.at(&self.names.join(".")).steps(items) {
                Some(steps) if !items.is_empty() => self.items(steps, items),
                _ => self.field(value),
            },
            leaf => self.field(leaf),
        }
    }

    fn field(&mut self, value: &'a Value) {
        self.found.insert(self.path.clone(), value);
    }

    fn map(&mut self, map: &'a Map<String, Value>) {
        for (name, value) in map {
            if is_owned(&self.names, name) {
                self.path.push(format!("f:{name}"));
                self.names.push(name);
                self.collect(value);
                self.names.pop();
                self.path.pop();
            }
        }
    }

    fn items(&mut self, steps: Vec<String>, items: &'a [Value]) {
        for (step, item) in steps.into_iter().zip(items) {
            self.path.push(step);
            self.field(&PRESENT);
            if let Value::Object(map) = item {
                self.map(map);
            }
            self.path.pop();
        }
    }
}

fn is_owned(parent: &[&str], name: &str) -> bool {
    match parent {
        [] => !["apiVersion", "kind", "status"].contains(&name),
        ["metadata"] => !SERVER_METADATA.contains(&name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::BUNDLE;
    use serde_json::json;

    fn web() -> Value {
        json!({
            "metadata": {"name": "web", "finalizers": ["a/b"], "labels": {"x": "1"}},
            "spec": {"ports": [{"name": "http", "containerPort": 80}], "command": ["a"], "security": {}},
        })
    }

    #[test]
    fn fields_are_written_as_kubernetes_writes_them_and_read_again() {
        let fields = Fields::of(&web(), BUNDLE.lists());
        let written = json!({
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}, "f:labels": {"f:x": {}}},
            "f:spec": {
                "f:ports": {"k:{\"name\":\"http\"}": {".": {}, "f:name": {}, "f:containerPort": {}}},
                "f:command": {}, "f:security": {},
            },
        });
        assert_eq!(fields.render().0, written);
        assert_eq!(Fields::parse(&FieldsV1(written)), fields);
    }

    #[test]
    fn fields_are_shown_as_kubectl_prints_them() {
        let fields = Fields::of(&web(), BUNDLE.lists());
        let shown: Vec<String> = fields.0.iter().map(|path| shown(path)).collect();
        assert_eq!(
            shown,
            [
                ".metadata.finalizers[=\"a/b\"]",
                ".metadata.labels.x",
                ".spec.command",
                ".spec.ports[name=\"http\"]",
                ".spec.ports[name=\"http\"].containerPort",
                ".spec.ports[name=\"http\"].name",
                ".spec.security",
            ]
        );
    }

    #[test]
    fn a_list_whose_items_cannot_be_told_apart_is_one_field() {
        let twice = json!({"spec": {"ports": [{"name": "a"}, {"name": "a"}]}});
        assert_eq!(Fields::of(&twice, BUNDLE.lists()).render().0, json!({"f:spec": {"f:ports": {}}}));
    }
}
