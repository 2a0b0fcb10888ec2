//! Who owns which field of an object after a write: the record that [`berth_model::managed`] makes.

use std::sync::Arc;

use berth_model::kinds::Registration;
use berth_model::managed::{self, Fields};
use berth_model::meta;
use serde_json::{Value, json};

use super::error::{Fault, StoreError};
use super::tx::Tx;

/// What a write is about, for the record of owned fields.
#[derive(Clone, Copy)]
pub(super) enum Part<'f> {
    Object,
    /// Of which nobody owns anything.
    Status,
    /// A configuration with these fields is applied.
    Applied(&'f Fields),
    /// The object, with a record that its writer may have written himself.
    WithRecord,
}

impl Tx<'_> {
    /// Whether a write that changes nothing else changes who owns what.
    pub(super) fn is_owned_anew(
        &self,
        kind: &'static Registration,
        new: &Value,
        old: &Value,
        part: Part<'_>,
    ) -> Result<bool, StoreError> {
        let record = |object: &Value| object.pointer("/metadata/managedFields").cloned();
        let as_before = record(new) == record(old) && !matches!(part, Part::Applied(_));
        if kind.record || as_before {
            return Ok(false);
        }
        let mut owned = new.clone();
        self.own_fields(kind, &mut owned, Some(old), part)?;
        Ok(record(&owned) != record(old))
    }

    /// Records who owns which of its fields after a write.
    pub(super) fn own_fields(
        &self,
        kind: &'static Registration,
        object: &mut Value,
        old: Option<&Value>,
        part: Part<'_>,
    ) -> Result<(), StoreError> {
        if matches!(part, Part::Status) {
            return Ok(());
        }
        let decode = |source| {
            let what = format!("managedFields of {} {}", kind.key(), meta::name(object));
            Fault::Decode { what, source: Arc::new(source) }
        };
        let entries = managed::entries(object).map_err(decode)?;
        let write = managed::Write {
            manager: &self.manager,
            api_version: &kind.api_version(),
            lists: kind.lists(),
            applied: if let Part::Applied(fields) = part { Some(fields) } else { None },
            time: self.now,
        };
        let entries = managed::record(&entries, old, object, &write);
        let entries = (!entries.is_empty()).then(|| json!(entries));
        meta::set(object, "managedFields", entries);
        Ok(())
    }
}
