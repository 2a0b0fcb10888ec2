//! A change set is led on to what its objects are by now.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Key, Prefer, merge};
use crate::meta;
use crate::resource::change_set::{Entry, EntryVerb, Snapshot};

/// A field that the set and somebody else have changed, each in another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Of which object.
    pub key: Key,
    /// Its path; empty if the object is not there any more.
    pub field: String,
}

/// The same edits on top of what `theirs` says is there now.
///
/// # Errors
/// Every field that both have changed, unless one of the two is preferred.
pub fn rebase(
    entries: &[Entry],
    theirs: impl Fn(&Key) -> Option<Snapshot>,
    prefer: Prefer,
) -> Result<Vec<Entry>, Vec<Conflict>> {
    let (mut live, mut touched) = (BTreeMap::<Key, Chain>::new(), BTreeSet::new());
    let mut rebased = Vec::new();
    for entry in entries {
        let key = Key::of(entry);
        let begin = || match touched.contains(&key) {
            // Its name was another's before, in this very set.
            true => Chain::default(),
            false => Chain::begin(&key, entry.before.as_ref(), theirs(&key)),
        };
        let mut chain = live.remove(&key).unwrap_or_else(begin);
        rebased.extend(chain.step(entry, prefer));
        touched.insert(key.clone());
        let name = entry.to.clone().unwrap_or_else(|| key.name.clone());
        live.insert(Key { name, ..key }, chain);
    }
    let conflicts: Vec<Conflict> = live.into_values().flat_map(Chain::conflicts).collect();
    if conflicts.is_empty() { Ok(rebased) } else { Err(conflicts) }
}

/// All entries about one object, whatever its name is meanwhile.
#[derive(Default)]
struct Chain {
    origin: Option<Key>,
    base: Option<Value>,
    theirs: Option<Snapshot>,
    /// Somebody else has changed it.
    moved: bool,
    /// Somebody else has removed it, and that is as good.
    dropped: bool,
    begun: bool,
    now: Option<Value>,
    fields: Vec<String>,
}

impl Chain {
    fn begin(key: &Key, base: Option<&Snapshot>, theirs: Option<Snapshot>) -> Self {
        let base = base.map(|base| base.content.clone());
        let moved = theirs.as_ref().map(|theirs| &theirs.content) != base.as_ref();
        Self { origin: Some(key.clone()), base, theirs, moved, ..Self::default() }
    }

    fn step(&mut self, entry: &Entry, prefer: Prefer) -> Option<Entry> {
        if !self.moved {
            return Some(entry.clone());
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        if self.theirs.is_none() {
            return self.gone(entry, prefer);
        }
        let staged = |content: Value| Snapshot { resource_version: String::new(), content };
        let before = if is_first { self.theirs.clone() } else { self.now.clone().map(staged) };
        let mut entry = Entry { before: before.clone(), ..entry.clone() };
        match entry.verb {
            EntryVerb::Create | EntryVerb::Update => {
                self.now = self.merged(&entry, before.is_some(), prefer);
                entry.verb = if before.is_some() { EntryVerb::Update } else { EntryVerb::Create };
                entry.after.clone_from(&self.now);
            }
            EntryVerb::Delete => {
                self.fields.clear();
                self.now = None;
            }
            EntryVerb::Rename => {
                let content = before.map(|before| before.content);
                self.now = content.map(|mut content| {
                    meta::set(&mut content, "name", entry.to.clone().map(Value::from));
                    content
                });
            }
        }
        Some(entry)
    }

    fn merged(&mut self, entry: &Entry, on_theirs: bool, prefer: Prefer) -> Option<Value> {
        self.fields.clear();
        if !on_theirs {
            return entry.after.clone();
        }
        let theirs = self.theirs.as_ref().map(|theirs| &theirs.content);
        let (merged, fields) = merge(self.base.as_ref(), entry.after.as_ref(), theirs, prefer);
        if prefer == Prefer::Neither {
            self.fields = fields;
        }
        merged
    }

    /// The object is not there any more.
    fn gone(&mut self, entry: &Entry, prefer: Prefer) -> Option<Entry> {
        self.dropped |= entry.verb == EntryVerb::Delete || prefer == Prefer::Theirs;
        if self.dropped {
            return None;
        }
        if entry.verb == EntryVerb::Update && prefer == Prefer::Ours {
            // It is made again; what follows goes on from there.
            self.moved = false;
            return Some(Entry { verb: EntryVerb::Create, before: None, ..entry.clone() });
        }
        self.fields = vec![String::new()];
        Some(entry.clone())
    }

    fn conflicts(self) -> Vec<Conflict> {
        let Some(key) = self.origin.filter(|_| !self.dropped) else { return Vec::new() };
        self.fields.into_iter().map(|field| Conflict { key: key.clone(), field }).collect()
    }
}
