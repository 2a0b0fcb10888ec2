//! What the entries of a change set come to: pure functions on the content of objects.
//!
//! ```text
//!  entries --fold--> Staged: each object touched, as it was found and as it is to be
//!                      |--> net changes (what comes back to where it was is none)
//!                      |--> moved(store): what somebody else changed meanwhile
//!                      |--> renames, to be followed by everything that refers to the old names
//! ```
//!
//! A rename is, for the store, the end of one object and the beginning of another; what makes it a
//! rename is that references follow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::kinds::{BUNDLE, Registration, by_kind};
use crate::meta;
use crate::reference;
use crate::resource::bundle::BundleSpec;
use crate::resource::change_set::{Entry, EntryVerb, Snapshot};

mod merge;
pub mod plan;
mod rebase;

pub use merge::{Conflicts, Prefer, merge};
pub use rebase::{Conflict, rebase};

/// Which object: apiVersion, kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// One object that a set touches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    /// As the first entry about it found it in the store; absent if it was not there.
    pub base: Option<Snapshot>,
    /// As the entries leave it; absent if it is not to be there.
    pub now: Option<Value>,
}

/// A bundle's old and new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Before.
    pub old: String,
    /// After.
    pub new: String,
}

/// Everything that is staged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staged {
    /// By object.
    pub slots: BTreeMap<Key, Slot>,
    /// In their order.
    pub renames: Vec<Rename>,
}

/// One net change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// As it was found.
    pub before: Option<Snapshot>,
    /// As it is to be.
    pub after: Option<Value>,
}

/// An entry does not follow from those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// To be made, and there already.
    #[error("{kind} {name} is there already; change it, or choose another name")]
    Present {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// To be changed, and not there.
    #[error("{kind} {name} is not there any more: an earlier entry of the set removes or renames it")]
    Absent {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
}

impl Key {
    /// The object an entry begins with.
    pub fn of(entry: &Entry) -> Self {
        Self { api_version: entry.api_version.clone(), kind: entry.kind.clone(), name: entry.name.clone() }
    }

    /// An object of a known kind.
    pub fn new(kind: &Registration, name: &str) -> Self {
        Self { api_version: kind.api_version(), kind: kind.kind.to_owned(), name: name.to_owned() }
    }

    /// Its kind, if this version knows it.
    pub fn registration(&self) -> Option<&'static Registration> {
        by_kind(&self.api_version, &self.kind)
    }

    /// `bundle/web`.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

impl Change {
    /// `create`, `update` or `delete`.
    pub fn verb(&self) -> EntryVerb {
        match (&self.before, &self.after) {
            (None, _) => EntryVerb::Create,
            (_, None) => EntryVerb::Delete,
            _ => EntryVerb::Update,
        }
    }
}

/// All of an object that a person can say: neither status nor what the store adds.
pub fn draft(object: &Value) -> Value {
    let mut draft = object.clone();
    let Some(fields) = draft.as_object_mut() else { return draft };
    fields.shift_remove("status");
    let keep = ["name", "namespace", "labels", "annotations"];
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, value| keep.contains(&field.as_str()) && !value.is_null());
    }
    draft
}

/// What the entries come to, one after the other.
///
/// # Errors
/// The first that does not follow from those before it.
pub fn fold(entries: &[Entry]) -> Result<Staged, Broken> {
    let mut staged = Staged::default();
    for entry in entries {
        staged.step(entry)?;
    }
    Ok(staged)
}

impl Staged {
    /// One entry more.
    ///
    /// # Errors
    /// If it does not follow.
    pub fn step(&mut self, entry: &Entry) -> Result<(), Broken> {
        let key = Key::of(entry);
        let (kind, name) = (key.kind.clone(), key.name.clone());
        if entry.verb == EntryVerb::Create {
            let slot = self.slots.entry(key).or_default();
            if slot.now.is_some() {
                return Err(Broken::Present { kind, name });
            }
            slot.now.clone_from(&entry.after);
            return Ok(());
        }
        let renames = &self.renames;
        let slot = self.slots.entry(key).or_insert_with(|| Slot {
            base: entry.before.clone(),
            now: entry.before.as_ref().map(|before| followed(&before.content, renames)),
        });
        if slot.now.is_none() {
            return Err(Broken::Absent { kind, name });
        }
        match (entry.verb, &entry.to) {
            (EntryVerb::Rename, Some(to)) => self.rename(&Key::of(entry), to),
            (EntryVerb::Delete, _) => {
                slot.now = None;
                Ok(())
            }
            _ => {
                slot.now.clone_from(&entry.after);
                Ok(())
            }
        }
    }

    fn rename(&mut self, key: &Key, to: &str) -> Result<(), Broken> {
        let new = Key { name: to.to_owned(), ..key.clone() };
        if self.slots.get(&new).is_some_and(|slot| slot.now.is_some()) {
            return Err(Broken::Present { kind: new.kind, name: new.name });
        }
        let content = self.slots.get_mut(key).and_then(|slot| slot.now.take());
        self.slots.entry(new).or_default().now = content.map(|mut content| {
            meta::set(&mut content, "name", Some(to.into()));
            content
        });
        let rename = Rename { old: key.name.clone(), new: to.to_owned() };
        for (_, slot) in self.slots.iter_mut().filter(|(key, _)| key.registration() == Some(&BUNDLE)) {
            slot.now = slot.now.as_ref().map(|now| followed(now, std::slice::from_ref(&rename)));
        }
        self.renames.push(rename);
        Ok(())
    }

    /// What is different in the end, by object.
    pub fn changes(&self) -> Vec<Change> {
        let content = |slot: &Slot| slot.base.as_ref().map(|base| base.content.clone());
        let differs = |(_, slot): &(&Key, &Slot)| content(slot) != slot.now;
        let change = |(key, slot): (&Key, &Slot)| Change {
            key: key.clone(),
            before: slot.base.clone(),
            after: slot.now.clone(),
        };
        self.slots.iter().filter(differs).map(change).collect()
    }

    /// The name that a bundle had before the set, if the set renames it.
    pub fn old_name<'a>(&'a self, new: &'a str) -> Option<&'a str> {
        let mut name = new;
        for rename in self.renames.iter().rev() {
            if rename.new == name {
                name = &rename.old;
            }
        }
        (name != new).then_some(name)
    }
}

/// The content of a bundle with its references following new names.
pub fn followed(content: &Value, renames: &[Rename]) -> Value {
    let Some(mut spec) = content.get("spec").and_then(|spec| serde_json::from_value::<BundleSpec>(spec.clone()).ok())
    else {
        return content.clone();
    };
    let mut changed = false;
    for Rename { old, new } in renames {
        changed |= reference::rename(&mut spec, old, new);
    }
    let mut content = content.clone();
    if let Some((place, spec)) = content.get_mut("spec").zip(serde_json::to_value(spec).ok().filter(|_| changed)) {
        *place = spec;
    }
    content
}

/// The fields in which two contents differ, with the value of each. What is in a list goes by its
/// name, where it has one.
pub fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<(String, Option<Value>, Option<Value>)> {
    let (old, new) = (before.map(fields).unwrap_or_default(), after.map(fields).unwrap_or_default());
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pair = |path: &String| (path.clone(), old.get(path).cloned(), new.get(path).cloned());
    all.into_iter().map(pair).filter(|(_, old, new)| old != new).collect()
}

fn fields(content: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (name, value) in content.as_object().into_iter().flatten() {
        if !["apiVersion", "kind"].contains(&name.as_str()) {
            collect(value, name, &mut found);
        }
    }
    found.retain(|path, _| path != "metadata.name" && path != "metadata.namespace");
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match (value, named(value)) {
        (Value::Object(map), _) => {
            map.iter().for_each(|(name, value)| collect(value, &format!("{path}.{name}"), found));
        }
        (_, Some(items)) => {
            items
                .iter()
                .for_each(|(name, rest)| collect(&Value::Object(rest.clone()), &format!("{path}[{name}]"), found));
        }
        _ => drop(found.insert(path.to_owned(), value.clone())),
    }
}

/// The items of a list by their names, without them; `None` if it is no list, or not all have names
/// of their own.
fn named(value: &Value) -> Option<Vec<(String, Map<String, Value>)>> {
    let mut seen = BTreeSet::new();
    let item = |item: &Value| {
        let mut rest = item.as_object()?.clone();
        let name = rest.shift_remove("name")?.as_str()?.to_owned();
        seen.insert(name.clone()).then_some((name, rest))
    };
    value.as_array()?.iter().map(item).collect()
}

#[cfg(test)]
mod tests;
