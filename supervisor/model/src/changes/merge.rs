//! Two changes of one content become one: field by field, and item by item in lists whose items
//! have names.

use serde_json::{Map, Value};

use super::named;

/// What to do where both have changed the same field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// Tell it.
    #[default]
    Neither,
    /// What the set says.
    Ours,
    /// What is there.
    Theirs,
}

/// Paths of fields that both have changed, each in another way.
pub type Conflicts = Vec<String>;

/// What `base` becomes if both changes are made to it; absent if it is not there in the end. Where
/// they contradict each other it is ours, unless theirs is preferred, and the path is noted.
pub fn merge(
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
    prefer: Prefer,
) -> (Option<Value>, Conflicts) {
    let mut conflicts = Vec::new();
    let merged = Merge { prefer, conflicts: &mut conflicts }.value("", base, ours, theirs);
    (merged, conflicts)
}

struct Merge<'a> {
    prefer: Prefer,
    conflicts: &'a mut Conflicts,
}

impl Merge<'_> {
    fn value(
        &mut self,
        path: &str,
        base: Option<&Value>,
        ours: Option<&Value>,
        theirs: Option<&Value>,
    ) -> Option<Value> {
        if ours == base || ours == theirs {
            return theirs.cloned();
        }
        if theirs == base {
            return ours.cloned();
        }
        if let (Some(Value::Object(ours)), Some(Value::Object(theirs))) = (ours, theirs) {
            let nothing = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&nothing);
            return Some(Value::Object(self.map(path, base, ours, theirs)));
        }
        if let (Some(ours), Some(theirs)) = (ours.and_then(keyed), theirs.and_then(keyed)) {
            let base = base.and_then(keyed).unwrap_or_default();
            return Some(self.list(path, &base, &ours, &theirs));
        }
        self.conflicts.push(path.to_owned());
        if self.prefer == Prefer::Theirs { theirs.cloned() } else { ours.cloned() }
    }

    /// In their order; what is ours alone comes behind.
    fn map(
        &mut self,
        path: &str,
        base: &Map<String, Value>,
        ours: &Map<String, Value>,
        theirs: &Map<String, Value>,
    ) -> Map<String, Value> {
        let more = ours.keys().filter(|name| !theirs.contains_key(*name));
        let mut merged = Map::new();
        for name in theirs.keys().chain(more) {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let value = self.value(&below, base.get(name), ours.get(name), theirs.get(name));
            merged.extend(value.map(|value| (name.clone(), value)));
        }
        merged
    }

    fn list(
        &mut self,
        path: &str,
        base: &Map<String, Value>,
        ours: &Map<String, Value>,
        theirs: &Map<String, Value>,
    ) -> Value {
        let more = ours.keys().filter(|name| !theirs.contains_key(*name));
        let names: Vec<&String> = theirs.keys().chain(more).collect();
        let mut merged = Vec::new();
        for name in names {
            let below = format!("{path}[{name}]");
            let value = self.value(&below, base.get(name), ours.get(name), theirs.get(name));
            merged.extend(value.map(|value| with_name(name, value)));
        }
        Value::Array(merged)
    }
}

fn keyed(list: &Value) -> Option<Map<String, Value>> {
    Some(named(list)?.into_iter().map(|(name, rest)| (name, Value::Object(rest))).collect())
}

fn with_name(name: &str, rest: Value) -> Value {
    let mut item = Map::from_iter([("name".to_owned(), Value::from(name))]);
    item.extend(rest.as_object().cloned().unwrap_or_default());
    Value::Object(item)
}
