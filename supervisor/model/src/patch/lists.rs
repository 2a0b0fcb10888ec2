//! How lists are merged: the one table that strategic merge patches, server-side apply, the record of owned fields and
//! the published schemas read.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Items with the same value of this field are one.
    By(&'static str),
    /// Equal items are one.
    Set,
    /// It is not: the new list takes the place of the old one.
    Whole,
}

/// A list, by the dotted path of its field, e.g. `spec.ports`, and how it is merged.
pub type Row = (&'static str, Merge);

/// The lists that every object has.
const METADATA: &[Row] = &[("metadata.ownerReferences", Merge::By("uid")), ("metadata.finalizers", Merge::Set)];

/// The lists of a kind that are merged, beside those that every object has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists(pub &'static [Row]);

impl Lists {
    /// How the list at a dotted path is merged.
    pub fn at(self, path: &str) -> Merge {
        self.rows().find(|(known, _)| *known == path).map_or(Merge::Whole, |(_, merge)| *merge)
    }

    /// Every list that is merged.
    pub fn rows(self) -> impl Iterator<Item = &'static Row> {
        METADATA.iter().chain(self.0)
    }
}

impl Merge {
    /// What tells an item from others.
    pub(super) fn key(self, item: &Value) -> Option<&Value> {
        match self {
            Self::By(field) => item.get(field),
            Self::Set | Self::Whole => Some(item),
        }
    }

    /// The items as steps of a path (`k:{"name":"web"}`, `v:"a"`), one for each; `None` for a list that cannot be told
    /// apart so, because it is not merged, or two of its items are one.
    pub fn steps(self, items: &[Value]) -> Option<Vec<String>> {
        let steps: Vec<String> = items.iter().map(|item| self.step(item)).collect::<Option<_>>()?;
        let different = steps.iter().collect::<BTreeSet<_>>().len() == steps.len();
        different.then_some(steps)
    }

    fn step(self, item: &Value) -> Option<String> {
        let key = self.key(item).filter(|key| !key.is_object() && !key.is_array())?;
        match self {
            Self::By(field) => {
                let key: Map<String, Value> = [(field.to_owned(), key.clone())].into_iter().collect();
                Some(format!("k:{}", Value::Object(key)))
            }
            Self::Set => Some(format!("v:{key}")),
            Self::Whole => None,
        }
    }
}

/// A path with one more field.
pub fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
